"""MMSSL against its authors' code, its parts against dense ones, and what is generated when."""

from __future__ import annotations

import contextlib

import helpers_models as ref
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from helpers_golden import MODALITIES, TABLES, GoldenVectors, layers

from recbole_sigrec import run
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.model.critic import Taken, observed, relations
from recbole_sigrec.model.generated_relations import GeneratedRelations, both_ways


class TestGolden(GoldenVectors):
    model = "MMSSL"
    keys = {
        **{"embedding_size": "embed_size", "n_heads": "head_num", "dropout": "drop_rate"},
        **{"id_weight": "id_cat_rate", "feature_weight": "model_cat_rate", "cl_weight": "cl_rate"},
        **{"adversarial_weight": "G_rate", "temperature": "tau", "reg_weight": "decay"},
        **{"feature_reg_weight": "feat_reg_decay", "score_weight": "ui_pre_scale"},
    }
    fixed = {"critic_dropout": [0.31, 0.5], "noise_weight": 1e-5 / 0.005, "penalty_weight": 0.3}
    parameters = {
        **TABLES,
        **layers("project.{name}", "project.{name}"),
        "head_mix": "head_mix",
        "critic.0.weight": lambda get: get("critic.items").T,
        **{f"critic.{n}.norm.weight": f"critic.scale.{n}" for n in (0, 1)},
        **{f"critic.{n}.norm.bias": f"critic.shift.{n}" for n in (0, 1)},
        **{"critic.1.weight": "critic.second.weight", "critic.2.weight": "critic.last.weight"},
        "critic.2.bias": "critic.last.bias",
    }
    terms = [
        *(("bpr",), ("reg_final",), ("reg_features",)),
        *(("contrast_image", "contrast_text"), ("adversarial",)),
    ]
    wrong = {"n_ui_layers": 1, "id_weight": 0.35, "temperature": 0.51}

    masks = [
        *(f"keep.{name}" for name in MODALITIES),
        *(f"critic.generator.keep.{n}" for n in range(2)),
    ]
    step_masks = [
        *(f"critic_step.keep.{name}" for name in MODALITIES),
        *(f"critic_step.{of}.keep.{n}" for of in ("fake", "real", "penalty") for n in range(2)),
    ]

    @contextlib.contextmanager
    def injected(self, golden, prefix="", masks=None):
        graphs = []
        for name in MODALITIES:
            gamma = golden.ours(f"rand.generated.{name}").numpy()
            graphs.append(both_ways(sp.csr_matrix(gamma)))
        kept = iter([golden.ours(f"rand.{name}", (0,)) for name in masks or self.masks])
        rest = iter(["critic_step.uniform", "critic_step.mix"])

        def dropout(x, p, training=True):
            return x * next(kept) / (1 - p) if training else x

        def rand_like(x):
            drawn = golden.ours(f"rand.{next(rest)}", (1,))
            assert drawn.shape == x.shape
            return drawn

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(golden.model.generated, "graphs", lambda: graphs)
            patch.setattr(F, "dropout", dropout)
            patch.setattr(torch, "rand_like", rand_like)
            yield

    def test_golden_scores(self, build):
        golden = build()
        with self.injected(golden):
            golden.check("scores", golden.scores())

    def test_golden_step_of_the_critic(self, build, monkeypatch):
        golden = build()
        model, users = golden.model.train(), golden.batch()["user_id"]
        taken = Taken.of_users(model.interactions, users)
        losses, observed_rows = model.critic.losses, []

        def kept(factors, taken, real, *rest):
            observed_rows.append(real)
            return losses(factors, taken, real, *rest)

        monkeypatch.setattr(model.critic, "losses", kept)
        with self.injected(golden, masks=self.step_masks):
            with torch.no_grad():
                found = model.training_forward()
            terms = model.critic_losses(found, users, taken)
        for name, term in zip(("fake", "real", "penalty"), terms, strict=True):
            golden.check(f"critic_step.{name}", term)
        sum(terms).backward()
        golden.check("critic_step.loss", sum(terms))
        for name in ("critic.0.weight", "critic.2.weight"):
            golden.check(f"critic_step.grad.{name}", golden.gradient(name))
        golden.check("critic_step.real_rows", observed_rows[0])
        fake = [relations(p, q, taken) for p, q in found.factors(users)]
        golden.check("critic_step.fake_rows", torch.cat(fake))


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared MMSSL with three generated items."""

    def make(folder=planted.folder, **overrides):
        values = {"generated_items": 3, **overrides}
        return ref.enlarged(prepare(make_config("MMSSL", folder, **values)))

    return make


def root(a):
    return ref.inverse(a.sum(axis=1), 0.5)[:, None] * a


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def generated(model, name, r):
    """Γ of a modality."""
    gamma = np.zeros_like(r)
    for user, items in enumerate(getattr(model.generated, f"of_{name}").tolist()):
        if items and items[0] < 0:
            gamma[user] = r[user]
        gamma[user, [item for item in items if item >= 0]] = 1.0
    return gamma


def reference(model, dataset):
    """h of users and items in evaluation, with dense float64 matrices."""
    keys, r = model.keys, ref.training_matrix(dataset)
    u, i = ref.array(model.user_embedding.weight), ref.array(model.item_embedding.weight)
    h_u, h_i, z_u, z_i = 0.0, 0.0, 0.0, 0.0
    for name in model.modalities:
        f = ref.affine(model.project[name], ref.array(model.raw[name]))
        f_u = root(r) @ (f * model.mask[name].numpy()[:, None])
        f_i = root(r.T) @ f_u
        h_u, h_i = h_u + keys.feature_weight * unit(f_u), h_i + keys.feature_weight * unit(f_i)
        gamma = generated(model, name, r)
        z_u, z_i = z_u + root(gamma) @ i, z_i + root(gamma.T) @ u
    d, n = keys.embedding_size, len(model.modalities)
    mix = sum(ref.array(model.head_mix)[at : at + d] for at in range(0, keys.n_heads * d, d)) / n
    users, items = [u + keys.id_weight * unit(z_u @ mix)], [i + keys.id_weight * unit(z_i @ mix)]
    for layer in range(1, keys.n_ui_layers + 1):
        last = layer == keys.n_ui_layers
        for side, graph, other in ((users, r, items), (items, r.T, users)):
            h = root(graph) @ other[-1]
            side.append(ref.softmax(h, 1) if last else h)
    return np.mean(users, axis=0) + h_u, np.mean(items, axis=0) + h_i


def start_batch(prepared, n=9):
    """``on_batch_start`` with some rows of a batch; returns the users among them."""
    batch = next(iter(prepared.train))[:n]
    prepared.model.train().on_batch_start(batch)
    return batch["user_id"].unique()


@pytest.mark.parametrize(
    "keys", [{}, {"generated_items": 0}, {"generated_items": 500, "n_ui_layers": 3, "n_heads": 1}]
)
def test_representations_with_three_modalities(build, with_audio, keys):
    prepared = build(with_audio, **keys)
    model = prepared.model
    assert model.modalities == ["audio", "image", "text"]
    start_batch(prepared)
    model.eval()
    for got, expected in zip(model.representations(), reference(model, prepared.train.dataset)):
        np.testing.assert_allclose(ref.array(got), expected, atol=3e-6)
    terms = model.train().calculate_loss(next(iter(prepared.train)))
    assert len(terms) == 5 and all(torch.isfinite(term) for term in terms)


def test_graphs_are_generated_for_the_users_of_a_batch(build):
    """Evaluation has them at once, training from the next epoch on."""
    prepared = build()
    model = prepared.model.eval()
    before = model.representations()[0]
    users = start_batch(prepared)
    others = torch.ones(model.n_users, dtype=torch.bool)
    others[users] = False
    for name in model.modalities:
        rows = getattr(model.generated, f"of_{name}")
        assert (rows[others] == -1).all() and (rows[users] > 0).any() and rows.shape[1] == 3
        for user in users.tolist():
            taken = set(model.interactions[[user]].indices.tolist())
            assert not taken & set(rows[user].tolist())
    graphs, batch = model._epoch_graphs, next(iter(prepared.train))
    model.calculate_loss(batch)
    assert model._epoch_graphs is graphs
    model.on_epoch_start(1)
    model.calculate_loss(batch)
    assert model._epoch_graphs is not graphs
    assert not torch.equal(model.eval().representations()[0], before)


def test_an_unrelated_user_keeps_the_training_items():
    r = sp.csr_matrix(np.array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]], dtype=np.float32))
    graphs = GeneratedRelations(["image"], r, 2)
    relation = torch.tensor([[9.0, 0.0, -1.0, 0.0], [9.0, 0.3, -0.1, 0.0]])
    graphs.replace("image", torch.tensor([1, 2]), relation)
    assert graphs.of_image.tolist() == [[-1, -1], [-1, -1], [1, -1]]
    (to_users, to_items), *_ = graphs.graphs()
    expected = np.array([[0, 0, 0, 0], [0, 0.5**0.5, 0, 0.5**0.5], [0, 1, 0, 0]])
    np.testing.assert_allclose(ref.dense(to_users), expected, atol=1e-7)
    expected = np.array([[0, 0, 0], [0, 0.5**0.5, 0.5**0.5], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(ref.dense(to_items), expected, atol=1e-7)


def test_an_item_without_a_modality_is_not_in_it(build, planted):
    prepared = build()
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    ref.check_row_is_not_read(prepared.model.eval(), item)


def test_the_first_map_is_that_of_the_relations(build):
    """Through the factors, in any order of users and with repetitions."""
    model = build().model
    torch.manual_seed(5)
    users = torch.tensor([5, 3, 5, 0, 40])
    taken = Taken.of_users(model.interactions, users)
    p, q = torch.randn(2, 5, 16), torch.randn(2, model.n_items, 16)
    got = model.critic.first(list(zip(p, q * (torch.arange(model.n_items) > 0)[:, None])), taken)
    rows = [relations(*factors, taken) for factors in zip(p, q)]
    for row, user in zip(rows[0], users):
        assert row[0] == 0.0 and not row[model.interactions[[int(user)]].indices].any()
    torch.testing.assert_close(got, torch.cat(rows) @ model.critic.items, atol=1e-5, rtol=0)


def test_the_noise_of_observed_rows():
    """Gumbel's, of variance π²/6; without it an observed item is e times as large."""
    torch.manual_seed(6)
    r = sp.csr_matrix(np.eye(3, 20_001, k=1, dtype=np.float32))
    taken, none = Taken.of_users(r, torch.arange(1, 3)), torch.zeros(2, 20_001)
    logs = observed(none, taken, 1.0, 0.0)[:, 5:].log()
    np.testing.assert_allclose(logs.var(dim=1), np.pi**2 / 6, rtol=0.1)
    assert (logs.mean(dim=1) < logs.median(dim=1).values + 1).all()
    rows = observed(none, taken, 0.0, 0.0)
    assert rows[:, 0].tolist() == [0.0, 0.0]
    assert (rows[0, 2] / rows[0, 3]).item() == pytest.approx(np.e, rel=1e-5)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))


