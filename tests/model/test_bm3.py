"""BM3 against a NumPy rewriting of its equations; its stop-gradients and missing modalities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers_golden import RAW, TABLES, GoldenVectors, kept, layer, layers


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


def affine(layer, x):
    return x @ array(layer.weight).T + array(layer.bias)


def distance(a, b):
    """1 − cos of each pair of rows."""
    return 1 - (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared BM3; without dropout unless asked for."""

    def make(**overrides):
        return prepare(make_config("BM3", planted.folder, **{"dropout": 0.0, **overrides}))

    return make


@pytest.fixture
def batch(build, planted):
    """A batch with repetitions in which the item without an image occurs twice."""
    zero = build().dataset.token2id("item_id", str(planted.zero_item))
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(1, 20, (40,), generator=generator)
    items[[3, 17]] = zero
    assert (items == zero).sum() >= 2
    return {"user_id": torch.randint(1, 12, (40,), generator=generator), "item_id": items}


def reference_forward(model, n_layers):
    r = model.interactions.toarray().astype(np.float64)
    n_users, n_items = r.shape
    a = np.block([[np.zeros((n_users, n_users)), r], [r.T, np.zeros((n_items, n_items))]])
    degree = a.sum(axis=1)
    scale = np.array([d**-0.5 if d > 0 else 0.0 for d in degree])
    a = scale[:, None] * a * scale[None, :]
    layers = [
        np.concatenate([array(model.user_embedding.weight), array(model.item_embedding.weight)])
    ]
    for _ in range(n_layers):
        layers.append(a @ layers[-1])
    mean = np.mean(layers, axis=0)
    return mean[:n_users], mean[n_users:] + layers[0][n_users:]


def reference_loss(model, batch, n_layers, cl_weight, reg_weight):
    """The four terms without dropout, where a target is the representation itself."""
    users, items = reference_forward(model, n_layers)
    u, i = batch["user_id"].numpy(), batch["item_id"].numpy()
    h_u, h_i = users[u], items[i]
    rec = distance(affine(model.predictor, h_u), h_i).mean()
    rec += distance(affine(model.predictor, h_i), h_u).mean()
    align = mask = 0.0
    for name in model.modalities:
        has = model.mask[name].numpy()[i]
        h_m = affine(model.project[name], array(model.raw[name])[i[has]])
        online = affine(model.predictor, h_m)
        align += distance(online, h_i[has]).mean()
        mask += distance(online, h_m).mean()
    users, items = users[1:], items[1:]  # without [PAD]
    reg = (np.sqrt((users**2).sum()) + np.sqrt((items**2).sum())) / len(items)
    return rec, cl_weight * align, cl_weight * mask, reg_weight * reg


