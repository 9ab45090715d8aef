"""``recbole-sigrec ablate``: SIGRec without its parts, over its values, on corrupted content."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Once, Parser, config_files, names, need_recbole

USAGE = """\
recbole-sigrec ablate [--what variants|sensitivity|robustness] [--dataset NAME] [--seeds N]
                      [--out DIR] [--variants NAME,NAME,…] [--models NAME,NAME,…] [--jobs N]
                      [--config_files "a.yaml b.yaml"] [--KEY=VALUE …]

  --what          variants (default): SIGRec with one mechanism off each, and each modality alone;
                  sensitivity: over α, ε, τ and k; robustness: with noisy features, rewired edges
                  and missing modalities
  --dataset       a folder in data_path; default ml-100k, which RecBole bundles
  --seeds         runs of each, with the seeds 1 to N; default 3
  --out           folder of the results; default ablation/DATASET/WHAT. The same command goes on
                  where it was cut off
  --variants      some of the variants alone, as "without infusion,text alone"
  --models        others beside SIGRec, for robustness
  --jobs          runs at a time; default 1
  --config_files  yaml files, separated by spaces, for all
  --KEY=VALUE     any config key, for all; --seed is that of the split
"""


def main(arguments: list[str]) -> int:
    """Ablate; 0 if all runs ended and the results are written."""
    parser = Parser()
    parser.add_argument("--what", action=Once)
    parser.add_argument("--dataset", "-d", action=Once)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    for name in ("out", "variants", "models", "config_files"):
        parser.add_argument(f"--{name}", action=Once)
    known, rest = parser.parse_known_args(arguments)
    need_recbole()
    from recbole_sigrec.config import parse_command_line
    from recbole_sigrec.evaluator.ablation import ablate

    table = ablate(
        what=known.what or "variants",
        dataset=known.dataset,
        seeds=range(1, known.seeds + 1),
        out=known.out,
        models=names(known.models),
        only=names(known.variants),
        config_files=config_files(known.config_files),
        values=parse_command_line(rest),
        jobs=known.jobs,
    )
    print(table)
    return 0
