"""gw.bench.load.voice: pieces of audio, interruptions, and the end with the session."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from gw.bench.load.loop import TICK_S, TICKS_PER_S, Loop
from gw.bench.load.voice import ANSWER_S, BARGEIN_S, Voice
from gw.bench.load.wire import spans


class Wheel:
    """A loop's clock, without sockets."""

    measuring = True

    def __init__(self) -> None:
        self.tick = 0
        self._planned: dict[int, list[Callable[[float], None]]] = {}

    def at(self, tick: int, action: Callable[[float], None]) -> None:
        self._planned.setdefault(max(tick, self.tick + 1), []).append(action)

    def after(self, delay_s: float, action: Callable[[float], None]) -> None:
        self.at(self.tick + round(delay_s * TICKS_PER_S), action)

    def run(self, seconds: float) -> None:
        until = self.tick + round(seconds * TICKS_PER_S)
        while self.tick < until:
            self.tick += 1
            for action in self._planned.pop(self.tick, []):
                action(self.tick * TICK_S)


def talking(pattern: str) -> tuple[Wheel, Voice, list[tuple[float, dict[str, Any]]]]:
    """Return a voice that has begun, and its events with their times."""
    wheel = Wheel()
    events: list[tuple[float, dict[str, Any]]] = []

    def send(data: bytes) -> bool:
        for _, _, start, end in spans(data)[0]:
            events.append((wheel.tick * TICK_S, json.loads(data[start:end])))
        return True

    voice = Voice(7, cast(Loop, wheel), pattern, send)
    voice.start()
    return wheel, voice, events


def audio_s(events: list[tuple[float, dict[str, Any]]]) -> float:
    return sum(len(base64.b64decode(event["delta"])) for _, event in events if "delta" in event) / 8000


def kinds(events: list[tuple[float, dict[str, Any]]]) -> list[str]:
    return [event["type"].removeprefix("response.").removeprefix("input_audio_buffer.") for _, event in events]


def test_steady_audio_is_600_ms_ahead_and_continues() -> None:
    wheel, voice, events = talking("steady")
    voice.start()  # no effect: active already
    assert kinds(events) == ["created"] + ["output_audio.delta"] * 3
    for seconds in range(1, 4):
        wheel.run(1.0)
        assert audio_s(events) == pytest.approx(seconds + 0.6)
    assert kinds(events).count("created") == 1


def test_bursts_never_let_the_audio_run_out() -> None:
    wheel, _, events = talking("bursty")
    for n in range(1, 400):
        wheel.run(0.05)
        assert audio_s(events) >= n * 0.05
    assert kinds(events).count("done") >= 3


def test_an_interruption_cuts_and_is_answered_after_300_ms() -> None:
    wheel, voice, events = talking("bargein")
    wheel.run(2 * BARGEIN_S + ANSWER_S + 0.01)
    at = kinds(events).index("speech_started")
    assert kinds(events)[at : at + 7] == ["speech_started", "done", "speech_stopped", "created"] + ["output_audio.delta"] * 3
    assert events[at + 1][1]["response"]["status"] == "cancelled"
    assert events[at + 2][0] - events[at][0] == pytest.approx(ANSWER_S)
    assert BARGEIN_S <= events[at][0] <= 2 * BARGEIN_S
    assert len(voice.interruptions) == 1


def test_nothing_is_sent_after_the_sessions_end() -> None:
    for pattern in ("steady", "bursty", "bargein"):
        wheel, voice, events = talking(pattern)
        wheel.run(0.1)
        voice.stopped = True
        before = len(events)
        wheel.run(10.0)
        assert len(events) == before