def test_the_critic_is_trained_by_its_own_optimiser(build):
    prepared = build()
    model, trainer = prepared.model, prepared.trainer
    assert model.own_optimizers["critic"].param_groups[0]["betas"] == (0.5, 0.9)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    start_batch(prepared)
    moved = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    assert moved == {name for name in before if name.startswith("critic.")}
    assert not model.critic.items[0].any()  # [PAD]
    sum(model.calculate_loss(next(iter(prepared.train)))).backward()
    by_trainer = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert type(trainer.optimizer).__name__ == "AdamW"
    for name, value in model.named_parameters():
        assert (id(value) in by_trainer) == (value.grad is not None) == (name not in moved)
        assert value.grad is None or value.grad.any(), name


def test_a_single_pair_and_a_single_modality(build):
    prepared = build(modalities=["text"])
    start_batch(prepared, 1)
    assert all(value.isfinite().all() for value in prepared.model.parameters())


def test_without_a_weight_there_is_no_critic(build):
    prepared = build(adversarial_weight=0.0)
    start_batch(prepared)
    assert not prepared.model.own_optimizers and not hasattr(prepared.model, "critic")
    assert (prepared.model.generated.of_text > 0).any()
    assert prepared.model.calculate_loss(next(iter(prepared.train)))[4] == 0.0


