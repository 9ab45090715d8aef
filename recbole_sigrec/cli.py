"""The command ``recbole-sigrec``."""

from __future__ import annotations

import argparse
import sys

from recbole_sigrec import __version__
from recbole_sigrec.errors import SIGRecError

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


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        The exit status: 0 only if training and test ended, 2 where the input is wrong.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(__version__)
        return 0
    if arguments[0] != "run":
        print(f"recbole-sigrec: unknown command [{arguments[0]}]\n\n{USAGE}", file=sys.stderr)
        return 2
    return run_command(arguments[1:])


def run_command(arguments: list[str]) -> int:
    """``run``: train and test one model; see ``USAGE``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--model", "-m", action=_Once)
    parser.add_argument("--dataset", "-d", action=_Once)
    parser.add_argument("--config_files", action=_Once)
    for name in ("nproc", "world_size", "group_offset", "port"):
        parser.add_argument(f"--{name}", type=int, action=_Once)
    parser.add_argument("--ip", action=_Once)
    parser.add_argument("-h", "--help", action="store_true")
    try:
        known, rest = parser.parse_known_args(arguments)
        if known.help:
            print(USAGE)
            return 0
        try:
            from recbole_sigrec.quick_start import run
        except ModuleNotFoundError as error:
            if error.name != "recbole":
                raise
            raise SIGRecError(
                "RecBole is not installed; on Python 3.12 and later it is installed on its own: "
                "pip install --no-deps recbole==1.2.1"
            ) from None

        places = {
            name: getattr(known, name)
            for name in ("nproc", "world_size", "ip", "port", "group_offset")
            if getattr(known, name) is not None
        }
        run(
            model=known.model,
            dataset=known.dataset,
            config_file_list=(known.config_files or "").split(),
            command_line=rest,
            **places,
        )
    except (SIGRecError, argparse.ArgumentError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


class _Once(argparse.Action):
    """Store a value; refuse a second, different one, as for the other keys."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest) not in (None, values):
            raise argparse.ArgumentError(self, "given twice, with different values")
        setattr(namespace, self.dest, values)


if __name__ == "__main__":
    sys.exit(main())
