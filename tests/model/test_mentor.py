"""MENTOR against golden vectors; its switches, its draws, modalities that are missing or more."""

from __future__ import annotations

import contextlib
import itertools

import helpers_branches as branches
import helpers_models as ref
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers_golden import GoldenVectors, layer

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.model.modality_branch import ModalityBranch

BPR, L2, ALIGN, MASK, CL = range(5)


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared MENTOR without noise and dropout."""

    def make(folder=planted.folder, **overrides):
        keys = {"knn_k": 4, "dropout": 0.0, "perturbation_eps": 0.0, "cl_weight": 0.3, **overrides}
        return prepare(make_config("MENTOR", folder, **keys))

    return make


def near(model, h):
    """A branch's users and items, [n, d], the latter with their neighbours in the item graph."""
    users, items = h[: model.n_users], h[model.n_users :]
    graph = np.linalg.matrix_power(ref.dense(model.item_graph), model.keys.n_item_layers)
    return users, items + graph @ items


def reference(model, r, of=None):
    """F_u and F_i of the modalities' branches, or of others with their names."""
    weight, own = ref.array(model.user_weight), model.branch
    model.branch = own if of is None else of
    parts = branches.reference_convolutions(model, r)
    model.branch = own
    pairs = [near(model, h) for h in parts]
    users = [weight[:, [m]] * h for m, (h, _) in enumerate(pairs)]
    joined = np.concatenate(users, axis=1), np.concatenate([h for _, h in pairs], axis=1)
    return *joined, parts


def reference_terms(model, r, batch):
    """The terms of the loss without noise and dropout."""
    keys = model.keys
    users, items, parts = reference(model, r)
    fused = np.concatenate([users[1:], items[1:]])
    tables = [fused]
    for h in parts:
        h_u, h_i = near(model, h)
        tables.append(np.tile(np.concatenate([h_u[1:], h_i[1:]]), len(parts)))
    guide = model.convolve(model.guide(model.item_id)).detach().numpy()
    h_u, h_i = near(model, guide)
    tables.append(np.tile(np.concatenate([h_u[1:], h_i[1:]]), len(parts)))
    moments = [(x.var(ddof=1), x.mean()) for x in tables]
    align = sum(abs(a - c) + abs(b - d) for (a, b), (c, d) in itertools.combinations(moments, 2))
    mask = 0.0
    for x in (users[1:], items[1:]):
        y = ref.affine(model.predictor, x)
        cosine = (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        mask += 1 - cosine.mean()
    views = [reference(model, r, of) for of in list(model.view_branches) or [model.branch] * 2]
    pairs = list(zip(*views))[:2]
    cl = sum(ref.info_nce(one[1:], two[None, 1:], keys.temperature) for one, two in pairs)
    weighted = keys.align_weight * align, keys.mask_weight * mask, keys.cl_weight * cl
    return *branches.reference_losses(model, users, items, batch), *weighted


def check(prepared):
    model, batch = prepared.model, ref.batch_with_repetitions()
    r = ref.training_matrix(prepared.train.dataset)
    for got, part in zip(model.representations(), reference(model, r)):
        np.testing.assert_allclose(ref.array(got), part, atol=1e-5, rtol=0)
    expected = reference_terms(model, r, batch)
    np.testing.assert_allclose(ref.losses(model, batch), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"modalities": ["text"], "n_ui_layers": 3, "n_item_layers": 2},
        {"shared_views": True, "n_ui_layers": 1, "temperature": 0.7},
    ],
)
def test_representations_and_losses(build, keys):
    check(build(reg_weight=0.7, **keys))


def test_three_modalities(build, with_audio):
    prepared = build(with_audio)
    assert prepared.model.modalities == ["audio", "image", "text"]
    check(prepared)


def test_start(build):
    model = build().model
    branches.check_start(model)
    parts = [part for part in model.modules() if isinstance(part, ModalityBranch)]
    assert len(parts) == 7
    assert len({part.preference.sum().item() for part in parts}) == 7


def test_an_item_without_a_modality(build, planted):
    prepared = build(modality_weights={"image": 1, "text": 0})
    model, batch = prepared.model, ref.batch_with_repetitions()
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    assert not ref.dense(model.item_graph)[item].any()
    before = ref.losses(model, batch)
    ref.check_row_is_not_read(model, item)
    with torch.no_grad():
        model.raw["text"][item] -= 100.0
    model.raw["image"][item] = 100.0
    torch.testing.assert_close(ref.losses(model, batch), before)


