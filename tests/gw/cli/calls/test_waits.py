"""gw.cli.calls.waits: waits by the answer's item, and the words of their parts."""

from __future__ import annotations

from gw.cli.calls.waits import parts, total_ms, waits_of
from gw.control.rows import CallDetails, EventRow


def _event(kind: str, **data: int | str | None) -> EventRow:
    return EventRow(kind=kind, at=1.0, data=data, instance="w0", n=1)


def test_waits_are_found_by_the_answer_s_item() -> None:
    call = CallDetails(call_sid="CA1", events=[_event("answered", item="i1", ms=720), _event("keys", count=1)])
    assert {item: total_ms(wait) for item, wait in waits_of(call).items()} == {"i1": 720}


def test_an_unmeasured_wait_is_left_out() -> None:
    events = [_event("answered", item=f"i{ms}", ms=ms, gateway_ms=ms) for ms in (0, 4, 5)]
    assert list(waits_of(CallDetails(call_sid="CA1", events=events))) == ["i5"]
    assert [parts(event) for event in events] == ["", "", "gateway 0.01 s"]


def test_parts_that_took_time_have_words() -> None:
    assert parts(_event("answered", pause_ms=500, ai_ms=204, tool_ms=0, gateway_ms=20)) == (
        "voice detection 0.50 s, AI 0.20 s, gateway 0.02 s"
    )


def test_a_part_without_a_number_is_left_out() -> None:
    assert (total_ms(_event("answered", ms=None)), parts(_event("answered", ai_ms="soon"))) == (0, "")
