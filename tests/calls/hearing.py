"""How call tests judge what was said and heard, and how they let several worlds run at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gevent

from gw.twin import speech
from gw.twin.ai.ledger import AiLedger
from gw.twin.sound import FRAME_BYTES, SILENCE
from gw.twin.twilio.caller import TwinCall
from tests.calls.conftest import World
from tests.timing import scaled

#: What a telephone's own jitter buffer hides: a busy machine's delays, never a late gateway's.
JITTER_MS = 60
#: The most that a test forgives for a process that the machine did not run: two cores with other work leave one out for a second.
FORGIVEN_MS = 1500
#: A caller's turn that is over soon: three quarters of a second of a voice.
WORD = speech.load("monkeys")[2400:8800]


def padded(responses: Iterable[bytes | bytearray]) -> bytes:
    """What a caller must hear of these responses: each filled up to whole frames."""
    return b"".join(bytes(audio) + SILENCE * (-len(audio) % FRAME_BYTES) for audio in responses)


def session_of(w: World, call: TwinCall) -> AiLedger:
    """The AI's side of a call."""
    ledger = w.ai.session_of(call.number)
    assert ledger is not None, f"no AI session heard call {call.number}"
    return ledger


def check_ear(call: TwinCall, jitter_ms: float = JITTER_MS) -> None:
    """A call as every call should sound: no message Twilio refuses, every mark played, no gap that a telephone would not hide."""
    assert (call.error, call.warnings) == ("", [])
    assert [mark.name for mark in call.marks] == [echo.name for echo in call.echoes]
    assert call.player.underrun_behind_ms(jitter_ms + stood_ms(call)) == 0, (
        f"{call.player.gaps}, the twin was late by at most {call.late_max_s * 1000:.0f} ms"
    )


def stood_ms(call: TwinCall) -> float:
    """How long the machine did not run this process during a call: twins and gateway share it, so where it stood still, the
    caller's own frames left late too."""
    return min(FORGIVEN_MS, sum(late_s for late_s in call.lateness_s if late_s > 0.02) * 1000)


def until(holds: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait until `holds`; fail with `what` otherwise."""
    with gevent.Timeout(scaled(timeout_s), AssertionError(f"did not come to hold: {what}")):
        while not holds():
            gevent.sleep(0.005)


def at_once(*bodies: Callable[[], object]) -> None:
    """Run all of these, each in a greenlet of its own; the first failure is the test's, and ends the others."""
    greenlets = [gevent.spawn(body) for body in bodies]
    try:
        gevent.joinall(greenlets, raise_error=True)
    finally:
        gevent.killall(greenlets)
