"""gw.twin.ai.script: speech and its pieces are decided before the call."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.twin import speech
from gw.twin.ai import script as ai_script
from gw.twin.ai.faults import CREATED, EVERY, RESPONSES, Strike
from gw.twin.ai.script import RESPONSE_FAULTS, AiScript


@given(st.binary(max_size=30_000), st.integers(0, 5), st.integers(1, 5))
def test_chunks_are_the_audio_and_the_same_each_time(audio: bytes, session: int, number: int) -> None:
    script = AiScript(seed=3)
    chunks = script.chunks(audio, session, number)
    assert b"".join(chunks) == audio
    assert all(chunks)
    assert chunks == script.chunks(audio, session, number)
    assert len(script.pauses_s(chunks, session, number)) == len(chunks)


def test_chunks_are_uneven() -> None:
    audio = speech.load("first-in-line")
    chunks = AiScript().chunks(audio, 0, 1)
    sizes = [len(chunk) for chunk in chunks]
    assert 1 in sizes
    assert max(sizes) > 4096
    assert any(size % 160 for size in sizes[:-1])
    assert chunks != AiScript(seed=1).chunks(audio, 0, 1)
    assert chunks != AiScript().chunks(audio, 1, 1)
    assert AiScript(whole=True).chunks(audio, 0, 1) == [audio]
    assert AiScript(whole=True).chunks(b"", 0, 1) == []


def test_pace() -> None:
    chunks = [bytes(800)] * 100
    assert 0.5 < sum(AiScript(speed=10.0).pauses_s(chunks, 0, 1)) < 1.5
    assert sum(AiScript(speed=math.inf).pauses_s(chunks, 0, 1)) == 0


def test_audio_of_each_response() -> None:
    script = AiScript(answers=(b"a", b"b"), greeting=b"g", goodbye=b"bye", hang_up_after=4)
    assert [script.audio_of(n, asked=n == 1) for n in range(1, 6)] == [b"g", b"a", b"b", b"bye", b"b"]
    assert AiScript(answers=(b"a", b"b"), greeting=b"g").audio_of(1, asked=False) == b"b"
    assert AiScript(answers=(b"a", b"b")).audio_of(1, asked=True) == b"a"
    assert AiScript().audio_of(1, asked=True) == b""


def test_a_fault_is_the_same_script_broken() -> None:
    script = ai_script.conversation(seed=4)
    broken = script.with_fault("stall", response=2, deltas=0)
    assert broken.strikes == (Strike("stall", first=2, times=1, place=0),)
    assert broken.answers == script.answers != ()
    assert broken.seed == 4


def test_faults_of_responses_and_turns_add_up_and_those_of_a_session_replace_each_other() -> None:
    script = AiScript().with_fault("empty").with_fault("talks_over", response=3).with_fault("mute").with_fault("rate_limited")
    assert script.strikes == (Strike("empty", 1, 1, CREATED), Strike("talks_over", 3, 1, 0))
    assert script.fault == "rate_limited"
    with pytest.raises(KeyError):
        AiScript().with_fault("telepathy")
    assert {*RESPONSE_FAULTS} <= RESPONSES.keys()


def test_a_strike_hits_its_responses() -> None:
    assert [number for number in range(1, 9) if Strike("empty", 2, 3, 0).hits(number)] == [2, 3, 4]
    assert Strike("empty", 1, EVERY, 0).hits(10**6)


def test_lasting() -> None:
    assert len(ai_script.lasting(60)) == 480_000
