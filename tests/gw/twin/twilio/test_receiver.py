"""gw.twin.twilio.receiver: playout, marks and mistakes of one stream."""

from __future__ import annotations

import base64
import json

import pytest
from gevent.pool import Group

from gw.twin.twilio import receiver as module
from gw.twin.twilio.receiver import StreamReceiver


def message(event: str, **more: object) -> bytes:
    return json.dumps({"event": event, "streamSid": "MZ1", **more}).encode()


def media(size: int) -> bytes:
    return message("media", media={"payload": base64.b64encode(b"\x10" * size).decode()})


def receiver() -> tuple[StreamReceiver, list[str]]:
    echoed: list[str] = []

    def echo(name: str) -> bool:
        echoed.append(name)
        return True

    return StreamReceiver("MZ1", echo, Group()), echoed


def test_a_mark_without_audio_is_echoed_immediately() -> None:
    one, echoed = receiver()
    one.on_message(message("mark", mark={"name": "m"}), True, 10.0)
    assert echoed == [mark.name for mark in one.echoes] == ["m"]


def test_a_clear_drops_audio_and_returns_its_marks() -> None:
    one, echoed = receiver()
    one.on_message(media(1600), True, 10.0)
    one.on_message(message("mark", mark={"name": "m"}), True, 10.0)
    assert echoed == []
    one.on_message(message("clear"), True, 10.1)
    assert (echoed, one.clears[0].dropped_ms, one.clears[0].marks) == (["m"], pytest.approx(100.0, abs=0.2), ("m",))
    assert one.received == b"\x10" * 1600


def test_mistakes_are_recorded_with_their_codes() -> None:
    one, _ = receiver()
    one.on_message(b"{}", False, 10.0)
    one.on_message(b"{}", True, 10.0)
    one.restart("MZ2", 10.0)
    one.on_message(media(160), True, 10.0)
    assert [entry.code for entry in one.warnings] == [31950, 31951, 31951]


def test_more_than_ten_minutes_are_recorded_once() -> None:
    one, _ = receiver()
    for _ in range(3):
        one.on_message(media(8000 * 301), True, 10.0)
    assert [entry.code for entry in one.warnings] == [31931]


def test_a_stream_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = receiver()
    one.on_message(media(160), True, 10.0)
    assert not one.is_full
    monkeypatch.setattr(module, "MAX_RECEIVED_BYTES", 100)
    assert one.is_full
