"""Report of one call: its end, the audio heard, the latency of each turn, and complaints.

Turns are found in the audio itself, by loudness: the end of the caller's speech, and the next audible audio of the agent.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from gw.twin.sound import FRAME_BYTES, PTIME_S, RATE_HZ, level
from gw.twin.twilio.call_record import CallRecord

#: Mean magnitude of a frame that counts as speech.
LOUD: Final = 0.01
#: Pauses of the caller shorter than this are part of a turn: below the silence that ends one at the AI.
PAUSE_S: Final = 0.4
#: The debugger's entry for every stream closed by the gateway, also for an intended end.
_CLOSED_BY_SERVER: Final = 31921


class Heard(NamedTuple):
    """Audio and the time at which it began."""

    at_s: float
    audio: bytes


class TurnLatency(msgspec.Struct, frozen=True):
    """The caller's last word and the agent's first, in ms since the stream's start. None: no answer."""

    caller_stops_ms: int
    answer_starts_ms: int | None
    latency_ms: int | None


class CallReport(msgspec.Struct, frozen=True):
    """One call as the caller experienced it."""

    call_sid: str
    status: str  # Twilio's CallStatus
    closed_by: str  # caller | gateway | rest | limit | twin | network
    close_code: int | None
    close_reason: str
    seconds: float
    first_audio_ms: int | None
    heard_s: float
    gaps_ms: int
    clears: int
    turns: list[TurnLatency]
    spoken: list[str]  # texts of <Say>, reasons of <Reject>
    debugger: list[str]  # entries of Twilio's debugger
    problems: list[str]


def report(call: CallRecord) -> CallReport:
    """Report on a call that is over."""
    began_s = call.streams_s[0] if call.streams_s else call.placed_s
    entries = [one for one in (*call.warnings, *call.notices) if one.code != _CLOSED_BY_SERVER]
    heard = call.heard_audio
    problems = [call.error] if call.error else []
    if call.voice is not None and not call.voice.is_good:
        problems.append(f"the voice webhook was answered with {call.voice.status}: {call.voice.body.strip()[:200]}")
    elif not call.streams_s:
        problems.append("no stream was opened")
    elif not heard:
        problems.append("no audio of the agent was heard")
    debugger = [f"{one.code} {one.detail}" for one in entries]
    first_ms = call.first_heard_ms
    return CallReport(
        call_sid=call.call_sid,
        status=call.status,
        closed_by=call.closed_by,
        close_code=call.close_code,
        close_reason=call.close_reason,
        seconds=round(max(0.0, (call.ended_s if call.ended_s is not None else began_s) - began_s), 1),
        first_audio_ms=None if first_ms is None else round(first_ms),
        heard_s=round(len(heard) / RATE_HZ, 1),
        gaps_ms=round(call.player.underrun_ms),
        clears=len(call.clears),
        turns=turn_latencies(_caller(call), itertools.starmap(Heard, call.played), began_s),
        spoken=list(call.spoken),
        debugger=debugger,
        problems=[*problems, *(f"debugger: {entry}" for entry in debugger)],
    )


def _caller(call: CallRecord) -> list[Heard]:
    """Return each frame of the caller and when it left."""
    return [Heard(at_s, bytes(call.sent_speech[n * FRAME_BYTES : (n + 1) * FRAME_BYTES])) for n, at_s in enumerate(call.sent_s)]


def turn_latencies(caller: Iterable[Heard], agent: Iterable[Heard], began_s: float) -> list[TurnLatency]:
    """Return each turn of the caller with the time until the agent's answer. `began_s`: the stream's start."""
    spurts: list[tuple[float, float]] = []
    for frame in caller:
        if level(frame.audio) < LOUD:
            continue
        end_s = frame.at_s + PTIME_S
        if spurts and frame.at_s - spurts[-1][1] < PAUSE_S:
            spurts[-1] = (spurts[-1][0], end_s)
        else:
            spurts.append((frame.at_s, end_s))
    audible_s = [piece.at_s for piece in agent if level(piece.audio) >= LOUD]
    found = []
    for (_, end_s), following in itertools.zip_longest(spurts, spurts[1:]):
        before_s = following[0] if following else float("inf")
        answer_s = next((at_s for at_s in audible_s if end_s <= at_s < before_s), None)
        stops_ms = round((end_s - began_s) * 1000)
        if answer_s is None:
            found.append(TurnLatency(stops_ms, None, None))
        else:
            found.append(TurnLatency(stops_ms, round((answer_s - began_s) * 1000), round((answer_s - end_s) * 1000)))
    return found
