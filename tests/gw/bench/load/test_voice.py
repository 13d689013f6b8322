"""gw.bench.load.voice: in which pieces audio comes, what an interruption cuts, and that it ends with its session."""

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
    """A loop's clock alone."""

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
    """A voice that has begun, and what it says with the time of each event."""
    wheel = Wheel()
    said: list[tuple[float, dict[str, Any]]] = []

    def send(data: bytes) -> bool:
        for _, _, start, end in spans(data)[0]:
            said.append((wheel.tick * TICK_S, json.loads(data[start:end])))
        return True

    voice = Voice(7, cast(Loop, wheel), pattern, send)
    voice.start()
    return wheel, voice, said


def audio_s(said: list[tuple[float, dict[str, Any]]]) -> float:
    return sum(len(base64.b64decode(event["delta"])) for _, event in said if "delta" in event) / 8000


def kinds(said: list[tuple[float, dict[str, Any]]]) -> list[str]:
    return [event["type"].removeprefix("response.").removeprefix("input_audio_buffer.") for _, event in said]


def test_steady_audio_is_600_ms_ahead_and_goes_on() -> None:
    wheel, voice, said = talking("steady")
    voice.start()  # it talks already
    assert kinds(said) == ["created"] + ["output_audio.delta"] * 3
    for seconds in range(1, 4):
        wheel.run(1.0)
        assert audio_s(said) == pytest.approx(seconds + 0.6)
    assert kinds(said).count("created") == 1


def test_bursts_never_let_the_audio_run_out() -> None:
    wheel, _, said = talking("bursty")
    for n in range(1, 400):
        wheel.run(0.05)
        assert audio_s(said) >= n * 0.05
    assert kinds(said).count("done") >= 3


def test_an_interruption_cuts_and_is_answered_after_300_ms() -> None:
    wheel, voice, said = talking("bargein")
    wheel.run(2 * BARGEIN_S + ANSWER_S + 0.01)
    at = kinds(said).index("speech_started")
    assert kinds(said)[at : at + 7] == ["speech_started", "done", "speech_stopped", "created"] + ["output_audio.delta"] * 3
    assert said[at + 1][1]["response"]["status"] == "cancelled"
    assert said[at + 2][0] - said[at][0] == pytest.approx(ANSWER_S)
    assert BARGEIN_S <= said[at][0] <= 2 * BARGEIN_S
    assert len(voice.interruptions) == 1


def test_nothing_is_said_once_the_session_is_over() -> None:
    for pattern in ("steady", "bursty", "bargein"):
        wheel, voice, said = talking(pattern)
        wheel.run(0.1)
        voice.stopped = True
        before = len(said)
        wheel.run(10.0)
        assert len(said) == before
