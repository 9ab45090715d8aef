"""Every fast path against the slow, plain one that it replaces."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_data import LEARNED
from hypothesis import given
from hypothesis import strategies as st
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.model.general_recommender import LightGCN
from recbole.utils.case_study import full_sort_scores, full_sort_topk

import recbole_sigrec.model.batch
from recbole_sigrec import Config
from recbole_sigrec.data import loaders
from recbole_sigrec.data.parts import create_dataset, data_preparation
from recbole_sigrec.graph import SparseGraph
from recbole_sigrec.kernels import products
from recbole_sigrec.kernels.ranking import top_items
from recbole_sigrec.recbole_repairs.models import NormalizedAdjacency
from recbole_sigrec.training.run import build_model
from recbole_sigrec.training.trainer_kinds import trainer_class

# ---- dense products ------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["onednn", "torch"])
def product(request, monkeypatch):
    """matmul_nt with and without oneDNN's operator."""
    if request.param and products._onednn() is None:
        pytest.skip("this build of torch has no oneDNN")
    if not request.param:
        monkeypatch.setattr(products, "_onednn", lambda: None)
    return products.matmul_nt


@pytest.mark.parametrize("shape", [(5, 3, 7), (1, 1, 1), (130, 64, 257), (0, 3, 2), (2, 3, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_product(product, shape, dtype):
    n, k, m = shape
    torch.manual_seed(2)
    left, right = torch.randn(n, k, dtype=dtype), torch.randn(m, k, dtype=dtype)
    bias = torch.randn(m, dtype=dtype)
    expected = left.double().numpy() @ right.double().numpy().T
    tolerance = 2e-5 if dtype == torch.float32 else 1e-12
    for a, b in [
        (left, right),
        (left.T.contiguous().T, right),
        (left, right.T.contiguous().T),
        (left.repeat(1, 2)[:, :k], right.repeat(1, 2)[:, :k]),
    ]:
        found = product(a, b)
        assert found.dtype == dtype
        np.testing.assert_allclose(found.numpy(), expected, atol=tolerance)
    with_bias = product(left, right, bias).numpy()
    np.testing.assert_allclose(with_bias, expected + bias.numpy(), atol=tolerance)


def test_product_adds_minus_infinity(product):
    """The bias −inf of InfoNCE's filling takes a column out of the sum, and makes no NaN."""
    found = product(torch.randn(3, 4), torch.zeros(2, 4), torch.tensor([0.0, -torch.inf]))
    assert torch.equal(found.exp(), torch.tensor([[1.0, 0.0]] * 3))


@pytest.mark.parametrize("shape", [(9, 5), (2, 9, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layer_is_torchs(product, shape, bias):
    torch.manual_seed(3)
    ours = products.Linear(5, 4, bias=bias)
    torch.manual_seed(3)
    plain = torch.nn.Linear(5, 4, bias=bias)
    outputs, gradients = [], []
    x = torch.randn(shape)
    pull = torch.randn(*shape[:-1], 4)
    for layer in (ours, plain):
        rows = x.clone().requires_grad_()
        output = layer(rows)
        (output * pull).sum().backward()
        outputs.append(output.detach())
        gradients.append([rows.grad, *(p.grad for p in layer.parameters())])
    assert list(ours.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(*outputs, atol=1e-6, rtol=1e-6)
    for one, two in zip(*gradients):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_linear_layer_gradient_by_finite_differences():
    layer = products.Linear(5, 4).double()
    assert torch.autograd.gradcheck(layer, torch.randn(3, 5, dtype=torch.float64).requires_grad_())


# ---- a whole step --------------------------------------------------------------------------------


def plain_info_nce(
    anchor, candidates, temperature, weight=None, own=None, anchor_weight=None, **others
):
    """The formula of losses.info_nce in torch's operations, with its n_anchors × M·n matrix."""
    if candidates.dim() == 2:
        candidates = candidates.unsqueeze(0)
    rows = torch.arange(len(anchor))
    own = rows if own is None else own
    weight = torch.ones(candidates.shape[1]) if weight is None else weight.float()
    anchor_weight = weight[own] if anchor_weight is None else anchor_weight.float()
    unit = torch.nn.functional.normalize(anchor, dim=-1)
    others = torch.nn.functional.normalize(candidates, dim=-1)
    s = torch.einsum("ad,mjd->amj", unit, others) / temperature
    terms = (s + weight.log()).logsumexp(dim=(1, 2)) - s[rows, :, own].logsumexp(dim=1)
    return (anchor_weight * terms).sum() / anchor_weight.sum()


class PlainGraph:
    """What SparseGraph does, by torch's COO product."""

    @staticmethod
    def matmul(self, dense, transposed=False):
        name = "forward" if self.symmetric or not transposed else "backward"
        crow, col, val = (getattr(self, f"{name}_{part}") for part in ("crow", "col", "val"))
        row = torch.repeat_interleave(torch.arange(len(crow) - 1), crow.diff().long())
        index = torch.stack([row, col.long()])
        shape = (len(crow) - 1, len(dense))
        matrix = torch.sparse_coo_tensor(index, val.to(dense.dtype), shape)
        return torch.sparse.mm(matrix, dense)


def loss_curve(config, model_class=None, steps=20, dtype=torch.float32):
    """The loss of each of the first training steps, [steps]; the same numbers are drawn."""
    data = create_dataset(config)
    train, *_ = data_preparation(config, data)
    if model_class is not None:
        config.model_class = model_class
    model = build_model(config, train).to(dtype)
    optimizer = trainer_class(config["MODEL_TYPE"], config["model"])(config, model).optimizer
    model.train()
    losses = []
    while len(losses) < steps:
        getattr(model, "on_epoch_start", int)(100)
        for interaction in train:
            optimizer.zero_grad()
            terms = model.calculate_loss(interaction)
            loss = sum(terms) if isinstance(terms, tuple) else terms
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    return np.array(losses)


def compare_curves(config, monkeypatch, dtype=torch.float32):
    """Loss curves of the fast and of the plain path, where the latter shares no fast kernel."""
    name = config["model"]
    fast = loss_curve(copy.deepcopy(config), dtype=dtype)
    calls = []
    with monkeypatch.context() as patch:
        plain_class = None
        if name == "LightGCN":
            plain_class = type(name, (NormalizedAdjacency, LightGCN), {})
        patch.setattr(products, "_onednn", lambda: calls.append("gemm"))
        patch.setattr(SparseGraph, "matmul", PlainGraph.matmul)
        patch.setattr(recbole_sigrec.model.batch, "info_nce", plain_info_nce)
        plain = loss_curve(config, plain_class, dtype=dtype)
    sparse_alone = name in ("LightGCN", "STAIR")  # they train without a dense product
    assert sparse_alone or calls or dtype != torch.float32  # oneDNN is for float32 alone
    assert len(set(fast)) == len(fast)
    np.testing.assert_allclose(fast, plain, rtol=1e-4)


@pytest.mark.parametrize("name", [*LEARNED, "LightGCN"])
def test_loss_curve_is_that_of_the_plain_path(planted, make_config, monkeypatch, name):
    compare_curves(make_config(name, planted.folder), monkeypatch)


@pytest.mark.parametrize("name", [*LEARNED, "LightGCN"])
def test_loss_curve_on_real_data(make_config, monkeypatch, name):
    """Set RECBOLE_SIGREC_DATA to the folder that holds tiktok/."""
    folder = Path(os.environ.get("RECBOLE_SIGREC_DATA", "")) / "tiktok"
    if "RECBOLE_SIGREC_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("RECBOLE_SIGREC_DATA names no folder with this data set")
    values = {"data_path": str(folder.parent), "state": "ERROR", "use_gpu": False}
    # LGMRec: softmax of features of norm 30 over τ = .2, which amplifies the rounding of float32.
    dtype = torch.float64 if name == "LGMRec" else torch.float32
    compare_curves(Config(name, "tiktok", config_dict=values), monkeypatch, dtype)


# ---- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("size", [1, 100, 128, 10_000])
def test_batches_are_recboles(planted, prepare, make_config, monkeypatch, shuffle, size):
    """Two epochs of our loader and of RecBole's, from the same seed: the same batches."""
    epochs = []
    for loader in ("ours", "recbole"):
        config = make_config("BPR", planted.folder, train_batch_size=size, shuffle=shuffle)
        if loader == "recbole":
            monkeypatch.setattr(loaders.TrainLoader, "collate_fn", TrainDataLoader.collate_fn)
        train = prepare(config).train
        assert type(train) is not TrainDataLoader
        np.random.seed(5)
        one, two = (
            list(train if loader == "ours" else TrainDataLoader.__iter__(train)) for _ in range(2)
        )
        assert len(one) == len(two) == len(train)
        epochs.append(one + two)
    for ours, theirs in zip(*epochs, strict=True):
        assert ours.interaction.keys() == theirs.interaction.keys()
        for field in ours.interaction:
            assert torch.equal(ours[field], theirs[field])


@pytest.mark.parametrize("memory", [1, 32])
@pytest.mark.parametrize("phase", ["valid", "test"])
def test_evaluation_batches_are_recboles(planted, prepare, make_config, phase, memory):
    """Users, their history and positives, batch by batch, as RecBole's loader gives them."""
    size = 7 * 57 if memory == 1 else None  # 7 users in a batch, or all
    prepared = prepare(make_config("BPR", planted.folder, eval_batch_size=size))
    ours = getattr(prepared, phase)
    theirs = FullSortEvalDataLoader(prepared.config, ours._dataset, ours._sampler)
    assert type(ours) is not type(theirs)
    assert torch.equal(ours.uid_list, theirs.uid_list)
    assert np.array_equal(ours.uid2items_num, theirs.uid2items_num)
    batches = list(zip(ours, theirs, strict=True))
    assert len(batches) == len(ours) == (1 if size is None else -(-len(theirs.uid_list) // 7))
    for (users, history, *positive), (users_, history_, *positive_) in batches:
        assert torch.equal(users["user_id"], users_["user_id"])
        for one, two in ((history, history_), (positive, positive_)):
            pairs = [set(zip(row.tolist(), item.tolist())) for row, item in (one, two)]
            assert pairs[0] == pairs[1] and len(one[0]) == len(two[0])
            assert one[0].dtype == one[1].dtype == torch.int64


@pytest.mark.parametrize("phase", ["train", "valid", "test"])
def test_the_length_of_a_loader_follows_its_batch_size(planted, prepare, make_config, phase):
    prepared = prepare(make_config("BPR", planted.folder))
    loader = getattr(prepared, phase)
    loader.update_config(
        make_config("BPR", planted.folder, train_batch_size=50, eval_batch_size=7 * 57)
    )
    assert len(loader) == len(list(loader)) > 4


def test_recboles_case_study(planted, prepare, make_config):
    """RecBole's way to recommend with a loader: the user's history is left out."""
    prepared = prepare(make_config("BPR", planted.folder))
    test = prepared.test
    users = test.uid_list.numpy()[:3]
    scores = full_sort_scores(users, prepared.model, test, device="cpu")
    for row, user in zip(scores, users):
        history = test._sampler.used_ids[user] - set(test.uid2positive_item[user].tolist())
        assert set(torch.isinf(row).nonzero().flatten().tolist()) == {0, *history}
    _, items = full_sort_topk(users, prepared.model, test, k=5, device="cpu")
    assert torch.equal(items, torch.topk(scores, 5).indices)


# ---- ranking -------------------------------------------------------------------------------------


@given(
    n_rows=st.integers(1, 4),
    n_items=st.integers(1, 400),
    k=st.integers(1, 30),
    kind=st.sampled_from(["distinct", "ties", "masked"]),
    seed=st.integers(0, 2**31),
)
def test_top_items_are_topks(n_rows, n_items, k, kind, seed):
    rng = np.random.default_rng(seed)
    k = min(k, n_items)
    if kind == "ties":
        scores = rng.integers(0, 5, (n_rows, n_items)).astype(np.float32)
    else:
        scores = np.stack([rng.permutation(n_items) for _ in range(n_rows)]).astype(np.float32)
    if kind == "masked":
        scores[rng.random(scores.shape) < 0.7] = -np.inf
    scores = torch.from_numpy(scores)
    assert torch.equal(top_items(scores, k), torch.topk(scores, k, dim=1).indices)


def test_only_rows_with_ties_are_sorted_again(monkeypatch):
    """The fast path is taken: of 50 rows, torch.topk sees the one with two equal scores."""
    seen = []
    topk = torch.topk
    monkeypatch.setattr(torch, "topk", lambda *a, **k: seen.append(len(a[0])) or topk(*a, **k))
    scores = torch.stack([torch.randperm(1000) for _ in range(50)]).float()
    scores[7, 3] = scores[7].max()
    expected = topk(scores, 20, dim=1).indices
    assert torch.equal(top_items(scores, 20), expected)
    assert seen == [1]


def test_product_keeps_the_gradient():
    users, items = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    products.matmul_nt(users, items).sum().backward()
    torch.testing.assert_close(users.grad, items.sum(dim=0).expand(3, 4))
