"""``recbole-sigrec ablate``: SIGRec without its parts, over its values, on corrupted content."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Parser, config_keys, names, need_recbole
from recbole_sigrec.user_paths import user_path

EXAMPLE = "recbole-sigrec ablate --what=variants --dataset=ml-100k --seeds=3"


def parser() -> Parser:
    """The arguments of the command."""
    about = (
        "Compare SIGRec with changed SIGRecs.\n"
        "Run the same command again to continue after an interruption."
    )
    keys = "any config key; --seed draws the split"
    made = Parser("recbole-sigrec ablate", about, EXAMPLE, keys)
    what = (
        "variants (default): without one mechanism each, and with each modality alone; "
        "sensitivity: over α, ε, τ and k; robustness: with noisy features, "
        "rewired edges and missing modalities"
    )
    made.once("--what", metavar="WHAT", help=what)
    made.dataset()
    seeds = "runs of each, with the seeds 1 to N; default 3"
    made.add_argument("--seeds", type=int, default=3, metavar="N", help=seeds)
    made.once(
        "--out",
        type=user_path,
        metavar="DIR",
        help="folder of the results; default ablation/DATASET/WHAT",
    )
    variants = 'only these variants, such as "without infusion,text alone"'
    made.once("--variants", metavar="NAME,NAME", type=names, default=(), help=variants)
    models = "more models than SIGRec, for robustness"
    made.once("--models", metavar="NAME,NAME", type=names, default=(), help=models)
    made.jobs("runs")
    made.config_files()
    return made


def main(arguments: list[str]) -> int:
    """Ablate; 0 if all runs ended and the results are written."""
    known, rest = parser().parse_known_args(arguments)
    need_recbole()
    from recbole_sigrec.comparison.ablation import ablate

    result = ablate(
        ["SIGRec", *known.models],
        known.dataset,
        known.config_files,
        config_keys(
            rest,
            model="it is SIGRec; --models names others beside it",
            checkpoint_dir="the runs are kept in --out",
        ),
        what=known.what or "variants",
        only=known.variants,
        seeds=range(1, known.seeds + 1),
        out=known.out,
        jobs=known.jobs,
        cluster=known.cluster,
    )
    print(result.table)
    return 0
