"""Control's parts, asked one question at a time, answer as they do in production."""

from __future__ import annotations

from gw.control.recording.lifecycle import Claim, Create, Leave, List, Outcome, take_over
from gw.verify.guard import claim_row as ops
from gw.verify.guard.claim_row import ABSENT, RowStore
from gw.verify.guard.parts import NOW_S, Parts, later


def test_the_bus_tells_an_event_once(parts: Parts) -> None:
    assert parts.fresh(("started", "record"), 1, 0) == ("started", "record")
    assert parts.fresh(("started", "record"), 1, 1) == ("record",)
    assert parts.fresh(("started", "record"), 1, 2) == ()


def test_the_recorder_heeds_a_wish_and_nothing_else_of_a_stream(parts: Parts) -> None:
    lifecycle = parts.told(None, "record")
    assert lifecycle is not None
    assert (lifecycle.action, lifecycle.began_s) == (Claim(), NOW_S)
    assert parts.told(lifecycle, "record") == lifecycle
    assert parts.heeded() == ()
    over = parts.told(lifecycle, "over")
    assert over is not None
    assert over.call_over


def test_a_course_goes_by_the_production_rules(parts: Parts) -> None:
    lifecycle = parts.told(None, "record")
    assert lifecycle is not None
    assert parts.claimed(lifecycle, "theirs").action == Leave("duplicate")
    lifecycle = parts.claimed(lifecycle, "ours")
    assert parts.due(lifecycle, True).action == Create()
    assert parts.answered(lifecycle, "started RE1").action == Outcome("started", "RE1")
    assert parts.answered(lifecycle, "time-out").action == List(0.5)
    found = parts.answered(parts.answered(lifecycle, "time-out"), ("completed",)).action
    assert isinstance(found, Outcome)
    assert found.state == "completed"


def test_a_webhook_is_read_as_production_reads_it(parts: Parts) -> None:
    assert parts.webhook("in-progress", "RE1") == Outcome("started", "RE1")
    assert parts.webhook("paused", "RE1") is None


def test_a_pass_does_what_production_does(rows: RowStore, parts: Parts) -> None:
    wanted = rows.apply(ABSENT, ops.WriteWish()).form
    assert parts.passed((wanted, 0), "A", False, None, ()).lifecycle is None
    taken = parts.passed((wanted, 60_000), "A", False, None, ()).lifecycle
    assert taken is not None
    assert taken.action == Claim(lists=True)
    claimed = rows.apply(wanted, ops.ClaimRow("A/1")).form
    again = parts.passed((claimed, 0), "A", False, None, ()).lifecycle
    assert again is not None
    assert again.action == take_over(0.0, 30.0, "A/1", create=True).action
    started = rows.apply(claimed, ops.WriteOutcome(Outcome("started", "RE1"))).form
    looked = parts.passed((started, 10_000_000), "A", False, None, ("completed",))
    assert looked.outcome is not None
    assert looked.outcome.state == "completed"
    going_on = parts.passed((started, 10_000_000), "A", False, None, ("in-progress",))
    assert (going_on.asked, going_on.outcome) == (True, None)
    assert not parts.passed((started, 10_000_000), "A", False, going_on.looks, ("completed",)).asked


def test_a_course_grows_old(parts: Parts) -> None:
    lifecycle = parts.told(None, "record")
    assert lifecycle is not None
    assert later(lifecycle, 1500).began_s == NOW_S - 1.5
    assert later(later(lifecycle, 10_000_000), 1) == later(lifecycle, 10_000_000), "old is old"
