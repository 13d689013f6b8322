"""The report of `verify guard`: invariants that hold, a violation with its way, and a search cut short."""

from __future__ import annotations

import pytest

from gw.verify.guard import check
from gw.verify.guard.jobs import JOB_FAULTS, JOB_INVARIANTS, JobScenario
from gw.verify.guard.model import ALL_FAULTS, INVARIANTS, Scenario
from gw.verify.guard.pauses import PAUSE_FAULTS, PAUSE_INVARIANTS

PLAIN = Scenario("plain", frozenset(), 0)


def test_every_fault_is_in_a_scenario() -> None:
    assert frozenset().union(*(scenario.faults for scenario in check.SCENARIOS)) == ALL_FAULTS | JOB_FAULTS | PAUSE_FAULTS


def test_results_are_passed_on_as_they_come() -> None:
    seen: list[check.Judged] = []
    report = check.check([PLAIN, PLAIN], on_judged=seen.append)
    assert tuple(seen) == report.judged


def test_the_report_lists_the_invariants() -> None:
    report = check.check([PLAIN, Scenario("21220", frozenset({"21220"}), 1), JobScenario("a job", frozenset(), 0)])
    document = report.document()
    assert report.holds
    assert document["holds"]
    assert list(document["invariants"]) == [*INVARIANTS, *JOB_INVARIANTS, *PAUSE_INVARIANTS]
    assert all(verdict == {"holds": True} for verdict in document["invariants"].values())
    assert document["states"] == sum(one["states"] for one in document["scenarios"])


def test_the_report_has_the_shortest_way_to_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.media.ai_out.TURN_S", 5.0)
    report = check.check([PLAIN])
    document = report.document()
    assert not report.holds
    (broken,) = [verdict for verdict in document["invariants"].values() if not verdict["holds"]]
    assert broken["trace"] == ["worker 1: TX's first frame reaches the kernel", "2 s pass"]


def test_a_search_cut_short_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_STATES", 50)
    report = check.check([PLAIN])
    assert not report.holds
    assert not any(verdict["holds"] for verdict in report.document()["invariants"].values())
