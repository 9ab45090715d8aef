"""``recbole-sigrec compare``: several models × seeds on one split, side by side."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Parser, config_keys, model_names, names, need_recbole
from recbole_sigrec.user_paths import user_path

EXAMPLE = """\
recbole-sigrec compare --models=SIGRec,LightGCN,BM3 --dataset=ml-100k \\
  --seeds=3 --out=results"""


def parser() -> Parser:
    """The arguments of the command."""
    keys = "any config key; --seed draws the split"
    about = (
        "Train several models with several seeds on one split, and compare them.\n"
        "Run the same command again to continue after an interruption."
    )
    made = Parser("recbole-sigrec compare", about, EXAMPLE, keys)
    models = f"the first is tested against each of the others; {model_names()}"
    made.once("--models", metavar="NAME,NAME", type=names, required=True, help=models)
    made.dataset()
    seeds = "runs of each model, with the seeds 1 to N; default 5"
    made.add_argument("--seeds", type=int, default=5, metavar="N", help=seeds)
    out = "folder of the runs and results; default comparison/DATASET"
    made.add_argument("--out", type=user_path, metavar="DIR", help=out)
    made.jobs("runs")
    made.config_files()
    return made


def main(arguments: list[str]) -> int:
    """Compare; 0 if all runs ended and the results are written."""
    known, rest = parser().parse_known_args(arguments)
    need_recbole()
    from recbole_sigrec.comparison.compare import compare

    result = compare(
        known.models,
        known.dataset,
        known.config_files,
        config_keys(
            rest, model="name the models with --models", checkpoint_dir="the runs are kept in --out"
        ),
        seeds=range(1, known.seeds + 1),
        out=known.out,
        jobs=known.jobs,
        cluster=known.cluster,
    )
    print(result.table)
    return 0
