"""What the slow NumPy rewritings of the models share: dense graphs, layers, losses, batches."""

from __future__ import annotations

import numpy as np
import torch


def array(tensor) -> np.ndarray:
    """A tensor in float64."""
    return tensor.detach().numpy().astype(np.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def affine(layer, x):
    """A linear layer."""
    y = x @ array(layer.weight).T
    return y if layer.bias is None else y + array(layer.bias)


def inverse(degrees, exponent):
    return np.array([d**-exponent if d > 0 else 0.0 for d in degrees])


def symmetric(a):
    """D_r^{-1/2} A D_c^{-1/2}."""
    rows, columns = inverse(a.sum(axis=1), 0.5), inverse(a.sum(axis=0), 0.5)
    return rows[:, None] * a * columns[None, :]


def by_row_sums(a):
    """D^{-1/2} A D^{-1/2} with D the row sums."""
    scale = inverse(a.sum(axis=1), 0.5)
    return scale[:, None] * a * scale[None, :]


def training_matrix(dataset) -> np.ndarray:
    """R [n_users, n_items] of a data set's interactions."""
    r = np.zeros((dataset.user_num, dataset.item_num))
    r[dataset.inter_feat["user_id"].numpy(), dataset.inter_feat["item_id"].numpy()] = 1.0
    return r


def bipartite(r):
    """[[0, R], [Rᵀ, 0]], symmetrically normalised."""
    n_users, n_items = r.shape
    full = np.block([[np.zeros((n_users, n_users)), r], [r.T, np.zeros((n_items, n_items))]])
    return symmetric(full)


def lightgcn(r, ego, n_layers):
    """The mean over layers."""
    graph, layers = bipartite(r), [ego]
    for _ in range(n_layers):
        layers.append(graph @ layers[-1])
    return np.mean(layers, axis=0)


def best(similarity, k, allowed):
    """The k best allowed columns of each row, ties to the smaller column."""
    chosen = np.zeros_like(similarity, dtype=bool)
    for row in range(len(similarity)):
        columns = np.flatnonzero(allowed[row])
        order = columns[np.lexsort((columns, -similarity[row, columns]))]
        chosen[row, order[:k]] = True
    return chosen


def knn(x, mask, keys):
    """The k-NN graph of one modality by ``knn_k, knn_self, knn_weight, knn_symmetric``."""
    x = x.astype(np.float64)
    norms = np.linalg.norm(x, axis=1)
    unit = x / np.where(norms > 0, norms, 1)[:, None]
    similarity = unit @ unit.T
    allowed = mask[:, None] & mask[None, :]
    if not keys.knn_self:
        np.fill_diagonal(allowed, False)
    chosen = best(similarity, keys.knn_k, allowed)
    if keys.knn_weight == "cosine":
        graph = np.where(chosen & (similarity > 0), similarity, 0.0)
    else:
        graph = chosen.astype(np.float64)
    return np.maximum(graph, graph.T) if keys.knn_symmetric else graph


def info_nce(anchor, candidates, temperature):
    """Over the literal batch, repetitions and all: anchor [A, d], candidates [M, B, d]."""

    def unit(x):
        norms = np.linalg.norm(x, axis=-1, keepdims=True)
        return x / np.maximum(norms, 1e-12)

    s = np.einsum("ad,mjd->amj", unit(anchor), unit(candidates)) / temperature
    total = 0.0
    for a in range(len(anchor)):
        total -= np.log(np.exp(s[a, :, a]).sum() / np.exp(s[a]).sum())
    return total / len(anchor)


def bpr(u, i, j):
    return np.mean([-np.log(sigmoid(x @ y - x @ z)) for x, y, z in zip(u, i, j)])


def l2(u, i, j):
    return 0.5 * sum((x**2).sum() for x in (u, i, j)) / len(u)


def side_losses(behavior, side, n_users, batch, keys):
    """The terms of MGCN and its followers from b and s of all nodes: (L_BPR, L_cl, L_2)."""
    users, positives, negatives = ids(batch)
    e = behavior + side
    triple = e[users], e[positives + n_users], e[negatives + n_users]
    cl = sum(
        info_nce(side[part], behavior[part][None], keys.temperature)
        for part in (users, positives + n_users)
    )
    return bpr(*triple), keys.cl_weight * cl, keys.reg_weight * l2(*triple)


def ids(batch):
    """Users, positives and negatives of a batch."""
    return [batch[key].numpy() for key in ("user_id", "item_id", "neg_item_id")]


def batch_with_repetitions(n=48, seed=0):
    """Few users, few items: both occur several times, in all three roles."""
    generator = torch.Generator().manual_seed(seed)
    batch = {
        "user_id": torch.randint(1, 12, (n,), generator=generator),
        "item_id": torch.randint(1, 15, (n,), generator=generator),
        "neg_item_id": torch.randint(5, 25, (n,), generator=generator),
    }
    assert len(batch["user_id"].unique()) < n
    return batch


def dense(graph):
    """A SparseGraph as a NumPy matrix, through its own product."""
    return graph(torch.eye(graph.shape[1])).numpy()


def losses(model, batch, seed=3):
    """The terms of the loss, detached, with the noise of a seed: [n_terms]."""
    torch.manual_seed(seed)
    return torch.stack([term.detach() for term in model.calculate_loss(batch)])


def enlarged(prepared, factor=3.0):
    """Tables of embeddings made large enough for their effects to be seen."""
    with torch.no_grad():
        for name, parameter in prepared.model.named_parameters():
            if name.endswith("embedding.weight"):
                parameter.mul_(factor)
    return prepared


def check_gradients(model, raw: bool | None = None):
    """The loss moves every parameter; ``raw``: whether the raw features are among them."""
    sum(model.calculate_loss(batch_with_repetitions())).backward()
    names = dict(model.named_parameters())
    assert raw is None or any(name.startswith("raw.") for name in names) == raw
    for name, parameter in names.items():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def check_switch(build, key, value, term):
    """A weight of zero leaves its term of the loss, and no other, at zero; three terms."""
    on, off = (losses(build(**{key: w}).model, batch_with_repetitions()) for w in (value, 0.0))
    others = [i for i in range(3) if i != term]
    assert off[term] == 0 < on[term] and torch.equal(on[others], off[others])


def check_views(prepared, reference, atol):
    """A model's parts, representations and losses against ``reference(model, part)``."""
    model, batch = prepared.model, batch_with_repetitions()
    expected = check_forward(prepared, reference, atol)
    got = torch.cat(model.representations()).detach().numpy()
    np.testing.assert_allclose(got, sum(expected), atol=atol, rtol=0)

    terms = side_losses(*expected, model.n_users, batch, model.keys)
    assert min(terms) > 1e-3
    np.testing.assert_allclose(losses(model, batch), terms, atol=1e-5, rtol=0)


def check_forward(prepared, reference, atol):
    """A model's parts, behavior and side, against ``reference(model, part)``, which is returned."""
    expected = reference(prepared.model, prepared.train.dataset)
    for got, part in zip(prepared.model.forward(), expected):
        assert np.abs(part).max() > 1e-2
        np.testing.assert_allclose(got.detach().numpy(), part, atol=atol, rtol=0)
    return expected


def check_row_is_not_read(model, item):
    """An item that lacks an image: its row of the images matters to nothing, its text's does."""
    before = [part.detach() for part in model.representations()]
    with torch.no_grad():
        model.raw["image"][item] += 100.0
    assert all(map(torch.equal, before, model.representations()))
    with torch.no_grad():
        model.raw["text"][item] += 100.0
    assert not any(map(torch.equal, before, model.representations()))
