"""`verify guard` as it is typed: its table, its verdicts, its exit code."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from gw.cli import root
from gw.verify.guard import check
from gw.verify.guard.model import INVARIANTS, Scenario


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SCENARIOS", (Scenario("small", frozenset({"20429", "time-out"}), 1),))
    monkeypatch.setattr(check, "DEEP", (Scenario("deeper", frozenset({"20429", "time-out"}), 2),))


def test_what_holds_is_shown_and_is_success() -> None:
    done = CliRunner().invoke(root, ["verify", "guard"])
    assert done.exit_code == 0, done.output
    assert "small" in done.output
    assert all(f"holds      {invariant}" in done.output for invariant in INVARIANTS)
    assert "Taken for granted" in done.output
    assert "BROKEN" not in done.output


def test_what_breaks_is_shown_step_by_step_and_is_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.media.ai_out.TURN_S", 5.0)
    done = CliRunner().invoke(root, ["verify", "guard"])
    assert done.exit_code == 1
    assert "BROKEN     a call that lives 2 s after its first frame is recorded by then" in done.output
    assert "the shortest way to break it (small)" in done.output
    assert "    1  worker 1: TX's first frame reaches the kernel\n    2  2 s pass" in done.output


def test_for_a_script() -> None:
    done = CliRunner().invoke(root, ["verify", "guard", "--json"])
    document = json.loads(done.output)
    assert document["holds"] is True
    assert [one["name"] for one in document["scenarios"]] == ["small"]
    assert set(document["invariants"]) == set(INVARIANTS)


def test_deeper_and_with_other_faults() -> None:
    deeper = json.loads(CliRunner().invoke(root, ["verify", "guard", "--deep", "--json"]).output)
    assert [(one["name"], one["faults_in_one_run"]) for one in deeper["scenarios"]] == [("deeper", 2)]
    none = json.loads(CliRunner().invoke(root, ["verify", "guard", "--faults", "0", "--json"]).output)
    assert none["scenarios"][0]["faults_in_one_run"] == 0
    assert none["states"] < deeper["states"]
