"""docs/cluster.md: its commands and its settings are ones that are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from recbole_sigrec.cli import command_module

dask = pytest.importorskip("dask")
cluster = pytest.importorskip("recbole_sigrec.parallel.cluster")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"


@pytest.fixture(scope="module")
def page():
    if not PAGE.is_file():
        pytest.skip("the page is in the repository alone")
    return PAGE.read_text("utf-8")


def pieces(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_the_commands_are_understood(page):
    lines = "".join(pieces(page, "bash")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("recbole-sigrec")]
    kinds = []
    for _, name, *arguments in commands:
        known, rest = command_module(name).parser().parse_known_args(arguments)
        assert {argument.partition("=")[0] for argument in rest} <= {"--data_path", "--threads"}
        kinds.append(cluster.parse(known.cluster)[0])
        if "storage" in known and known.storage:
            study = pytest.importorskip("recbole_sigrec.tuning.study")
            study.check_storage(known.storage)
    assert set(kinds) == {"local", "slurm", "tcp://10.0.0.1:8786"}


def test_a_job_of_slurm_has_what_the_page_asks_for(page):
    slurm = pytest.importorskip("dask_jobqueue.slurm")
    given = next(yaml.safe_load(p) for p in pieces(page, "yaml") if "jobqueue" in p)
    settings = {**dask.config.get("jobqueue.slurm"), **given["jobqueue"]["slurm"]}
    with dask.config.set({"jobqueue.slurm": settings}):
        script = slurm.SLURMJob(scheduler="tls://head:1", name="worker").job_script()
    for line in ("--cpus-per-task=8", "-p long", "-t 12:00:00", "--gres=gpu:1"):
        assert f"#SBATCH {line}\n" in script
    assert "--nthreads 1" in script and "--interface ib0" in script


def test_the_certificates_are_taken(page):
    given = next(yaml.safe_load(p) for p in pieces(page, "yaml") if "tls" in p)
    with dask.config.set(dask.config.merge(dask.config.config, given)):
        tls = cluster.security().get_tls_config_for_role("worker")
    assert (tls["ca_file"], tls["key"]) == ("/shared/me/ca.pem", "/shared/me/key.pem")
