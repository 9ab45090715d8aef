"""All benchmarks in one go: times by pytest-benchmark, peak memory in processes of their own.

    python benchmarks/run.py --data_path=DIR --datasets=tiktok,baby,scale

``scale`` stands for large synthetic data (minutes). Needs: pip install ".[dev,faiss]". One thread
unless --threads=N. Nothing else should be running. growth.py measures how cost grows.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
MACHINE = "machine"
TITLES = {MACHINE: "The machine", "scale": "Large synthetic data"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, default=Path("dataset"))
    parser.add_argument("--datasets", default="ml-100k")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name holds this text (pytest -k)")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    options = parser.parse_args()
    os.environ.update(  # read by cases.py, here and in the processes started below
        BENCHMARK_DATA_PATH=str(options.data_path.resolve()),
        BENCHMARK_DATASETS=options.datasets,
        BENCHMARK_ROUNDS=str(options.rounds),
        BENCHMARK_THREADS=str(options.threads),
        OMP_NUM_THREADS=str(options.threads),
    )
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pytest", "-q", str(HERE / "bench_speed.py")]
        command += ["-p", "no:cacheprovider", "-k", options.only, f"--benchmark-json={report}"]
        status = subprocess.run(command, check=False).returncode
        found = json.loads(report.read_text("utf-8"))
    rows = []
    for one in found["benchmarks"]:
        info, times = one["extra_info"], one["stats"]["data"]
        memory = peak_memory(info)
        rows.append({**info, "times": times, "memory": memory})
    text = "\n".join([*heading(options, found), *tables(rows), *limits(rows)]) + "\n"
    options.out.write_text(text, encoding="utf-8")
    print(text)
    return status


def peak_memory(info):
    command = [sys.executable, str(HERE / "peak_memory.py")]
    command += [info["dataset"], info["group"], info["name"]]
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd=HERE)
    try:
        return float(result.stdout.split()[-1])
    except (IndexError, ValueError):
        return None


def heading(options, found):
    cpu, simd = found["machine_info"]["cpu"], torch.backends.cpu.get_cpu_capability()
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "numpy", "scipy"))
    only = f' --only="{options.only}"' if options.only else ""
    return [
        "# Benchmarks",
        "",
        f"Written by `python benchmarks/run.py --datasets={options.datasets} "
        f"--threads={options.threads} --rounds={options.rounds}{only}` on "
        f"{datetime.date.today().isoformat()}.",
        "",
        f"{cpu.get('brand_raw', platform.processor())} ({simd}), {os.cpu_count()} cores, "
        f"{options.threads} thread(s); Python {platform.python_version()}, {versions}, RecBole "
        f"{_version('recbole')}.",
        "",
        "Medians, smallest and largest of the rounds; × is the first "
        "row's median over this one's (above 1: faster). Memory is the peak beyond what was "
        "resident before, in a process of its own.",
        "",
    ]


def _version(name):
    from importlib.metadata import version

    return version(name)


def tables(rows):
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        lines += [f"## {TITLES.get(dataset, dataset)}", ""]
        lines += [
            "| | | median | smallest, largest | × | memory, MiB |",
            "|---|---|---|---|---|---|",
        ]
        reference = {}
        for row in (r for r in rows if r["dataset"] == dataset):
            median = statistics.median(row["times"])
            first = reference.setdefault(row["group"], median)
            group = row["group"] if first is median else ""
            memory = "" if row["memory"] is None else f"{row['memory']:.0f}"
            lines.append(
                f"| {group} | {row['name']} | {_time(median)} | {_time(min(row['times']))}, "
                f"{_time(max(row['times']))} | {first / median:.2f} | {memory} |"
            )
        lines.append("")
    return lines


def _time(seconds):
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def limits(rows):
    """The figures against what the machine can do."""
    import cases

    def median(dataset, group, name):
        for row in rows:
            if row["dataset"] == dataset and row["name"] == name and group in row["group"]:
                return statistics.median(row["times"])
        return None

    rate, bandwidth = {}, None
    for name in ("torch", "gemm.matmul_nt"):
        seconds = median(MACHINE, "matrix product", name)
        if seconds:
            rate[name] = 2 * cases.BATCH**3 / seconds
    copied = median(MACHINE, "copy", "numpy")
    if copied:
        bandwidth = 2 * cases.COPIED / copied
    if not rate or not bandwidth:
        return []
    lines = ["## Against the machine's limits", ""]
    lines.append(
        f"Products: torch {rate['torch'] / 1e9:.0f} GFLOP/s, ours "
        f"{rate['gemm.matmul_nt'] / 1e9:.0f} GFLOP/s. Copy: {bandwidth / 1e9:.1f} GB/s (read and "
        f"written). Rates below are relative to torch's product, and to ours."
    )
    lines.append("")
    seconds = median(MACHINE, "InfoNCE", "ours")
    if seconds:
        flops = 3 * 2 * cases.BATCH**2 * cases.D
        lines.append(f"- InfoNCE: {_rates(flops / seconds, rate)}")
    for dataset in dict.fromkeys(row["dataset"] for row in rows if row["dataset"] != MACHINE):
        seconds = median(dataset, "semantic graph", "ours")
        if seconds:
            n, d = cases.LARGE if dataset == "scale" else cases.widest(dataset).shape
            done, whole = cases.semantic_flops(n, d)
            lines.append(
                f"- {dataset}, semantic graph, {n} x {d}: {_rates(done / seconds, rate)}; it "
                f"computes {done / whole:.2f} of the n x n pairs, each for both ends: "
                f"as fast as computing them all at {_rates(whole / seconds, rate)}"
            )
        seconds = median(dataset, "training epoch", "LightGCN, ours")
        if seconds:
            limit = lightgcn_bytes(dataset) / bandwidth
            lines.append(
                f"- {dataset}, LightGCN epoch: {seconds / limit:.2f} times the {_time(limit)} that "
                f"the bytes it reads and writes take at the copy's bandwidth (no lower bound: the "
                f"embeddings of a small data set stay in the cache)"
            )
    return lines


def _rates(rate, of):
    return (
        f"{rate / 1e9:.0f} GFLOP/s, {rate / of['torch']:.2f} of torch's rate, "
        f"{rate / of['gemm.matmul_nt']:.2f} of ours"
    )


def lightgcn_bytes(dataset):
    """Bytes that an epoch of LightGCN moves: products forward and back, and Adam's state."""
    import cases

    settings, data, train, *_ = cases.prepared(dataset)
    n, d = data.user_num + data.item_num, settings["embedding_size"]
    edges = 2 * cases.training_matrix(dataset).nnz
    product = edges * (4 * d + 8) + 4 * n * d  # a row gathered per edge, its index and weight
    adam = 7 * 4 * n * d  # reads parameter, gradient and two moments, writes three
    return len(train) * (2 * settings["n_layers"] * product + adam)


if __name__ == "__main__":
    sys.exit(main())
