"""gw.cli.completion: the script of each shell, and completed lines."""

from __future__ import annotations

import click
import pytest

from gw.cli import root
from tests.gw.cli.conftest import ENDED, LIVE, CommandLine


def _offered(words: str, **environ: str) -> list[str]:
    """Return the completions in bash for a line whose last word is incomplete."""
    asked = {"COMP_WORDS": f"submilli {words}", "COMP_CWORD": str(len(words.split(" "))), "_SUBMILLI_COMPLETE": "bash_complete"}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (asked | environ).items():
            patched.setenv(name, value)
        result = click.testing.CliRunner().invoke(_completing, prog_name="gateway.py")
    return [line.partition(",")[2] for line in result.output.splitlines() if line]


@click.command()
def _completing() -> None:
    root(prog_name="gateway.py", complete_var="_SUBMILLI_COMPLETE")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("und", ["undrain"]),
        ("rel", ["reload"]),
        ("calls tr", ["transfer"]),
        ("db poison ", ["drop", "export", "list", "retry"]),
        ("loglevel c", ["configured"]),
        ("calls transfer CAb", [LIVE]),
        ("calls watch CA", [LIVE]),
        ("calls explain CAa", [ENDED]),
        ("recordings retry CAa", [ENDED]),
        ("call +15551234567 --agent d", ["default"]),
        ("--host vm1 calls show CA", []),
        ("--host vm1 sta", ["status"]),
        ("--host vm1 call +15551234567 --agent d", []),
    ],
)
def test_a_line_completes(cli: CommandLine, gateway: list[str], typed: str, offered: list[str]) -> None:
    assert _offered(typed, SUBMILLI_CONFIG=str(cli.config)) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_complete(cli: CommandLine, shell: str) -> None:
    script = cli.run("completion", shell).stdout
    assert "gateway.py" in script
    assert "@" not in script.replace("$@", "").replace("[@]", "")
