"""``recbole-sigrec tune``: search for a model's best configuration on the validation part."""

from __future__ import annotations

from pathlib import Path

from recbole_sigrec.commands.arguments import Once, Parser, config_files, names, need_recbole
from recbole_sigrec.errors import ConfigError

USAGE = """\
recbole-sigrec tune --model NAME | --models NAME,NAME,… [--dataset NAME] [--trials N] [--out DIR]
                    [--jobs N] [--params_file FILE] [--config_files "a.yaml b.yaml"] [--KEY=VALUE …]

  --model         of this plugin or of RecBole
  --models        several, one after another, with as many trials each; what is found for them
                  is written to models.yaml, too, which compare --config_files takes
  --dataset       a folder in data_path; default ml-100k, which RecBole bundles
  --trials        configurations that are tried; default 20. The first is the default
  --out           folder of study.db, trials.csv and best.yaml; default tuning/DATASET/MODEL. With
                  --models, the folder of theirs and of models.yaml. The same command goes on
                  where it was cut off
  --jobs          trials at a time; default 1
  --params_file   the search space: yaml with search_space: {key: [values]}, or a file of RecBole's
                  HyperTuning; default that of properties/model/MODEL.yaml
  --config_files  yaml files, separated by spaces
  --KEY=VALUE     any config key; it is not searched then
"""


def main(arguments: list[str]) -> int:
    """Search; 0 if each model has a best configuration."""
    parser = Parser()
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--model", "-m", action=Once)
    group.add_argument("--models", action=Once)
    parser.add_argument("--dataset", "-d", action=Once)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    for name in ("out", "params_file", "config_files"):
        parser.add_argument(f"--{name}", action=Once)
    known, rest = parser.parse_known_args(arguments)
    need_recbole()
    from recbole_sigrec.config import parse_command_line
    from recbole_sigrec.tuning.results import read_models, write_models
    from recbole_sigrec.tuning.search import plan, search

    models = [known.model] if known.model else names(known.models)
    if not models:
        raise ConfigError(f"models [{known.models or known.model}]: name at least one")
    tasks = [
        plan(
            model=name,
            dataset=known.dataset,
            trials=known.trials,
            out=Path(known.out) / name if known.out and known.models else known.out,
            config_files=config_files(known.config_files),
            values=parse_command_line(rest),
            params_file=known.params_file,
            jobs=known.jobs,
        )
        for name in models
    ]
    if known.models is not None:
        read_models(tasks[0].out.parent, tasks[0].base["dataset"])  # refuses another's file
    found = [search(task) for task in tasks]
    if known.models is not None:
        print(write_models(found, tasks))
    return 0
