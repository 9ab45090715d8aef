"""What every model has to do, ours and RecBole's: a new name in the registry is tested at once."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from pathlib import Path

import helpers_data
import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_sigrec import load_data_and_model, run
from recbole_sigrec.config.registry import resolve_model
from recbole_sigrec.errors import ConfigError, DataError
from recbole_sigrec.model_names import MODELS
from recbole_sigrec.training.machine import paused_collection
from recbole_sigrec.training.trainer_kinds import trainer_class

OURS = list(MODELS)
LEARNED = [*helpers_data.LEARNED, "LightGCN", "BPR", "NGCF"]  # by gradient descent
ONE_PASS = [*helpers_data.TRAINING_FREE, "ItemKNN", "Pop"]
ALL = [*LEARNED, *ONE_PASS]
ON_PLANTED = {
    "VBPR": {"reg_weight": 0.1},  # the default, for thousands of users, leaves little of 61
    # With the default's sharp softmax it goes on learning, as MMGCN does, the one item that each
    # user took of another group: most of what it then ranks wrongly is of that group.
    "SLMRec": {"temperature": 0.5},
    # A mean over entries of preferences alone: by the default 61 users learn their odd items too.
    "DualGNN": {"reg_weight": 3.0},
    "DRAGON": {"reg_weight": 1.0},
    # Of whole tables, beside a mean over pairs: a user of 61 weighs more than one of thousands.
    "DiffMM": {"reg_weight": 1e-3},
}
"""Keys with which a model finds the planted groups, where not with its defaults."""

SUMS = ("DualGNN", "DRAGON", "MENTOR", "GRCN", "REARM")
"""Their scores, of sums of parts, are 3 to 10 here: products of other shapes round them by 1e-6."""

RESULT_KEYS = {
    *("model", "dataset", "seed", "config", "split", "best_valid_result", "test_result"),
    *("epochs", "best_epoch", "seconds_per_epoch", "seconds_per_evaluation", "seconds_setup"),
    *("peak_rss_mb", "n_parameters", "processes", "checkpoint", "versions"),
}


def all_scores(model, n_users):
    """Scores of evaluation, [n_users − 1, n_items]: all users but [PAD]."""
    model.eval()
    with torch.no_grad():
        users = Interaction({"user_id": torch.arange(1, n_users)})
        return model.full_sort_predict(users).view(n_users - 1, -1).clone()


def last_file(checkpoint):
    return checkpoint.removesuffix(".pth") + ".last.pth"


def same(one, two):
    """Bitwise equality of nested containers of tensors and values."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def files(folder):
    """The files of a folder, not of those below (the graph cache) → the hash of their content."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).glob("*")
        if path.is_file()
    }


def ids(dataset, field, tokens):
    return [dataset.token2id(field, str(token)) for token in tokens]


@pytest.fixture
def ready(planted, make_config, prepare):
    """``ready(model, **overrides)`` → prepared, not trained."""

    def make(name, folder=None, **overrides):
        return prepare(make_config(name, folder or planted.folder, **overrides))

    return make


@pytest.fixture
def trained(ready):
    """``trained(model, **overrides)`` → prepared and trained; its best model is loaded."""

    def make(name, folder=None, **overrides):
        prepared = ready(name, folder, **overrides)
        prepared.trainer.fit(prepared.train, prepared.valid)
        prepared.trainer.evaluate(prepared.test)
        return prepared

    return make


@pytest.fixture
def run_planted(planted, make_values):
    """``run_planted(model, **overrides)``: recbole_sigrec.run on the planted data."""

    def call(name, **overrides):
        values = make_values(planted.folder, **overrides)
        return run(name, planted.folder.name, config_dict=values)

    return call


@pytest.mark.parametrize("name", ALL)
class TestEveryModel:
    def test_saved_and_loaded_scores_are_equal(self, trained, name):
        prepared = trained(name)
        before = all_scores(prepared.model, prepared.dataset.user_num)
        _, model, dataset, *loaders = load_data_and_model(prepared.trainer.saved_model_file)
        assert model is not prepared.model and type(model) is type(prepared.model)
        assert torch.equal(all_scores(model, dataset.user_num), before)
        assert [len(x.dataset) for x in loaders] == [
            len(x.dataset) for x in (prepared.train, prepared.valid, prepared.test)
        ]

    def test_a_loaded_config_is_the_saved_one(self, trained, name):
        prepared = trained(name, epochs=1)
        config = load_data_and_model(prepared.trainer.saved_model_file)[0]
        chosen = prepared.trainer.chosen_values()
        changed = {
            key: (value, config[key])
            for key, value in {**prepared.config.final_config_dict, **chosen}.items()
            if config[key] != value
        }
        assert changed == {}
        assert "auto" not in config.final_config_dict.values()

    def test_loading_moved_data(self, trained, planted, tmp_path, name):
        prepared = trained(name)
        before = all_scores(prepared.model, prepared.dataset.user_num)
        shutil.copytree(planted.folder, tmp_path / "elsewhere" / planted.folder.name)
        _, model, dataset, *_ = load_data_and_model(
            prepared.trainer.saved_model_file, data_path=str(tmp_path / "elsewhere")
        )
        assert Path(dataset.dataset_path) == tmp_path / "elsewhere" / planted.folder.name
        assert torch.equal(all_scores(model, dataset.user_num), before)

    def test_one_seed_one_result(self, ready, name):
        def train(seed):
            prepared = ready(name, seed=seed)
            prepared.trainer.fit(prepared.train, prepared.valid, saved=False)
            test = prepared.trainer.evaluate(prepared.test, load_best_model=False)
            scores = all_scores(prepared.model, prepared.dataset.user_num)
            return prepared.trainer.history, dict(test), scores

        one, two = train(seed=11), train(seed=11)
        assert len(one[0]) >= 1
        assert one[0] == two[0] and one[1] == two[1] and torch.equal(one[2], two[2])
        if name in LEARNED:
            other = train(seed=12)
            assert [h["train_loss"] for h in one[0]] != [h["train_loss"] for h in other[0]]
            assert not torch.equal(one[2], other[2])

    def test_predict_agrees_with_full_ranking(self, trained, name):
        prepared = trained(name)
        full = all_scores(prepared.model, prepared.dataset.user_num)
        generator = torch.Generator().manual_seed(0)
        users = torch.randint(1, prepared.dataset.user_num, (200,), generator=generator)
        items = torch.randint(1, prepared.dataset.item_num, (200,), generator=generator)
        with torch.no_grad():
            pairs = prepared.model.predict(Interaction({"user_id": users, "item_id": items}))
        pairs = torch.as_tensor(pairs, dtype=full.dtype)
        assert full.std() > 1e-4
        torch.testing.assert_close(pairs, full[users - 1, items], atol=1e-5, rtol=0)

    def test_scores_do_not_depend_on_the_batch(self, trained, name):
        prepared = trained(name)
        full = all_scores(prepared.model, prepared.dataset.user_num)
        with torch.no_grad():
            for user in (1, 17, prepared.dataset.user_num - 1):
                one = prepared.model.full_sort_predict(
                    Interaction({"user_id": torch.tensor([user])})
                )
                rtol = 1e-6 if name in SUMS else 0
                torch.testing.assert_close(one.view(-1), full[user - 1], atol=1e-6, rtol=rtol)

    def test_a_checkpoint_is_plain_and_holds_no_cache(self, trained, name):
        prepared = trained(name)
        model, path = prepared.model, prepared.trainer.saved_model_file
        chosen = prepared.trainer.chosen_values()
        for file in (path, last_file(path)):
            state = torch.load(file, weights_only=True)
            assert set(state["state_dict"]) == set(model.state_dict())
            if name in OURS:  # graphs and evaluation's representations are made again
                kept = {n for n, _ in model.named_parameters()} | {*model.kept_buffers}
                assert set(state["state_dict"]) == kept
                assert not state["other_parameter"] and state["chosen"].keys() == chosen.keys()
            assert not [key for key in state["other_parameter"] if key.startswith("restore")]
        best = torch.load(path, weights_only=True)
        assert "optimizer" not in best and "random" not in best

    @pytest.mark.parametrize("phase", ["valid", "test"])
    def test_neither_padding_nor_known_items_are_recommended(self, trained, planted, name, phase):
        prepared = trained(name)
        known = planted.parts[0] + (planted.parts[1] if phase == "test" else [])
        seen = {}
        for user, item in known:
            user, item = ids(prepared.dataset, "user_id", [user]) + ids(
                prepared.dataset, "item_id", [item]
            )
            seen.setdefault(user, set()).add(item)
        n_seen = 0
        prepared.model.eval()
        for batch in getattr(prepared, phase):
            with torch.no_grad():
                interaction, scores, _, _ = prepared.trainer._full_sort_batch_eval(batch)
            top = scores.topk(20, dim=1)
            assert torch.isfinite(top.values).all()
            for user, items in zip(interaction["user_id"].tolist(), top.indices.tolist()):
                assert 0 not in items
                assert not seen.get(user, set()) & set(items)
                n_seen += 1
        assert n_seen == len({user for user, _ in planted.parts[1 if phase == "valid" else 2]})

    def test_reported_metrics_are_the_independent_ones(self, run_planted, planted, name):
        result = run_planted(name, epochs=3, topk=[5, 20], metrics=["Recall", "NDCG"])
        _, model, dataset, *_ = load_data_and_model(result["checkpoint"])
        scores = all_scores(model, dataset.user_num)
        for phase, reported in ((1, "best_valid_result"), (2, "test_result")):
            users = sorted({u for u, _ in planted.parts[phase]})
            rows = torch.tensor(ids(dataset, "user_id", users))
            masked = scores[rows - 1].clone()
            masked[:, 0] = -torch.inf
            for place, user in enumerate(users):
                before = [i for part in planted.parts[:phase] for u, i in part if u == user]
                masked[place, ids(dataset, "item_id", before)] = -torch.inf
            # topk, not a sort, so that tied scores fall as in the evaluation
            ranked = masked.topk(20, dim=1).indices.tolist()
            for k in (5, 20):
                recall, ndcg = [], []
                for user, top in zip(users, ranked):
                    wanted = set(
                        ids(dataset, "item_id", [i for u, i in planted.parts[phase] if u == user])
                    )
                    hits = [item in wanted for item in top[:k]]
                    recall.append(sum(hits) / len(wanted))
                    gain = sum(hit / np.log2(place + 2) for place, hit in enumerate(hits))
                    ideal = sum(1 / np.log2(p + 2) for p in range(min(k, len(wanted))))
                    ndcg.append(gain / ideal)
                assert result[reported][f"recall@{k}"] == pytest.approx(np.mean(recall), abs=6e-7)
                assert result[reported][f"ndcg@{k}"] == pytest.approx(np.mean(ndcg), abs=6e-7)
                assert np.mean(recall) > 0

    def test_blocks_of_users_give_the_same_metrics(self, trained, name):
        one = trained(name, epochs=1)
        some = trained(name, epochs=1, eval_batch_size=7 * one.dataset.item_num + 3)
        assert len(one.test) == 1 and len(some.test) == 9
        results = [p.trainer.evaluate(p.test) for p in (one, some)]
        if name == "Pop":
            pytest.skip("tied scores may fall otherwise in another block")
        assert results[0] == results[1]
        assert len(results[0]) == 6 * 4

    def test_a_run_returns_the_contract(self, run_planted, planted, tmp_path, name):
        result = run_planted(name, result_file=str(tmp_path / "out" / "result.json"))
        assert set(result) == RESULT_KEYS
        assert result["model"] == result["config"]["model"] == name
        assert result["dataset"] == "planted" and result["seed"] == result["config"]["seed"]
        sizes = dict(zip(("train", "valid", "test"), map(len, planted.parts)))
        assert result["split"] == sizes
        assert result["epochs"] == (2 if name in LEARNED else 1)
        assert 0 <= result["best_epoch"] < result["epochs"]
        for key in ("best_valid_result", "test_result"):
            assert {"recall@20", "ndcg@20", "recall@5", "ndcg@50"} <= set(result[key])
            assert all(0 <= v <= 1 and v == round(v, 6) for v in result[key].values())
        for key in ("seconds_per_epoch", "seconds_per_evaluation", "seconds_setup", "peak_rss_mb"):
            assert isinstance(result[key], float) and result[key] > 0
        model = load_data_and_model(result["checkpoint"])[1]
        expected = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert result["n_parameters"] == expected > 0
        assert {"python", "recbole", "recbole_sigrec", "torch", "numpy"} <= set(result["versions"])
        assert Path(result["checkpoint"]).is_file()
        assert Path(result["checkpoint"]).parent == tmp_path / "saved"
        written = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
        assert written == json.loads(json.dumps(result))
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["result.json"]


@pytest.mark.parametrize("name", LEARNED)
class TestEveryLearnedModel:
    def test_our_collection_of_hits_is_recboles(self, trained, name):
        # The metrics about items need RecBole's own way of collecting the top of the ranking.
        beyond = ["ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage"]
        usual = ["Recall", "NDCG", "MAP", "Precision", "MRR", "Hit"]
        ours = trained(name, metrics=usual)
        theirs = trained(name, metrics=[*usual, *beyond])
        one, two = (p.trainer.evaluate(p.test) for p in (ours, theirs))
        assert len(two) == len(one) + 4 * len(beyond)
        assert {key: two[key] for key in one} == dict(one)

    def test_losses_are_finite_scalars_with_a_gradient(self, ready, name):
        prepared = ready(name)
        losses = prepared.model.calculate_loss(next(iter(prepared.train)))
        losses = losses if isinstance(losses, tuple) else (losses,)
        assert all(loss.numel() == 1 and torch.isfinite(loss).all() for loss in losses)
        sum(losses).backward()
        gradients = [p.grad for p in prepared.model.parameters() if p.grad is not None]
        assert gradients and all(torch.isfinite(g).all() for g in gradients)

    def test_scores_follow_when_training_goes_on(self, trained, name):
        prepared = trained(name)
        model, n_users = prepared.model, prepared.dataset.user_num
        one = all_scores(model, n_users)
        assert torch.equal(all_scores(model, n_users), one)
        model.train()
        losses = model.calculate_loss(next(iter(prepared.train)))
        prepared.trainer.optimizer.zero_grad()
        (sum(losses) if isinstance(losses, tuple) else losses).backward()
        prepared.trainer.optimizer.step()
        two = all_scores(model, n_users)
        assert (two - one).abs().max() > 1e-6
        # They are the scores of a model that never had a cache.
        fresh = load_data_and_model(prepared.trainer.saved_model_file)[1]
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(all_scores(fresh, n_users), two)

    def test_scores_follow_when_parameters_are_loaded(self, trained, name):
        prepared = trained(name, epochs=1)
        n_users, trainer = prepared.dataset.user_num, prepared.trainer
        best = all_scores(prepared.model, n_users)
        trainer._train_epoch(prepared.train, 1)
        trainer.evaluate(prepared.valid, load_best_model=False)
        later = all_scores(prepared.model, n_users)
        assert not torch.equal(later, best)
        trainer.evaluate(prepared.test)  # loads the best model
        assert torch.equal(all_scores(prepared.model, n_users), best)
        if name in (*OURS, "LightGCN"):
            state = {key: value.clone() for key, value in prepared.model.state_dict().items()}
            numbers = {key: value for key, value in state.items() if value.is_floating_point()}
            for value in numbers.values():
                value.mul_(1.5)
            prepared.model.load_state_dict(state)
            larger = all_scores(prepared.model, n_users)
            assert not torch.equal(larger, best)
            whole = torch.nn.ModuleDict({"part": prepared.model})
            state |= {key: 2 * value for key, value in numbers.items()}
            whole.load_state_dict({f"part.{key}": value for key, value in state.items()})
            assert not torch.equal(all_scores(prepared.model, n_users), larger)


@pytest.mark.parametrize("name", OURS)
class TestOurModels:
    @pytest.mark.parametrize("modality", ["image", "text"])
    def test_other_features_give_other_scores(self, trained, planted, tmp_path, name, modality):
        if not resolve_model(name).needs_modalities:
            pytest.skip("a model without modalities")
        folder = tmp_path / "other" / planted.folder.name
        shutil.copytree(planted.folder, folder)
        shape = planted.features[modality].shape
        other = np.random.default_rng(99).normal(size=shape).astype(np.float32)
        np.save(folder / f"{modality}_feat.npy", other)
        one, two = trained(name), trained(name, folder)
        n_users = one.dataset.user_num
        assert np.array_equal(
            one.dataset.field2id_token["item_id"], two.dataset.field2id_token["item_id"]
        )
        difference = all_scores(one.model, n_users) - all_scores(two.model, n_users)
        assert difference.abs().max() > 1e-4

    @pytest.mark.parametrize("modality", ["audio", "text en", "0", "weight", "été"])
    def test_any_name_of_a_modality(self, trained, planted, tmp_path, name, modality):
        folder = tmp_path / "other" / planted.folder.name
        shutil.copytree(planted.folder, folder)
        (folder / "image_feat.npy").rename(folder / f"{modality}_feat.npy")
        prepared = trained(name, folder, epochs=1)
        assert set(prepared.model.modalities) == {modality, "text"}
        before = all_scores(prepared.model, prepared.dataset.user_num)
        model = load_data_and_model(prepared.trainer.saved_model_file)[1]
        assert torch.equal(all_scores(model, prepared.dataset.user_num), before)

    @pytest.mark.parametrize("modality", ["type", "pop", "keys", "training", "v1.5"])
    def test_a_name_that_torch_cannot_take(self, ready, planted, tmp_path, name, modality):
        folder = tmp_path / "other" / planted.folder.name
        shutil.copytree(planted.folder, folder)
        (folder / "image_feat.npy").rename(folder / f"{modality}_feat.npy")
        with pytest.raises(DataError, match=rf"\[{modality}\] cannot be the name"):
            ready(name, folder)
        assert ready(name, folder, modalities=["text"]).model.modalities == ["text"]

    def test_each_modality_alone(self, trained, name):
        for modality in ("image", "text"):
            prepared = trained(name, modalities=[modality], epochs=1)
            assert prepared.model.modalities == [modality]
            assert torch.isfinite(all_scores(prepared.model, prepared.dataset.user_num)).all()

    def test_the_planted_groups_are_found(self, run_planted, planted, name):
        def own_share(model_name, **overrides):
            """Share of each trained user's group among the top 5 that are new to the user."""
            result = run_planted(model_name, **overrides)
            _, model, dataset, *_ = load_data_and_model(result["checkpoint"])
            scores = all_scores(model, dataset.user_num)
            item_ids = torch.tensor(ids(dataset, "item_id", range(planted.n_items)))
            shares = []
            for user in range(planted.n_users - 1):
                row = scores[dataset.token2id("user_id", str(user)) - 1, item_ids]
                row[[i for u, i in planted.parts[0] if u == user]] = -torch.inf
                top = row.topk(5).indices.numpy()
                shares.append((planted.item_group[top] == planted.user_group[user]).mean())
            return np.mean(shares), result["test_result"]["recall@5"]

        popular, popular_recall = own_share("Pop")
        keys = {"epochs": 40, "learning_rate": 0.01, **ON_PLANTED.get(name, {})}
        share, recall = own_share(name, **keys)
        assert popular < 0.4  # four groups: chance is a quarter or less
        # MMGCN goes on learning the one item that each user took of another group.
        assert share > (0.8 if name == "MMGCN" else 0.9)
        assert recall > 5 * popular_recall


