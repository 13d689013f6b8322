"""`verify conversation`: the machine keeps its rules, a violation has its transcript, a search cut short proves nothing."""

from __future__ import annotations

import pytest

from gw.verify.conversation import check
from gw.verify.conversation.state import NO_DEAD_AIR, RULES
from tests.gw.call.dialogue import shortcut


def test_the_machine_keeps_its_rules() -> None:
    """In small scenarios; `make test` runs all of them beside the tests."""
    report = check.check([one for one in check.SCENARIOS if not one.budget])
    assert report.holds, [one.explored.violations for one in report.judged if one.explored.violations]
    document = report.document()
    assert list(document["rules"]) == list(RULES)
    assert document["states"] == sum(one["states"] for one in document["scenarios"]) > 10_000


def test_the_short_way_of_audio_is_the_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = shortcut.compare(monkeypatch)
    for scenario in (check.FINISHES_GOODBYE, check.HOLD, check.HOLD_JUDGED):
        assert not check.explore(scenario._replace(faults=frozenset({"more", "starve"}), budget=2)).violations
    assert len(taken) > 100


def test_results_are_passed_on_as_they_come() -> None:
    seen: list[check.Judged] = []
    report = check.check([check.SILENCE, check.WRONG_CLOCK], on_judged=seen.append)
    assert tuple(seen) == report.judged


def test_the_report_has_the_shortest_conversation_that_breaks_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.call.dialogue.rules.OWN_RESPONSE_MS", 5000)
    document = check.check([check.PLAIN]).document()
    broken = document["rules"][NO_DEAD_AIR]
    assert not document["holds"]
    assert broken["trace"][-1] == "5 s pass -> Create(prompt=<Prompt.ANSWER: 'answer'>, tool='')"


def test_a_search_cut_short_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_STATES", 50)
    report = check.check([check.PLAIN])
    assert not report.holds
    assert not any(verdict["holds"] for verdict in report.document()["rules"].values())
