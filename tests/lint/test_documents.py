"""Documents: links, paths, commands, make targets and configurations that they name are valid."""

from __future__ import annotations

import re
import subprocess
import textwrap
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
    (sample,) = re.findall(r"```toml\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "submilli.toml"
    path.write_text(textwrap.dedent(sample).replace("AC...", "AC" + "0" * 32))
    config = load(path, {"TWILIO_AUTH_TOKEN": "secret", "OPENAI_API_KEY": "secret"})
    assert config.server.public_url.startswith("https://")
    assert config.agents["default"].provider == "openai"


def test_the_page_of_commands_has_every_command() -> None:
    text = (ROOT / "deploy" / "COMMANDS.md").read_text()
    listed = {word for cell in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for word in re.findall(r"`(\w+)", cell)}
    commands = set(root.list_commands(click.Context(root)))
    assert len(commands) > 10
    assert commands <= listed
