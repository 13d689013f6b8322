"""gw.twin.twilio.call_record: audio and times as the caller perceived them."""

from __future__ import annotations

import base64
import json

from gw.twin.twilio.call_record import CallRecord


def test_a_new_record_is_empty() -> None:
    record = CallRecord(1, "AC1")
    assert (record.is_over, record.received_audio, record.heard_audio, record.first_heard_ms) == (False, b"", b"", None)
    assert record.late_max_s == 0.0
    assert not record.wait(0.0)


def test_audio_is_heard_from_its_arrival_with_or_without_gaps() -> None:
    record = CallRecord(1, "AC1")
    record.started_s, record.ended_s = 100.0, 100.3
    payload = base64.b64encode(b"\x10" * 800).decode()
    media = json.dumps({"event": "media", "streamSid": record.stream_sid, "media": {"payload": payload}}).encode()
    record._receiver.on_message(media, True, 100.1)
    assert record.first_heard_ms is not None and round(record.first_heard_ms) == 100
    assert record.heard_audio == b"\x10" * 800
    assert record.heard_with_gaps == b"\xff" * 800 + b"\x10" * 800 + b"\xff" * 800


def test_a_record_alone_echoes_no_mark() -> None:
    record = CallRecord(1, "AC1")
    mark = json.dumps({"event": "mark", "streamSid": record.stream_sid, "mark": {"name": "m"}}).encode()
    record._receiver.on_message(mark, True, 100.0)
    assert ([mark.name for mark in record.marks], record.echoes) == (["m"], [])
