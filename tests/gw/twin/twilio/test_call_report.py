"""gw.twin.twilio.call_report: latency of each turn, and problems."""

from __future__ import annotations

import base64
import json

import pytest

from gw.twin import speech
from gw.twin.sound import FRAME_BYTES, PTIME_S, SILENT_FRAME
from gw.twin.twilio.call_record import CallRecord
from gw.twin.twilio.call_report import Heard, TurnLatency, report, turn_latencies
from gw.twin.twilio.webhooks import Posted

LOUD = speech.load("weasels")[8000 : 8000 + FRAME_BYTES]


def frames(begin_s: float, count: int, audio: bytes = LOUD) -> list[Heard]:
    return [Heard(begin_s + n * PTIME_S, audio) for n in range(count)]


def test_a_turn_ends_at_the_last_loud_frame_and_its_answer_is_audible() -> None:
    caller = [*frames(10.0, 50), *frames(11.0, 100, SILENT_FRAME)]
    agent = [*frames(11.2, 10, SILENT_FRAME), *frames(11.6, 10)]
    assert turn_latencies(caller, agent, 9.0) == [TurnLatency(2000, 2600, 600)]


def test_a_short_pause_is_part_of_a_turn_and_a_long_one_is_not() -> None:
    caller = [*frames(10.0, 10), *frames(10.5, 10), *frames(12.0, 10)]
    assert [turn.caller_stops_ms for turn in turn_latencies(caller, [], 10.0)] == [700, 2200]


def test_an_answer_after_the_next_turn_began_is_not_that_of_the_first() -> None:
    caller, agent = [*frames(10.0, 10), *frames(12.0, 10)], frames(12.9, 1)
    assert turn_latencies(caller, agent, 10.0) == [TurnLatency(200, None, None), TurnLatency(2200, 2900, 700)]


def record(*media: tuple[float, bytes]) -> CallRecord:
    made = CallRecord(1, "AC1")
    made.voice = Posted(99.0, "http://x/voice", {}, 200, "text/xml", "", 0.01)
    made.streams_s.append(100.0)
    made.started_s, made.ended_s, made.status, made.closed_by = 100.0, 103.0, "completed", "caller"
    for at_s, audio in media:
        body = {"event": "media", "streamSid": made.stream_sid, "media": {"payload": base64.b64encode(audio).decode()}}
        made._receiver.on_message(json.dumps(body).encode(), True, at_s)
    return made


def test_the_report_of_a_good_call() -> None:
    call = record((100.2, LOUD), (102.0, LOUD))
    for n in range(20):
        call.sent_speech += LOUD
        call.sent_s.append(101.0 + n * PTIME_S)
    found = report(call)
    assert (found.status, found.seconds, found.first_audio_ms, found.problems) == ("completed", 3.0, 200, [])
    assert found.turns == [TurnLatency(1400, 2000, 600)]


def test_a_silent_call_and_a_mistake_of_the_gateway_are_problems() -> None:
    call = record()
    call._receiver.on_message(b"{}", True, 101.0)
    found = report(call)
    assert found.problems[0] == "no audio of the agent was heard"
    assert found.problems[1].startswith("debugger: 31951 ")


@pytest.mark.parametrize(
    ("status", "problem"), [(503, "the voice webhook was answered with 503: full"), (200, "no stream was opened")]
)
def test_a_call_without_a_stream(status: int, problem: str) -> None:
    call = CallRecord(1, "AC1")
    call.voice = Posted(0.0, "http://x/voice", {}, status, "text/plain", "full\n", 0.01)
    call.error = "it broke"
    assert report(call).problems == ["it broke", problem]