def test_a_warm_start_on_more_items(copied, run_on):
    """The critic, as wide as there are items, and the generated graphs start anew."""
    first = run_on(copied, "MMSSL")
    frame = pd.read_csv(copied / "planted.inter", sep="\t", dtype=str)
    frame.loc[len(frame)] = {**frame.iloc[0], "itemID": "56", "x_label": "0"}
    frame.to_csv(copied / "planted.inter", sep="\t", index=False)
    for name in ("image", "text"):
        rows = np.load(copied / f"{name}_feat.npy")
        np.save(copied / f"{name}_feat.npy", np.concatenate([rows, rows[:1]]))
    start = run(config_dict={"warm_start": first.checkpoint, "epochs": 0})
    one, two = (torch.load(result.checkpoint)["state_dict"] for result in (first, start))
    assert len(two["critic.items"]) == len(one["critic.items"]) + 1
    assert torch.equal(two["head_mix"], one["head_mix"])
    assert (two["generated.of_text"] == -1).all() and (one["generated.of_text"] > 0).any()


@pytest.mark.parametrize(
    "bad", [{"n_ui_layers": 0}, {"temperature": 0}, {"critic_dropout": [0.3]}, {"n_heads": 0}]
)
def test_bad_keys_are_refused(build, bad):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(bad))}"):
        build(**bad)
