"""Every general model of RecBole, with the settings that RecBole's own tests give it."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import recbole.model.general_recommender as general
import torch
from helpers_recbole import N_ITEMS, NO_NEGATIVES, RATED, SHARED, negatives, write_rated

from recbole_sigrec import load_data_and_model, run
from recbole_sigrec.config.registry import known_models, resolve_model
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.model_names import REFUSED
from recbole_sigrec.training.run import build_model
from recbole_sigrec.training.trainer_kinds import trainer_class

SMALL_CONVOLUTION = {"cnn_channels": [1, 2, 2], "cnn_kernels": [2, 2], "cnn_strides": [2, 2]}
NEIGHBOURS = {"neigh_num": 10, "num_conv_kernel": 8, "neigh_embedding_size": 4}
SEVERAL = negatives(sample_num=5)
TWO_FACTORS = {"n_factors": 2}

CASES: dict[str, dict[str, dict]] = {
    "ADMMSLIM": {
        **{
            "default": {},
            "no negatives": NO_NEGATIVES,
            "columns centred": {"center_columns": True},
        },
        "signed": {"positive_only": False},
    },
    "AsymKNN": {
        **{"default": {}, "no negatives": NO_NEGATIVES, "users": {"knn_method": "user"}},
        "asymmetric": {"alpha": 0.2, "q": 2, "beta": 0.5, "k": 5},
    },
    "BPR": {
        **{"default": {}, "dynamic": negatives(dynamic=True, candidate_num=2)},
        "popular negatives": negatives(distribution="popularity", sample_num=2, alpha=0.5),
    },
    "CDAE": {
        **{"default": {}, "no negatives": NO_NEGATIVES},
        "sigmoid": {"loss_type": "MSE", "hid_activation": "sigmoid", "out_activation": "sigmoid"},
        "tanh": {"loss_type": "MSE", "hid_activation": "tanh", "out_activation": "relu"},
    },
    "ConvNCF": {"default": {"embedding_size": 64}, "small": SMALL_CONVOLUTION},
    "DGCF": {"default": {}, "two factors": TWO_FACTORS, "one factor": {"n_factors": 1}},
    "DMF": {"default": {}, "ratings": {"inter_matrix_type": "rating", **RATED}},
    "DiffRec": {
        **{"default": {}, "no negatives": NO_NEGATIVES, "noise": {"mean_type": "eps"}},
        **{name: {"noise_schedule": name} for name in ("linear-var", "cosine", "binomial")},
        "sampled noise": {"sampling_steps": 2, "sampling_noise": True, "reweight": False},
        "by time": {"time-aware": True, **RATED},
    },
    "EASE": {"default": {}, "no negatives": NO_NEGATIVES},
    "ENMF": {"default": {}, "no negatives": NO_NEGATIVES},
    "FISM": {"default": {}, "in pieces": {"split_to": 5, "alpha": 0.5}},
    "ItemKNN": {"default": {}, "no negatives": NO_NEGATIVES, "users": {"knn_method": "user"}},
    "LDiffRec": {
        **{"default": {}, "no negatives": NO_NEGATIVES, "noise": {"mean_type": "eps"}},
        **{"plain": {"reparam": False}, "by time": {"time-aware": True, **RATED}},
    },
    "LINE": {"default": {}, "first order": {"order": 1}},
    "LightGCN": {"default": {}, "with power": {"require_pow": True}},
    "MacridVAE": {
        **{"default": {}, "no negatives": NO_NEGATIVES, "no sampling": {"nogb": True}},
        "regularised": {"reg_weights": [0.1, 0.1]},
    },
    "MultiDAE": {"default": {}, "no negatives": NO_NEGATIVES},
    "MultiVAE": {"default": {}, "no negatives": NO_NEGATIVES},
    "NAIS": {
        **{"default": {}, "concat": {"algorithm": "concat"}, "in pieces": {"split_to": 5}},
        "concat in pieces": {"algorithm": "concat", "split_to": 5},
    },
    "NCEPLRec": {"default": {}, "no negatives": NO_NEGATIVES},
    "NCL": {
        "four clusters": {"num_clusters": 4},
        "two layers": {"num_clusters": 31, "hyper_layers": 2, "m_step": 2},
    },
    "NGCF": {"default": {}},
    "NNCF": {
        **{"default": {}, "random": {**NEIGHBOURS, "neigh_info_method": "random"}},
        "neighbours": {**NEIGHBOURS, "neigh_info_method": "knn"},
    },
    "NeuMF": {
        **{"default": {}, "MLP alone": {"mf_train": False}, "MF alone": {"mlp_train": False}},
        "labels of ratings": {**NO_NEGATIVES, **RATED, "threshold": {"rating": 3}},
        "dynamic": negatives(dynamic=True, candidate_num=2),
    },
    "Pop": {"default": {}, "no negatives": NO_NEGATIVES},
    "Random": {"default": {}, "no negatives": NO_NEGATIVES},
    "RecVAE": {"default": {}, "no negatives": NO_NEGATIVES, "one pass": {"n_enc_epochs": 1}},
    "SGL": {kind: {"type": kind} for kind in ("ED", "ND", "RW")},
    "SLIMElastic": {
        **{"default": {}, "no negatives": NO_NEGATIVES},
        "signed": {"positive_only": False, "hide_item": False},
    },
    "SimpleX": {
        name: {"aggregator": name, **SEVERAL}
        for name in ("mean", "user_attention", "self_attention")
    },
}
"""Model → name of the case → its values."""

SUMMED = {"ADMMSLIM", "AsymKNN", "EASE", "ItemKNN", "NCEPLRec", "Pop", "Random", "SLIMElastic"}
"""Models without gradient descent. Those of type TRADITIONAL among them have one epoch."""


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    return write_rated(tmp_path_factory.mktemp("data"))


def train(rated, model, **values):
    config_dict = {**SHARED, "data_path": str(rated.parent), **values}
    return run(model, rated.name, config_dict=config_dict)


def test_every_general_model_has_a_case():
    theirs = {name for name, _ in inspect.getmembers(general, inspect.isclass)}
    named = theirs & set(known_models())
    assert named == CASES.keys() | REFUSED.keys() & theirs
    assert REFUSED.keys() & theirs == {"SpectralCF", "GCMC", "RaCT"}


@pytest.mark.parametrize(
    ("model", "case"), [(model, case) for model, cases in CASES.items() for case in cases]
)
def test_it_trains_alike_each_time_and_is_read_back(rated, model, case):
    if model == "NCL":
        pytest.importorskip("faiss")
    values = CASES[model][case]
    result = train(rated, model, **values)
    assert result["split"] == {"train": 320, "valid": 40, "test": 40}
    metrics = ("recall", "mrr", "ndcg", "hit", "precision", "map")
    keys = {f"{metric}@{k}" for metric in metrics for k in (5, 10)}
    for found in (result["best_valid_result"], result["test_result"]):
        assert found.keys() == keys
        assert all(0 <= value <= 1 for value in found.values())
        assert found["hit@10"] == found["recall@10"] > 0  # a user has one item here
        assert found["precision@5"] == pytest.approx(found["recall@5"] / 5, abs=1e-6)
    one_epoch = resolve_model(model).type.name == "TRADITIONAL"
    assert result["epochs"] == (1 if one_epoch else SHARED["epochs"])

    again = train(rated, model, **values)
    assert again["test_result"] == result["test_result"]
    assert again["best_valid_result"] == result["best_valid_result"]

    config, net, _, train_data, _, test_data = load_data_and_model(result["checkpoint"])
    trainer = trainer_class(config["MODEL_TYPE"], model)(config, net)
    assert trainer.evaluate(test_data, load_best_model=False) == result["test_result"]
    if model not in SUMMED:
        trained, new = dict(net.named_parameters()), build_model(config, train_data)
        assert all(torch.isfinite(value).all() for value in trained.values())
        assert any(not torch.equal(trained[key], start) for key, start in new.named_parameters())


def test_a_seed_of_its_own_gives_another_model(rated):
    losses = [train(rated, "BPR", seed=seed, split_seed=1)["test_result"] for seed in (1, 2)]
    assert losses[0] != losses[1]


# ---- what they need ------------------------------------------------------------------------------

PAIRWISE = ["BPR", "ConvNCF", "DGCF", "LINE", "LightGCN", "NCL", "NGCF", "SGL", "SimpleX"]
POINTWISE = ["DMF", "FISM", "NAIS", "NNCF", "NeuMF"]


@pytest.mark.parametrize("model", PAIRWISE)
def test_pairwise_models_need_negatives(rated, model):
    with pytest.raises(ConfigError, match=rf"\[train_neg_sample_args\].*{model} learns from neg"):
        train(rated, model, **NO_NEGATIVES)


@pytest.mark.parametrize("model", POINTWISE)
def test_pointwise_models_need_negatives_or_labels(rated, model):
    with pytest.raises(
        ConfigError, match=rf"\[train_neg_sample_args\].*{model} .*no field \[label"
    ):
        train(rated, model, **NO_NEGATIVES)
    assert not list(Path.cwd().rglob("*.pth"))
    labelled = {**NO_NEGATIVES, **RATED, "threshold": {"rating": 3}}
    assert train(rated, model, epochs=1, **labelled)["test_result"]["recall@10"] > 0


def test_no_case_is_left_out():
    learned = CASES.keys() - SUMMED
    free = {m for m in learned if any(v == NO_NEGATIVES for v in CASES[m].values())}
    assert learned == free | {*PAIRWISE, *POINTWISE}


MISTAKES = [
    ("NCL", {}, r"\[num_clusters\] = \[1000\].* 40 users and 30 items .* at most 31"),
    ("NCL", {"num_clusters": 32}, r"\[num_clusters\] = \[32\]"),
    ("DGCF", {"n_factors": 3}, r"\[DGCF\].*self.embedding_size % self.n_factors == 0"),
    ("DMF", {"inter_matrix_type": "x"}, r"\[DMF\].*\['01', 'rating'\] but get x"),
    ("DMF", {"inter_matrix_type": "rating"}, r"\[DMF\].*\[rating\] should be one of"),
    ("LDiffRec", {"n_cate": 2}, r"\[LDiffRec\].*item_emb.npy"),
    ("NNCF", {"neigh_info_method": "louvain"}, r"\[NNCF\].*No module named"),
    ("NeuMF", {"mf_train": False, "mlp_train": False}, r"\[mf_train\] and \[mlp_train\]"),
    ("Pop", negatives(dynamic=True, candidate_num=2), r"\[train_neg_sample_args\].*dynamic.*Pop"),
    ("NeuMF", {"use_pretrain": True, "mf_pretrain_path": "gone.pth"}, r"\[NeuMF\].*gone.pth"),
]


@pytest.mark.parametrize(("model", "values", "message"), MISTAKES)
def test_a_model_that_cannot_be_made_is_a_config_error(rated, model, values, message):
    if model == "NCL":
        pytest.importorskip("faiss")
    with pytest.raises(ConfigError, match=message):
        train(rated, model, **values)


def test_the_errors_of_a_users_own_class_are_its_own(rated):
    class Mine(general.BPR):
        def __init__(self, config, dataset):
            raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match=r"^my own$"):
        train(rated, Mine)


# ---- pretrained parts ----------------------------------------------------------------------------


def test_neumf_starts_from_its_pretrained_parts(rated):
    parts = {
        key: train(rated, "NeuMF", **{off: False})["checkpoint"]
        for key, off in (("mf_pretrain_path", "mlp_train"), ("mlp_pretrain_path", "mf_train"))
    }
    result = train(rated, "NeuMF", use_pretrain=True, epochs=1, learning_rate=1e-12, **parts)
    whole, mf = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (result["checkpoint"], parts["mf_pretrain_path"])
    )
    name = "user_mf_embedding.weight"
    torch.testing.assert_close(whole[name], mf[name], atol=1e-9, rtol=0)


def test_convncf_starts_from_a_trained_bpr(rated):
    bpr = train(rated, "BPR")["checkpoint"]
    values = {"train_method": "after_pretrain", "pre_model_path": bpr, "learning_rate": 1e-12}
    result = train(rated, "ConvNCF", epochs=1, **SMALL_CONVOLUTION, **values)
    found, start = (
        torch.load(path, weights_only=True)["state_dict"] for path in (result["checkpoint"], bpr)
    )
    name = "item_embedding.weight"
    torch.testing.assert_close(found[name], start[name], atol=1e-9, rtol=0)


# ---- closed forms --------------------------------------------------------------------------------


def scores_of(result):
    """A checkpoint's scores [n_users, n_items] and the dense training matrix."""
    _, net, _, train_data, *_ = load_data_and_model(result["checkpoint"])
    with torch.no_grad():
        scores = net.full_sort_predict({"user_id": torch.arange(net.n_users)})
    pairs = np.zeros((net.n_users, net.n_items))
    feat = train_data.dataset.inter_feat
    pairs[feat["user_id"].numpy(), feat["item_id"].numpy()] = 1
    return np.asarray(scores).reshape(pairs.shape), pairs


def test_ease_is_its_closed_form(rated):
    """Steck, arXiv 1905.03375, Eq. 8: B = I − P diag(P)⁻¹ with P = (XᵀX + λI)⁻¹."""
    scores, x = scores_of(train(rated, "EASE", reg_weight=2.0))
    p = np.linalg.inv(x.T @ x + 2.0 * np.eye(x.shape[1]))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    np.testing.assert_allclose(scores, x @ b, atol=1e-4)


def test_pop_counts_training_pairs(rated):
    scores, x = scores_of(train(rated, "Pop"))
    np.testing.assert_allclose(scores, np.tile(x.sum(axis=0) / x.sum(axis=0).max(), (len(x), 1)))


def test_itemknn_sums_cosines(rated):
    scores, x = scores_of(train(rated, "ItemKNN", k=N_ITEMS + 1))
    size = np.sqrt(x.sum(axis=0))
    cosine = x.T @ x / (size[:, None] * size[None, :] + 1e-6)
    np.fill_diagonal(cosine, 0)
    np.testing.assert_allclose(scores, x @ cosine, atol=1e-4)
