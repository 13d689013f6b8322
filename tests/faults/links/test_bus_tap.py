"""tests.faults.links.bus_tap: the record of each kind of event, and bytes that are not an event."""

from __future__ import annotations

import pytest

from gw import bus
from gw.call.cost.usage import Used
from gw.call.quality import Quality
from tests.faults.links import bus_tap
from tests.faults.links.bus_tap import BusTap

HELLO = bus.Hello(2, "one", 7, ["CA1"])


@pytest.mark.parametrize(
    ("event", "call_sid", "part"),
    [
        (bus.CallStarted("CA1", "MZ1", "AC1", "default", "inbound", "", "", 0.0, 0.0), "CA1", ""),
        (bus.FirstAudio("CA1", 0.0), "CA1", ""),
        (bus.StartRecording("CA1", "AC1", 7.5), "CA1", "7.500"),
        (bus.Turn("CA1", 3, "agent", "words", "item", 0), "CA1", "3 item"),
        (bus.CallEnded("CA1", 0.0, "ai_hangup", "success", "", Quality()), "CA1", "ai_hangup"),
        (bus.Usage("CA1", "MZ1", 0.0, "default", "", [Used(day="d", model="m", text_in=3, audio_out=4)]), "CA1", "MZ1 7"),
        (bus.CallEvent("", "stream_refused", 0.0), "", "stream_refused"),
        (bus.Webhook("status", 0.0, {"CallSid": "CA1"}), "CA1", "webhook_status"),
        (bus.JobWanted("CA1/1/x", "tool", "CA1", 5, "{}"), "CA1", ""),
    ],
)
def test_each_kind(event: bus.Event, call_sid: str, part: str) -> None:
    tap = BusTap()
    tap.connection().feed(bus.pack(HELLO) + bus.pack(bus.Numbered(9, event)), 5.0)
    assert list(tap.sent.values()) == [("one", 9, type(event).__name__, call_sid, part, 2, 5.0)]


def test_a_message_that_was_cut_off_was_not_sent() -> None:
    tap = BusTap()
    wire = bus.pack(HELLO) + bus.pack(bus.Numbered(1, bus.FirstAudio("CA1", 0.0)))
    tap.connection().feed(wire[:-1], 1.0)
    assert not tap.sent
    again = tap.connection()
    again.feed(wire, 2.0)
    again.feed(bus.pack(bus.Numbered(1, bus.FirstAudio("CA1", 0.0))), 3.0)
    assert [one.at_s for one in tap.sent.values()] == [2.0]
    assert tap.repeated == 1


def test_garbage_is_counted_once_and_events_before_hello_are_ignored() -> None:
    tap = BusTap()
    worker = tap.connection()
    worker.feed(bus.pack(bus.Numbered(1, bus.FirstAudio("CA1", 0.0))), 1.0)
    worker.feed(b"\xff" * 8, 1.0)
    worker.feed(b"\xff" * 8, 1.0)
    assert bus_tap.as_rows(tap) == {"sent": [], "pids": {}, "repeated": 0, "unreadable": 1}


def test_the_number_of_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_tap, "MAX_EVENTS", 1)
    tap = BusTap()
    worker = tap.connection()
    worker.feed(bus.pack(HELLO) + bus.pack(bus.Numbered(1, bus.FirstAudio("CA1", 0.0))), 1.0)
    with pytest.raises(OverflowError):
        worker.feed(bus.pack(bus.Numbered(2, bus.FirstAudio("CA1", 0.0))), 1.0)
