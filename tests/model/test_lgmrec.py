"""LGMRec against a slow NumPy rewriting of its equations; its noise and missing modalities."""

from __future__ import annotations

import contextlib
import itertools
from unittest.mock import patch

import helpers_models as ref
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers_golden import MODALITIES, TABLES, GoldenVectors, kept

from recbole_sigrec.errors import ConfigError

VARIANTS = {
    "defaults": {},
    "deep": {
        "n_ui_layers": 1,
        "n_mm_layers": 3,
        "n_hyper_layers": 3,
        "n_hyperedges": 3,
        "temperature": 0.7,
        "global_weight": 1.5,
    },
    "many hyperedges, no dropout": {"n_hyperedges": 16, "dropout": 0.0, "n_mm_layers": 0},
}


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared LGMRec whose terms are all large enough to matter."""

    def make(folder=planted.folder, **overrides):
        keys = {"cl_weight": 0.1, "reg_weight": 0.5, **overrides}
        return ref.enlarged(prepare(make_config("LGMRec", folder, **keys)))

    return make


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


class Reference:
    """The steps with dense float64 matrices; ``dependency`` [n, K] of each modality, if noisy."""

    def __init__(self, model, dataset, dependency=None):
        self.keys, self.n_users = model.keys, model.n_users
        r = ref.training_matrix(dataset)
        ego = [ref.array(table.weight) for table in (model.user_embedding, model.item_embedding)]
        behavior = ref.lightgcn(r, np.concatenate(ego), self.keys.n_ui_layers)
        graph = ref.bipartite(r)
        self.dependency, self.tables, self.masks, local = [], [], [], 0.0
        for m, (name, x) in enumerate(dataset.modality_features.items()):
            mask = dataset.modality_mask[name].numpy()
            x = x.numpy().astype(np.float64) * mask[:, None]
            items = x @ ref.array(model.project[name].weight).T
            n_having = np.maximum(r @ mask, 1)[:, None]
            part = np.concatenate([r @ items / n_having, items])
            for _ in range(self.keys.n_mm_layers):
                part = graph @ part
            local = local + unit(part)
            logits = x @ ref.array(model.hyperedges[name].weight).T
            logits = np.concatenate([r @ logits, logits])
            h = ref.softmax(logits / self.keys.temperature, axis=1)
            h[0], h[self.n_users :][~mask] = 0.0, 0.0
            self.dependency.append(h)
            if dependency is not None:
                h = ref.array(dependency[m])
            e = behavior[self.n_users :]
            h_u, h_i = h[: self.n_users], h[self.n_users :]
            for _ in range(self.keys.n_hyper_layers):
                users, e = h_u @ (h_i.T @ e), h_i @ (h_i.T @ e)
            self.tables.append(np.concatenate([users, e]))
            self.masks.append(mask)
        self.final = behavior + local + self.keys.global_weight * unit(sum(self.tables))

    def contrast(self, one, two, users, positives):
        """HCL of two modalities, triple by triple."""
        a, b = unit(self.tables[one]), unit(self.tables[two])
        n, total = self.n_users, 0.0
        both = np.flatnonzero(self.masks[one] & self.masks[two]) + n
        for nodes, among in ((users, np.arange(1, n)), (positives + n, both)):
            for node in nodes:
                if node in among:
                    s = b[among] @ a[node] / self.keys.temperature
                    total += np.log(np.exp(s).sum()) - a[node] @ b[node] / self.keys.temperature
        return total

    def losses(self, batch):
        users, positives, negatives = ref.ids(batch)
        n = self.n_users
        u, i, j = (self.final[x] for x in (users, positives + n, negatives + n))
        pairs = itertools.combinations(range(len(self.tables)), 2)
        hcl = sum(self.contrast(*pair, users, positives) for pair in pairs)
        norms = sum(np.linalg.norm(x) for x in (u, i, j)) / len(users)
        return ref.bpr(u, i, j), self.keys.cl_weight * hcl, self.keys.reg_weight * norms


def noisy_dependency(model, seed):
    """The dependencies that a step with this seed draws."""
    torch.manual_seed(seed)
    return model.modality_parts()[1]


def check(prepared):
    model, batch = prepared.model, ref.batch_with_repetitions()
    model.eval()
    reference = Reference(model, prepared.train.dataset)
    for got, expected in zip(model.modality_parts()[1], reference.dependency, strict=True):
        np.testing.assert_allclose(got.detach(), expected, atol=1e-5, rtol=0)
    got = torch.cat(model.representations()).detach().numpy()
    np.testing.assert_allclose(got, reference.final, atol=5e-6, rtol=0)

    model.train()
    dependency = noisy_dependency(model, seed=3)
    expected = Reference(model, prepared.train.dataset, dependency).losses(batch)
    np.testing.assert_allclose(ref.losses(model, batch, seed=3), expected, rtol=1e-5, atol=1e-6)
    return expected


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_and_losses(build, name):
    assert min(check(build(**VARIANTS[name]))) > 1e-3


def test_three_modalities(build, with_audio):
    prepared = build(with_audio)
    assert prepared.model.modalities == ["audio", "image", "text"]
    assert min(check(prepared)) > 1e-3


def test_one_modality_has_no_contrast(build):
    rank, contrast, norms = check(build(modalities=["text"]))
    assert contrast == 0 and rank > 0 and norms > 0


def test_the_noise_of_training(build):
    model = build(dropout=0.0, temperature=0.3).model
    logits = torch.randn(500, 4)
    torch.manual_seed(5)
    got = model._depend(logits)
    torch.manual_seed(5)
    noise = -np.log(torch.empty(500, 4).exponential_().numpy())
    assert abs(noise.mean() - 0.5772) < 0.1 and abs(noise.std() - np.pi / 6**0.5) < 0.1
    np.testing.assert_allclose(got, ref.softmax((logits.numpy() + noise) / 0.3, axis=1), atol=1e-6)


def test_dropout_of_dependencies(build):
    kept = build(dropout=0.25, temperature=1e4).model._depend(torch.zeros(5000, 4))
    np.testing.assert_allclose(kept[kept > 0], 1 / 4 / 0.75, rtol=5e-3)  # flat, but for the noise
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_no_noise_at_evaluation(build):
    model = build().model.eval()
    one, two = (torch.cat(model.representations()) for _ in range(2))
    assert torch.equal(one, two)
    model.train()
    one, two = (torch.cat(model.representations()) for _ in range(2))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("n_hyperedges", [2, 16])
def test_the_contrast_in_few_dimensions_has_the_gradient_of_the_whole(build, n_hyperedges):
    model = build(n_hyperedges=n_hyperedges, n_hyper_layers=2, temperature=0.7).model.double()
    batch = ref.batch_with_repetitions()
    parameters = [p for name, p in model.named_parameters() if not name.startswith("project")]
    torch.manual_seed(3)
    got = model.calculate_loss(batch)[1]
    behavior, dependency = model.behavior(), noisy_dependency(model, seed=3)
    edges = model.hyperedge_embeddings(behavior, dependency)
    a, b = (torch.nn.functional.normalize(h @ e, dim=1) for h, e in zip(dependency, edges))
    s, whole, n = (a @ b.T) / 0.7, 0.0, model.n_users
    items = (model.mask["image"] & model.mask["text"]).nonzero().flatten() + n
    for nodes, among in (
        (batch["user_id"], torch.arange(1, n)),
        (batch["item_id"] + n, items),
    ):
        nodes = nodes[torch.isin(nodes, among)]
        whole = whole + (s[nodes][:, among].logsumexp(dim=1) - s[nodes, nodes]).sum()
    torch.testing.assert_close(got, 0.1 * whole, rtol=1e-10, atol=0)
    for one, two in zip(
        torch.autograd.grad(got, parameters), torch.autograd.grad(0.1 * whole, parameters)
    ):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-12)
        assert one.abs().max() > 1e-6


def test_an_item_without_a_modality(build, planted):
    prepared = build()
    model, batch = prepared.model, ref.batch_with_repetitions()
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    image, text = model.modality_parts()[1]
    assert not image[model.n_users + item].any() and text[model.n_users + item].any()
    assert not image[0].any() and not text[0].any()  # nor has [PAD] a part
    # It is no anchor: a batch of that positive alone has the contrast of its users.
    only = {key: value[:1] for key, value in batch.items()}
    with_it = {**only, "item_id": torch.tensor([item])}
    reference = Reference(model, prepared.train.dataset, noisy_dependency(model, seed=3))
    users = only["user_id"].numpy()
    expected = 0.1 * reference.contrast(0, 1, users, np.array([], dtype=int))
    assert ref.losses(model, with_it)[1].item() == pytest.approx(expected, rel=1e-5)
    assert ref.losses(model, only)[1].item() > 1.2 * expected


def test_cl_weight_zero_switches_its_term_off(build):
    ref.check_switch(build, "cl_weight", 0.1, term=1)


def test_gradient_reaches_every_parameter(build):
    ref.check_gradients(build().model)


@pytest.mark.parametrize("key", [{"n_hyperedges": 0}, {"dropout": 1.0}, {"global_weight": -0.1}])
def test_bad_keys_are_refused(planted, make_config, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        make_config("LGMRec", planted.folder, **key)


class TestGolden(GoldenVectors):
    model = "LGMRec"
    keys = {
        **{key: key for key in ("embedding_size", "n_ui_layers", "n_mm_layers")},
        **{"n_hyper_layers": "n_hyper_layer", "n_hyperedges": "hyper_num", "dropout": "rate"},
        **{"global_weight": "alpha", "temperature": "tau"},
        **{"cl_weight": "cl_weight", "reg_weight": "reg_weight"},
    }
    parameters = {
        **TABLES,
        **{f"project.{name}.weight": f"project.{name}.weight" for name in MODALITIES},
        **{f"hyperedge.{name}.weight": f"hyperedges.{name}.weight" for name in MODALITIES},
    }
    terms = [("bpr",), ("hcl_user", "hcl_item"), ("norms",)]
    wrong = {"n_hyper_layers": 1, "temperature": 0.21, "global_weight": 0.31}

    @contextlib.contextmanager
    def injected(self, golden, prefix=""):
        noise, masks = (
            [
                torch.cat([golden.ours(f"rand.{kind}.{name}.{side}") for side in ("user", "item")])
                for name in golden.model.modalities
            ]
            for kind in ("gumbel", "keep")
        )
        left = iter(noise)

        def gumbel_softmax(logits, tau, dim):
            return ((logits + next(left)) / tau).softmax(dim)

        with kept(masks), patch.object(F, "gumbel_softmax", gumbel_softmax):
            yield

    def middle(self, golden):
        golden.model.train()
        with self.injected(golden):
            return dict(zip(("user", "item"), golden.model.representations()))


class TestGoldenWithDropout(TestGolden):
    variant = "dropout"
    wrong = {"dropout": 0.4, "cl_weight": 0.0011}

    def middle(self, golden):
        return {}  # the file has none with dropout
