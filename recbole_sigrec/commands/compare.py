"""``recbole-sigrec compare``: several models × seeds on one split, side by side."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Once, Parser, config_files, names, need_recbole

USAGE = """\
recbole-sigrec compare --models NAME,NAME,… [--dataset NAME] [--seeds N] [--out DIR] [--jobs N]
                       [--config_files "a.yaml b.yaml"] [--KEY=VALUE …]

  --models        of this plugin or of RecBole; the first is tested against each of the others
  --dataset       a folder in data_path; default ml-100k, which RecBole bundles
  --seeds         runs of each model, with the seeds 1 to N; default 5
  --out           folder of the runs, results.csv, results.json and report.html; default
                  comparison/DATASET. The same command goes on where it was cut off
  --jobs          runs at a time; default 1
  --config_files  yaml files, separated by spaces, for all models
  --KEY=VALUE     any config key, for all models; --seed is that of the split
"""


def main(arguments: list[str]) -> int:
    """Compare; 0 if all runs ended and the results are written."""
    parser = Parser()
    parser.add_argument("--models", action=Once, required=True)
    parser.add_argument("--dataset", "-d", action=Once)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--config_files", action=Once)
    known, rest = parser.parse_known_args(arguments)
    need_recbole()
    from recbole_sigrec.config import parse_command_line
    from recbole_sigrec.evaluator.arms import Arm
    from recbole_sigrec.evaluator.comparison import compare

    results = compare(
        arms=[Arm(name, name) for name in names(known.models)],
        dataset=known.dataset,
        seeds=range(1, known.seeds + 1),
        out=known.out,
        config_files=config_files(known.config_files),
        values=parse_command_line(rest),
        jobs=known.jobs,
    )
    from recbole_sigrec.evaluator.results import text_table

    print(text_table(results))
    return 0
