"""Breaks things on purpose: kills commands, feeds readers with broken files, fills the disk.

python benchmarks/campaign.py --minutes 60              all of it
python benchmarks/campaign.py --seconds 45 --seed 1     a short one
python benchmarks/campaign.py --only kills,checkpoint   some parts, readers or commands
python benchmarks/campaign.py --again FOLDER            one saved input once more

- **fuzz**: every reader of files gets mutated real files, in processes that may take 2 GB and 10 s
  for each. What is accepted, or refused by an error of ours, is well; a traceback, a hang, too much
  memory, anything that is run, and an altered file that carries a hash and is accepted all the same
  are findings.
- **kills**: commands get SIGKILL, SIGTERM or SIGINT at random moments, and are given again until
  they end. What they made must be what they make when left alone, and nothing may be left.
- **limits**: files that cannot grow, a folder that cannot be written, two processes in one folder.

The seed decides on the n-th input of each reader and the n-th round of each command; how many there
are is a matter of time. Findings are in the folder, each with its input; the exit status is then 1.
Linux only. Commands are run by forks of this process, which has imported all that they need.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import pkgutil
import re
import shutil
import sys
import tempfile
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from campaign_commands import SCENARIOS, write_many
from campaign_fuzz import Fuzz, outcome_of, write_input
from campaign_kills import Kills
from campaign_limits import Limits
from campaign_originals import write_originals
from campaign_readers import READERS

import recbole_sigrec

_SHARES = {"fuzz": 0.5, "kills": 0.35, "limits": 0.15}
"""Part → its share of the time."""

_FORK = multiprocessing.get_context("fork")


def prepare(folder: Path) -> Path:
    """Make the originals in a process of its own, and import here what that has imported.

    Returns:
        The folder of the originals.
    """
    originals = folder / "originals"
    originals.mkdir()
    ours, other = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_make, args=(originals, other))
    process.start()
    other.close()
    modules = ours.recv()
    process.join()
    ours_all = pkgutil.walk_packages(recbole_sigrec.__path__, "recbole_sigrec.")
    for name in (*modules, *(module.name for module in ours_all)):
        with contextlib.suppress(Exception):  # some can be imported by others alone, or lack extras
            import_module(name)
    torch.set_num_threads(1)  # a fork has no others
    return originals


def _make(folder: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    known = set(sys.modules)
    os.chdir(folder)
    with open(folder / "originals.log", "w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        write_originals()
        write_many()
    pipe.send([name for name in sys.modules if name not in known])


def _chosen(only: list[str]) -> dict[str, list[str]]:
    """Part → the readers or commands that are wanted."""
    known = {"fuzz": [*READERS], "kills": ["serve", *SCENARIOS], "limits": [*SCENARIOS]}
    names = {*known, *(name for of_part in known.values() for name in of_part)}
    if stray := set(only) - names:
        sys.exit(f"--only: there is no {', '.join(sorted(stray))}; there are {', '.join(names)}")
    return {
        part: [name for name in of_part if not only or {part, name} & {*only}]
        for part, of_part in known.items()
    }


def _save(finding: tuple[str, int, str], seed: int, originals: Path, folder: Path) -> Path:
    """Write the input of a finding, by a process of its own, and what was said."""
    name, number, told = finding
    saved = folder / "findings" / f"{re.sub('[^a-z0-9.]+', '-', name)}-{number}"
    saved.mkdir(parents=True, exist_ok=True)
    (saved / "told.txt").write_text(told, encoding="utf-8", errors="replace")
    if name in READERS:
        (saved / "reader.txt").write_text(name, encoding="ascii")
        given = name, number, seed, originals, saved / "input"
        process = _FORK.Process(target=write_input, args=given)
        process.start()
        process.join()
    return saved


def _again(saved: Path) -> int:
    """Read a saved input once more, with its errors in sight."""
    name = (saved / "reader.txt").read_text("ascii")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(shutil.copytree(saved.resolve() / "input", Path(folder, "again")))
        print(*outcome_of(READERS[name]), sep="\n")
    return 0


def campaign(folder: Path, seconds: float, seed: int, workers: int, only: list[str]) -> int:
    """All parts; returns the number of findings."""
    originals, chosen = prepare(folder), _chosen(only)
    found: list[tuple[str, int, str]] = []
    tables = []
    whole = sum(_SHARES[part] for part, names in chosen.items() if names)
    for part, names in chosen.items():
        share = seconds * _SHARES[part] / whole
        if not names:
            continue
        if part == "fuzz":
            at_work = Fuzz(originals, seed, names, workers)
        else:
            at_work = (Kills if part == "kills" else Limits)(folder, originals, seed, names)
        with contextlib.suppress(KeyboardInterrupt):  # ends the part, and its table is printed
            at_work.spend(share)
        found += at_work.findings()
        tables.append(at_work.table())
    print("\n\n".join(tables))
    for finding in found:
        saved = _save(finding, seed, originals, folder)
        again = f"\nagain: python benchmarks/campaign.py --again {saved}"
        name, number, told = finding
        print(f"\n{name} {number}: {told[:3000]}{again if name in READERS else ''}")
    print(f"\n{len(found)} findings" + (f" in {folder / 'findings'}" if found else ""))
    return len(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="how long; default 10")
    length.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--workers", type=int, default=1, help="readers at a time; default 1")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="parts, readers, commands")
    parser.add_argument("--folder", type=Path, help="of findings; default a new temporary one")
    parser.add_argument("--again", type=Path, metavar="FOLDER", help="a saved input, once more")
    given = parser.parse_args()
    if given.again:
        return _again(given.again)
    folder = Path(tempfile.mkdtemp(prefix="campaign-", dir=given.folder)).resolve()
    seconds = given.seconds or 60 * (given.minutes or 10)
    only = [name.strip() for name in given.only.split(",") if name.strip()]
    found = campaign(folder, seconds, given.seed, given.workers, only)
    os.chdir("/")
    if not found:
        shutil.rmtree(folder)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
