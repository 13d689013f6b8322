"""`verify` as people and scripts use it: reports, exit codes, and a line for each guarantee."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gw.cli import root
from gw.cli import verify as group
from gw.cli.verify import NotProven, Proof
from gw.verify.purity import check, project_source
from tests.gw.verify.purity.mutants import TX


@pytest.fixture
def pierced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TX loop that prints, as far as the source reader can tell."""
    text = (Path(project_source.ROOT) / TX).read_text()
    loud = text.replace("        self.frames_sent += 1\n", "        print(sent_s)\n        self.frames_sent += 1\n")
    real = project_source.Project
    monkeypatch.setattr(check, "Project", lambda replaced=None: real({TX: loud}))


def test_the_source_alone_is_judged_in_a_moment():
    result = CliRunner().invoke(root, ["verify", "purity", "--static"])
    assert result.exit_code == 0, result.output
    assert "gw/media/tx.py" in result.output
    assert "TX is pure:" in result.output
    assert "not watched" in result.output


def test_the_document_names_every_operation():
    result = CliRunner().invoke(root, ["verify", "purity", "--static", "--json"])
    document = json.loads(result.stdout)
    assert document["ok"] is True
    assert {"queue", "send", "sleep", "clock", "counter", "flag"} == {found["class"] for found in document["operations"]}
    assert all(found["why"] and found["file"] and found["line"] for found in document["operations"])
    assert all(found == {"absent": True, "found": []} for found in document["forbidden"].values())
    assert {"thread starts", "database", "JSON", "queue flush", "session close"} <= set(document["forbidden"])


def test_a_loop_that_prints_is_one(pierced: None):
    result = CliRunner().invoke(root, ["verify", "purity", "--static"])
    assert result.exit_code == 1
    assert "NOT ALLOWED" in result.output
    assert "not pure: call builtins.print is not on the allow-list, at gw/media/tx.py:" in result.output
    document = json.loads(CliRunner().invoke(root, ["verify", "purity", "--static", "--json"]).stdout)
    assert document["ok"] is False
    assert document["forbidden"]["logging"] == {"absent": False, "found": ["builtins.print"]}


def _proofs(monkeypatch: pytest.MonkeyPatch, **ends: click.exceptions.Exit | None) -> None:
    """Proofs that end as given, in place of the real ones."""

    def command(name: str, end: click.exceptions.Exit | None) -> click.Command:
        @click.command(name)
        def body() -> None:
            if end is not None:
                raise end

        return body

    made = {name: command(name, end) for name, end in ends.items()}
    monkeypatch.setattr(group.verify, "get_command", lambda ctx, name: made[name])
    monkeypatch.setattr(group, "_PROOFS", {name: Proof("", (name, "no race")) for name in ends})


def test_all_proofs_end_with_a_line_for_each_guarantee(monkeypatch: pytest.MonkeyPatch):
    _proofs(monkeypatch, purity=None, guard=None, budget=None)
    result = CliRunner().invoke(root, ["verify"])
    assert result.exit_code == 0
    lines = [line.rsplit(None, 1) for line in result.output.splitlines()[-6:]]
    expected = ["TX purity", "recording timing", "single start", "no race", "clean separation", "budget"]
    assert [line[0].strip() for line in lines] == expected
    assert {line[1] for line in lines} == {"holds"}


def test_what_does_not_hold_is_named_and_the_other_proofs_still_run(monkeypatch: pytest.MonkeyPatch):
    _proofs(monkeypatch, purity=NotProven("clean separation"), guard=click.exceptions.Exit(1), budget=None)
    result = CliRunner().invoke(root, ["verify"])
    assert result.exit_code == 1
    broken = [line.split("  ")[0].strip() for line in result.output.splitlines() if "DOES NOT HOLD" in line]
    assert broken == ["no race", "clean separation"]
    assert "verify budget" in result.output