@pytest.mark.parametrize("name", [name for name in OURS if name != "SIGRec"])
def test_an_imputed_vector_acts_on_nothing(ready, name):
    """Also where no layer of an item graph, which has no edge for it, comes after it."""
    layers = {"n_layers": 0} if name in ("MGCN", "SMORE", "GUME") else {}
    models = [ready(name, missing_modality=how, **layers) for how in ("zero", "mean")]
    assert not all(mask[1:].all() for mask in models[0].model.mask.values())
    zero, mean = (all_scores(one.model, one.dataset.user_num) for one in models)
    assert torch.equal(zero, mean)


@pytest.mark.parametrize("name", helpers_data.LEARNED)
def test_mixed_precision_trains(ready, name):
    """bfloat16 on the CPU: the losses are those of float32, to its 8 bits, and stay finite."""
    exact, mixed = (ready(name, enable_amp=on, epochs=1) for on in (False, True))
    losses = []
    for one in (exact, mixed):
        torch.manual_seed(1)
        np.random.seed(1)
        loss = one.trainer._train_epoch(one.train, 0)
        losses.append(sum(loss) if isinstance(loss, tuple) else loss)
    # STAIR has sparse products alone, which are float32's in any case.
    assert losses[0] != losses[1] or name == "STAIR"
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert torch.isfinite(all_scores(mixed.model, mixed.dataset.user_num)).all()


