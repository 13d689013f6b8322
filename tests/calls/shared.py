"""One world for many cases: a module's bad calls on one gateway, beside an undisturbed good one.

The world runs once per module and leaves an `Outcome`: log, store, metrics and both sides of each call. Each case is then one
test on the outcome. The expected results are in the modules.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import gevent
import msgspec

from gw.call.audio.hold_tone import hold_tone
from gw.call.state import Reason, result_of
from gw.config import Agent, Server, Store
from gw.twin.ai.ledger import AiLedger
from gw.twin.ai.script import AiScript, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.sound import FRAME_BYTES, SILENCE
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.messages import CONNECTED
from gw.twin.twilio.stream import CallPlan, Hook
from tests.calls.conftest import World, open_world
from tests.calls.hearing import check_uplink
from tests.timing import scaled

#: A stream that breaks, or is refused, is the call's last.
ONE_STREAM: Final = Server(stop_timeout_s=0.5, on_lost="goodbye")


class Line(NamedTuple):
    """Texts of a log record. The record itself may keep a gateway alive by an error's traceback."""

    logger: str
    level: int
    text: str
    call_sid: str
    reason: str


class Kept(logging.Handler):
    """Log handler that keeps the gateway's lines of level INFO and above."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        extra = vars(record)
        line = Line(record.name, record.levelno, record.getMessage(), extra.get("call_sid", ""), extra.get("reason", ""))
        self.lines.append(line)
        record.msg, record.args, record.exc_info = line.text, None, None  # the record may be kept by other handlers

    def __enter__(self) -> Kept:
        self._level = logging.getLogger("gw").level
        logging.getLogger("gw").setLevel(logging.INFO)
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger().removeHandler(self)
        logging.getLogger("gw").setLevel(self._level)

    def reasons(self, call_sid: str) -> list[str]:
        """Return the reasons that the media plane logged for a call, in sequence."""
        return [
            line.reason for line in self.lines if line.logger.startswith("gw.media") and line.call_sid == call_sid and line.reason
        ]


@dataclass
class Outcome:
    """Results of a world that has ended, for the tests to judge."""

    log: Kept = field(default_factory=Kept)
    left: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)  # kinds with more than before: before, after
    calls: dict[str, TwinCall] = field(default_factory=dict)
    rows: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)  # reasons of stream_refused by call SID, "" if unknown
    ended: Counter[str] = field(default_factory=Counter)  # gw_calls_ended_total
    metrics: dict[str, float] = field(default_factory=dict)
    sessions: dict[str, AiLedger] = field(default_factory=dict)  # the AI's side of each call that reached it
    seen: dict[str, Any] = field(default_factory=dict)  # further results of a module

    def keep(self, world: World) -> None:
        """Read store and metrics while the gateway runs."""
        for name, call in self.calls.items():
            self.rows[name] = msgspec.to_builtins(world.gateway.store.call(call.call_sid))
            session = world.ai.session_of(call.number)
            if session is not None:
                self.sessions[name] = session
        for event in world.gateway.events("stream_refused"):
            self.refused.setdefault(event["call_sid"] or "", []).append(event["data"]["reason"])
        self.metrics = world.gateway.metrics()
        for name, value in self.metrics.items():
            if name.startswith("gw_calls_ended_total{") and value:
                self.ended[name.split('"')[1]] = int(value)

    def check_ended(self, name: str, reason: str, refused: Sequence[str] = ()) -> None:
        """Check that the call ended for `reason`, in log and store.

        `refused`: reasons for which other streams of this call were refused.
        """
        call, row = self.calls[name], self.rows[name]
        assert row is not None, f"{name} is not in the store"
        assert (row["reason"], row["result"]) == (reason, result_of(Reason(reason)).value), row["detail"]
        logged = self.log.reasons(call.call_sid)
        assert logged == [*refused, reason], logged
        assert self.refused.get(call.call_sid, []) == [*refused]

    def check_refused(self, name: str, reason: str) -> None:
        """Check that the stream never started, in log and store. The caller does not get another one."""
        call = self.calls[name]
        self.check_no_stream(name)
        assert self.refused.get(call.call_sid) == [reason]
        assert self.log.reasons(call.call_sid) == [reason, Reason.NO_STREAM]

    def check_no_stream(self, name: str) -> None:
        """Check that the call has a row without a stream."""
        row = self.rows[name]
        assert row is not None, f"{name} is not in the store"
        assert (row["reason"], row["result"], row["stream_sid"]) == ("no_stream", "peer_error", None)

    def check_nothing_left(self) -> None:
        """Check that no call is open and that no greenlet or descriptor remained."""
        assert {name: value for name, value in self.metrics.items() if name.startswith("gw_calls{") and value} == {}
        assert self.left == {}, f"more than before: {self.left}"

    def check_good(self, name: str = "good", refused: Sequence[str] = ()) -> None:
        """Check every byte of a good call, in both directions."""
        call, session = self.calls[name], self.sessions[name]
        self.check_ended(name, "caller_hangup", refused)
        held_between(call.received_audio, b"", padded(session.responses[0].audio))
        check_uplink(call, session)
        assert (call.error, call.warnings, call.notices, call.closed_by) == ("", [], [], "caller")
        assert session.violations == []


def run_world(
    folder: Path,
    store: Store,
    script: AiScript | Callable[[int, str], AiScript],
    body: Callable[[World, Outcome], None],
    *,
    agents: Callable[[AiTwin], Mapping[str, Agent]] = lambda ai: {},
    signed: bool = True,
    **options: Any,
) -> Outcome:
    """Run `body` in a world. Returns its results and its leftovers.

    The default agent uses the AI twin; `agents` returns more agents.
    """
    outcome = Outcome()
    before = alive()
    with outcome.log:
        opened = open_world(folder / "var", store, script, agents=agents, signed=signed, **options)
        _run_body(lambda world: body(world, outcome), opened)
        del opened
    for _ in range(300):  # greenlets and sockets end within moments
        left = alive()
        outcome.left = {kind: (before[kind], left[kind]) for kind in before if len(left[kind]) > len(before[kind])}
        if not outcome.left:
            break
        gevent.sleep(scaled(0.01))
    return outcome


def _run_body(body: Callable[[World], None], opened: contextlib.AbstractContextManager[World]) -> None:
    """Run the body in a separate frame, which keeps no part of the world afterwards."""
    with opened as world:
        body(world)


def alive() -> dict[str, list[str]]:
    """Return the live greenlets and the open descriptors of this process."""
    gc.collect()
    greenlets = [repr(one) for one in gc.get_objects() if isinstance(one, gevent.Greenlet) and not one.dead]
    opened = []
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor that reads the list
            opened.append(str(one.readlink()))
    return {"greenlets": greenlets, "descriptors": opened}


# -- the good call ------------------------------------------------------------------------------------------------------


def murmur(seconds: float, seed: int = 1) -> tuple[bytes, ...]:
    """Return a caller's line noise: every frame differs, and all are quieter than speech."""
    chance = random.Random(seed)
    return tuple(bytes(chance.choices((0xFF, 0xFE, 0xFD, 0x7F, 0x7E), k=FRAME_BYTES)) for _ in range(int(seconds * 50)))


