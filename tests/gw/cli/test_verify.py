"""gw.cli.verify: reports, exit codes, and a verdict for each guarantee."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gw.cli import root
from gw.cli import verify as group
from gw.cli.verify import NotProven
from gw.verify.guard import check as guard_check
from gw.verify.guard.jobs import JOB_INVARIANTS
from gw.verify.guard.model import INVARIANTS, Scenario
from gw.verify.guard.pauses import PAUSE_INVARIANTS
from gw.verify.purity import check, project_source
from tests.gw.verify.purity.mutants import TX


@pytest.fixture
def pierced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TX loop whose source prints."""
    text = (Path(project_source.ROOT) / TX).read_text()
    loud = text.replace("        self.frames_sent += 1\n", "        print(sent_s)\n        self.frames_sent += 1\n")
    real = project_source.Project
    monkeypatch.setattr(check, "Project", lambda replaced=None: real({TX: loud}))


def test_the_source_alone():
    result = CliRunner().invoke(root, ["verify", "purity", "--static"])
    assert result.exit_code == 0, result.output
    assert "gw/media/tx.py" in result.output
    assert "TX is pure:" in result.output
    assert "not watched" in result.output


def test_the_document_of_purity_lists_every_operation():
    result = CliRunner().invoke(root, ["verify", "purity", "--static", "--json"])
    document = json.loads(result.stdout)
    assert document["ok"] is True
    assert {"queue", "send", "sleep", "clock", "counter", "flag"} == {found["class"] for found in document["operations"]}
    assert all(found["why"] and found["file"] and found["line"] for found in document["operations"])
    assert all(found == {"absent": True, "found": []} for found in document["forbidden"].values())
    assert {"thread starts", "database", "JSON", "queue flush", "session close"} <= set(document["forbidden"])


def test_a_loop_that_prints_is_refused(pierced: None):
    result = CliRunner().invoke(root, ["verify", "purity", "--static"])
    assert result.exit_code == 1
    assert "NOT ALLOWED" in result.output
    assert "not pure: call builtins.print is not on the allow-list, at gw/media/tx.py:" in result.output
    document = json.loads(CliRunner().invoke(root, ["verify", "purity", "--static", "--json"]).stdout)
    assert document["ok"] is False
    assert document["forbidden"]["logging"] == {"absent": False, "found": ["builtins.print"]}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_check, "SCENARIOS", (Scenario("small", frozenset({"20429", "time-out"}), 1),))
    monkeypatch.setattr(guard_check, "DEEP", (Scenario("deeper", frozenset({"20429", "time-out"}), 2),))


def test_the_guard_holds(small: None) -> None:
    done = CliRunner().invoke(root, ["verify", "guard"])
    assert done.exit_code == 0, done.output
    assert "small" in done.output
    assert all(f"holds      {invariant}" in done.output for invariant in INVARIANTS)
    assert "Assumptions" in done.output
    assert "BROKEN" not in done.output


def test_a_broken_guard_is_shown_step_by_step(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.media.ai_out.TURN_S", 5.0)
    done = CliRunner().invoke(root, ["verify", "guard"])
    assert done.exit_code == 1
    assert "BROKEN     a call that lives 2 s after its first frame is recorded by then" in done.output
    assert "the shortest sequence that breaks it (small)" in done.output
    assert "    1  worker 1: TX's first frame reaches the kernel\n    2  2 s pass" in done.output


def test_the_document_of_the_guard(small: None) -> None:
    done = CliRunner().invoke(root, ["verify", "guard", "--json"])
    document = json.loads(done.output)
    assert document["holds"] is True
    assert [one["name"] for one in document["scenarios"]] == ["small"]
    assert set(document["invariants"]) == {*INVARIANTS, *JOB_INVARIANTS, *PAUSE_INVARIANTS}


def test_more_and_fewer_faults(small: None) -> None:
    deeper = json.loads(CliRunner().invoke(root, ["verify", "guard", "--deep", "--json"]).output)
    assert [(one["name"], one["faults_in_one_run"]) for one in deeper["scenarios"]] == [("deeper", 2)]
    none = json.loads(CliRunner().invoke(root, ["verify", "guard", "--faults", "0", "--json"]).output)
    assert none["scenarios"][0]["faults_in_one_run"] == 0
    assert none["states"] < deeper["states"]


def _proofs(monkeypatch: pytest.MonkeyPatch, **ends: click.exceptions.Exit | None) -> None:
    """Replace the proofs by commands that end as given."""

    def command(name: str, end: click.exceptions.Exit | None) -> click.Command:
        @click.command(name)
        def body() -> None:
            if end is not None:
                raise end

        return body

    made = {name: command(name, end) for name, end in ends.items()}
    monkeypatch.setattr(group.verify, "get_command", lambda ctx, name: made[name])
    monkeypatch.setattr(group, "_PROOFS", {name: (name, "no race") for name in ends})


def test_all_proofs_end_with_a_verdict_for_each_guarantee(monkeypatch: pytest.MonkeyPatch):
    _proofs(monkeypatch, purity=None, guard=None, conversation=None, budget=None)
    result = CliRunner().invoke(root, ["verify"])
    assert result.exit_code == 0
    lines = [line.rsplit(None, 1) for line in result.output.splitlines()[-7:]]
    expected = ["TX purity", "recording timing", "single start", "no race", "clean separation", "conversation", "budget"]
    assert [line[0].strip() for line in lines] == expected
    assert {line[1] for line in lines} == {"holds"}


def test_a_broken_guarantee_does_not_stop_the_other_proofs(monkeypatch: pytest.MonkeyPatch):
    _proofs(monkeypatch, purity=NotProven("clean separation"), guard=click.exceptions.Exit(1), budget=None)
    result = CliRunner().invoke(root, ["verify"])
    assert result.exit_code == 1
    broken = [line.split("  ")[0].strip() for line in result.output.splitlines() if "DOES NOT HOLD" in line]
    assert broken == ["no race", "clean separation"]
    assert "verify budget" in result.output
