"""``recbole-sigrec tune``: search for a model's best configuration on the validation part."""

from __future__ import annotations

from contextlib import nullcontext

from recbole_sigrec.commands.arguments import (
    Once,
    Parser,
    config_keys,
    model_names,
    names,
    need_recbole,
)
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.user_paths import user_path

EXAMPLE = "recbole-sigrec tune --model=LightGCN --dataset=ml-100k --trials=12"


def parser() -> Parser:
    """The arguments of the command."""
    about = (
        "Search for the configuration with the best validation score.\n"
        "Run the same command again to continue after an interruption."
    )
    made = Parser(
        "recbole-sigrec tune", about, EXAMPLE, "any config key; the search leaves it fixed"
    )
    group = made.add_mutually_exclusive_group(required=True)
    group.add_argument("--model", "-m", action=Once, metavar="NAME", help=model_names())
    models = (
        "several models, one after another, each with this many trials; the best values of all are "
        "also written to models.yaml, for compare --config_files"
    )
    group.add_argument("--models", action=Once, metavar="NAME,NAME", type=names, help=models)
    made.dataset()
    trials = "configurations that are tried; default 20. The first is the default"
    made.add_argument("--trials", type=int, default=20, metavar="N", help=trials)
    out = (
        "folder of study.db, trials.csv and best.yaml; default tuning/DATASET/MODEL. With "
        "--models, the folder of theirs and of models.yaml"
    )
    made.once("--out", type=user_path, metavar="DIR", help=out)
    made.jobs("trials")
    storage = (
        "a PostgreSQL database for the study, in place of study.db, which workers on other "
        "machines need: postgresql+psycopg://USER@HOST/DATABASE"
    )
    made.once("--storage", metavar="URL", help=storage)
    params_file = (
        "the search space: yaml with search_space: {key: [values]}, or a file of RecBole's "
        "HyperTuning; default that of properties/model/MODEL.yaml"
    )
    made.once("--params_file", type=user_path, metavar="FILE", help=params_file)
    made.config_files()
    return made


def main(arguments: list[str]) -> int:
    """Search; 0 if each model has a best configuration."""
    known, rest = parser().parse_known_args(arguments)
    need_recbole()
    from recbole_sigrec.comparison.arms import Setting
    from recbole_sigrec.parallel.engines import opened
    from recbole_sigrec.tuning.outputs import read_models, write_models
    from recbole_sigrec.tuning.search import plan, search

    models = [known.model] if known.model else known.models
    if not models:
        raise ConfigError(f"models [{known.models or known.model}]: name at least one")
    setting = Setting(
        known.dataset,
        known.config_files,
        config_keys(rest, checkpoint_dir="the runs are kept in --out"),
    )
    tasks = []
    for name in models:
        out = known.out / name if known.out and known.models else known.out
        given = known.trials, known.params_file, out, known.jobs, known.cluster, known.storage
        tasks.append(plan(name, setting, *given))
    if known.models is not None:
        read_models(tasks[0].out.parent, tasks[0].base["dataset"])  # refuses another's file
    several = opened(known.cluster, tasks[0].out.parent) if len(tasks) > 1 else None
    with several or nullcontext(known.cluster) as cluster:
        found = [search(task, cluster) for task in tasks]
    if known.models is not None:
        print(write_models(found, tasks))
    return 0
