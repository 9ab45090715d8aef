"""The cases under pytest-benchmark; benchmarks/run.py calls it."""

import contextlib
import os

import cases
import pytest

from recbole_sigrec.kernels.allocator import kept_memory

DATASETS = ["machine", *cases.DATASETS]
ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", "5"))
ALL = [(dataset, *case) for dataset in DATASETS for case in cases.cases_of(dataset)]


@pytest.mark.parametrize("case", ALL, ids=[" | ".join(case[:3]) for case in ALL])
def test_speed(benchmark, case, tmp_path_factory, monkeypatch):
    dataset, group, name, prepare = case
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    cases.set_machine()
    step = prepare()
    benchmark.extra_info.update(dataset=dataset, group=group, name=name)
    # A run of ours keeps what is freed, and RecBole's does not.
    with kept_memory() if name.endswith("ours") else contextlib.nullcontext():
        if "63,000" in group:  # minutes
            benchmark.pedantic(step, rounds=ROUNDS)
            return
        short = "negatives" in group or "InfoNCE" in group
        benchmark.pedantic(step, rounds=ROUNDS, iterations=20 if short else 1, warmup_rounds=1)
