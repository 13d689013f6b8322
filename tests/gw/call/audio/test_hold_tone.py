"""gw.call.audio.hold_tone: whole frames, soft, without a click at the joints."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gw.call.audio.hold_tone import hold_tone
from gw.protocol.audio import FRAME_BYTES, RATE_HZ, ULAW_TO_LINEAR, energy


def test_the_sound_is_soft_and_joins_without_a_click() -> None:
    sound = hold_tone()
    assert sound == hold_tone()
    assert len(sound) % FRAME_BYTES == 0
    levels = [energy(sound[at : at + FRAME_BYTES]) for at in range(0, len(sound), FRAME_BYTES)]
    assert 500 < max(levels) < 2000
    assert levels[0] < 100
    assert levels[-1] == 0
    samples = [ULAW_TO_LINEAR[code] for code in sound + sound]
    assert max(abs(a - b) for a, b in pairwise(samples)) < 800


def test_two_notes_and_a_pause() -> None:
    sound = hold_tone()
    assert len(sound) == 1.6 * RATE_HZ
    samples = [ULAW_TO_LINEAR[code] for code in sound]
    assert samples[int(0.8 * RATE_HZ) :] == [0] * int(0.8 * RATE_HZ)
    for start_s, note_hz in ((0.0, 440.0), (0.4, 587.33)):
        note = samples[int(start_s * RATE_HZ) : int((start_s + 0.4) * RATE_HZ)]
        assert abs(note[0]) < 8 and abs(note[-1]) < 8
        middle = note[len(note) // 2 - 200 : len(note) // 2 + 200]
        assert 1500 < max(middle) < 1650 and -1650 < min(middle) < -1500
        rises = sum(a < 0 <= b for a, b in pairwise(note[400:-400]))  # without the soft ends
        assert abs(rises - note_hz * 0.3) <= 1
        assert energy(sound[int(start_s * RATE_HZ) :][:800]) == pytest.approx(
            energy(sound[int((start_s + 0.3) * RATE_HZ) :][:800]), abs=40
        )
