"""The command line: every command has its module, help and errors."""

import pytest

from recbole_sigrec import __version__, cli


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_shows_its_usage(name, capsys):
    assert cli.main([name, "--help"]) == 0
    usage = capsys.readouterr().out
    assert usage == cli.command_module(name).USAGE + "\n"
    assert usage.startswith(f"recbole-sigrec {name} ")


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
