"""With every model a resumed run ends bit-equal to one that never stopped, or it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_recbole import N_ITEMS, RATED, SHARED, negatives, write_rated
from recbole.model.general_recommender import BPR

from recbole_sigrec import run
from recbole_sigrec.config.registry import known_models, resolve_model
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.model_names import MODELS, REFUSED

SETTINGS: dict[str, dict] = {
    "ConvNCF": {"cnn_channels": [1, 2, 2], "cnn_kernels": [2, 2], "cnn_strides": [2, 2]},
    "DGCF": {"n_factors": 2},
    "DiffRec": {"history_num_per_term": 2},
    "LDiffRec": {"history_num_per_term": 2},
    "MacridVAE": {"total_anneal_steps": 8},
    "MultiVAE": {"total_anneal_steps": 8},
    "NCL": {"num_clusters": 4},
    "NNCF": {"num_conv_kernel": 4, "mlp_hidden_size": [8]},
}
"""Values with which a model's state changes within four epochs, or that make it small."""

VARIANTS = {
    "BPR with dynamic negatives": ("BPR", negatives(dynamic=True, candidate_num=2)),
    "BPR with popular negatives": ("BPR", negatives(distribution="popularity")),
    "BPR validated each second epoch": ("BPR", {"eval_step": 2}),
    "BPR with a schedule": ("BPR", {"learning_rate_scheduler": [0.5, 1]}),
    "BPR by time": ("BPR", {**RATED, "eval_args": {"order": "TO", "split": {"RS": [8, 1, 1]}}}),
    "BPR sampled": ("BPR", {"eval_args": {"mode": "uni10"}}),
    "DiffRec with sampled noise": ("DiffRec", {"sampling_noise": True, "sampling_steps": 2}),
    "LINE of the first order": ("LINE", {"order": 1}),
    "SGL by nodes": ("SGL", {"type": "ND"}),
    "SIGRec with train negatives": ("SIGRec", {"negative_items": "train"}),
}

NOT_RESUMED = {
    "RecVAE": ({}, "two optimizers"),
    "NCL": ({"num_clusters": 4, "m_step": 2}, "clusters, made anew each m_step epochs"),
}


def general(name: str) -> bool:
    try:
        return resolve_model(name).type.name in ("GENERAL", "TRADITIONAL")
    except ConfigError:  # it needs a package that is not there
        return False


NAMES = [name for name in known_models() if name not in REFUSED and general(name)]


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """The rated data set, with two modalities."""
    folder = write_rated(tmp_path_factory.mktemp("data"))
    rng = np.random.default_rng(0)
    for name, width in (("image", 6), ("text", 5)):
        np.save(folder / f"{name}_feat.npy", rng.normal(size=(N_ITEMS, width)).astype(np.float32))
        (folder / f"{name}_ids.txt").write_text("".join(f"i{i}\n" for i in range(N_ITEMS)))
    return folder


def train(rated, model, **values):
    shared = {**SHARED, "data_path": str(rated.parent), "train_batch_size": 128, "knn_k": 4}
    return run(model, rated.name, config_dict={**shared, "learning_rate": 0.01, **values})


def last_state(folder: str) -> dict:
    (file,) = Path(folder).glob("*.last.pth")
    return torch.load(file, weights_only=True)


def equal(one, two) -> bool:
    """Whether two values of a checkpoint are the same to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


SAME = {
    *("state_dict", "other_parameter", "optimizer", "training_state", "random"),
    *("cur_step", "best_valid_score", "best_valid_result", "best_epoch", "history"),
}
"""What two checkpoints of the same training agree in; the rest are names, times and the config."""


def assert_resumed_is_whole(rated, model, **values):
    whole = train(rated, model, **values, epochs=4, checkpoint_dir="whole")
    train(rated, model, **values, epochs=2, checkpoint_dir="half")
    (half,) = Path("half").glob("*.last.pth")
    kept = half.read_bytes()
    resumed = train(
        rated, model, **values, epochs=4, checkpoint_dir="resumed", resume=str(half.resolve())
    )
    for key in ("test_result", "best_valid_result", "best_epoch", "epochs"):
        assert resumed[key] == whole[key], key
    best = [torch.load(found["checkpoint"], weights_only=True) for found in (whole, resumed)]
    for key in ("state_dict", "other_parameter"):
        assert equal(best[0][key], best[1][key]), key
    assert half.read_bytes() == kept
    if whole["epochs"] == 1:  # it is fitted at once: the rest was nothing
        return
    assert whole["epochs"] == 4
    states = [last_state(folder) for folder in ("whole", "resumed")]
    assert [key for key in SAME if not equal(states[0][key], states[1][key])] == []
    earlier = torch.load(half, weights_only=True)["state_dict"]
    assert model == "NCEPLRec" or not equal(states[0]["state_dict"], earlier)  # it is a closed form


@pytest.mark.parametrize("model", NAMES)
def test_every_models_resume_is_exact_or_refused(rated, model):
    if model == "NCL":
        pytest.importorskip("faiss")
    if model == "RecVAE":
        pytest.skip("refused, below")
    assert_resumed_is_whole(rated, model, **SETTINGS.get(model, {}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_so_is_that_of_other_settings(rated, variant):
    model, values = VARIANTS[variant]
    assert_resumed_is_whole(rated, model, **values)


@pytest.mark.parametrize("model", NOT_RESUMED)
def test_what_cannot_be_resumed_exactly_is_refused(rated, model):
    if model == "NCL":
        pytest.importorskip("faiss")
    values, reason = NOT_RESUMED[model]
    found = train(rated, model, **values)
    with pytest.raises(ConfigError, match=rf"{model} cannot be resumed: .*{reason}"):
        train(rated, model, **values, epochs=4, resume=found["checkpoint"])
    assert not list(Path("saved").glob("*.last.pth"))


class Counting(BPR):
    """A model of a user's with a state of its own: the loss falls with the steps made."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.steps, self.drawn = 0, np.arange(4)
        self.other_parameter_name = ["steps", "drawn"]

    def calculate_loss(self, interaction):
        self.steps += 1
        np.random.shuffle(self.drawn)
        return super().calculate_loss(interaction) / (self.steps + self.drawn[0])


def test_a_users_model_keeps_what_it_names(rated):
    assert_resumed_is_whole(rated, Counting)


def test_the_list_of_models_is_whole():
    assert set(MODELS) < set(NAMES)
    assert {"LINE", "SGL", "NCL", "DiffRec", "BPR", "ItemKNN"} < set(NAMES)
