"""The production code answers single questions as it does in a call."""

from __future__ import annotations

from gw.control.recording.lifecycle import Claim, Create, Leave, List, Outcome, resume_claim
from gw.verify.guard import claim_row as ops
from gw.verify.guard.claim_row import ABSENT, RowStore
from gw.verify.guard.parts import NOW_S, Parts, later


def test_the_bus_passes_an_event_on_once(parts: Parts) -> None:
    assert parts.fresh(("started", "record"), 1, 0) == ("started", "record")
    assert parts.fresh(("started", "record"), 1, 1) == ("record",)
    assert parts.fresh(("started", "record"), 1, 2) == ()


def test_of_a_streams_events_the_recorder_acts_on_a_wish_only(parts: Parts) -> None:
    lifecycle = parts.after_event(None, "record")
    assert lifecycle is not None
    assert (lifecycle.action, lifecycle.began_s) == (Claim(), NOW_S)
    assert parts.after_event(lifecycle, "record") == lifecycle
    assert parts.heeded() == ()
    over = parts.after_event(lifecycle, "over")
    assert over is not None
    assert over.call_over


def test_a_lifecycle_follows_the_production_code(parts: Parts) -> None:
    lifecycle = parts.after_event(None, "record")
    assert lifecycle is not None
    assert lifecycle.on_claim("theirs", NOW_S).action == Leave("duplicate")
    lifecycle = lifecycle.on_claim("ours", NOW_S)
    assert lifecycle.when_due(owned=True).action == Create()
    assert parts.answered(lifecycle, "started RE1", owned=True).action == Outcome("started", "RE1")
    assert parts.answered(lifecycle, "time-out", owned=True).action == List(0.5)
    found = parts.answered(parts.answered(lifecycle, "time-out", owned=True), ("completed",), owned=True).action
    assert isinstance(found, Outcome)
    assert found.state == "completed"


def test_a_webhook_is_read_by_production_code(parts: Parts) -> None:
    assert parts.webhook("in-progress", "RE1") == Outcome("started", "RE1")
    assert parts.webhook("paused", "RE1") is None


def test_a_pass_runs_production_code(rows: RowStore, parts: Parts) -> None:
    wanted = rows.apply(ABSENT, ops.WriteWish()).form
    assert parts.passed((wanted, 0), "A", False, None, ()).lifecycle is None
    taken = parts.passed((wanted, 60_000), "A", False, None, ()).lifecycle
    assert taken is not None
    assert taken.action == Claim(lists=True)
    claimed = rows.apply(wanted, ops.ClaimRow("A/1")).form
    again = parts.passed((claimed, 0), "A", False, None, ()).lifecycle
    assert again is not None
    assert again.action == resume_claim(0.0, 30.0, "A/1", create=True).action
    started = rows.apply(claimed, ops.WriteOutcome(Outcome("started", "RE1"))).form
    looked = parts.passed((started, 10_000_000), "A", False, None, ("completed",))
    assert looked.outcome is not None
    assert looked.outcome.state == "completed"
    running = parts.passed((started, 10_000_000), "A", False, None, ("in-progress",))
    assert (running.asked, running.outcome) == (True, None)
    assert not parts.passed((started, 10_000_000), "A", False, running.looks, ("completed",)).asked


def test_a_lifecycle_ages_up_to_a_bound(parts: Parts) -> None:
    lifecycle = parts.after_event(None, "record")
    assert lifecycle is not None
    assert later(lifecycle, 1500).began_s == NOW_S - 1.5
    assert later(later(lifecycle, 10_000_000), 1) == later(lifecycle, 10_000_000), "the bound"


def test_tx_raises_the_flag_for_a_frame_the_kernel_took(parts: Parts) -> None:
    assert parts.send_frame(flag=False, taken=True)
    assert not parts.send_frame(flag=False, taken=False)
    assert parts.send_frame(flag=True, taken=False)


def test_ai_out_asks_on_each_turn_and_at_its_end(parts: Parts) -> None:
    for chunk in (False, True):
        assert parts.turn(flag=True, started=False, room=True, chunk=chunk) == (1, True, 100, False)
        assert parts.turn(flag=False, started=False, room=True, chunk=chunk) == (0, False, 100, False)
        assert parts.turn(flag=True, started=False, room=False, chunk=chunk) == (0, False, 100, False)
        assert parts.turn(flag=True, started=True, room=True, chunk=chunk) == (0, True, 100, False)
    assert parts.last_turn(flag=True, started=False, room=True)[:2] == (1, True)
    assert parts.last_turn(flag=True, started=False, room=False)[:2] == (0, False)
