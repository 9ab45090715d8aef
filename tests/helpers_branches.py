"""What the tests of DualGNN, DRAGON and MENTOR share: where parameters are, the users' graph."""

from __future__ import annotations

import contextlib

import helpers_models as ref
import numpy as np
import scipy.sparse as sp
from helpers_golden import MODALITIES, GoldenVectors, layer

from recbole_sigrec.graph import SparseGraph


def branch(golden: str, ours: str) -> dict[str, str]:
    """The parameters of one modality's branch."""
    places = {f"user_preference.{golden}": f"{ours}.preference"}
    for n, place in enumerate((0, 2)):
        places.update(layer(f"project.{golden}.{n}", f"{ours}.project.{place}"))
    return places


PARAMETERS = {"user_modality_weight": "user_weight"}
for _name in MODALITIES:
    PARAMETERS |= branch(_name, f"branch.{_name}")


class UserGraphVectors(GoldenVectors):
    """Golden vectors with the users' neighbours and their weights among the draws."""

    @contextlib.contextmanager
    def injected(self, golden, prefix=""):
        """In training as in evaluation: the vectors' scores are with the draws."""
        model = golden.model
        near = golden.users[golden.tensor("rand.user_neighbours")]
        rows = golden.users[:, None].expand_as(near)
        weight = golden.tensor("rand.user_neighbour_weights")
        pairs = [x.numpy().ravel() for x in (rows, near)]
        shape = (model.n_users, model.n_users)
        graph = SparseGraph(sp.csr_matrix((weight.numpy().ravel(), pairs), shape=shape))
        own = model.user_graph, model.drawn_graph
        model.user_graph = model.drawn_graph = graph
        yield
        model.user_graph, model.drawn_graph = own

    def test_golden_scores(self, build):
        golden = build()
        with self.injected(golden):
            golden.check("scores", golden.scores())

    def test_golden_neighbours(self, build):
        """Where no list is filled up, the weights are those of equal counts; ties differ."""
        golden = build()
        model = golden.model
        ours = ref.dense(model.user_graph)
        graph = model.cooccurrence
        with self.injected(golden):
            theirs = ref.dense(model.user_graph)
        length = np.diff(graph.counts.indptr)
        assert 0 < (length[1:] < graph.k).sum() < len(length) - 1
        for row in range(1, len(ours)):
            if length[row] == graph.k:
                np.testing.assert_allclose(np.sort(ours[row]), np.sort(theirs[row]), atol=1e-7)
            else:  # the same users, repeated otherwise
                assert np.array_equal(ours[row] > 0, theirs[row] > 0)


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def reference_convolutions(model, r):
    """h of each modality [n, d] with dense matrices; r the training matrix."""
    graph, found = ref.bipartite(r), []
    for name in model.modalities:
        part, x = model.branch[name], ref.array(model.raw[name])
        f = ref.affine(part.project[2], leaky(ref.affine(part.project[0], x)))
        f *= model.mask[name].numpy()[:, None]
        h = x = np.concatenate([ref.array(part.preference), f])
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        h = x = x / np.where(norms > 0, norms, 1.0)
        for _ in range(model.keys.n_ui_layers):
            x = graph @ x
            h = h + x
        found.append(h)
    return found


def reference_user_graph(r, k):
    """The softmax of the counts of each user's k best, dense; ties to the smaller user."""
    counts = r @ r.T
    np.fill_diagonal(counts, 0)
    kept = ref.best(counts, k, counts > 0)
    weight = np.where(kept, np.exp(counts), 0.0)
    return weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)


def reference_losses(model, users, items, batch):
    """BPR to base 2, and λ times the penalties."""
    u, i, j = ref.ids(batch)
    keys, d = model.keys, model.keys.embedding_size
    l2 = (ref.array(model.user_weight)[1:] ** 2).mean()
    for part in model.branch.values():
        l2 += (ref.array(part.preference)[u] ** 2).sum() / (len(u) * d)
    return ref.bpr(users[u], items[i], items[j]) / np.log(2), keys.reg_weight * l2


def check_start(model):
    """Weights near 1/M that add up to one; preferences Xavier-normal."""
    weight = ref.array(model.user_weight)
    np.testing.assert_allclose(weight.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(weight, 1 / len(model.modalities), atol=0.3)
    assert weight.std() > 0
    for part in model.branch.values():
        n, d = part.preference.shape
        assert abs(part.preference.std().item() * ((n + d) / 2) ** 0.5 - 1) < 0.1