def speaking(seconds: float, **changes: Any) -> AiScript:
    """Return an AI that speaks for `seconds` when asked to, and then listens."""
    return AiScript(greeting=lasting(seconds), **changes)


def padded(audio: bytes | bytearray) -> bytes:
    """Return a response padded to whole frames."""
    return bytes(audio) + SILENCE * (-len(audio) % FRAME_BYTES)


def place_good(world: World, outcome: Outcome, name: str = "good") -> None:
    """Place a call that lasts until the test hangs up."""
    outcome.calls[name] = world.twilio.place(CallPlan(speech=murmur(60), hang_up=False, max_s=scaled(90)))


def held_between(received: bytes, before: bytes, after: bytes) -> bytes:
    """Check that a caller heard these words, and else at most the holding sound. Returns what was heard of it between them.

    On a busy machine it comes before the first word, too.
    """
    sound, at = hold_tone() * 10, received.find(before)
    assert at >= 0
    assert received.endswith(after)
    held = received[at + len(before) : len(received) - len(after)]
    assert sound.startswith(received[:at])
    assert sound.startswith(held)
    return held


def end_good(world: World, outcome: Outcome, name: str = "good") -> None:
    """Let the good call hear the whole response, hang up, and wait for its row."""
    call = outcome.calls[name]
    session = world.ai.session_of(call.number)
    assert session is not None
    world.gateway.until(lambda: session.responses[0].status == "completed", "the AI sent everything", 60)
    expected = padded(session.responses[0].audio)
    world.gateway.until(lambda: len(call.received_audio) >= len(expected), "the good call received all", 60)
    gevent.sleep(0.2)  # more audio would arrive in this time
    call.hang_up()
    assert call.wait(scaled(10))
    world.gateway.ended(call.call_sid)


# -- preludes -----------------------------------------------------------------------------------------------------------


def start_with(**parameters: str) -> Hook:
    """Return an ordinary beginning with other custom parameters; an empty one is omitted."""

    def prelude(call: TwinCall) -> None:
        merged = {**call.parameters, **parameters}
        call.parameters = {name: value for name, value in merged.items() if value}
        call.send_text(CONNECTED)
        call.send_start()

    return prelude
