"""The holding sound: whole frames, soft, never silent for long, without a click where it is joined."""

from __future__ import annotations

from itertools import pairwise

from gw.call.hold_tone import hold_tone
from gw.protocol.audio import FRAME_BYTES, ULAW_TO_LINEAR, energy


def test_it_is_heard_softly_and_joins_without_a_click() -> None:
    sound = hold_tone()
    assert sound == hold_tone()
    assert len(sound) % FRAME_BYTES == 0
    levels = [energy(sound[at : at + FRAME_BYTES]) for at in range(0, len(sound), FRAME_BYTES)]
    assert 500 < max(levels) < 2000
    assert levels[0] < 100
    assert levels[-1] == 0
    samples = [ULAW_TO_LINEAR[code] for code in sound + sound]
    assert max(abs(a - b) for a, b in pairwise(samples)) < 800
