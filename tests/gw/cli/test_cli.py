"""gw.cli: help texts, usage errors and the version."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gw import ROOT
from gw import cli as package
from gw.cli import root
from gw.config import VERSION
from tests.gw.cli.conftest import CommandLine


def test_help_lists_the_commands_without_the_processes(cli: CommandLine) -> None:
    shown = cli.run("--help").output
    for name in ("serve", "demo", "status", "calls", "recordings", "db", "config", "completion"):
        assert f"\n  {name} " in shown
    assert "\n  worker " not in shown
    assert "\n  control " not in shown


def _walk(command: click.Command, ctx: click.Context) -> Iterator[click.Context]:
    """Yield every command that help lists, and the groups."""
    yield ctx
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            assert found is not None
            yield from _walk(found, click.Context(found, parent=ctx, info_name=name))


@pytest.mark.parametrize(
    "ctx", [*_walk(root, click.Context(root, info_name="gateway.py"))], ids=lambda ctx: ctx.command_path.replace(" ", "_")
)
def test_every_help_has_exit_codes_and_an_example(ctx: click.Context) -> None:
    shown = ctx.command.get_help(ctx)
    assert re.search(r"^  Exit codes: 0 \w+", shown, re.MULTILINE)
    assert ctx.command_path in shown.partition("\n")[2]


@pytest.mark.parametrize("name", [*package._COMMANDS])
def test_every_command_has_help(cli: CommandLine, name: str) -> None:
    result = cli.run(name, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 4


def test_the_version(cli: CommandLine) -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert cli.run("--version").output == f"submilli, version {VERSION}\n"
    assert project["version"] == VERSION


def test_a_command_starts_without_heavy_imports() -> None:
    """gevent's search for plugins would read the metadata of every installed package."""
    code = "import sys, gateway, gw.cli.operate.status, gw.cli.completion; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    heavy = {"importlib.metadata", "sqlalchemy", "pymysql", "alembic", "twilio", "requests", "rich", "jsonschema", "asyncio"}
    loaded = set(run.stdout.split())
    assert "gevent.monkey" in loaded
    assert heavy & loaded == set()


@pytest.mark.parametrize(("word", "near"), [("statsu", "status"), ("recording", "recordings"), ("undrian", "undrain")])
def test_an_unknown_command_names_a_similar_one(cli: CommandLine, word: str, near: str) -> None:
    assert re.search(rf"No such command '{word}'\. .*\b{near}\b", cli.run(word).stderr)


def test_a_command_for_this_machine_only_offers_no_other(cli: CommandLine) -> None:
    assert "--host" not in cli.run("serve", "--help").output


@pytest.mark.parametrize("words", [["nonsense"], ["calls", "list", "--limit", "0"], ["calls", "show"], ["completion", "tcsh"]])
def test_wrong_usage_exits_with_2(cli: CommandLine, words: list[str]) -> None:
    result = cli.run(*words)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
