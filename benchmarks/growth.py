"""Time and memory of each stage as the catalogue grows, on synthetic data (powerlaw.py).

    python benchmarks/growth.py --items 10000,100000,1000000 --threads 1 [--stage collaborative]

There are two users and 20 interactions per item. Each stage runs in a process of its own, so that
its peak of memory is its own: "extra" is the peak of resident memory less what was resident when
the stage began, with its input loaded. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from powerlaw import powerlaw

from recbole_sigrec.data.parts import evaluation_batch
from recbole_sigrec.graph import (
    SparseGraph,
    bipartite_graph,
    collaborative_topk,
    infuse,
    interaction_matrix,
    knn_graph,
    normalize,
    propagate,
)
from recbole_sigrec.kernels.products import matmul_nt
from recbole_sigrec.kernels.ranking import top_items

USERS, INTERACTIONS = 2, 20  # per item
FEATURES, D, K = 128, 64, 10  # raw features, embeddings, neighbours
EVALUATED, CUTOFF, EVAL_MEMORY_MB = 1000, 50, 32
EXACT = 200_000  # items up to which the semantic graph is exact; beyond, FAISS's IVF


def load_interactions(n, folder):
    pairs = (np.load(folder / f"{name}.npy") for name in ("users", "items"))
    return interaction_matrix(*pairs, USERS * n, n)


def random_graph(n, seed):
    """A symmetric graph of the size of a top-k item graph."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(n), K)
    columns = rng.integers(0, n, n * K)
    graph = sp.csr_matrix((rng.random(n * K, np.float32), (rows, columns)), shape=(n, n))
    return graph.maximum(graph.T).tocsr()


# A stage reads its input and returns what is to be measured.


def generation(n, folder):
    return lambda: powerlaw(USERS * n, n, INTERACTIONS * n, max(10, n // 1000), FEATURES)


def collaborative(n, folder):
    interactions = load_interactions(n, folder)
    return lambda: collaborative_topk(interactions, K)


def semantic(n, folder):
    features = torch.from_numpy(np.load(folder / "features.npy"))
    method = {} if n <= EXACT else {"method": "ivf"}
    return lambda: knn_graph(features, K, **method)


def infusion(n, folder):
    semantic, collaborative = random_graph(n, 0), random_graph(n, 1)
    return lambda: SparseGraph(infuse(normalize(semantic), normalize(collaborative), 0.5))


def bipartite(n, folder):
    interactions = load_interactions(n, folder)
    return lambda: SparseGraph(bipartite_graph(interactions))


def propagation(n, folder):
    graph = SparseGraph(bipartite_graph(load_interactions(n, folder)))
    embeddings = torch.randn(graph.shape[0], D, requires_grad=True)
    gradient = torch.randn(graph.shape[0], D)
    return lambda: propagate(graph, embeddings, 1).backward(gradient)


def evaluation(n, folder):
    users, items = torch.randn(EVALUATED, D), torch.randn(n, D)
    block = evaluation_batch(n, EVAL_MEMORY_MB) // n
    best = torch.empty(EVALUATED, CUTOFF, dtype=torch.int64)  # small pieces would split the heap

    def rank():
        for start in range(0, EVALUATED, block):
            scores = matmul_nt(users[start : start + block], items)
            best[start : start + block] = top_items(scores, CUTOFF)

    return rank


STAGES = {
    "generation": (generation, "interactions and features"),
    "collaborative": (collaborative, "collaborative graph, top 10 by cosine"),
    "semantic": (semantic, f"semantic graph, {FEATURES} dimensions, top 10"),
    "infusion": (infusion, "normalisation and infusion"),
    "bipartite": (bipartite, "user-item graph"),
    "propagation": (propagation, f"one layer on it, d = {D}, forward and backward"),
    "evaluation": (evaluation, f"full ranking of {EVALUATED} users, top {CUTOFF}"),
}
REPEATED = ("propagation", "evaluation")  # the first run of three warms up


def resident(field):
    """A field of /proc/self/status, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def measure(stage, n, folder):
    """Run one stage in this process: (seconds, MiB)."""
    work = STAGES[stage][0](n, folder)
    result = None

    def once():
        nonlocal result
        result = work()

    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of loading
    before = resident("VmRSS")
    seconds = min(timeit.repeat(once, repeat=3 if stage in REPEATED else 1, number=1))
    extra = resident("VmHWM") - before
    if stage == "generation":
        for name, array in zip(("users", "items", "features"), result):
            np.save(folder / f"{name}.npy", array)
    return seconds, extra


def in_a_process(stage, n, folder, threads):
    """The same in a fresh process; its last words where it fails."""
    command = [sys.executable, __file__, "--measure", stage, "--items", str(n)]
    command += ["--folder", str(folder), "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return f"failed: {(done.stderr.strip() or str(done.returncode)).splitlines()[-1]}"
    seconds, extra = json.loads(done.stdout.splitlines()[-1])
    return f"{seconds:.3g} s, {extra:,.0f} MiB"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", default="10000,100000", help="catalogue sizes")
    parser.add_argument("--stage", choices=STAGES, help="this one alone (after generation)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [int(n) for n in options.items.split(",")]
    if options.measure:
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        print(json.dumps(measure(options.measure, *sizes, options.folder)))
        return
    stages = dict.fromkeys(["generation", options.stage]) if options.stage else STAGES
    cells = {stage: [] for stage in stages}
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for stage in stages:
                cells[stage].append(in_a_process(stage, n, folder, options.threads))
                print(f"{n} items, {stage}: {cells[stage][-1]}", file=sys.stderr)
    print(f"Time and extra memory with {options.threads} thread(s)\n")
    print("| stage | " + " | ".join(f"{n:,} items" for n in sizes) + " |")
    print("|---" * (len(sizes) + 1) + "|")
    for stage in stages:
        print(f"| {STAGES[stage][1]} | {' | '.join(cells[stage])} |")


if __name__ == "__main__":
    main()
