"""``recbole-sigrec run``: train and test one model."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Once, Parser, model_names, need_recbole
from recbole_sigrec.errors import ConfigError

EXAMPLE = """\
recbole-sigrec run --model=SIGRec --dataset=mine --data_path=dataset \\
  --result_file=result.json"""


def parser() -> Parser:
    """The arguments of the command."""
    keys = "any config key, such as --result_file=r.json"
    made = Parser("recbole-sigrec run", "Train a model on a data set, and test it.", EXAMPLE, keys)
    made.once("--model", "-m", metavar="NAME", help=f"default SIGRec; {model_names()}")
    made.dataset()
    made.config_files()
    nproc = "processes on this machine that train the model together; default 1"
    made.once("--nproc", type=int, help=nproc)
    several = made.add_argument_group("on several machines")
    for name, about in (
        ("world_size", "processes in all"),
        ("group_offset", "rank of this machine's first process"),
        ("port", "port of the machine with rank 0"),
    ):
        several.add_argument(f"--{name}", type=int, action=Once, help=about)
    several.add_argument("--ip", action=Once, help="address of the machine with rank 0")
    return made


def main(arguments: list[str]) -> int:
    """Train and test; 0 if both ended."""
    known, rest = parser().parse_known_args(arguments)
    need_recbole()
    from recbole_sigrec.training.run import run

    names = ("nproc", "world_size", "ip", "port", "group_offset")
    several = known.world_size not in (None, 1) or known.nproc not in (None, 1)
    alone = [
        f"--{name}"
        for name in ("ip", "port", "group_offset")
        if not several and getattr(known, name) is not None
    ]
    if alone:
        raise ConfigError(f"{', '.join(alone)}: of no use without --nproc or --world_size")
    places = {name: getattr(known, name) for name in names if getattr(known, name) is not None}
    run(known.model, known.dataset, known.config_files, command_line=rest, **places)
    return 0