@pytest.mark.parametrize("name", helpers_data.LEARNED)
def test_evaluation_is_cached_and_training_is_not(ready, monkeypatch, name):
    prepared = ready(name)
    model, calls = prepared.model, []
    original = model.representations
    monkeypatch.setattr(model, "representations", lambda: calls.append(1) or original())
    n_users = prepared.dataset.user_num
    for _ in range(3):
        all_scores(model, n_users)
    assert len(calls) == 1
    model.train()
    all_scores(model, n_users)
    assert len(calls) == 2
    users = Interaction({"user_id": torch.tensor([1])})
    assert model.full_sort_predict(users).requires_grad  # not from evaluation's cache
    assert len(calls) == 3


RESUMED = LEARNED


@pytest.mark.parametrize("name", RESUMED)
class TestResume:
    def test_two_halves_are_the_whole(self, run_planted, name):
        whole = run_planted(name, epochs=4)
        half = run_planted(name, epochs=2)
        both = run_planted(name, epochs=4, resume=last_file(half["checkpoint"]))
        assert whole["epochs"] == both["epochs"] == 4 and half["epochs"] == 2
        for key in ("best_epoch", "best_valid_result", "test_result"):
            assert both[key] == whole[key]
        one, two = (
            torch.load(last_file(r["checkpoint"]), weights_only=True) for r in (whole, both)
        )
        for key in ("state_dict", "other_parameter", "optimizer", "history", "random", "epoch"):
            assert same(one[key], two[key]), key
        for key in ("cur_step", "best_valid_score", "best_valid_result", "best_epoch"):
            assert one[key] == two[key]
        assert same(one["best"]["state_dict"], two["best"]["state_dict"])
        assert [h["epoch"] for h in two["history"]] == [0, 1, 2, 3]
        best = [torch.load(r["checkpoint"], weights_only=True) for r in (whole, both)]
        assert same(best[0]["state_dict"], best[1]["state_dict"])
        # The halves do differ: the second two epochs have been trained.
        first = torch.load(last_file(half["checkpoint"]), weights_only=True)
        assert not same(first["state_dict"], one["state_dict"])

    def test_a_resumed_run_overwrites_nothing(self, run_planted, tmp_path, name):
        half = run_planted(name, epochs=2)
        before = files(tmp_path / "saved")
        assert len(before) == 2
        both = run_planted(name, epochs=3, resume=last_file(half["checkpoint"]))
        after = files(tmp_path / "saved")
        assert {path: after[path] for path in before} == before
        assert set(after) - set(before) == {
            Path(both["checkpoint"]),
            Path(last_file(both["checkpoint"])),
        }

    def test_a_finished_run_resumed_is_tested_again(self, run_planted, name):
        done = run_planted(name, epochs=2)
        again = run_planted(name, epochs=2, resume=last_file(done["checkpoint"]))
        assert again["test_result"] == done["test_result"]
        assert again["epochs"] == 2 and again["best_epoch"] == done["best_epoch"]
        assert again["best_valid_result"] == done["best_valid_result"]