@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_forward(build, n_layers):
    model = build(n_layers=n_layers).model
    for got, expected in zip(model.forward(), reference_forward(model, n_layers)):
        np.testing.assert_allclose(got.detach().numpy(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "keys",
    [
        {"n_layers": 2, "cl_weight": 2.0, "reg_weight": 0.1},
        {"n_layers": 1, "cl_weight": 0.5, "reg_weight": 0.01},
        {"n_layers": 2, "cl_weight": 0.0, "reg_weight": 0.0},
    ],
)
@pytest.mark.parametrize("modalities", [["image", "text"], ["image"]])
def test_losses(build, batch, keys, modalities):
    model = build(**keys, modalities=modalities).model
    assert model.modalities == modalities
    got = [term.item() for term in model.calculate_loss(batch)]
    expected = reference_loss(model, batch, **keys)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    assert (np.array(expected) > 0).all() == (keys["cl_weight"] > 0)


def test_padding_has_no_part_in_the_regulariser(build, batch):
    model = build(n_layers=2, reg_weight=0.7).model
    with torch.no_grad():
        model.user_embedding.weight[0] = model.item_embedding.weight[0] = 50.0
    users, items = (h[1:] for h in reference_forward(model, 2))
    expected = 0.7 * (np.linalg.norm(users) + np.linalg.norm(items)) / len(items)
    assert model.calculate_loss(batch)[3].item() == pytest.approx(expected, rel=1e-6)


def test_no_negatives_are_drawn(build):
    interaction = next(iter(build().train))
    assert sorted(interaction.columns) == ["item_id", "user_id"]


def frozen_loss(model, batch, stop):
    """The loss with its targets given as ``stop`` makes them: detached, or (wrongly) not."""
    keys = model.keys
    u, i = batch["user_id"], batch["item_id"]
    users, items = model.forward()
    h_u, h_i = users[u], items[i]

    def far(online, target):
        return 1 - F.cosine_similarity(online, stop(target), dim=-1).mean()

    loss = far(model.predictor(h_u), h_i) + far(model.predictor(h_i), h_u)
    for name in model.modalities:
        has = model.mask[name][i]
        h_m = model.project[name](model.raw[name][i[has]])
        online = model.predictor(h_m)
        loss = loss + keys.cl_weight * (far(online, h_i[has]) + far(online, h_m))
    return loss


def test_no_gradient_flows_through_a_target(build, batch):
    model = build(reg_weight=0.0).model
    names, parameters = zip(*model.named_parameters())
    got = torch.autograd.grad(sum(model.calculate_loss(batch)), parameters)
    stopped = torch.autograd.grad(frozen_loss(model, batch, torch.Tensor.detach), parameters)
    flowing = torch.autograd.grad(frozen_loss(model, batch, lambda h: h), parameters)
    for name, one, two in zip(names, got, stopped):
        torch.testing.assert_close(one, two, atol=1e-7, rtol=1e-4, msg=name)
    # The two would differ: the predictor is all that makes them agree where it does.
    for name, one, two in zip(names, got, flowing):
        if not name.startswith("predictor"):
            assert (one - two).abs().max() > 1e-3 * one.abs().max(), name


def test_gradient_of_a_target_alone_is_zero(build):
    # A user's target pulls nothing: only the users of the batch's own predictions move.
    model = build(n_layers=0, cl_weight=0.0, reg_weight=0.0).model
    batch = {"user_id": torch.tensor([2, 2]), "item_id": torch.tensor([3, 5])}
    h_u = model.user_embedding.weight[2].detach().clone().requires_grad_()
    target = (2 * model.item_embedding.weight[batch["item_id"]]).detach()
    online = model.predictor(h_u.expand(2, -1))
    by_hand = (1 - F.cosine_similarity(online, target)).mean()
    (expected,) = torch.autograd.grad(by_hand, h_u)
    (got,) = torch.autograd.grad(sum(model.calculate_loss(batch)), model.user_embedding.weight)
    torch.testing.assert_close(got[2], expected, atol=1e-7, rtol=1e-5)
    assert not got[[i for i in range(len(got)) if i != 2]].any()


def test_an_item_without_a_modality_takes_no_part_in_its_terms(build, batch, planted):
    model = build().model
    zero = int((~model.mask["image"])[1:].nonzero()) + 1
    before = torch.stack(model.calculate_loss(batch)).detach()
    loss = sum(model.calculate_loss(batch))
    (gradient,) = torch.autograd.grad(loss, model.raw["image"], retain_graph=True)
    assert not gradient[zero].any() and gradient.any()
    (gradient,) = torch.autograd.grad(loss, model.raw["text"])
    assert gradient[zero].any()
    with torch.no_grad():
        model.raw["image"][zero] += 100.0
    assert torch.equal(torch.stack(model.calculate_loss(batch)).detach(), before)
    with torch.no_grad():
        model.raw["text"][zero] += 100.0
    assert not torch.equal(torch.stack(model.calculate_loss(batch)).detach(), before)


def test_a_batch_in_which_no_item_has_the_modality(build):
    model = build(modalities=["image"]).model
    zero = (~model.mask["image"])[1:].nonzero().flatten() + 1
    batch = {"user_id": torch.tensor([1, 2]), "item_id": zero[[0, 0]]}
    rec, align, mask, reg = model.calculate_loss(batch)
    assert align.item() == mask.item() == 0.0
    assert rec.item() > 0 and reg.item() > 0
    sum((rec, align, mask, reg)).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_scores_are_of_the_predictors_outputs(build):
    prepared = build()
    model = prepared.model.eval()
    users, items = (affine(model.predictor, h) for h in reference_forward(model, 2))
    got_users, got_items = model.representations()
    np.testing.assert_allclose(got_users.detach(), users, atol=1e-6, rtol=0)
    np.testing.assert_allclose(got_items.detach(), items, atol=1e-6, rtol=0)
    pairs = {"user_id": torch.tensor([1, 4, 9]), "item_id": torch.tensor([7, 7, 30])}
    expected = (users[[1, 4, 9]] * items[[7, 7, 30]]).sum(axis=1)
    with torch.no_grad():
        np.testing.assert_allclose(model.predict(pairs), expected, atol=1e-6, rtol=0)


def test_dropout_drops_from_the_targets_alone(build, batch):
    model = build(dropout=0.5).model
    torch.manual_seed(0)
    one = torch.stack(model.calculate_loss(batch))
    two = torch.stack(model.calculate_loss(batch))
    torch.manual_seed(0)
    again = torch.stack(model.calculate_loss(batch))
    assert torch.equal(one, again)
    assert (one[:3] != two[:3]).all() and one[3] == two[3]
    with torch.no_grad():
        model.eval()
        assert torch.equal(model.representations()[0], model.representations()[0])
    h = torch.ones(20000, 1)
    view = model._view(h)
    assert set(view.unique().tolist()) == {0.0, 2.0}  # dropped, or scaled by 1 / (1 − p)
    assert (view == 0).float().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, batch, trained):
    model = build(train_features=trained, dropout=0.3).model
    sum(model.calculate_loss(batch)).backward()
    names = dict(model.named_parameters())
    assert any(name.startswith("raw.") for name in names) == trained
    for name, parameter in names.items():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


class TestGolden(GoldenVectors):
    """The authors' code draws one mask for each node; here the places of a node are given it."""

    model = "BM3"
    keys = {
        key: key for key in ("embedding_size", "n_layers", "dropout", "cl_weight", "reg_weight")
    }
    parameters = {
        **TABLES,
        **RAW,
        **layers("project.{name}", "project.{name}"),
        **layer("predictor", "predictor"),
    }
    terms = [
        ("rec_user", "rec_item"),
        ("align.image", "align.text"),
        ("mask.image", "mask.text"),
        ("reg",),
    ]
    wrong = {"n_layers": 1, "cl_weight": 2.1, "dropout": 0.1}

    def injected(self, golden, prefix=""):
        of_users, of_items = (golden.tensor(f"batch_{name}") for name in ("user", "pos"))
        names = ("item", *golden.model.modalities)
        masks = [golden.tensor("rand.keep.user")[of_users]]
        return kept(masks + [golden.tensor(f"rand.keep.{name}")[of_items] for name in names])

    def middle(self, golden):
        users, items = golden.model.forward()
        return {"user": users, "item": items}


class TestGoldenWithDropout(TestGolden):
    variant = "dropout"
    keys = {**TestGolden.keys, "dropout": "rate"}
    wrong = {"dropout": 0.0, "reg_weight": 0.11}
