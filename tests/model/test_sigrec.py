"""SIGRec against a slow NumPy rewriting of its equations, and each of its switches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from helpers_models import (
    affine,
    array,
    batch_with_repetitions,
    best,
    bpr,
    dense,
    enlarged,
    info_nce,
    inverse,
    knn,
    l2,
    lightgcn,
    losses,
    sigmoid,
    symmetric,
    training_matrix,
)
from hypothesis import given
from hypothesis import strategies as st

from recbole_sigrec.graph import collaborative_topk, infuse, knn_graph, normalize
from recbole_sigrec.graph.collaborative import without_long_histories
from recbole_sigrec.model.batch import Batch, side_of

DETERMINISTIC = {
    "perturbation": "none",
    "cl_weight": 0.7,
    "anchor_weight": 0.5,
    "fuse_weight": 0.3,
    "reg_weight": 0.2,
    "cl_temperature": 0.25,
    "anchor_temperature": 0.35,
    "fuse_temperature": 0.15,
}
VARIANTS = {
    "defaults": {},
    "binary one way with self": {
        "knn_weight": "binary",
        "knn_symmetric": False,
        "knn_self": True,
        "knn_k": 4,
        "collab_measure": "jaccard",
        "collab_knn_k": 3,
        "fusion": "attention",
    },
    "ids, deep": {
        "semantic_init": "id",
        "n_ui_layers": 3,
        "n_semantic_layers": 2,
        "collab_weight": 0.6,
        "collab_measure": "count",
        "fusion": "mean",
    },
    "a mean with weights": {"fusion": "mean", "modality_weights": {"text": 3, "image": 1}},
    "projected": {
        "semantic_init": "projected",
        "collab_weight": 1.0,
        "collab_measure": "random_walk",
        "missing_modality": "zero",
    },
    "no item graphs": {"semantic_graphs": False, "n_ui_layers": 0},
    "no collaboration, one modality": {"collab_weight": 0.0, "modalities": ["text"]},
    "all of the batch as anchors": {"contrastive_anchors": 1.0},
}


# ---- the slow rewriting ---------------------------------------------------------------------


def reference_collaborative_graph(r, keys):
    together = r.T @ r
    users = r.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = {
            "cosine": together / np.sqrt(users[:, None] * users[None, :]),
            "jaccard": together / (users[:, None] + users[None, :] - together),
            "count": together,
            "random_walk": (r.T * inverse(r.sum(axis=1), 1.0)) @ r / users[:, None],
        }[keys.collab_measure]
    allowed = (together > 0) & ~np.eye(len(together), dtype=bool)
    # Rounded, so that ties are ties whatever the order of summation.
    value = np.where(allowed, value, 0.0)
    chosen = best(value.round(12), keys.collab_knn_k, allowed)
    graph = np.where(chosen, value, 0.0)
    return symmetric(np.maximum(graph, graph.T) if keys.knn_symmetric else graph)


class Reference:
    """Steps 1 to 11 with dense float64 matrices, from the data set and the model's parameters."""

    def __init__(self, model, dataset):
        self.keys, self.model = model.keys, model
        r = training_matrix(dataset)
        self.r, self.names = r, list(dataset.modality_features)
        self.features = {m: array(x) for m, x in dataset.modality_features.items()}
        self.mask = {m: x.numpy() for m, x in dataset.modality_mask.items()}
        self.item_graph = {}
        for name in self.names:
            semantic = symmetric(knn(self.features[name], self.mask[name], self.keys))
            collaborative = reference_collaborative_graph(r, self.keys)
            alpha = self.keys.collab_weight
            self.item_graph[name] = (1 - alpha) * semantic + alpha * collaborative

    def behavior(self):
        model = self.model
        ego = [array(table.weight) for table in (model.user_embedding, model.item_embedding)]
        return lightgcn(self.r, np.concatenate(ego), self.keys.n_ui_layers)

    def semantic(self):
        ids, result = array(self.model.item_embedding.weight), []
        for name in self.names:
            if self.keys.semantic_init == "id":
                h = ids
            elif self.keys.semantic_init == "gated":
                purifier = self.model.project[name]
                h = affine(purifier.gate, affine(purifier.project, self.features[name]))
                h = ids * sigmoid(h)
            else:
                h = affine(self.model.project[name], self.features[name])
            if self.keys.semantic_graphs:
                for _ in range(self.keys.n_semantic_layers):
                    h = self.item_graph[name] @ h
            result.append(np.concatenate([symmetric(self.r) @ h, h]))
        return np.stack(result)

    def fused(self, behavior, semantic):
        if self.keys.fusion == "mean":
            given = self.keys.modality_weights or {}
            weights = np.array([given.get(name, 1.0) for name in self.model.modalities])
            return np.einsum("m,mnd->nd", weights / weights.sum(), semantic)
        fusion = self.model.fusion
        attention = fusion if self.keys.fusion == "attention" else fusion.common
        logits = affine(attention.score[2], np.tanh(affine(attention.score[0], semantic)))
        weight = np.exp(logits) / np.exp(logits).sum(axis=0)
        common = (weight * semantic).sum(axis=0)
        if self.keys.fusion == "attention":
            return common
        parts = [
            sigmoid(affine(gate, behavior)) * (h - common)
            for gate, h in zip(fusion.gates, semantic)
        ]
        return (common + sum(parts)) / (len(semantic) + 1)

    def forward(self):
        behavior, semantic = self.behavior(), self.semantic()
        return behavior, semantic, self.fused(behavior, semantic)

    def loss(self, users, positives, negatives):
        """The five terms, for perturbation: none."""
        keys, n_users = self.keys, len(self.r)
        b, h, f = self.forward()
        e = b + f
        u, i, j = e[users], e[positives + n_users], e[negatives + n_users]
        rank, reg = bpr(u, i, j), l2(u, i, j)
        cl = anchor = fuse = 0.0
        n_anchors = int(np.ceil(keys.contrastive_anchors * len(users)))
        for part in (users, positives + n_users):
            some = part[:n_anchors]
            cl += info_nce(f[some], f[part][None], keys.cl_temperature)
            anchor += info_nce(b[some], h[:, part], keys.anchor_temperature)
            fuse += info_nce(b[some], f[part][None], keys.fuse_temperature)
        return (
            rank,
            keys.cl_weight * cl,
            keys.anchor_weight * anchor,
            keys.fuse_weight * fuse,
            keys.reg_weight * reg,
        )