def test_a_run_that_stopped_early_stays_stopped(run_planted):
    keys = {"epochs": 60, "stopping_step": 0, "learning_rate": 0.05}
    done = run_planted("BPR", **keys)
    assert done["epochs"] < 60
    again = run_planted("BPR", resume=last_file(done["checkpoint"]), **keys)
    for key in ("epochs", "best_epoch", "best_valid_result", "test_result"):
        assert again[key] == done[key]


def test_a_run_that_saves_nothing(planted, make_values, tmp_path):
    values = make_values(planted.folder, item_score_weight=0.0)
    result = run("SIGRec", "planted", config_dict=values, saved=False)
    assert result["checkpoint"] is None and files(tmp_path / "saved") == {}
    saved = run("SIGRec", "planted", config_dict=values)
    assert saved["best_epoch"] == saved["epochs"] - 1  # so the last model is the best one
    assert result["test_result"] == saved["test_result"]


def test_a_best_epoch_before_the_break_stays_the_best(run_planted):
    # A learning rate that ruins the model: the best epoch comes before the last of the first half.
    keys = {"learning_rate": 0.5, "stopping_step": 10, "valid_metric": "NDCG@20"}
    keys |= {"item_score_weight": 0.0}
    whole = run_planted("SIGRec", epochs=8, **keys)
    half = run_planted("SIGRec", epochs=6, **keys)
    assert whole["best_epoch"] == half["best_epoch"] < 5
    both = run_planted("SIGRec", epochs=8, resume=last_file(half["checkpoint"]), **keys)
    assert both["best_epoch"] == whole["best_epoch"]
    assert both["test_result"] == whole["test_result"]
    state = torch.load(both["checkpoint"], weights_only=True)
    assert state["epoch"] == whole["best_epoch"]


