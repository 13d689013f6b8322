"""The caller interrupts: the response is cut, the AI is sent a truncate, and the next answer is whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gw.config import Media, Store
from gw.twin import speech
from gw.twin.ai.script import AiScript, lasting
from gw.twin.sound import BYTES_PER_MS, FRAME_BYTES
from gw.twin.twilio.caller import TwinCall
from tests.calls.conftest import World, WorldMaker
from tests.calls.hearing import WORD, in_parallel, not_run_ms, padded, session_of, until
from tests.timing import scaled

LONG = lasting(12)
#: An answer of 0.7 s that does not end at a frame's end.
ANSWER = lasting(2)[8000:13_605]
#: Most that a truncation may differ from the audio the caller heard.
HEARD_MS = 100
#: All of a response is at Twilio while it is heard.
FULL = Media(lead_ms=500, holding_sound=False)
#: A caller who interrupts after one and a half seconds, then listens.
ONCE = speech.script(1500, WORD, 8000)
TWICE = speech.script(1500, WORD, 1500, WORD, 8000)


class Generation(NamedTuple):
    """Audio sent between two clears, and how much of it was heard."""

    sent: bytes
    heard_ms: int


def generations(call: TwinCall) -> list[Generation]:
    """Split a call's audio at its clears: one part more than interruptions."""
    found: list[Generation] = []
    begin_s, place, heard_ms = -math.inf, 0, 0
    for end_s in [*(clear.at_s for clear in call.clears), math.inf]:
        size = sum(one.size for one in call.player.arrivals if begin_s < one.at_s <= end_s)
        total_ms = call.player.heard_ms(end_s)
        found.append(Generation(call.received_audio[place : place + size], total_ms - heard_ms))
        begin_s, place, heard_ms = end_s, place + size, total_ms
    assert place == len(call.received_audio)
    return found


def check(w: World, call: TwinCall, cut: int) -> None:
    """Check that the first `cut` responses were interrupted and the next one was heard whole.

    No audio of an old response followed its clear, and AI and store have the length that was heard.
    """
    session = session_of(w, call)
    assert (call.error, call.warnings, session.errors, session.violations) == ("", [], [], [])
    assert len(session.responses) == cut + 1
    assert len(call.clears) == len(session.truncates) == cut
    parts = generations(call)
    *old, last = session.responses
    assert parts[-1].sent == padded([last.audio])
    assert parts[-1].heard_ms * BYTES_PER_MS == len(parts[-1].sent)
    for part, response, truncate, clear in zip(parts, old, session.truncates, call.clears, strict=False):
        assert response.intended.startswith(part.sent.removesuffix(b"\xff" * (-len(response.intended) % FRAME_BYTES)))
        assert 0 < len(part.sent) <= len(padded([response.intended]))
        assert (truncate.item_id, truncate.accepted) == (response.item_id, True)
        off_ms = truncate.audio_end_ms - part.heard_ms
        assert abs(off_ms) <= HEARD_MS + not_run_ms(call), f"truncated at {truncate.audio_end_ms} ms, heard {part.heard_ms} ms"
        assert truncate.audio_end_ms * BYTES_PER_MS <= len(part.sent), "never more than was sent"
        assert abs(truncate.at_s - clear.at_s) < 0.05 + not_run_ms(call) / 1000
    row = w.gateway.ended(call.call_sid)
    turns = [turn for turn in row["turns"] if turn["role"] == "agent"]
    assert [turn["item_id"] for turn in turns] == [response.item_id for response in session.responses]
    assert [turn["interrupted"] for turn in turns] == [True] * cut + [False]
    assert [turn["heard_ms"] for turn in turns] == [one.audio_end_ms for one in session.truncates] + [last.sent_ms]
    assert all(turn["text"] for turn in turns)
    assert (row["reason"], row["quality"]["bargeins"]) == ("ai_hangup", cut)
    assert row["quality"]["frames_sent"] == row["quality"]["frames_expected"] == len(call.received_audio) // FRAME_BYTES


def check_counters(w: World, calls: Sequence[TwinCall]) -> None:
    """Check that the metrics and the calls' rows have the same counts."""
    rows = [w.gateway.ended(call.call_sid) for call in calls]
    metrics = w.gateway.metrics()
    assert metrics["gw_bargein_seconds_count"] == sum(len(call.clears) for call in calls)
    dropped = [row["quality"]["dropped_frames"].get("bargein", 0) for row in rows]
    assert metrics['gw_tx_dropped_frames_total{reason="bargein"}'] == sum(dropped)


def opening(opened: ExitStack, world: WorldMaker, folder: Path, name: str, *arguments: Any, **options: Any) -> World:
    """Open one more world beside others."""
    return opened.enter_context(world(*arguments, var_dir=name, store=Store(url=f"sqlite:///{folder}/{name}.db"), **options))


def test_the_caller_interrupts(world: WorldMaker, tmp_path: Path) -> None:
    with ExitStack() as opened:
        new = partial(opening, opened, world, tmp_path)
        in_parallel(
            partial(every_way_to_interrupt, new("ways", lambda index, path: WAYS[index].script)),
            partial(
                all_is_sent_but_not_heard,
                new("sent", AiScript(greeting=LONG[:16_000], answers=(ANSWER,), hang_up_after=2), media=FULL),
            ),
            partial(the_parrot_is_interrupted, new("parrot", agent={"provider": "parrot"})),
        )


class Way(NamedTuple):
    """A caller who interrupts, and the delivery of the interrupted response."""

    script: AiScript
    speech: Sequence[bytes]
    cut: int


