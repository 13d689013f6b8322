"""Judges the audio of call tests, and runs several worlds in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gevent

from gw.twin import speech
from gw.twin.ai.ledger import AiLedger
from gw.twin.sound import FRAME_BYTES, SILENCE
from gw.twin.twilio.caller import TwinCall
from tests.calls.conftest import World
from tests.timing import scaled

#: Delay that a telephone's jitter buffer hides. It excuses a busy machine, not a late gateway.
JITTER_MS = 60
#: Most that a test allows for times in which the machine did not run this process: a second on two busy cores, and a half.
ALLOWED_MS = 1500
#: A short turn of a caller: three quarters of a second of speech.
WORD = speech.load("monkeys")[2400:8800]


def padded(responses: Iterable[bytes | bytearray]) -> bytes:
    """Return the audio a caller must hear of these responses, each padded to whole frames."""
    return b"".join(bytes(audio) + SILENCE * (-len(audio) % FRAME_BYTES) for audio in responses)


def session_of(w: World, call: TwinCall) -> AiLedger:
    """Return the AI's side of a call."""
    ledger = w.ai.session_of(call.number)
    assert ledger is not None, f"no AI session heard call {call.number}"
    return ledger


def check_uplink(call: TwinCall, *sessions: AiLedger) -> None:
    """Check that the AI received every frame of the caller once, in sequence.

    Silence between them is allowed: the gateway sends it while frames are missing, which a busy machine delays.
    """
    received, sent = b"".join(bytes(session.uplink) for session in sessions), bytes(call.sent_speech)
    silent, at = SILENCE * FRAME_BYTES, 0
    for start in range(0, len(received), FRAME_BYTES):
        frame = received[start : start + FRAME_BYTES]
        if frame == sent[at : at + FRAME_BYTES]:
            at += FRAME_BYTES
        else:
            assert frame == silent, f"frame {start // FRAME_BYTES} of the uplink is not frame {at // FRAME_BYTES} of the caller"
    assert at == len(sent), f"{(len(sent) - at) // FRAME_BYTES} frames of the caller did not reach the AI"


def check_ear(call: TwinCall, jitter_ms: float = JITTER_MS) -> None:
    """Check a call for refused messages, unplayed marks and audible gaps."""
    assert (call.error, call.warnings) == ("", [])
    assert [mark.name for mark in call.marks] == [echo.name for echo in call.echoes]
    assert call.player.underrun_behind_ms(jitter_ms + not_run_ms(call)) == 0, (
        f"{call.player.gaps}, the twin was late by at most {call.late_max_s * 1000:.0f} ms"
    )


def not_run_ms(call: TwinCall) -> float:
    """Return how long the machine stalled this process during a call, up to ALLOWED_MS.

    Twins and gateway share the process, so the caller's own frames left late by as much. Stalls of a few milliseconds count: a
    frame of the agent passes four loops, and each of them may wait for one.
    """
    return min(ALLOWED_MS, sum(late_s for late_s in call.lateness_s if late_s > 0.005) * 1000)


def until(holds: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait until `holds`; fail with `what` after the timeout."""
    with gevent.Timeout(scaled(timeout_s), AssertionError(f"not reached: {what}")):
        while not holds():
            gevent.sleep(0.005)


def in_parallel(*bodies: Callable[[], object]) -> None:
    """Run each body in a greenlet. The first failure ends the others and is raised."""
    greenlets = [gevent.spawn(body) for body in bodies]
    try:
        gevent.joinall(greenlets, raise_error=True)
    finally:
        gevent.killall(greenlets)
