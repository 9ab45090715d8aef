"""The ridge weights that are solved in blocks: time, memory and accuracy.

    python benchmarks/item_weights.py --threads 2   # Electronics' size, synthetic
    python benchmarks/item_weights.py --data_path DATA --dataset sports   # real data

Synthetic data (powerlaw.py) have 192,403 users, 63,001 items, 1.69 million interactions, and
features of 4,096 and 384 dimensions; ``--scale`` shrinks all but the dimensions. The weights of 32
items are then compared with conjugate gradients on the whole equation in float64. Real data are
compared with the inverse of all items. Linux only.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from powerlaw import powerlaw

from recbole_sigrec.graph import content_vectors, interaction_matrix, ridge_weights
from recbole_sigrec.graph.ridge import largest_into_each
from recbole_sigrec.graph.ridge_columns import largest_ridge_weights

USERS, ITEMS, INTERACTIONS, DIMENSIONS = 192_403, 63_001, 1_690_000, {"image": 4096, "text": 384}
COMPARED = 32  # items


def synthetic(scale):
    """(R, features) of Electronics' size."""
    n_users, n_items = int(USERS * scale), int(ITEMS * scale)
    d = sum(DIMENSIONS.values())
    users, items, features = powerlaw(n_users, n_items, int(INTERACTIONS * scale), 100, d)
    parts = torch.from_numpy(features).split(list(DIMENSIONS.values()), dim=1)
    return interaction_matrix(users, items, n_users, n_items), dict(zip(DIMENSIONS, parts))


def real(folder):
    """(R of the training part, features) of a folder in MMRec's layout."""
    table = pd.read_csv(folder / f"{folder.name}.inter", sep="\t")
    train = table[table["x_label"] == 0]
    files = sorted(folder.glob("*_feat.npy"))
    features = {file.stem: torch.from_numpy(np.load(file).astype(np.float32)) for file in files}
    sizes = table["userID"].max() + 1, len(next(iter(features.values())))
    return interaction_matrix(train["userID"], train["itemID"], *sizes), features


def reference(r, z, items, w, reg):
    """Columns of B by conjugate gradients on RᵀR + w ZZᵀ + λI in float64: [n_items, b]."""
    r, rows = r.astype(np.float64), 4096

    def of_content(x):
        blocks = [slice(start, start + rows) for start in range(0, len(z), rows)]
        inner = sum(z[block].T.astype(np.float64) @ x[block] for block in blocks)
        return np.concatenate([z[block].astype(np.float64) @ inner for block in blocks])

    diagonal = np.asarray(r.sum(axis=0)).ravel() + w * np.einsum("id,id->i", z, z) + reg
    rest = np.zeros((len(z), len(items)))
    rest[items, np.arange(len(items))] = 1.0
    x, direction = np.zeros_like(rest), rest / diagonal[:, None]
    square = (rest * direction).sum(axis=0)
    while np.linalg.norm(rest, axis=0).max() > 1e-9:
        product = r.T @ (r @ direction) + reg * direction + w * of_content(direction)
        step = square / (direction * product).sum(axis=0)
        x += step * direction
        rest -= step * product
        scaled = rest / diagonal[:, None]
        before, square = square, (rest * scaled).sum(axis=0)
        direction = scaled + square / before * direction
    weights = -x / x[items, np.arange(len(items))]
    weights[items, np.arange(len(items))] = 0.0
    return weights


def compare(kept, expected, k):
    """Kept weights [n, b] against all exact ones [n, b], in words."""
    exact = np.zeros_like(expected)
    order = np.argpartition(-expected, k, axis=0)[:k]
    np.put_along_axis(exact, order, np.take_along_axis(expected, order, axis=0), axis=0)
    exact = np.maximum(exact, 0.0)
    both = (kept > 0) & (exact > 0)
    recall = both.sum() / (exact > 0).sum()
    difference = np.abs(kept - expected)[kept > 0].max()
    return f"recall {recall:.5f}, largest difference {difference:.1e} of {exact.max():.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path)
    parser.add_argument("--dataset")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--reg", type=float, default=100.0)
    parser.add_argument("--content", type=float, default=10.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    given = options.data_path and options.data_path / options.dataset
    r, features = real(given) if given else synthetic(options.scale)
    mask = {name: x.abs().sum(dim=1) > 0 for name, x in features.items()}
    alpha = dict.fromkeys(features, 1 / len(features))
    z = content_vectors(features, mask, alpha, center=True).numpy()
    del features
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of making the data
    weights = {"content_weight": options.content, "reg_weight": options.reg}
    wall, cpu = time.perf_counter(), time.process_time()
    found = largest_ridge_weights(r, z, options.k, **weights)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20
    print(f"{r.shape[0]:,} users, {r.shape[1]:,} items, {z.shape[1]:,} dimensions: {wall:.0f} s, ")
    print(f"{cpu:.0f} s of CPU, {options.threads} thread(s), peak {peak:.2f} GiB", flush=True)
    if given:
        wall = time.perf_counter()
        dense = ridge_weights(r, z, **weights)
        print(f"dense: {time.perf_counter() - wall:.0f} s")
        print(compare(found.toarray(), dense, options.k))
        exact = largest_into_each(dense, options.k)
        print(f"{(exact > 0).multiply(found > 0).nnz} of {exact.nnz} edges are the same")
    else:
        items = np.linspace(0, r.shape[1] - 1, COMPARED).astype(np.int64)
        exact = reference(r, z, items, options.content, options.reg)
        print(compare(found[:, items].toarray(), exact, options.k))


if __name__ == "__main__":
    main()
