"""gw.bench.load.jitter_buffer: clocks of talkspurts, lateness, underruns, losses."""

from __future__ import annotations

import pytest

from gw.bench.load.jitter_buffer import BUFFER_S, JitterBuffer
from gw.bench.load.wire import PTIME_S


def settled(lead_frames: int = 5) -> tuple[JitterBuffer, int]:
    """Return a buffer after a burst and even frames, and the next frame's number."""
    jitter_buffer = JitterBuffer()
    for n in range(40):
        jitter_buffer.push(n, max(0, n - lead_frames) * PTIME_S)
    return jitter_buffer, 40


def at(number: int, late_s: float = 0.0, lead_frames: int = 5) -> float:
    return (number - lead_frames) * PTIME_S + late_s


def test_a_talkspurts_first_half_second_sets_its_clock() -> None:
    jitter_buffer = JitterBuffer()
    assert [jitter_buffer.push(n, max(0, n - 5) * PTIME_S) for n in range(25)] == [None] * 25
    assert jitter_buffer.push(25, at(25)) == pytest.approx(0.0, abs=1e-9)


def test_a_late_frame_has_its_lateness() -> None:
    jitter_buffer, n = settled()
    assert jitter_buffer.push(n, at(n, 0.010)) == pytest.approx(0.010)
    assert jitter_buffer.push(n + 1, at(n + 1)) == pytest.approx(0.0, abs=1e-9)
    assert jitter_buffer.counts() == (0, 0.0, 0, 0)


def test_a_frame_later_than_the_buffer_is_a_gap_that_moves_the_clock() -> None:
    jitter_buffer, n = settled()
    assert jitter_buffer.push(n, at(n, 0.100)) == pytest.approx(0.100)
    assert jitter_buffer.underruns == 1
    assert jitter_buffer.gap_s == pytest.approx(0.100 - BUFFER_S)
    assert jitter_buffer.push(n + 1, at(n + 1, 0.100)) == pytest.approx(BUFFER_S)  # the moved clock: no second gap
    assert jitter_buffer.underruns == 1


def test_lost_and_disordered_frames_are_counted() -> None:
    jitter_buffer, n = settled()
    jitter_buffer.push(n + 3, at(n + 3))
    jitter_buffer.push(n, at(n))
    assert (jitter_buffer.lost, jitter_buffer.disorder) == (3, 1)


def test_a_clear_begins_a_new_talkspurt_at_any_number() -> None:
    jitter_buffer, n = settled()
    jitter_buffer.on_clear()
    assert jitter_buffer.push(n + 30, at(n, 5.0)) is None
    assert jitter_buffer.counts() == (0, 0.0, 0, 0)


def test_audio_without_numbers_is_late_by_its_first_sample() -> None:
    jitter_buffer = JitterBuffer()
    heard = [jitter_buffer.push_next(2, max(0, n - 1) * 0.04) for n in range(40)]  # 40 ms each, the first two together
    assert heard.count(None) == 13  # half a second, as for numbered frames
    assert jitter_buffer.push_next(2, 39 * 0.04 + 0.010) == pytest.approx(0.010)
    assert jitter_buffer.push_next(3, 40 * 0.04) == pytest.approx(0.0, abs=1e-9)
    assert jitter_buffer.push_next(2, 41.5 * 0.04 + 0.1) == pytest.approx(0.100)  # due 60 ms after the previous one
    assert (jitter_buffer.underruns, jitter_buffer.lost, jitter_buffer.disorder) == (1, 0, 0)
