"""Records the workers' events on the bus, to compare them with the store.

Reads the gateway's messages from a copy of the bytes, with one reader per connection, and keeps the key of each numbered event in
the store. An event sent twice counts once. A message cut off by a broken connection was not sent. Pure.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from gw import bus
from gw.call.cost.usage import total

#: A soak of hours stays below this; more events raise an error.
MAX_EVENTS: Final = 2_000_000


class Sent(NamedTuple):
    """One event as sent by a worker.

    `part`: a turn's number and item, an end's reason, a recording's time of request, or the stored kind of another event.
    """

    instance: str
    n: int
    kind: str
    call_sid: str
    part: str
    worker: int
    at_s: float  # time.monotonic() when it was first seen


class BusTap:
    """Events of all connections of all workers."""

    def __init__(self) -> None:
        self.sent: dict[tuple[str, int], Sent] = {}
        self.pids: dict[str, int] = {}  # by instance
        self.repeated = 0
        self.unreadable = 0

    def connection(self) -> TappedWorker:
        return TappedWorker(self)

    def take(self, one: Sent) -> None:
        key = (one.instance, one.n)
        if key in self.sent:
            self.repeated += 1
        elif len(self.sent) < MAX_EVENTS:
            self.sent[key] = one
        else:
            raise OverflowError(f"more than {MAX_EVENTS} events")


class TappedWorker:
    """Reader of one worker's connection."""

    def __init__(self, tap: BusTap) -> None:
        self._tap = tap
        self._reader = bus.Reader.of_events()
        self._hello: bus.Hello | None = None
        self._lost = False

    def feed(self, data: bytes, now_s: float) -> None:
        """Read bytes from the worker to control."""
        if self._lost:
            return
        try:
            messages = self._reader.feed(data)
        except bus.BusError:
            self._lost = True
            self._tap.unreadable += 1
            return
        for message in messages:
            if isinstance(message, bus.Hello):
                self._hello = message
                self._tap.pids[message.instance] = message.pid
            elif isinstance(message, bus.Numbered) and self._hello is not None:
                self._tap.take(sent_of(self._hello, message, now_s))


def sent_of(hello: bus.Hello, message: bus.Numbered, now_s: float) -> Sent:
    """Return the key that identifies an event in the store."""
    event = message.event
    kind, call_sid, part = type(event).__name__, "", ""
    match event:
        case bus.Webhook():
            call_sid, part = event.fields.get("CallSid", ""), f"webhook_{event.kind}"
        case bus.CallEvent():
            call_sid, part = event.call_sid, event.kind
        case bus.Turn():
            call_sid, part = event.call_sid, f"{event.n} {event.item_id}".strip()
        case bus.CallEnded():
            call_sid, part = event.call_sid, event.reason
        case bus.Usage():
            call_sid, part = event.call_sid, f"{event.stream_sid} {sum(total(event.used)[0])}"
        case bus.StartRecording():
            call_sid, part = event.call_sid, f"{event.first_audio_at:.3f}"
        case _:
            call_sid = event.call_sid
    return Sent(hello.instance, message.n, kind, call_sid, part, hello.worker, now_s)


def as_rows(tap: BusTap) -> dict[str, Any]:
    """Return the events for the answer of an order."""
    sent = [list(one) for one in tap.sent.values()]
    return {"sent": sent, "pids": tap.pids, "repeated": tap.repeated, "unreadable": tap.unreadable}