def test_padding_has_no_part_in_the_loss(build):
    model, batch = build(mask_gradient=True).model, ref.batch_with_repetitions()
    before = ref.losses(model, batch)
    with torch.no_grad():
        for name, table in model.named_parameters():
            if name.endswith(("preference", "item_id", "user_weight")):
                table[0] = 50.0
    assert torch.equal(ref.losses(model, batch), before)


@pytest.mark.parametrize(
    ("key", "term"), [("align_weight", ALIGN), ("mask_weight", MASK), ("cl_weight", CL)]
)
def test_a_weight_of_zero_switches_its_term_off(build, key, term):
    batch = ref.batch_with_repetitions()
    on, off = ref.losses(build().model, batch), ref.losses(build(**{key: 0.0}).model, batch)
    others = [i for i in range(5) if i != term]
    assert off[term] == 0 < on[term] and torch.equal(on[others], off[others])


def reached(model, term):
    """The parameters that a term has a gradient to."""
    value = model.calculate_loss(ref.batch_with_repetitions())[term]
    if not value.requires_grad:
        return set()
    names = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(value, list(names.values()), allow_unused=True)
    return {name for name, grad in zip(names, found) if grad is not None and grad.any()}


def test_what_the_terms_train(build):
    """As released: feature masking nothing, the views their own branches and the users' weights."""
    model = build().model
    own = {name for name, _ in model.named_parameters() if name.startswith("branch.")}
    views = {name for name, _ in model.named_parameters() if name.startswith("view_branches.")}
    assert own and views
    assert reached(model, MASK) == set() and not model.predictor.weight.requires_grad
    assert reached(model, CL) == views | {"user_weight"}
    assert own | {"item_id", "guide.preference"} <= reached(model, ALIGN)
    as_in_the_paper = build(mask_gradient=True, shared_views=True, perturbation_eps=0.1).model
    assert not as_in_the_paper.view_branches
    assert own | {"predictor.weight", "predictor.bias"} <= reached(as_in_the_paper, MASK)
    assert reached(as_in_the_paper, CL) == own | {"user_weight"}


def test_noise_and_masks_are_drawn_for_each_batch(build):
    model, batch = build(dropout=0.5, perturbation_eps=0.1).model, ref.batch_with_repetitions()
    torch.manual_seed(0)
    one, two = (torch.stack(model.calculate_loss(batch)) for _ in range(2))
    assert (one == two).tolist() == [True, True, True, False, False]
    assert torch.equal(torch.cat(model.representations()), torch.cat(model.representations()))


@pytest.mark.parametrize(
    "key", [{"dropout": 1}, {"temperature": 0}, {"mask_weight": -1}, {"shared_views": "no one"}]
)
def test_bad_keys_are_refused(build, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        build(**key)


VIEWS = [(m, v) for v in (1, 2) for m in ("image", "text")]
"""The noisy branches in the order in which the model draws for them."""


class TestGolden(GoldenVectors):
    model = "MENTOR"
    keys = {
        "embedding_size": "embedding_size",
        "n_ui_layers": "n_layers",
        "n_item_layers": "n_mm_layers",
        "knn_k": "knn_k",
        "reg_weight": "reg_weight",
        "dropout": "dropout",
        "mask_weight": "mask_weight_f",
        "cl_weight": "mask_weight_g",
        "align_weight": "align_weight",
        "temperature": "temp",
    }
    fixed = {"modality_weights": {"image": 0.1, "text": 0.9}}
    parameters = {
        **branches.PARAMETERS,
        "item_id": "item_id",
        **layer("mask_projection", "predictor"),
        **branches.branch("id", "guide"),
        **{
            golden: place
            for m, v in VIEWS
            for golden, place in branches.branch(
                f"{m}_view{v}", f"view_branches.{v - 1}.{m}"
            ).items()
        },
    }
    terms = [
        ("bpr_base2",),
        ("reg_preference.image", "reg_preference.text", "reg_user_weight"),
        ("align",),
        ("mask_user", "mask_item"),
        ("graph_infonce_user", "graph_infonce_item"),
    ]
    wrong = {"knn_k": 4, "temperature": 0.3, "perturbation_eps": 0.2, "n_item_layers": 2}

    @contextlib.contextmanager
    def injected(self, golden, prefix=""):
        noise = iter(
            [golden.ours(f"rand.noise.{m}_view{v}.{step}") for m, v in VIEWS for step in (0, 1)]
        )
        kept = iter([golden.ours(f"rand.keep_{side}")[1:] for side in ("user", "item")])

        def dropout(x, p):
            return x * next(kept) / (1 - p)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand_like", lambda x: next(noise))
            patch.setattr(F, "dropout", dropout)
            yield
