"""What the workers said on the bus, taken down where it passes: the count the store is held against.

Reads the gateway's own messages off a copy of the bytes, one reader a connection, and keeps of each numbered event what finds it
again in the store. An event sent again is the same event. A message cut off by a broken connection was not sent. Pure.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from gw import bus

#: A soak of hours stays below this; over it the tap says so instead of growing.
MAX_EVENTS: Final = 2_000_000


class Sent(NamedTuple):
    """One event as it left a worker.

    `part`: a turn's number and item, an end's reason, when a recording was wished, the stored kind of any other event.
    """

    instance: str
    n: int
    kind: str
    call_sid: str
    part: str
    worker: int
    at_s: float  # time.monotonic() when it was first seen


class BusTap:
    """All connections of all workers."""

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
    """One worker's connection."""

    def __init__(self, tap: BusTap) -> None:
        self._tap = tap
        self._reader = bus.Reader.of_events()
        self._hello: bus.Hello | None = None
        self._lost = False

    def feed(self, data: bytes, now_s: float) -> None:
        """Bytes on their way from the worker to control."""
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
    """What identifies the event in the store."""
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
        case bus.StartRecording():
            call_sid, part = event.call_sid, f"{event.first_audio_at:.3f}"
        case _:
            call_sid = event.call_sid
    return Sent(hello.instance, message.n, kind, call_sid, part, hello.worker, now_s)


def as_rows(tap: BusTap) -> dict[str, Any]:
    """For an order's answer."""
    sent = [list(one) for one in tap.sent.values()]
    return {"sent": sent, "pids": tap.pids, "repeated": tap.repeated, "unreadable": tap.unreadable}
