"""DualGNN against golden vectors and a NumPy rewriting; its draws and missing modalities."""

from __future__ import annotations

import contextlib

import helpers_branches as branches
import helpers_models as ref
import numpy as np
import pytest
import torch

from recbole_sigrec.errors import ConfigError


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared DualGNN."""

    def make(folder=planted.folder, **overrides):
        return prepare(make_config("DualGNN", folder, **overrides))

    return make


def reference(model, dataset):
    """U and I: [n_users, d], [n_items, d]."""
    r = ref.training_matrix(dataset)
    weight, n = ref.array(model.user_weight), model.n_users
    parts = branches.reference_convolutions(model, r)
    users = sum(weight[:, [m]] * h[:n] for m, h in enumerate(parts))
    graph = branches.reference_user_graph(r, model.keys.user_knn_k)
    return users + graph @ users, sum(h[n:] for h in parts)


def check(prepared):
    model, batch = prepared.model, ref.batch_with_repetitions()
    expected = reference(model, prepared.train.dataset)
    for got, part in zip(model.representations(), expected):
        np.testing.assert_allclose(ref.array(got), part, atol=1e-5, rtol=0)
    terms = branches.reference_losses(model, *expected, batch)
    np.testing.assert_allclose(ref.losses(model, batch), terms, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "keys", [{}, {"modalities": ["image"], "user_knn_k": 3}, {"n_ui_layers": 3}, {"n_ui_layers": 0}]
)
def test_representations_and_losses(build, keys):
    check(build(reg_weight=0.7, **keys))


def test_three_modalities(build, with_audio):
    prepared = build(with_audio)
    assert prepared.model.modalities == ["audio", "image", "text"]
    check(prepared)


def test_start_and_defaults(build):
    prepared = build()
    branches.check_start(prepared.model)
    assert prepared.config["learning_rate"] == 1e-4 and prepared.config["reg_weight"] == 0.1


def test_an_item_without_a_modality_starts_at_zero_in_it(build, planted):
    prepared = build()
    model = prepared.model
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    image, text = model.starts(model.branch)
    assert not image[model.n_users + item].any() and text[model.n_users + item].any()
    assert model.convolved()[0][model.n_users + item].any()  # what its users bring
    ref.check_row_is_not_read(model, item)


def test_gradient_reaches_every_parameter(build):
    ref.check_gradients(build().model)


def test_the_graph_is_drawn_before_each_epoch_and_not_for_evaluation(build):
    model = build(user_knn_k=60).model
    batch, scores = ref.batch_with_repetitions(), model.representations()
    found = []
    for epoch in range(2):
        np.random.seed(epoch)
        model.on_epoch_start(epoch)
        found.append(ref.losses(model, batch)[0])
        assert torch.equal(ref.losses(model, batch)[0], found[-1])
        assert all(map(torch.equal, model.representations(), scores))
    assert found[0] != found[1]


def test_padding_has_no_part_in_the_regulariser(build):
    model, batch = build().model, ref.batch_with_repetitions()
    before = ref.losses(model, batch)
    with torch.no_grad():
        for table in (model.user_weight, *(p.preference for p in model.branch.values())):
            table[0] = 50.0
    assert torch.equal(ref.losses(model, batch), before)


@pytest.mark.parametrize("key", [{"user_knn_k": 0}, {"reg_weight": -1}, {"n_ui_layers": -1}])
def test_bad_keys_are_refused(build, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        build(**key)


class TestGolden(branches.UserGraphVectors):
    """Without the penalty of the items' weights, which nothing else reads."""

    model = "DualGNN"
    keys = {"embedding_size": "embedding_size", "user_knn_k": "k", "reg_weight": "reg_weight"}
    parameters = branches.PARAMETERS
    terms = [
        ("bpr_base2",),
        ("reg_preference.image", "reg_preference.text", "reg_user_weight"),
    ]
    wrong = {"n_ui_layers": 1, "reg_weight": 0.02}

    @contextlib.contextmanager
    def injected(self, golden, prefix=""):
        terms = [name for parts in self.terms for name in parts]
        unused = golden.arrays["wterm.reg_item_weight"]
        whole = sum(golden.arrays[f"wterm.{name}"] for name in terms)
        assert whole + unused == pytest.approx(golden.arrays["loss"], rel=1e-12) or (
            golden.arrays["loss"] == whole
        )
        golden.arrays["loss"] = whole
        with super().injected(golden, prefix):
            yield
