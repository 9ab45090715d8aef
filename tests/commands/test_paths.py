"""Paths with spaces, other letters than ASCII's, and drives; labels that are no file names."""

from __future__ import annotations

import shlex
import unicodedata
from pathlib import Path

import pytest
from helpers_data import SMALL, write_mmrec

from recbole_sigrec import compare
from recbole_sigrec.cli import main
from recbole_sigrec.commands.arguments import split_files
from recbole_sigrec.comparison.arms import Arm

ARGUMENTS = ["--data_path=dätä sets", "--dataset=jeu d’été", "--config_files='my cönfig.yaml'"]


@pytest.fixture
def there(tmp_path):
    """A data set and a config file with such names."""
    write_mmrec(tmp_path / "dätä sets", "jeu d’été")
    Path("my cönfig.yaml").write_text("weight_decay: 0.0\n", "utf-8")
    small = [f"--{key}={value}" for key, value in SMALL.items() if key != "checkpoint_dir"]
    return [*ARGUMENTS, *small]


def test_compare_and_run_take_any_path(there):
    assert main(["compare", "--models=BPR", "--seeds=1", "--out=résultats 結果", *there]) == 0
    assert Path("résultats 結果/runs/BPR-1.json").is_file()
    more = ["--checkpoint_dir=mes modèles", "--result_file=mon résultat.json"]
    assert main(["run", "--model=BPR", *there, *more]) == 0
    assert Path("mon résultat.json").is_file() and list(Path("mes modèles").glob("*.pth"))


def test_tune_takes_any_path_and_its_command_too(there, capsys):
    url = pytest.importorskip("sqlalchemy").make_url
    pytest.importorskip("optuna")
    Path("espace.txt").write_text("learning_rate choice [0.001, 0.01]\n", "utf-8")
    arguments = ["--trials=1", "--out=essais 結果", "--params_file=espace.txt"]
    assert main(["tune", "--model=BPR", *arguments, *there]) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    assert main(shlex.split(command)[1:]) == 0
    drive = r"C:\my data\été\study.db"
    assert url(f"sqlite:///{drive}").database == drive


@pytest.mark.parametrize(
    ("text", "windows", "files"),
    [
        (r"C:\a\b.yaml D:\c.yaml", True, [r"C:\a\b.yaml", r"D:\c.yaml"]),
        (r"'C:\my files\b.yaml' c.yaml", True, [r"C:\my files\b.yaml", "c.yaml"]),
        (r'"\\server\my files\b.yaml"', True, [r"\\server\my files\b.yaml"]),
        (r"a\ b.yaml 'c d.yaml'", False, ["a b.yaml", "c d.yaml"]),
        ("a#b.yaml #c.yaml", False, ["a#b.yaml", "#c.yaml"]),
    ],
)
def test_a_list_of_files_is_split_as_the_system_writes_paths(text, windows, files):
    assert split_files(text, windows) == files


def test_the_command_that_is_shown_can_be_typed():
    shown_command = pytest.importorskip("recbole_sigrec.tuning.outputs").shown_command
    files = [r"C:\my files\a.yaml", "b.yaml"]
    parts = ["run", f"--config_files={shlex.join(files)}"]
    assert shlex.split(shown_command(parts, windows=False)) == parts
    typed = shown_command(parts, windows=True)
    assert typed == "run \"--config_files='C:\\my files\\a.yaml' b.yaml\""
    assert split_files(parts[1].partition("=")[2], windows=True) == files


FORBIDDEN = set('<>:"/\\|?*') | {chr(n) for n in range(32)}
DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{a}{n}" for a in ("COM", "LPT") for n in range(1, 10))}
LABELS = [
    *(
        "a:b",
        "a/b",
        "a\\b",
        "a|b",
        "a*b",
        "a?b",
        'a"b',
        "a<b>",
        "a\tb",
        "a.",
        "a ",
        " a",
        ".a",
        "...",
    ),
    *("CON", "nul", "NUL.x", "com1.a.b", "aux ", "Größe", "結果", "x" * 300, "x" * 301, "名" * 100),
    *(unicodedata.normalize(form, "é") for form in ("NFC", "NFD")),
]


def test_every_label_gives_names_that_all_systems_take():
    stems = [Arm(label, "BPR").stem for label in LABELS]
    names = {unicodedata.normalize("NFC", stem).casefold() for stem in stems}
    assert len(names) == len(LABELS)  # also where letters' case and composition do not count
    for stem in stems:
        for name in (f"{stem}-1.json", f"{stem}-1"):
            assert not set(name) & FORBIDDEN and name == name.strip(" .")
            assert name.partition(".")[0].upper() not in DEVICES
            assert len(name.encode()) < 240
    assert Arm("Größe", "BPR").stem == "Größe"


def test_a_long_label_is_compared(tmp_path):
    data = write_mmrec(tmp_path / "data")
    values = {**SMALL, "data_path": str(data.parent), "topk": [5, 20]}
    arms = [Arm("x" * 300, "BPR"), Arm("NUL.x", "ItemKNN")]
    result = compare(arms, "toy", config_dict=values, seeds=[1], out=tmp_path / "out")
    assert [arm["label"] for arm in result["arms"]] == ["x" * 300, "NUL.x"]
