"""DiffMM: its diffusion, its generated graphs, what a checkpoint keeps, and missing modalities."""

from __future__ import annotations

import contextlib

import helpers_models as ref
import numpy as np
import pandas as pd
import pytest
import torch
from helpers_golden import TABLES, GoldenVectors, check_error, layer
from scipy.stats import chisquare, kstest

from recbole_sigrec import run
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import GeneratedGraphs
from recbole_sigrec.model.diffusion import Denoiser, Draws, time_code


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared DiffMM with small denoisers."""

    def make(folder=planted.folder, **overrides):
        return prepare(make_config("DiffMM", folder, **{"denoiser_size": 24, **overrides}))

    return make


def of_graphs(graphs, number):
    """A generated graph as a dense matrix."""
    n = sum(graphs._shape)
    return graphs(number, torch.eye(n, dtype=torch.float64)).numpy()


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def normalized(r):
    """D^{-1/2} (A + I) D^{-1/2} of the interactions R."""
    full = np.block([[np.eye(len(r)), r], [r.T, np.eye(r.shape[1])]])
    return ref.symmetric(full)


# ---- the diffusion -------------------------------------------------------------------------------


def test_what_is_drawn(build):
    diffusion = build(n_steps=4, dropout=0.3).model.diffusion
    torch.manual_seed(0)
    step, noise, keep = diffusion.draw(torch.zeros(4000, 50))
    assert chisquare(step.bincount(minlength=4)).pvalue > 1e-3
    assert kstest(noise.flatten()[:5000].numpy(), "norm").pvalue > 1e-3
    assert keep.float().mean() == pytest.approx(0.7, abs=0.005)


@pytest.mark.parametrize("size", [1, 5, 10])
def test_the_code_of_a_step(size):
    step = torch.tensor([0, 1, 4])
    expected = np.zeros((3, size))
    for row, t in enumerate(step.tolist()):
        for j in range(size // 2):
            angle = t * 1e4 ** (-j / (size // 2))
            expected[row, j], expected[row, size // 2 + j] = np.cos(angle), np.sin(angle)
    np.testing.assert_allclose(time_code(step, size).numpy(), expected, atol=1e-12)


def test_a_denoiser_starts_normal(build):
    keys = build(denoiser_size=80, time_size=20).model.keys
    torch.manual_seed(0)
    denoiser = Denoiser(301, keys)
    std = {
        **{"time.weight": (2 / 40) ** 0.5, "time_in.weight": (2 / 400) ** 0.5},
        **{"item_in": (2 / 400) ** 0.5, "item_out": (2 / 380) ** 0.5, "item_bias": 1e-3},
    }
    for name, expected in std.items():
        values = denoiser.get_parameter(name)
        values = values[1:] if name.startswith("item") else values
        assert values.std().item() == pytest.approx(expected, rel=0.15), name


def test_padding_stays_out_of_the_diffusion(build):
    model = build(learning_rate=0.1).model
    for epoch in range(3):
        model.on_epoch_start(epoch)
    for name in model.modalities:
        denoiser = model.diffusion.denoisers[name]
        for table in ("item_in", "item_out", "item_bias"):
            assert not denoiser.get_parameter(table)[0].any()
            assert denoiser.get_parameter(table)[1:].any(dim=1).all()
    assert not model.generated.items[:, 0].any() and model.generated.items[:, 1:].all()


def test_a_denoiser_learns_the_rows(build):
    model = build(learning_rate=0.01, denoiser_size=100, alignment_weight=0.0).model
    torch.manual_seed(0)
    for epoch in range(150):
        model.on_epoch_start(epoch)
    r = torch.from_numpy(model.interactions.toarray())
    for items in model.generated.items:
        own = r.gather(1, items)[r.any(dim=1)]
        assert own.mean() > 0.7  # chance: about .1


# ---- the generated graphs ------------------------------------------------------------------------


@pytest.fixture
def graphs():
    torch.manual_seed(0)
    return GeneratedGraphs(2, 40, 30, 3, dropout=0.25)


def test_a_generated_graph(graphs):
    empty = of_graphs(graphs, 1)
    np.testing.assert_allclose(empty, np.eye(70) / 0.75, atol=1e-7)
    items = torch.rand(40, 30).topk(3).indices  # some are 0: none
    graphs.draw(0, items)
    np.testing.assert_array_equal(of_graphs(graphs, 1), empty)
    r = torch.zeros(40, 30).scatter_(1, items, 1.0).numpy()
    r[:, 0] = 0.0
    full = normalized(r)
    got = of_graphs(graphs, 0)
    kept = got > 0
    np.testing.assert_allclose(got, np.where(kept, full / 0.75, 0.0), atol=1e-7)
    n = int((full > 0).sum())
    assert kept.sum() == pytest.approx(0.75 * n, abs=4 * (n * 0.25 * 0.75) ** 0.5)
    assert not np.array_equal(kept, kept.T) and not np.diag(got).all()


def test_each_entry_is_kept_as_often(graphs):
    items = torch.ones(40, 3, dtype=torch.int64) * torch.tensor([3, 7, 9])
    total = 0
    for _ in range(400):
        graphs.draw(0, items)
        total = total + (of_graphs(graphs, 0) > 0)
    shares = total[total > 0] / 400
    assert len(shares) == 70 + 2 * 120
    assert shares.mean() == pytest.approx(0.75, abs=0.005)
    assert np.abs(shares - 0.75).max() < 5 * (0.75 * 0.25 / 400) ** 0.5


def test_loaded_graphs_are_the_saved_ones(graphs):
    graphs.draw(0, torch.randint(0, 30, (40, 3)))
    graphs.draw(1, torch.randint(0, 30, (40, 3)))
    other = GeneratedGraphs(2, 40, 30, 3, dropout=0.25)
    before = of_graphs(other, 0)
    other.load_state_dict(graphs.state_dict())
    for number in range(2):
        np.testing.assert_array_equal(of_graphs(other, number), of_graphs(graphs, number))
    assert not np.array_equal(before, of_graphs(other, 0))


def test_what_each_epoch_makes_anew(build):
    model = build(edge_dropout=0.5).model
    found = []
    for epoch in range(2):
        model.on_epoch_start(epoch)
        found.append({name: value.clone() for name, value in model.state_dict().items()})
    changed = {name for name in found[0] if not torch.equal(found[0][name], found[1][name])}
    assert {name for name in changed if not name.startswith("diffusion.")} <= {*model.kept_buffers}
    assert {name for name in found[0] if name.startswith("diffusion.")} <= changed
    assert "generated.kept" in changed
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_warm_start_makes_diffusion_and_graphs_anew(copied, run_on):
    """With new ids, and an item more."""
    pairs = pd.read_csv(copied / "planted.inter", sep="\t")
    left_out = pairs[pairs["x_label"] == 0]["itemID"].iloc[0]
    pairs[pairs["itemID"] != left_out].to_csv(copied / "planted.inter", sep="\t", index=False)
    how = {"denoiser_size": 24, "strict_ids": False}
    first = run_on(copied, "DiffMM", epochs=1, **how)
    pairs.sample(frac=1, random_state=3).to_csv(copied / "planted.inter", sep="\t", index=False)
    start, more = (
        run(config_dict={"warm_start": first.checkpoint, "strict_ids": False, "epochs": epochs})
        for epochs in (0, 1)
    )
    old, new = (
        torch.load(done.checkpoint, weights_only=True)["state_dict"] for done in (first, start)
    )
    table = "diffusion.denoisers.text.item_in"
    assert len(new[table]) == len(old[table]) + 1 and not new["generated.items"].any()
    assert more.epochs == 1 and more.test_result != start.test_result


# ---- the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("contrast", ["pairs", "main"])
def test_gradient_reaches_every_parameter_of_the_trainer(build, contrast):
    prepared = build(contrast=contrast, feature_map="mixed", cl_weight=1.0)
    model = prepared.model
    model.on_epoch_start(0)
    sum(model.calculate_loss(ref.batch_with_repetitions())).backward()
    trained = {id(p) for group in prepared.trainer.optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in trained) == (not name.startswith("diffusion.")), name
        if id(parameter) in trained:
            assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name
        else:
            assert parameter.grad is None
    assert not model.user_embedding.weight.grad[0].any()
    assert not model.item_embedding.weight.grad[0].any()


def test_three_modalities(build, with_audio):
    """Against the equations, summed over the modalities one by one."""
    prepared = ref.enlarged(build(with_audio, feature_map="mixed", n_ui_layers=2, cl_weight=1.0))
    model = prepared.model
    assert model.modalities == ["audio", "image", "text"]
    assert [layer.bias is None for layer in model.project.values()] == [False, True, False]
    with torch.no_grad():
        model.modal_logit.copy_(torch.tensor([0.5, -1.0, 1.0]))
    model.on_epoch_start(0)
    graph = normalized(model.interactions.toarray())
    users, items = ref.array(model.user_embedding.weight), ref.array(model.item_embedding.weight)
    weights = ref.softmax(ref.array(model.modal_logit), 0)
    h, views = 0.0, []
    for number, name in enumerate(model.modalities):
        t = unit(ref.array(model.item_features(name)))
        a = graph @ np.concatenate([users, t])
        again = graph @ np.concatenate([a[: len(users)], items])
        generated = of_graphs(model.generated, number)
        h = h + weights[number] * (a + again + 0.2 * generated @ np.concatenate([users, items]))
        start = generated @ np.concatenate([users, t])
        views.append(start + graph @ start + graph @ graph @ start)
    final = h + graph @ h + graph @ graph @ h + 0.5 * unit(h)
    got = torch.cat(model.representations()).detach().numpy()
    np.testing.assert_allclose(got, final, atol=2e-6, rtol=0)

    batch = ref.batch_with_repetitions()
    bpr, contrast, squares = ref.losses(model, batch).numpy()
    u, i, j = (rows + len(users) * (n > 0) for n, rows in enumerate(ref.ids(batch)))
    assert bpr == pytest.approx(ref.bpr(final[u], final[i], final[j]), abs=1e-5)
    expected = 0.0
    for one, two in ((0, 1), (0, 2), (1, 2)):
        both = model.mask[model.modalities[one]] & model.mask[model.modalities[two]]
        allowed = np.concatenate([np.arange(len(users)) > 0, both.numpy()])
        for rows, span in ((u, slice(None, len(users))), (i, slice(len(users), None))):
            nodes = np.arange(len(final))[span]
            among = nodes[allowed[nodes]]
            cosine = unit(views[one]) @ unit(views[two][among]).T / 0.5
            for row in rows[allowed[rows]]:
                own = np.flatnonzero(among == row)[0]
                expected += np.log(np.exp(cosine[row]).sum()) - cosine[row, own]
    assert contrast == pytest.approx(expected / len(u), rel=1e-4)
    expected = 1e-5 * ((users[1:] ** 2).sum() + (items[1:] ** 2).sum())
    assert squares == pytest.approx(expected, rel=1e-4)


def test_an_item_without_a_modality_is_not_in_its_graph(build, planted):
    model = build(rebuild_k=4).model
    item = model.n_users + int((~model.mask["image"])[1:].nonzero()) + 1
    with torch.no_grad():
        for denoiser in model.diffusion.denoisers.values():
            denoiser.item_bias[item - model.n_users] = 100.0
    model.on_epoch_start(0)
    image, text = (of_graphs(model.generated, number) for number in range(2))
    assert np.flatnonzero(image[item]).tolist() == [item]
    assert text[item, 1 : model.n_users].all()
    final, starts = model.forward()
    pairs = model.contrasted(final, starts)
    assert len(pairs) == 1 and not pairs[0][2][item] and not pairs[0][2][0]
    assert not model.item_features("image")[item - model.n_users].any()
    with torch.no_grad():
        before = [part.clone() for part in model.representations()]
        model.raw["image"][item - model.n_users] += 100.0
        assert all(map(torch.equal, before, model.representations()))


def test_more_items_than_there_are(build):
    model = build(rebuild_k=1000).model
    model.on_epoch_start(0)
    lacking = (~model.mask["image"])[1:].sum()
    assert model.generated.items.shape[2] == model.n_items - 1
    assert ((model.generated.items[0, 1:] == 0).sum(dim=1) == lacking).all()


def test_cl_weight_zero_switches_its_term_off(build):
    ref.check_switch(build, "cl_weight", 0.7, term=1)


@pytest.mark.parametrize(
    "key",
    [{"n_steps": 0}, {"noise_max": 1}, {"rebuild_k": 0}, {"edge_dropout": 1}, {"contrast": "all"}],
)
def test_bad_keys_are_refused(planted, make_config, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        make_config("DiffMM", planted.folder, **key)


class TestGolden(GoldenVectors):
    model = "DiffMM"
    keys = {
        **{"embedding_size": "latdim", "n_ui_layers": "gnn_layer", "reg_weight": "reg"},
        **{"cl_weight": "ssl_reg", "temperature": "temp", "time_size": "d_emb_size"},
        **{"n_steps": "steps", "alignment_weight": "e_loss", "residual_weight": "ris_lambda"},
        **{key: key for key in ("noise_scale", "noise_min", "noise_max", "rebuild_k")},
        **{"generated_weight": "ris_adj_lambda", "train_batch_size": "batch"},
    }
    fixed = {"denoiser_size": 14, "edge_dropout": 0.5}  # its keepRate
    parameters = {
        **TABLES,
        "modality_logit": "modal_logit",
        **{
            f"project.{name}": lambda get, name=name: get(f"project.{name}.weight").T
            for name in ("image", "text")
        },
    }
    for name in ("image", "text"):
        ours = f"diffusion.denoisers.{name}"
        parameters |= {
            **layer(f"denoise.{name}.time", f"{ours}.time"),
            f"denoise.{name}.in.0.bias": f"{ours}.time_in.bias",
            f"denoise.{name}.out.0.weight": f"{ours}.item_out",
            f"denoise.{name}.out.0.bias": lambda get, ours=ours: get(f"{ours}.item_bias")[:, 0],
        }
    terms = [("bpr",), ("infonce_user", "infonce_item"), ("reg",)]
    wrong = {"n_ui_layers": 2, "generated_weight": 0.21, "temperature": 0.51, "rebuild_k": 3}

    @contextlib.contextmanager
    def injected(self, golden, prefix=""):
        """The denoisers' first layers, which are two tables here, and the entries kept."""
        model = golden.model
        for number, name in enumerate(model.modalities):
            self.fill(golden, name)
            items = torch.zeros_like(model.generated.items[number])
            rows = model.rows_of(golden.users)
            items[golden.users] = model.best_items(name, model.diffusion.denoise(name, rows))
            model.generated.draw(number, items)
            model.generated.kept[number] = True
            row, column = of_graphs(model.generated, number).nonzero()
            kept = golden.ours(f"rand.graph_dropped.{name}")[row, column] > 0
            model.generated._made.clear()
            model.generated.kept[number, : len(kept)] = kept
        yield

    def fill(self, golden, name):
        weight = golden.tensor(f"param.denoise.{name}.in.0.weight")
        denoiser = golden.model.diffusion.denoisers[name]
        with torch.no_grad():
            denoiser.item_in[golden.items] = weight[:, :40].T
            denoiser.time_in.weight.copy_(weight[:, 40:])

    def test_golden_scores(self, build):
        golden = build()
        with self.injected(golden):
            golden.check("scores", golden.scores())

    def test_golden_graphs_with_entries_dropped(self, build):
        golden = build()
        with self.injected(golden):
            for number, name in enumerate(golden.model.modalities):
                graph = torch.from_numpy(of_graphs(golden.model.generated, number))
                golden.check(f"rand.graph_dropped.{name}", graph)

    def test_golden_schedule(self, build):
        golden = build()
        for name in ("beta", "alpha_bar"):
            golden.check(f"diffusion.{name}", getattr(golden.model.diffusion, name))

    def test_golden_diffusion(self, build, monkeypatch):
        golden = build()
        model, total = golden.model, 0.0
        users = golden.users[golden.tensor("rand.diffusion_user_order")]
        rows = model.rows_of(users)
        for name in model.modalities:
            self.fill(golden, name)
            step, noise, keep = (
                golden.tensor(f"rand.diffusion.{name}.{part}") for part in Draws._fields
            )
            wide = torch.ones(60, 41, dtype=torch.float64), torch.ones(60, 41, dtype=torch.bool)
            wide[0][:, golden.items], wide[1][:, golden.items] = noise, keep
            monkeypatch.setattr(model.diffusion, "draw", lambda _, draws=(step, *wide): draws)
            elbo, alignment = model.diffusion.terms(name, rows, *model.alignment_of(name, rows))
            golden.check(f"diffusion.{name}.elbo_mean", elbo)
            golden.check(f"diffusion.{name}.alignment_mean", alignment)
            total = total + elbo + model.keys.alignment_weight * alignment
        golden.check("diffusion.loss", total)
        total.backward()
        for name in model.modalities:
            for part in ("out.0.weight", "time.weight"):
                part = f"denoise.{name}.{part}"
                golden.check(f"diffusion.grad.{part}", golden.gradient(part))

    def test_golden_rebuilt_graphs(self, build):
        golden = build(edge_dropout=0.0)
        model = golden.model
        for number, name in enumerate(model.modalities):
            self.fill(golden, name)
            rows = model.diffusion.denoise(name, model.rows_of(torch.arange(61)))
            golden.check(f"rebuilt.{name}.denoised", rows)
            items = model.best_items(name, rows)
            items[0] = 0
            model.generated.draw(number, items)
            graph = torch.from_numpy(of_graphs(model.generated, number))
            golden.check(f"rebuilt.{name}.graph", graph)

    def test_golden_contrast_with_the_main_view(self, build):
        golden = build(contrast="main")
        with self.injected(golden):
            contrast = golden.model.calculate_loss(golden.batch())[1] / golden.model.keys.cl_weight
        expected = sum(golden.arrays[f"extra.main_vs_{name}"] for name in ("image", "text"))
        check_error("extra.main_vs_*", contrast.detach().numpy(), expected)
