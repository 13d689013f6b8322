"""Control's parts, asked one question at a time, answer as they do in production."""

from __future__ import annotations

from gw.control.recording.lifecycle import Claim, Leave, left_behind
from gw.control.recording.rules import Create, List, Settle
from gw.verify.guard import claim_row as ops
from gw.verify.guard.claim_row import ABSENT, RowStore
from gw.verify.guard.parts import NOW_S, Parts, later


def test_the_bus_tells_an_event_once(parts: Parts) -> None:
    assert parts.fresh(("started", "record"), 1, 0) == ("started", "record")
    assert parts.fresh(("started", "record"), 1, 1) == ("record",)
    assert parts.fresh(("started", "record"), 1, 2) == ()


def test_the_recorder_heeds_a_wish_and_nothing_else_of_a_stream(parts: Parts) -> None:
    course = parts.told(None, "record")
    assert course is not None
    assert (course.act, course.effort.began_s) == (Claim(), NOW_S)
    assert parts.told(course, "record") == course
    assert parts.heeded() == ()
    over = parts.told(course, "over")
    assert over is not None
    assert over.effort.call_over


def test_a_course_goes_by_the_production_rules(parts: Parts) -> None:
    course = parts.told(None, "record")
    assert course is not None
    assert parts.claimed(course, "theirs").act == Leave("duplicate")
    course = parts.claimed(course, "ours")
    assert parts.due(course, True).act == Create()
    assert parts.answered(course, "started RE1").act == Settle("started", "RE1")
    assert parts.answered(course, "time-out").act == List(0.5)
    found = parts.answered(parts.answered(course, "time-out"), ("completed",)).act
    assert isinstance(found, Settle)
    assert found.state == "completed"


def test_a_webhook_is_read_as_production_reads_it(parts: Parts) -> None:
    assert parts.webhook("in-progress", "RE1") == Settle("started", "RE1")
    assert parts.webhook("paused", "RE1") is None


def test_a_pass_does_what_production_does(rows: RowStore, parts: Parts) -> None:
    wanted = rows.apply(ABSENT, ops.Wish()).form
    assert parts.passed((wanted, 0), "A", False, None, ()).course is None
    taken = parts.passed((wanted, 60_000), "A", False, None, ()).course
    assert taken is not None
    assert taken.act == Claim(lists=True)
    claimed = rows.apply(wanted, ops.Claim("A/1")).form
    again = parts.passed((claimed, 0), "A", False, None, ()).course
    assert again is not None
    assert again.act == left_behind(0.0, 30.0, "A/1", create=True).act
    started = rows.apply(claimed, ops.Write(Settle("started", "RE1"))).form
    looked = parts.passed((started, 10_000_000), "A", False, None, ("completed",))
    assert looked.settle is not None
    assert looked.settle.state == "completed"
    going_on = parts.passed((started, 10_000_000), "A", False, None, ("in-progress",))
    assert (going_on.asked, going_on.settle) == (True, None)
    assert not parts.passed((started, 10_000_000), "A", False, going_on.looks, ("completed",)).asked


def test_a_course_grows_old(parts: Parts) -> None:
    course = parts.told(None, "record")
    assert course is not None
    assert later(course, 1500).effort.began_s == NOW_S - 1.5
    assert later(later(course, 10_000_000), 1) == later(course, 10_000_000), "old is old"