WAYS = [
    # the AI is still sending
    Way(AiScript(greeting=LONG, answers=(ANSWER,), hang_up_after=2, speed=1.5), ONCE, 1),
    # everything was received: ten seconds are queued
    Way(AiScript(greeting=LONG, answers=(ANSWER,), hang_up_after=2, speed=math.inf), ONCE, 1),
    Way(AiScript(greeting=LONG, answers=(ANSWER,), hang_up_after=2, whole=True), ONCE, 1),
    # deltas of the old answer are still on their way
    Way(AiScript(greeting=LONG, answers=(ANSWER,), hang_up_after=2, speed=2.0, trailing_s=0.4), ONCE, 1),
    # two interruptions
    Way(AiScript(greeting=LONG, answers=(LONG, ANSWER), hang_up_after=3, speed=math.inf), TWICE, 2),
    Way(AiScript(greeting=LONG, answers=(LONG, ANSWER), hang_up_after=3, speed=1.5, trailing_s=0.3), TWICE, 2),
]


def every_way_to_interrupt(w: World) -> None:
    calls: list[TwinCall] = []
    for way in WAYS:
        calls.append(w.twilio.place_call(way.speech, hang_up=False, max_s=scaled(30.0)))
        until(lambda: len(w.ai.sessions) == len(calls), "the call's AI session is up")
    assert w.twilio.wait(scaled(30.0))
    for way, call in zip(WAYS, calls, strict=True):
        check(w, call, way.cut)
        frames = w.gateway.ended(call.call_sid)["quality"]["dropped_frames"].get("bargein", 0)
        if way.script.speed == math.inf or way.script.whole:
            old = sum(len(part.sent) for part in generations(call)[:-1])
            assert frames == way.cut * len(LONG) // FRAME_BYTES - old // FRAME_BYTES
        else:
            assert frames > 0
    late = session_of(w, calls[3])
    clear_s = calls[3].clears[0].at_s
    assert sum(delta.size for delta in late.responses[0].deltas if delta.at_s > clear_s) > 1000, "nothing was late"
    check_counters(w, calls)


def all_is_sent_but_not_heard(w: World) -> None:
    """Interrupt while the gateway's queue is empty but Twilio still plays the lead."""
    call = w.twilio.place_call(speech.script(1650, WORD, 8000), hang_up=False, max_s=scaled(30.0))
    assert call.wait(scaled(30.0))
    check(w, call, 1)
    assert len(generations(call)[0].sent) == 16_000
    assert [clear.marks for clear in call.clears] == [(call.marks[0].name,)]
    assert call.clears[0].dropped_ms > 100
    check_counters(w, [call])


def the_parrot_is_interrupted(w: World) -> None:
    """Interrupt the parrot: it stops greeting and repeats the caller's words."""
    greeting = w.gateway.worker.context.prompts.greeting
    call = w.twilio.place_call(speech.script(1500, WORD, 3000))
    assert call.wait(scaled(30.0))
    assert (call.error, call.warnings, len(call.clears)) == ("", [], 1)
    cut, echo = generations(call)
    assert greeting.startswith(cut.sent)
    assert 1300 - not_run_ms(call) < cut.heard_ms < 2000 + not_run_ms(call)
    assert len(echo.sent) > len(WORD)
    assert echo.sent in call.sent_speech
    assert echo.heard_ms * BYTES_PER_MS == len(echo.sent)
    row = w.gateway.ended(call.call_sid)
    assert [(turn["role"], turn["interrupted"]) for turn in row["turns"]] == [
        ("agent", True),
        ("caller", False),
        ("agent", False),
    ]
    assert abs(row["turns"][0]["heard_ms"] - cut.heard_ms) <= HEARD_MS + not_run_ms(call)
    assert row["turns"][2]["heard_ms"] == echo.heard_ms
    check_counters(w, [call])


def test_nothing_is_interrupted_while_no_audio_plays(world: WorldMaker) -> None:
    scripts = [
        AiScript(greeting=ANSWER, answers=(ANSWER,), hang_up_after=2),
        AiScript(greeting=ANSWER, answers=(ANSWER,), hang_up_after=2, thinking_s=1.5),  # interrupted before its first word
        AiScript(greeting=ANSWER, answers=(ANSWER,), hang_up_after=2, thinking_s=1.2, trailing_s=1.5),  # every delta is late
    ]
    words = [speech.script(2400, WORD, 8000), speech.script(200, WORD, 8000), speech.script(200, WORD, 8000)]
    with world(lambda index, path: scripts[index]) as w:
        calls: list[TwinCall] = []
        for spoken in words:
            calls.append(w.twilio.place_call(spoken, hang_up=False, max_s=scaled(30.0)))
            until(lambda: len(w.ai.sessions) == len(calls), "the call's AI session is up")
        assert w.twilio.wait(scaled(30.0))
        heard, unsaid, late = calls
        for call in calls:
            session = session_of(w, call)
            assert (call.error, call.warnings, call.clears, session.errors) == ("", [], [], [])
            assert w.gateway.ended(call.call_sid)["quality"]["bargeins"] == 0
        assert heard.received_audio == heard.heard_audio == padded([ANSWER, ANSWER])
        assert session_of(w, heard).truncates == []
        assert not any(turn["interrupted"] for turn in w.gateway.ended(heard.call_sid)["turns"])
        for call in (unsaid, late):
            assert call.received_audio == call.heard_audio == padded([ANSWER])
            turns = w.gateway.ended(call.call_sid)["turns"]
            fates = [(turn["interrupted"], turn["heard_ms"]) for turn in turns if turn["role"] == "agent"]
            assert fates == [(True, 0), (False, len(ANSWER) // BYTES_PER_MS)]
        assert len(session_of(w, late).responses[0].audio) > 0, "nothing was late"
        assert [truncate.audio_end_ms for truncate in session_of(w, late).truncates] == [0]
        check_counters(w, calls)