# ---- fixtures -------------------------------------------------------------------------------


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared SIGRec whose embeddings are large enough to matter."""

    def make(**overrides):
        return enlarged(prepare(make_config("SIGRec", planted.folder, **overrides)))

    return make


# ---- against the rewriting ------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_and_losses(build, name):
    prepared = build(**DETERMINISTIC, **VARIANTS[name])
    model, reference = prepared.model, Reference(prepared.model, prepared.train.dataset)
    behavior, semantic, fused = reference.forward()
    got = model.forward()
    for tensor, expected in zip(got, (behavior, semantic, fused)):
        assert tensor.shape == expected.shape
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(tensor.detach().numpy(), expected, atol=1e-5, rtol=0)
    users, items = model.representations()
    expected = behavior + fused
    np.testing.assert_allclose(users.detach(), expected[: model.n_users], atol=1e-5, rtol=0)
    np.testing.assert_allclose(items.detach(), expected[model.n_users :], atol=1e-5, rtol=0)

    batch = batch_with_repetitions()
    expected = reference.loss(*(batch[k].numpy() for k in ("user_id", "item_id", "neg_item_id")))
    got = [term.item() for term in model.calculate_loss(batch)]
    assert min(expected) > 1e-3
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 6)), min_size=1),
)
def test_a_batch_has_its_distinct_nodes_in_order(triples):
    users, positives, negatives = (torch.tensor(ids) for ids in zip(*triples, strict=True))
    batch = Batch(users, positives, negatives, n_users=5, n_items=7)
    assert batch.users.tolist() == sorted(set(users.tolist()))
    assert batch.items.tolist() == sorted({*positives.tolist(), *negatives.tolist()})
    assert torch.equal(batch.nodes, torch.cat([batch.users, batch.items + 5]))
    of_users, of_positives, of_negatives = (batch.nodes[rows] for rows in batch.rows)
    assert torch.equal(of_users, users)
    assert torch.equal(of_positives - 5, positives)
    assert torch.equal(of_negatives - 5, negatives)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.data())
def test_the_first_places_of_a_batch_are_anchors(batch, data):
    n_anchors = data.draw(st.integers(1, len(batch)))
    side = side_of(torch.tensor(batch), n_anchors)
    assert dict(zip(side.rows.tolist(), side.count.tolist(), strict=True)) == Counter(batch)
    anchors = side.of_anchors(side.rows).tolist()
    assert len(set(anchors)) == len(anchors) == len(side.anchor_count)
    assert dict(zip(anchors, side.anchor_count.tolist())) == Counter(batch[:n_anchors])


def test_parts_of_the_batch_as_anchors_average_to_the_whole(build):
    """Anchors are the first places: over all rotations of the batch each is one as often."""
    batch = batch_with_repetitions(12)
    whole = losses(build(**DETERMINISTIC, contrastive_anchors=1.0).model, batch)
    some = build(**DETERMINISTIC, contrastive_anchors=0.25).model
    rotated = [
        losses(some, {key: value.roll(shift) for key, value in batch.items()})
        for shift in range(12)
    ]
    torch.testing.assert_close(torch.stack(rotated).mean(dim=0), whole, atol=1e-6, rtol=0)
    assert (torch.stack(rotated)[:, 1:4].std(dim=0) > 1e-3).all()


def test_the_contrastive_terms_keep_repetitions(build):
    model = build(**DETERMINISTIC).model
    once = {
        "user_id": torch.tensor([1, 2, 3]),
        "item_id": torch.tensor([4, 5, 6]),
        "neg_item_id": torch.tensor([7, 8, 9]),
    }
    place = torch.tensor([0, 0, 0, 0, 1, 2])
    repeated = {key: value[place] for key, value in once.items()}
    difference = (losses(model, once) - losses(model, repeated)).abs()
    assert (difference[1:4] > 1e-3).all()


def test_graphs_are_built_from_the_training_part_alone(build):
    prepared = build()
    n_train = len(prepared.train.dataset)
    assert prepared.model.interactions.nnz == n_train < len(prepared.dataset.inter_feat)
    assert prepared.model.graph.nnz == 2 * n_train
    assert prepared.model.user_graph.nnz == n_train
    cold = [
        prepared.dataset.token2id("item_id", str(i))
        for i in range(prepared.dataset.item_num - 1)
        if prepared.model.interactions[:, prepared.dataset.token2id("item_id", str(i))].nnz == 0
    ]
    assert len(cold) == 4
    collaborative = collaborative_topk(prepared.model.interactions, 10)
    assert collaborative[cold].nnz == 0


def test_an_item_without_a_modality_has_only_collaborative_edges(build, planted):
    prepared = build(collab_weight=0.3)
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    image, text = (dense(prepared.model.semantic_graph[m]) for m in ("image", "text"))
    collaborative = normalize(collaborative_topk(prepared.model.interactions, 10)).toarray()
    assert np.count_nonzero(collaborative[item]) > 0
    np.testing.assert_allclose(image[item], 0.3 * collaborative[item], atol=1e-7)
    assert np.count_nonzero(text[item]) > np.count_nonzero(image[item])
    without = dense(build(collab_weight=0.0).model.semantic_graph["image"])
    assert not without[item].any() and not without[:, item].any()
    assert not without[0].any() and not image[0].any()  # nor has [PAD] an edge


# ---- switches -------------------------------------------------------------------------------


def test_collab_weight_mixes_the_two_graphs(build):
    pure, all_, mixed = (build(collab_weight=w, knn_k=10).model for w in (0.0, 1.0, 0.4))
    collaborative = normalize(collaborative_topk(pure.interactions, 10, "cosine"))
    for name in ("image", "text"):
        features, mask = pure.features[name], pure.mask[name]
        semantic = normalize(knn_graph(features, 10, mask, weight="cosine"))
        np.testing.assert_array_equal(dense(pure.semantic_graph[name]), semantic.toarray())
        np.testing.assert_array_equal(dense(all_.semantic_graph[name]), collaborative.toarray())
        np.testing.assert_array_equal(
            dense(mixed.semantic_graph[name]), infuse(semantic, collaborative, 0.4).toarray()
        )
        assert (semantic != collaborative).nnz > 0


@pytest.mark.parametrize("limit", [5, None])
def test_collab_max_history_leaves_users_out_of_the_item_graph_alone(build, limit):
    model = build(collab_weight=1.0, collab_max_history=limit).model
    assert model.interactions.sum(axis=1).max() > 5
    kept = without_long_histories(model.interactions, limit)
    expected = normalize(collaborative_topk(kept, 10))
    every = normalize(collaborative_topk(model.interactions, 10))
    assert ((expected != every).nnz > 0) == (limit is not None)
    np.testing.assert_array_equal(dense(model.semantic_graph["image"]), expected.toarray())
    assert model.graph.nnz == 2 * model.interactions.nnz


@pytest.mark.parametrize("key, term", [("cl", 1), ("anchor", 2), ("fuse", 3), ("reg", 4)])
def test_a_weight_of_zero_switches_its_term_off(build, key, term):
    batch = batch_with_repetitions()
    full = losses(build(**DETERMINISTIC).model, batch)
    off = losses(build(**{**DETERMINISTIC, f"{key}_weight": 0.0}).model, batch)
    double = losses(
        build(**{**DETERMINISTIC, f"{key}_weight": 2 * DETERMINISTIC[f"{key}_weight"]}).model, batch
    )
    assert off[term].item() == 0.0 and full[term].item() > 0.0
    others = [i for i in range(5) if i != term]
    assert torch.equal(off[others], full[others])
    assert torch.equal(double[others], full[others])
    assert double[term].item() == pytest.approx(2 * full[term].item(), rel=1e-6)


def test_all_contrastive_terms_off_leaves_bpr(build):
    model = build(cl_weight=0, anchor_weight=0, fuse_weight=0, reg_weight=0).model
    bpr, *rest = model.calculate_loss(batch_with_repetitions())
    assert bpr.item() > 0 and all(term.item() == 0 for term in rest)


@pytest.mark.parametrize("off", [{"semantic_graphs": False}, {"n_semantic_layers": 0}])
@pytest.mark.parametrize("start", ["id", "gated", "projected"])
def test_without_item_graphs_items_keep_their_start(build, off, start):
    model = build(semantic_init=start, **off).model
    assert len(model.semantic_graph) == 0
    items = model.semantic()[:, model.n_users :]
    starts = torch.stack([model._semantic_start(name) for name in model.modalities])
    assert torch.equal(items, starts)
    whole = build(semantic_init=start).model
    assert not torch.equal(whole.semantic()[:, whole.n_users :], items)


def test_semantic_init(build):
    ids = build(semantic_init="id").model
    assert len(list(ids.raw.buffers())) == len(ids.project) == 0
    assert torch.equal(ids._semantic_start("image"), ids.item_embedding.weight)
    gated = build(semantic_init="gated").model
    share = gated._semantic_start("image") / gated.item_embedding.weight
    assert ((share > 0) & (share < 1)).all()
    projected = build(semantic_init="projected").model
    start = projected._semantic_start("image")
    with torch.no_grad():
        projected.item_embedding.weight.zero_()
    assert torch.equal(projected._semantic_start("image"), start) and start.abs().max() > 0.1


@pytest.mark.parametrize("fusion", ["mean", "attention", "behavior"])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_one_modality(build, planted, modality, fusion):
    prepared = build(modalities=[modality], fusion=fusion)
    model = prepared.model
    assert model.modalities == [modality] and list(model.semantic_graph) == [modality]
    behavior, semantic, fused = model.forward()
    assert semantic.shape == (1, *behavior.shape) and fused.shape == behavior.shape
    terms = model.calculate_loss(batch_with_repetitions())
    assert all(torch.isfinite(t) and t > 0 for t in terms)


def test_the_order_of_modalities_is_the_configs(build):
    assert build(modalities=["text", "image"]).model.modalities == ["text", "image"]


def test_perturbation(build):
    batch, weights = batch_with_repetitions(), {**DETERMINISTIC, "perturbation_eps": 0.4}
    terms = {}
    for kind in ("none", "modulus", "uniform"):
        model = build(**{**weights, "perturbation": kind}).model
        terms[kind] = losses(model, batch, seed=1), losses(model, batch, seed=2)
    for kind in ("modulus", "uniform"):
        one, two = terms[kind]
        assert one[1] != two[1]  # another draw, another loss …
        rest = [0, 2, 3, 4]
        assert torch.equal(one[rest], two[rest])  # … in the contrastive term alone
        assert torch.equal(one[rest], terms["none"][0][rest])
        assert abs(one[1] - terms["none"][0][1]) > 1e-4
    assert terms["modulus"][0][1] != terms["uniform"][0][1]
    assert torch.equal(*terms["none"])
    still = build(**{**weights, "perturbation": "modulus", "perturbation_eps": 0.0}).model
    torch.testing.assert_close(losses(still, batch)[1], terms["none"][0][1], rtol=1e-6, atol=0)


def test_the_perturbation_is_that_of_the_fused_semantics(build, monkeypatch):
    from recbole_sigrec.model import sigrec

    seen, original = [], sigrec.perturb

    def spy(embeddings, strength, kind):
        seen.append((embeddings, strength, kind))
        return original(embeddings, strength, kind)

    monkeypatch.setattr(sigrec, "perturb", spy)
    model = build(perturbation_eps=0.25, contrastive_anchors=1.0).model
    batch = batch_with_repetitions()
    model.calculate_loss(batch)
    _, _, fused = model.forward()
    users, items = batch["user_id"].unique(), batch["item_id"].unique() + model.n_users
    assert [(s, k) for _, s, k in seen] == [(0.25, "modulus")] * 4  # two views of each
    for (got, _, _), nodes in zip(seen, (users, users, items, items)):
        torch.testing.assert_close(got, fused[nodes], atol=1e-6, rtol=0)


def test_contrastive_warmup(build):
    batch = batch_with_repetitions()
    model = build(**DETERMINISTIC, contrastive_warmup=4).model
    full = losses(build(**DETERMINISTIC).model, batch)
    for epoch, scale in ((0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0), (4, 1.0), (50, 1.0)):
        model.on_epoch_start(epoch)
        expected = full * torch.tensor([1, scale, scale, scale, 1])
        torch.testing.assert_close(losses(model, batch), expected, rtol=1e-6, atol=0)
    at_once = build(**DETERMINISTIC, contrastive_warmup=0).model
    at_once.on_epoch_start(0)
    assert torch.equal(losses(at_once, batch), full)


def test_the_trainer_warms_up(build):
    prepared = build(contrastive_warmup=8)
    prepared.trainer._train_epoch(prepared.train, 1)
    assert prepared.model.contrastive_scale == 0.25


def test_more_behavior_layers_change_the_behavior_alone(build):
    one, two = build(n_ui_layers=1).model, build(n_ui_layers=2).model
    assert torch.equal(one.semantic(), two.semantic())
    assert not torch.equal(one.behavior(), two.behavior())
    none = build(n_ui_layers=0).model
    ego = torch.cat([none.user_embedding.weight, none.item_embedding.weight])
    assert torch.equal(none.behavior(), ego)


@pytest.mark.parametrize("init", ["id", "gated", "projected"])
@pytest.mark.parametrize("fusion", ["mean", "attention", "behavior"])
@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, init, fusion, trained):
    prepared = build(semantic_init=init, fusion=fusion, train_features=trained)
    model = prepared.model
    batch = next(iter(prepared.train))
    sum(model.calculate_loss(batch)).backward()
    names = dict(model.named_parameters())
    assert any(n.startswith("raw.") for n in names) == (init != "id" and trained)
    assert [n for n in model.state_dict() if n.startswith("raw.")] == [
        n for n in names if n.startswith("raw.")
    ]
    for name, parameter in names.items():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("trained", [True, False])
def test_only_trained_features_are_copied(build, trained):
    prepared = build(train_features=trained)
    for name, features in prepared.dataset.modality_features.items():
        raw = prepared.model.raw[name]
        assert torch.equal(raw, features)
        assert (raw.data_ptr() == features.data_ptr()) != trained


def test_same_seed_same_model(build):
    one, two, other = build(seed=1).model, build(seed=1).model, build(seed=2).model
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])
    assert not torch.equal(one.user_embedding.weight, other.user_embedding.weight)
