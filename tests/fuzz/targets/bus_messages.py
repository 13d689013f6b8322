"""Laws of gw.bus and of the rows a spooled event becomes.

Any cut of the same bytes gives the same messages or one BusError; each message written again is read the same; every event that
can be decoded becomes rows that fit their columns, so no event can block the spool.
"""

from __future__ import annotations

from collections.abc import Callable

from gw import bus
from gw.control.store.events import Rows, Stamped
from gw.control.store.values import Fit
from tests.fuzz.targets.cuts import cuts


def events(data: bytes) -> None:
    _check(bus.Reader.of_events, data)


def commands(data: bytes) -> None:
    _check(bus.Reader.of_commands, data)


def _read(reader: bus.Reader, pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """Return each message's wire form, NaN included, and True if the connection ends."""
    found = []
    for piece in pieces:
        try:
            found += reader.feed(piece)
        except bus.BusError as error:
            assert str(error)
            return [], True
    return [message.body if isinstance(message, bus.Unreadable) else bus.pack(message) for message in found], False


def _check(make: Callable[[], bus.Reader], data: bytes) -> None:
    whole = _read(make(), [data])
    for pieces in cuts(data):
        assert _read(make(), pieces) == whole
    for packed in whole[0]:
        if len(packed) >= 4 and int.from_bytes(packed[:4]) == len(packed) - 4:
            assert _read(make(), [packed]) == ([packed], False)


def spooled(data: bytes) -> None:
    try:
        event = bus.decode_event(data)
    except bus.BusError as error:
        assert str(error)
        return
    body = bus.encode_event(event)
    assert bus.encode_event(bus.decode_event(body)) == body
    Rows(Fit()).add(Stamped(event, "host", 0, "instance", 1))