def test_the_best_epoch_is_what_is_tested(run_planted):
    keys = {"learning_rate": 0.5, "item_score_weight": 0.0, "valid_metric": "NDCG@20"}
    result = run_planted("SIGRec", epochs=8, **keys)
    assert result["best_epoch"] < 7
    tested = {}
    for file in (result["checkpoint"], last_file(result["checkpoint"])):
        config, model, *_, test = load_data_and_model(file)
        trainer = trainer_class(config["MODEL_TYPE"], config["model"])(config, model)
        tested[file] = dict(trainer.evaluate(test, load_best_model=False))
    best, last = tested.values()
    assert best == result["test_result"] != last


def test_popularity_is_the_count_of_training_pairs(trained, planted):
    prepared = trained("Pop")
    count = np.bincount([i for _, i in planted.parts[0]], minlength=planted.n_items)
    row = all_scores(prepared.model, prepared.dataset.user_num)[0]
    got = row[ids(prepared.dataset, "item_id", range(planted.n_items))]
    np.testing.assert_allclose(got, count / count.max(), atol=1e-6)


def test_cold_items_of_the_own_group_come_first(run_planted, planted):
    result = run_planted("SIGRec", epochs=40, learning_rate=0.01)
    _, model, dataset, *_ = load_data_and_model(result["checkpoint"])
    scores = all_scores(model, dataset.user_num)
    cold = ids(dataset, "item_id", planted.cold_items)  # one per group, in the groups' order
    assert model.interactions[:, cold].nnz == 0
    first, ranks = [], []
    for user in range(planted.n_users - 1):
        row = scores[dataset.token2id("user_id", str(user)) - 1, cold]
        order = row.argsort(descending=True).tolist()
        rank = order.index(int(planted.user_group[user]))
        ranks.append(rank)
        first.append(rank == 0)
    assert np.mean(ranks) < 0.1  # chance: 1.5
    assert np.mean(first) > 0.9  # chance: 0.25


