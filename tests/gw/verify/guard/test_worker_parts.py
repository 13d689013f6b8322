"""TX and AI-out answer single questions as they do in a call."""

from __future__ import annotations

from gw.verify.guard.parts import Parts


def test_tx_raises_the_flag_for_a_frame_the_kernel_took(parts: Parts) -> None:
    assert parts.send_frame(flag=False, taken=True)
    assert not parts.send_frame(flag=False, taken=False)
    assert parts.send_frame(flag=True, taken=False)


def test_ai_out_asks_on_each_turn_and_at_its_end(parts: Parts) -> None:
    for chunk in (False, True):
        assert parts.turn(flag=True, started=False, room=True, chunk=chunk) == (1, True, 100, False)
        assert parts.turn(flag=False, started=False, room=True, chunk=chunk) == (0, False, 100, False)
        assert parts.turn(flag=True, started=False, room=False, chunk=chunk) == (0, False, 100, False)
        assert parts.turn(flag=True, started=True, room=True, chunk=chunk) == (0, True, 100, False)
    assert parts.last_turn(flag=True, started=False, room=True)[:2] == (1, True)
    assert parts.last_turn(flag=True, started=False, room=False)[:2] == (0, False)
