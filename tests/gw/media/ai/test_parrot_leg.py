"""gw.media.ai.parrot_leg: the same events as any leg, read in bounded batches."""

from __future__ import annotations

import base64
from pathlib import Path

import gevent
import pytest

from gw.media.ai.parrot_leg import ParrotLeg, Prompts
from gw.protocol import ai
from gw.twin import speech
from tests.gw.media.support import WAIT_S

SILENCE = base64.b64encode(b"\xff" * 160).decode()


@pytest.fixture
def leg() -> ParrotLeg:
    return ParrotLeg(Prompts())


def drain(leg: ParrotLeg) -> list[ai.AiEvent]:
    """Read all events queued now."""
    events: list[ai.AiEvent] = []
    with gevent.Timeout(WAIT_S):
        while True:
            leg.wake()
            batch = leg.read()
            if not batch:
                return events
            events += batch


def audio_of(events: list[ai.AiEvent]) -> bytes:
    return b"".join(event.audio for event in events if isinstance(event, ai.AudioDelta))


def test_a_parrot_is_ready_immediately(leg: ParrotLeg):
    leg.connect()
    assert leg.read() == [ai.SessionCreated(0.0), ai.SessionReady()]
    assert leg.is_congested is False


def test_the_greeting_is_the_bundled_prompt(leg: ParrotLeg):
    leg.say("system", "Greet the caller.")
    leg.create_response()
    events = drain(leg)
    assert isinstance(events[0], ai.ResponseStarted)
    assert audio_of(events) == Prompts().greeting
    assert isinstance(events[-1], ai.ResponseDone)
    leg.cancel()
    leg.create_response()
    assert audio_of(drain(leg)) == Prompts().greeting, "no request is left unanswered"


def test_a_parrot_repeats_the_caller(leg: ParrotLeg):
    words = speech.load(speech.CALLER_PHRASES[0])
    for start in range(0, len(words), 160):
        leg.send_audio(base64.b64encode(words[start : start + 160].ljust(160, b"\xff")).decode())
    for _ in range(50):
        leg.send_audio(SILENCE)
    events = drain(leg)
    kinds = [type(event) for event in events]
    assert kinds[0] is ai.SpeechStarted
    assert ai.SpeechStopped in kinds
    assert ai.CallerTranscript in kinds
    echo = audio_of(events)
    assert echo
    assert echo[:1600] in words or words.startswith(echo[:1600]), "the caller's audio, unchanged"


def test_the_hash_key_brings_a_goodbye_and_hangs_up(leg: ParrotLeg):
    leg.send_keys("1")
    leg.send_keys("#")
    leg.create_response()
    events = drain(leg)
    assert audio_of(events) == Prompts().goodbye
    assert [event.name for event in events if isinstance(event, ai.ToolCall)] == [ai.HANG_UP_TOOL]


def test_a_waiting_reader_gets_new_events(leg: ParrotLeg):
    reader = gevent.spawn(leg.read)
    gevent.sleep(0)
    assert not reader.ready()
    leg.create_response()
    assert isinstance(reader.get(timeout=WAIT_S)[0], ai.ResponseStarted)


@pytest.mark.parametrize("act", ["wake", "close"])
def test_a_waiting_reader_returns(leg: ParrotLeg, act: str):
    reader = gevent.spawn(leg.read)
    gevent.sleep(0)
    getattr(leg, act)()
    getattr(leg, act)()
    assert reader.get(timeout=WAIT_S) == []
    leg.create_response()
    assert leg.read(), "a wake ends one read"


def test_a_wake_before_the_reader_waits_is_not_lost(leg: ParrotLeg):
    leg.wake()
    with gevent.Timeout(WAIT_S):
        assert leg.read() == []


def test_a_long_answer_comes_in_batches_with_switches_between(leg: ParrotLeg):
    ran: list[int] = []
    reading = True

    def other() -> None:
        while reading:
            ran.append(0)
            gevent.sleep(0)

    beside = gevent.spawn(other)
    loud = speech.load(speech.CALLER_PHRASES[0])[2000:6000]
    leg.send_audio(base64.b64encode(loud * 40).decode())  # the longest audio the parrot records
    for _ in range(60):
        leg.send_audio(SILENCE)
    batches = []
    with gevent.Timeout(WAIT_S):
        while not batches or not isinstance(batches[-1][-1], ai.ResponseDone):
            before = len(ran)
            batches.append(leg.read())
            assert len(ran) > before or len(batches) == 1, "a batch followed a batch without a switch"
    reading = False
    beside.join()
    assert len(batches) > 1
    assert max(map(len, batches)) <= 32


def test_changes_of_the_history_have_no_effect(leg: ParrotLeg):
    leg.say("caller", "Hello?", "item")
    leg.delete_item("item")
    leg.truncate("item", 10)
    leg.tool_output("call", "{}")
    assert drain(leg) == []


def test_a_missing_prompt_is_an_error_at_start(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Prompts(tmp_path)
