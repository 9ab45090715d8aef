"""The command line: every command has its module, help and errors."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_sigrec import __version__, cli
from recbole_sigrec.config.property_files import known_keys
from recbole_sigrec.model_names import KNOWN, MODELS
from recbole_sigrec.preparation.prepare import DATASETS


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_shows_its_usage(name, capsys):
    assert cli.main([name, "--help"]) == 0
    usage = capsys.readouterr().out
    assert usage == cli.command_module(name).parser().format_help()
    assert usage.split()[:3] == ["usage:", "recbole-sigrec", name]
    assert max(map(len, usage.splitlines())) <= 80


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_ends_with_an_example_that_the_command_reads(name, capsys):
    assert cli.main([name, "--help"]) == 0
    first, *examples = capsys.readouterr().out.split("\nexample:\n")
    kinds = ["text", "image"] if name == "encode" else [""]
    assert len(examples) == len(kinds)
    for kind, text in zip(kinds, examples):
        lines = text.partition("\n\n")[0].replace("\\\n", " ").splitlines()
        assert lines
        for line in lines:
            program, command, *arguments = shlex.split(line)
            assert (program, command) == ("recbole-sigrec", name)
            _, rest = cli.command_module(name).parser().parse_known_args(arguments)
            assert rest == [] or "--KEY=VALUE" in first
            assert all(re.fullmatch(r"--\w+=\S+", one) for one in rest)
            assert known_keys() >= {one[2:].partition("=")[0] for one in rest}
            assert kind in arguments or not kind


def test_help_names_all_models_and_data_sets(capsys):
    assert cli.main(["run", "--help"]) == cli.main(["prepare", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*MODELS, *DATASETS))


def test_without_a_command_all_are_named(capsys):
    assert cli.main([]) == 2
    shown = capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert capsys.readouterr().out == shown
    for name, about in cli.COMMANDS.items():
        assert name in shown and about in shown


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_an_unknown_command_is_refused(capsys):
    assert cli.main(["ran", "--epochs=1"]) == 2
    told = capsys.readouterr().err
    assert "unknown command [ran]. Did you mean 'run'?" in told


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_ctrl_c_is_one_line(name, capsys, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.command_module(name), "main", interrupted)
    assert cli.main([name]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_ctrl_c_in_training(planted, make_values):
    """The log comes before the line; there is no traceback."""
    given = {
        **make_values(planted.folder),
        "epochs": 10**6,
        "state": "INFO",
        "stopping_step": 10**6,
    }
    command = [
        sys.executable,
        "-m",
        "recbole_sigrec.cli",
        "run",
        "--model=BPR",
        "--dataset=planted",
    ]
    command += [f"--{key}={value}" for key, value in given.items()]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # It may be ignored here, as in a shell's background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as program:
        lines = iter(program.stderr)
        assert any(b"epoch   1 | loss" in line for line in lines)
        program.send_signal(signal.SIGINT)
        rest = b"".join(lines)
    assert program.returncode == 130
    assert rest.endswith(b"interrupted\n") and b"Traceback" not in rest


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset"], "--dataset/-d: expected one argument"),
        (["--nproc=x"], "--nproc: invalid int value: 'x'"),
        (["--model=A", "--model=B"], "--model/-m: given twice, with different values"),
        (["--no-such"], "[--no-such]: write it as --key=value"),
    ],
)
def test_wrong_arguments_are_told(arguments, message, capsys):
    assert cli.main(["run", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_list_of_models_is_that_of_the_documentation(capsys):
    """Each of ours with its venue and what it does; RecBole's that can run here."""
    assert cli.main(["models"]) == 0
    ours, theirs = capsys.readouterr().out.split("\n\n")
    head, line, *rows = ours.splitlines()
    assert head.split() == ["model", "published", "what", "it", "does"] and set(line) == {"="}
    assert [row.split()[0] for row in rows] == list(MODELS)
    names = theirs.strip().removeprefix("RecBole's: ").split(", ")
    assert {"LightGCN", "BPR", "Random", "EASE"} <= set(names)
    assert "SpectralCF" not in theirs and "SASRec" not in theirs
    page = Path(__file__).parents[2] / "docs" / "models.md"
    if not page.is_file():
        pytest.skip("the documentation is not here")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", page.read_text("utf-8"), re.MULTILINE)
    told = {name: (published, about) for name, published, about in rows}
    assert list(told)[: len(KNOWN)] == list(KNOWN)
    for name, known in KNOWN.items():
        assert told[name][0].startswith(known.published), name
        assert told[name][1].startswith(known.about), name
