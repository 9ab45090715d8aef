"""STAIR against golden vectors, its start, and its smoothed steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers_golden import TABLES, GoldenVectors, dense

from recbole_sigrec.model.whitening import whitened


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared STAIR."""

    def make(folder=planted.folder, **overrides):
        return prepare(make_config("STAIR", folder, **overrides))

    return make


def test_whitened_features_are_singular_vectors():
    x = torch.randn(30, 7) @ torch.randn(7, 9) + 5.0  # of rank 7
    mask = torch.ones(30, dtype=torch.bool)
    mask[[0, 4]] = False
    table = whitened(x, mask, 8)
    assert not table[~mask].any() and not table[:, 7].any()
    x[4] += 100.0
    assert torch.equal(whitened(x, mask, 8), table)
    own, got = x[mask].double().numpy(), table[mask].numpy()
    u = np.linalg.svd(own - own.mean(axis=0), full_matrices=False)[0]
    for column in range(7):
        expected = u[:, column] * np.sign(u[:, column] @ got[:, column])
        np.testing.assert_allclose(got[:, column], expected * (28 / 8) ** 0.5, atol=1e-6)
        assert got[np.abs(got[:, column]).argmax(), column] > 0
    np.testing.assert_allclose((got[:, :7] ** 2).mean(axis=0), 1 / 8)


def test_more_dimensions_than_items():
    x = torch.randn(6, 50)
    everyone = torch.ones(6, dtype=torch.bool)
    table = whitened(x, everyone, 8)
    assert not table[:, 5:].any()  # centred: rank 5
    torch.testing.assert_close(table[:, :5].T @ table[:, :5], 6 / 8 * torch.eye(5).double())
    assert not whitened(x, ~everyone, 8).any()


def test_start_of_columns_that_features_lack(build):
    """The planted image has 12 dimensions, the text 8: four of 16 columns have none."""
    model = build().model
    items = model.item_embedding.weight.detach()
    assert not items[0].any() and items[1:].any(dim=0).all()
    torch.manual_seed(3)
    model.start({name: torch.zeros(model.n_items, 16).double() for name in model.modalities})
    items = model.item_embedding.weight.detach()
    assert not items[0].any()
    assert items[1:].std().item() == pytest.approx(1 / 4, rel=0.1)


def test_an_item_without_a_modality_starts_from_the_others(build, planted):
    prepared = build()
    model, item = prepared.model, prepared.dataset.token2id("item_id", str(planted.zero_item))
    text = whitened(model.features["text"], model.mask["text"], 16)[item, :8]
    torch.testing.assert_close(model.item_embedding.weight[item, :8].double(), text)
    assert not model.item_embedding.weight[item, 8:12].any()  # the image's columns


def test_three_modalities(build, with_audio):
    prepared = build(with_audio, modality_knn_k={"audio": 2, "image": 3}, knn_k=4)
    model = prepared.model
    assert model.n_near == {"audio": 2, "image": 3, "text": 4}
    white = {n: whitened(x, model.mask[n], 16) for n, x in model.features.items()}
    full = torch.stack(list(model.mask.values())).all(dim=0)
    mean = (2 * white["audio"] + 3 * white["image"] + 4 * white["text"])[full, :5] / 9
    torch.testing.assert_close(model.item_embedding.weight[full, :5].double(), mean)
    graph = dense({"graph": model.double().item_graph})["graph"]
    assert torch.equal(graph, graph.T) and not graph.diagonal().any()
    edges = (graph > 0).sum(dim=1)
    assert edges[full].min() >= 4 and not edges[0]


@pytest.mark.parametrize("learner", ["adamw", "adam", "sgd"])
def test_the_smoothed_step_is_the_dense_one(build, learner):
    """One step with and without the hooks, of any optimiser; weight decay is not smoothed."""
    tables = []
    for n_layers in (0, 3):
        prepared = build(learner=learner, n_layers=n_layers)
        model, optimizer = prepared.model.double(), prepared.trainer.optimizer
        with torch.no_grad():
            start = model.item_embedding.weight.clone()
        for table in (model.user_embedding.weight, model.item_embedding.weight):
            table.grad = torch.sin(torch.arange(table.numel()).double()).view_as(table)
        optimizer.step()
        tables.append(model.item_embedding.weight.detach() - start)
    plain, got = tables
    keys, b = prepared.config, model.gamma
    decayed = -start * keys["learning_rate"] * keys["weight_decay"] * (learner == "adamw")
    step, graph = plain - decayed, dense({"graph": model.item_graph})["graph"]
    layers = [step]
    for _ in range(3):
        layers.append(graph @ layers[-1])
    expected = sum(b**n * x for n, x in enumerate(layers)) / sum(b**n for n in range(4))
    torch.testing.assert_close(got, decayed + expected, atol=1e-12, rtol=1e-6)
    assert (got - plain).abs().max() > 1e-4


class TestGolden(GoldenVectors):
    model = "STAIR"
    keys = {
        **{"embedding_size": "embedding_dim", "n_layers": "num_layers", "gamma": "gamma"},
        **{"learning_rate": "lr", "weight_decay": "weight_decay"},
    }
    parameters = TABLES
    terms = [("bpr",)]
    wrong = {"n_layers": 2, "gamma": 0.3}

    def middle(self, golden):
        model = golden.model
        return {**dense({"item_graph": model.item_graph}), "beta_item_step": model.gamma}

    def test_golden_start(self, build):
        golden = build()
        model, white = golden.model, {}
        for name, x in model.features.items():
            theirs = golden.ours(f"start.whitened.{name}", axes=(0,))
            white[name] = whitened(x.float(), model.mask[name], 6)
            white[name] *= (white[name] * theirs).sum(dim=0).sign()  # SVDs differ in signs
            golden.check(f"start.whitened.{name}", white[name])
        model.start(white)
        for name, table in TABLES.items():
            golden.check(f"start.{name}", model.get_parameter(table))

    def test_golden_steps(self, build):
        golden = build()
        model, optimizer = golden.model.train(), golden.prepared.trainer.optimizer
        assert type(optimizer) is torch.optim.AdamW and optimizer.param_groups[0]["fused"]
        for step in (1, 2, 3):
            optimizer.zero_grad()
            loss = model.calculate_loss(golden.batch())
            golden.check(f"step{step}.loss", loss)
            loss.backward()
            optimizer.step()
            for name, table in TABLES.items():
                golden.check(f"step{step}.{name}", model.get_parameter(table))

    def test_golden_steps_refuse_other_neighbours(self, build):
        golden = build(modality_knn_k=None)
        with pytest.raises(AssertionError, match="relative error"):
            golden.check("mid.item_graph", self.middle(golden)["item_graph"])
