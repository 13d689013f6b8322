"""Documents: links, paths, commands, make targets and configurations that they name are valid."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import textwrap
import tomllib
from pathlib import Path

import click
import pytest

from gw.cli import root
from gw.config.load import load

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    Path(name)
    for name in subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if (ROOT / name).is_file()
]
#: The changelog also names what was removed.
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
_FENCE = re.compile(r"^\s*```.*?^\s*```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"(?<![\w/.$<{-])((?:gw|metrics|tests|deploy)/[\w./*-]*\w/?)")
_COMMAND = re.compile(r"`(?:\.venv/bin/python )?gateway\.py ((?:[a-z]+ ?)+)")
_TARGET = re.compile(r"`make ((?:[a-z-]+ ?)+)")


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub derives them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", (ROOT / page).read_text())):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page.parent / name).resolve() if name else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in _anchors(target), f"{page}: {link}"


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_named_paths_exist(page: Path) -> None:
    for path in _PATH.findall((ROOT / page).read_text()):
        found = list(ROOT.glob(path)) or list((ROOT / page.parent).glob(path))
        assert found, f"{page}: {path}"


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_named_commands_exist(page: Path) -> None:
    for words in _COMMAND.findall((ROOT / page).read_text()):
        command: click.Command | None = root
        for word in words.split():
            if not isinstance(command, click.Group):
                break  # an argument
            command = command.get_command(click.Context(command), word)
            assert command is not None, f"{page}: gateway.py {words}"


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_named_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in _TARGET.findall((ROOT / page).read_text()):
        assert set(words.split()) <= targets, f"{page}: make {words}"


def test_the_configuration_in_the_readme_is_valid(tmp_path: Path) -> None:
    """Each step appends to the file of the one before."""
    blocks = re.findall(r"```toml\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "submilli.toml"
    secrets = {"TWILIO_AUTH_TOKEN": "secret", "OPENAI_API_KEY": "secret", "SUBMILLI_HOOK_SECRET": "0" * 64}
    for block in blocks:
        with path.open("a") as file:
            file.write(textwrap.dedent(block).replace("AC...", "AC" + "0" * 32))
        config = load(path, secrets)
    assert len(blocks) == 3
    assert set(config.agents["default"].tools) == {"hang_up", *config.tools}
    assert config.server.public_url.startswith("https://")
    assert config.agents["default"].provider == "openai"


def test_the_page_of_commands_has_every_command() -> None:
    text = (ROOT / "deploy" / "COMMANDS.md").read_text()
    listed = {word for cell in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for word in re.findall(r"`(\w+)", cell)}
    commands = set(root.list_commands(click.Context(root)))
    assert len(commands) > 10
    assert commands <= listed


def test_the_panels_and_dashboards_in_the_runbook_exist() -> None:
    text = " ".join((ROOT / "deploy" / "prometheus" / "RUNBOOK.md").read_text().split())
    named = set(re.findall(r"\*([^*]+)\*", text))
    dashboards = [json.loads(path.read_text()) for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")]
    titles = {panel["title"] for dashboard in dashboards for panel in dashboard["panels"]}
    titles |= {dashboard["title"].removeprefix("Submilli: ") for dashboard in dashboards}
    assert len(named) > 5
    assert named <= titles


def test_each_attack_names_tests_that_exist() -> None:
    table = (ROOT / "SECURITY.md").read_text().partition("## Attacks")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for path, name in named:
            assert name in _definitions(ROOT / path), f"{path}::{name}"


# -- the architecture page --------------------------------------------------------------------------------------------

ARCHITECTURE = ROOT / "gw" / "README.md"


def _definitions(path: Path) -> set[str]:
    """Return `name` and `Class.name` of all functions, classes and constants of a module."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.ClassDef(name=name):
                found |= {name} | {f"{name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
            case ast.FunctionDef(name=name):
                found.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


def _steps() -> list[tuple[str, list[str]]]:
    """Return file and functions of each row of the page's tables of steps."""
    rows = re.findall(r"^\| \d+ \| \[[^]]+\]\(([^)]+)\) \| ([^|]+) \|", ARCHITECTURE.read_text(), re.MULTILINE)
    return [(path, re.findall(r"`([\w.]+)`", functions)) for path, functions in rows]


@pytest.mark.parametrize(("path", "functions"), _steps())
def test_the_functions_of_each_step_exist(path: str, functions: list[str]) -> None:
    assert functions
    assert set(functions) <= _definitions(ROOT / "gw" / path)


def test_the_page_describes_each_way() -> None:
    assert len(_steps()) > 30


def test_the_constants_of_each_change_exist() -> None:
    text = ARCHITECTURE.read_text().partition("## To change X")[2]
    for name in set(re.findall(r"`(_?[A-Z][A-Z_]+)`", text)):
        assert any(re.search(rf"^{name}\b", path.read_text(), re.MULTILINE) for path in ROOT.glob("[gm][we]*/**/*.py")), name


def test_the_page_lists_every_folder() -> None:
    listed = set(re.findall(r"`(\w+(?:/\w+)*)/`", ARCHITECTURE.read_text().partition("## Layers")[0]))
    for folder in (ROOT / "gw").iterdir():
        assert not (folder / "__init__.py").exists() or folder.name in listed, folder.name
    for parent in ("media", "control"):
        folders = {f"{parent}/{file.parent.name}" for file in (ROOT / "gw" / parent).glob("*/__init__.py")}
        assert folders <= listed


def test_the_layers_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["name"] == "Imports point one way")
    written = re.search(r"^    (cli > .+)$", ARCHITECTURE.read_text(), re.MULTILINE)
    assert written is not None
    assert written[1] == " > ".join(layers).replace("gw.", "")
