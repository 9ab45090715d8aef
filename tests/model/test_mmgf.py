"""MMGF against dense NumPy in double precision; gaps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction


@pytest.fixture
def build(planted, make_config, prepare, with_audio):
    """``build(**overrides)`` → the model, on three modalities, some of whose texts are missing."""
    text = planted.features["text"].copy()
    text[::4] = 0.0
    np.save(with_audio / "text_feat.npy", text)

    def make(**overrides):
        return prepare(make_config("MMGF", with_audio, **overrides)).model

    return make


ALPHA = {"audio": 0.5, "image": 0.3, "text": 0.2}


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"user_exponent": 0.5, "power": 1.0, "knn_k": 3, "modality_weights": ALPHA},
        {"user_exponent": 1.0, "power": 2.0, "content_weight": 2.0, "center": False},
        {"content_weight": 0.0},
    ],
)
def test_scores(build, keys):
    model = build(**keys)
    own, n = model.keys, model.n_items
    r = model.interactions.toarray().astype(np.float64)
    scaled = np.zeros_like(r)
    for u, i in zip(*r.nonzero()):
        users, items = r[:, i].sum(), r[u].sum()
        scaled[u, i] = items**-own.user_exponent * users ** (own.user_exponent - 1)
    whole = mean_column_one((scaled.T @ scaled) ** own.power)
    for name in model.modalities:
        x, has = model.features[name].double().numpy(), model.mask[name].numpy()
        x = x - x[has].mean(axis=0) * own.center
        near = np.zeros((n, n))
        for i in has.nonzero()[0]:
            cosine = x @ x[i] / np.maximum(np.linalg.norm(x, axis=1), 1e-30) / np.linalg.norm(x[i])
            cosine = np.where(has & (np.arange(n) != i), cosine, -np.inf)
            best = np.argsort(-cosine)[: own.knn_k]
            near[i, best] = np.maximum(cosine[best], 0)
        weight = (own.modality_weights or dict.fromkeys(model.modalities, 1 / 3))[name]
        whole += own.content_weight * weight * mean_column_one(near)
    users = Interaction({"user_id": torch.arange(model.n_users)})
    found = model.full_sort_predict(users).view(model.n_users, -1).numpy()
    np.testing.assert_allclose(found, r @ whole, atol=1e-5 * (r @ whole).max(), rtol=0)
    assert not found[:, 0].any()


def mean_column_one(matrix):
    return matrix / matrix.sum(axis=0).mean()
