"""``recbole-sigrec run``: train and test one model."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Once, Parser, config_files, need_recbole

USAGE = """\
recbole-sigrec run [--model NAME] [--dataset NAME] [--config_files "a.yaml b.yaml"] [--KEY=VALUE …]

  --model         SIGRec (default), VBPR, MMGCN, LATTICE, BM3, FREEDOM, MGCN, LGMRec, SMORE,
                  COHESION, ContentKNN, ContentEASE, or any general model of RecBole's: LightGCN, …
  --dataset       a folder in data_path; default ml-100k, which RecBole bundles
  --config_files  yaml files, separated by spaces
  --nproc         processes on this machine that train the model together; default 1
  --KEY=VALUE     any config key, e.g. --data_path=data --learning_rate=1e-3 --result_file=r.json

on several machines: --world_size (processes in all), --group_offset (rank of this machine's first),
--ip and --port of the machine with rank 0
"""


def main(arguments: list[str]) -> int:
    """Train and test; 0 if both ended."""
    parser = Parser()
    parser.add_argument("--model", "-m", action=Once)
    parser.add_argument("--dataset", "-d", action=Once)
    parser.add_argument("--config_files", action=Once)
    for name in ("nproc", "world_size", "group_offset", "port"):
        parser.add_argument(f"--{name}", type=int, action=Once)
    parser.add_argument("--ip", action=Once)
    known, rest = parser.parse_known_args(arguments)
    need_recbole()
    from recbole_sigrec.quick_start import run

    places = {
        name: getattr(known, name)
        for name in ("nproc", "world_size", "ip", "port", "group_offset")
        if getattr(known, name) is not None
    }
    run(
        model=known.model,
        dataset=known.dataset,
        config_file_list=config_files(known.config_files),
        command_line=rest,
        **places,
    )
    return 0