def test_a_run_leaves_the_process_as_it_was(planted, make_values):
    torch.set_flush_denormal(False)
    before = torch.get_num_threads()
    run("BPR", "planted", config_dict=make_values(planted.folder, epochs=1, threads=before + 1))
    assert torch.get_num_threads() == before
    assert float(np.float64(1e-310) * 1.0) > 0.0


def test_a_second_fit_trains(planted, prepare, make_config):
    keys = {"epochs": 60, "stopping_step": 0, "learning_rate": 0.05}
    prepared = prepare(make_config("BPR", planted.folder, **keys))
    prepared.trainer.fit(prepared.train, prepared.valid)
    first = len(prepared.trainer.epoch_seconds)
    assert first < 60
    prepared.trainer.fit(prepared.train, prepared.valid)
    assert len(prepared.trainer.epoch_seconds) > first


@pytest.mark.parametrize(
    "changed", [{"seed": 7}, {"learning_rate": 0.5}, {"learner": "sgd"}, {"cl_weight": 0.5}]
)
def test_a_run_is_resumed_with_its_own_config(run_planted, changed):
    done = run_planted("SIGRec", epochs=1)
    with pytest.raises(ConfigError, match=rf"another config: {next(iter(changed))}"):
        run_planted("SIGRec", epochs=2, resume=last_file(done["checkpoint"]), **changed)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_paused_and_restored(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(KeyError), paused_collection():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_runs_of_one_second_have_files_of_their_own(run_planted):
    files_ = {run_planted("Pop", epochs=1)["checkpoint"] for _ in range(3)}
    assert len(files_) == 3


@pytest.mark.parametrize("mode", ["uni20", "pop20"])
def test_sampled_evaluation(run_planted, mode):
    result = run_planted("SIGRec", epochs=1, eval_args={"mode": mode})
    assert 0 < result["test_result"]["recall@20"] <= 1


@pytest.mark.parametrize("name", ONE_PASS)
def test_a_model_of_one_pass_resumed_is_the_same(run_planted, name):
    done = run_planted(name)
    again = run_planted(name, resume=last_file(done["checkpoint"]))
    assert again["test_result"] == done["test_result"]
    assert again["epochs"] == done["epochs"] == 1
