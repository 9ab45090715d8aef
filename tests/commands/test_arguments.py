"""Arguments: none is passed over in silence, and ~ is the home folder in each path."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
from helpers_data import SMALL, write_mmrec

from recbole_sigrec import Recommender, cli, compare
from recbole_sigrec.user_paths import user_path


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("inspect toy --dataset=other", "--dataset is not read by this command: .* first argument"),
        ("inspect toy --model=BM3", "--model is not read by this command: it reads keys of the"),
        ("inspect toy --epochs=3", "--epochs is not read by this command"),
        ("inspect toy --result_file=r.json", "--result_file is not read by this command"),
        ("inspect toy --config_files=absent.yaml", r"\[absent.yaml\] does not exist"),
        ("compare --models=Pop --model=BPR", "--model is not read by this command: .*--models"),
        ("compare --models=Pop --checkpoint_dir=x", "--checkpoint_dir is not read.*--out"),
        ("compare --models=Pop --config_file=a.yaml", r"\[config_file\] would do nothing"),
        ("compare --models=Pop --nproc=2", r"\[nproc\] would do nothing"),
        ("ablate --model=BPR", "--model is not read by this command: it is SIGRec"),
        ("ablate --checkpoint_dir=x", "--checkpoint_dir is not read.*--out"),
        ("tune --model=BPR --checkpoint_dir=x", "--checkpoint_dir is not read.*--out"),
        ("run --config_file_list=[a.yaml]", r"\[config_file_list\] would do nothing"),
        ("run --port=5000", "--port: of no use without --nproc or --world_size"),
        ("run --nproc=1 --ip=x --group_offset=1", "--ip, --group_offset: of no use without"),
    ],
)
def test_what_a_command_does_not_read_is_refused(command, says, tmp_path, capsys):
    name, *given = command.split()
    if name == "tune":
        pytest.importorskip("optuna")
    write_mmrec(tmp_path / "data")
    data = [f"--data_path={tmp_path / 'data'}"]
    data += [] if name == "inspect" else ["--dataset=toy"]
    assert cli.main([name, *given, *data]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and re.search(says, told)


def test_inspect_reads_config_files(tmp_path):
    write_mmrec(tmp_path / "data")
    file = tmp_path / "all.yaml"
    file.write_text(f"data_path: {tmp_path / 'data'}\nmodalities: [image]\nepochs: 3", "utf-8")
    assert cli.main(["inspect", "toy", f"--config_files={file}", "--json=f.json"]) == 0
    assert list(json.loads(Path("f.json").read_text("utf-8"))["modalities"]) == ["image"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home folder, with a data set in ``data``."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))  # Windows's
    write_mmrec(tmp_path / "home/data")
    return tmp_path / "home"


def test_the_home_folder_is_expanded_in_every_command(home):
    (home / "small.yaml").write_text(json.dumps(SMALL), "utf-8")
    (home / "items.csv").write_text("id,text\n0,red\n1,blue\n", "utf-8")
    table = ["user,item", *(f"{user},{item}" for user in range(6) for item in range(5))]
    (home / "table.csv").write_text("\n".join(table), "utf-8")
    small = "--dataset=toy --data_path=~/data --config_files=~/small.yaml"
    made = "--result_file=~/r.json --bundle=~/b.rec --checkpoint_dir=~/saved"
    commands = [
        f"run --model=BPR {small} {made} --graph_cache_dir=~/graphs",
        f"compare --models=Pop --seeds=1 --out=~/compared {small}",
        "inspect toy --data_path=~/data --json=~/f.json --html=~/f.html",
        "recommend ~/b.rec --out=~/top.csv",
        "look ~/b.rec --out=~/look.html",
        "import ~/table.csv --format=table --name=mine --user=user --item=item --out=~/data",
        "encode text --items=~/items.csv --id_column=id --columns=text --model=tfidf "
        "--out=~/text_feat.npy",
    ]
    for command in commands:
        assert cli.main(command.split()) == 0, command
    (checkpoint,) = (file for file in (home / "saved").glob("*.pth") if "last" not in file.name)
    given = f"~/{checkpoint.relative_to(home)}"
    assert cli.main(["export", given, "--out=~/c.rec", "--data_path=~/data"]) == 0
    made = "r.json b.rec saved compared f.json f.html top.csv look.html data/mine text_feat.npy"
    assert [name for name in [*made.split(), "c.rec"] if not (home / name).exists()] == []
    assert not Path("~").exists()


def test_the_home_folder_is_expanded_in_python(home):
    given = {**SMALL, "data_path": "~/data"}
    compare(["Pop"], "toy", config_dict=given, seeds=[1], out="~/compared")
    assert (home / "compared/results.csv").is_file() and not Path("~").exists()
    with pytest.raises(ValueError, match=str(home / "none.rec")):
        Recommender.load("~/none.rec")


def test_a_user_is_named_after_the_tilde(home):
    """Elsewhere than at the begin it is a sign as others are."""
    user = pytest.importorskip("pwd").getpwall()[0]
    assert user_path("~") == home and user_path("~/x") == home / "x"
    assert user_path(f"~{user.pw_name}/x") == Path(user.pw_dir) / "x" != home / "x"
    for name in ("~no-such-user/x", "a/~/x", "x~"):
        assert user_path(name) == Path(name)


def options(parser):
    """The options of a command and of its kinds."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for kind in action.choices.values():
                yield from options(kind)
        yield action


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_no_option_takes_a_path_as_it_stands(name):
    paths = {"FILE", "DIR", "FOLDER", "FILES", "SRC", "TARGET"}
    for option in options(cli.command_module(name).parser()):
        if option.metavar in paths or option.dest in ("bundle", "items", "weights"):
            assert option.type not in (None, Path), option
