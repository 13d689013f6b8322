"""deploy/audit.py: licences of what is installed, and pip-audit's answers."""

from __future__ import annotations

import runpy
import subprocess
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
AUDIT = runpy.run_path(str(ROOT / "deploy" / "audit.py"))


def test_every_installed_package_has_an_allowed_licence() -> None:
    assert AUDIT["licences"](metadata.distributions()) == []


@pytest.mark.parametrize(
    ("fields", "expected", "is_allowed"),
    [
        ({"License-Expression": "Apache-2.0 OR GPL-3.0-only"}, "Apache-2.0 OR GPL-3.0-only", True),
        ({"License-Expression": "MIT AND GPL-3.0-only"}, "MIT AND GPL-3.0-only", False),
        ({"License-Expression": "(MIT OR GPL-3.0-only) AND ISC"}, "(MIT OR GPL-3.0-only) AND ISC", False),
        ({"License": "MIT"}, "MIT", True),
        ({"License": "GPL", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT", True),
        ({"Classifier": "License :: OSI Approved :: GNU General Public License"}, "GNU General Public License", False),
        ({"License": "All rights reserved\nby us"}, "All rights reserved", False),
        ({}, "", False),
    ],
)
def test_a_licence_is_read_from_the_metadata(fields: dict[str, str], expected: str, is_allowed: bool) -> None:
    package = Message()
    package["Name"] = "anything"
    for name, value in fields.items():
        package[name] = value
    assert AUDIT["licence"](package) == expected
    assert AUDIT["is_allowed"](expected) is is_allowed


def test_what_pip_audit_skipped_is_not_checked() -> None:
    answer = {
        "dependencies": [
            {"name": "good", "version": "1", "vulns": []},
            {"name": "bad", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2", "1.1"]}]},
            {"name": "worse", "version": "3", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]},
            {"name": "unknown", "skip_reason": "not found"},
        ]
    }
    found, unchecked = AUDIT["vulnerabilities"](answer)
    assert found == ["bad 1: PYSEC-1; fixed in 2 or 1.1", "worse 3: PYSEC-2; fixed in no version yet"]
    assert unchecked == ["unknown"]


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        ({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}, 0, "known vulnerabilities found: 0"),
        ({"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X", "fix_versions": []}]}]}, 1, "a 1: X"),
        ({"dependencies": [{"name": "a", "skip_reason": "none"}]}, 3, "NOT CHECKED"),
        (subprocess.TimeoutExpired("pip-audit", 1.0), 3, "NOT CHECKED"),
    ],
)
def test_the_exit_code_separates_clean_from_not_checked(
    outcome: Any, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(files: list[str]) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    main = AUDIT["main"]
    main.__globals__["ask"] = ask
    assert main(["requirements.txt"]) == code
    assert words in capsys.readouterr().out
