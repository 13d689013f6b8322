"""One world for many cases: a whole module's bad calls at once on one gateway, beside a good one that must not notice.

Decides how a good call is built and judged, and what of a bad one is looked at: the log, the store, the metrics, the wire. The
world runs once per module; each case is then a test of its own. Never says what a case should end with.
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
from typing import Any, NamedTuple

import gevent
import msgspec

from gw.call.state import Reason, result_of
from gw.config import Agent, Store
from gw.twin.ai.ledger import AiLedger
from gw.twin.ai.script import AiScript, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.sound import FRAME_BYTES, SILENCE
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.messages import CONNECTED
from gw.twin.twilio.stream import CallPlan, Hook
from tests.calls.conftest import World, open_world
from tests.timing import scaled


class Line(NamedTuple):
    """A log record's words. The record itself may hold a whole gateway, by an error's traceback."""

    logger: str
    level: int
    text: str
    call_sid: str
    reason: str


class Kept(logging.Handler):
    """Everything the gateway logs, INFO and worse."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        extra = vars(record)
        line = Line(record.name, record.levelno, record.getMessage(), extra.get("call_sid", ""), extra.get("reason", ""))
        self.lines.append(line)
        record.msg, record.args, record.exc_info = line.text, None, None  # for those who keep it

    def __enter__(self) -> Kept:
        self._level = logging.getLogger("gw").level
        logging.getLogger("gw").setLevel(logging.INFO)
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger().removeHandler(self)
        logging.getLogger("gw").setLevel(self._level)

    def reasons(self, call_sid: str) -> list[str]:
        """The reasons the media plane logged of a call, in order."""
        return [
            line.reason for line in self.lines if line.logger.startswith("gw.media") and line.call_sid == call_sid and line.reason
        ]


@dataclass
class Outcome:
    """What is left of a world once it is gone, for the tests to judge."""

    log: Kept = field(default_factory=Kept)
    left: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)  # what there is more of than before
    calls: dict[str, TwinCall] = field(default_factory=dict)
    rows: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)  # reasons of stream_refused, by call SID; "" where none is known
    ended: Counter[str] = field(default_factory=Counter)  # gw_calls_ended_total
    metrics: dict[str, float] = field(default_factory=dict)
    said: dict[str, AiLedger] = field(default_factory=dict)  # the AI's side of each call that had one
    seen: dict[str, Any] = field(default_factory=dict)  # what else a module keeps

    def keep(self, world: World) -> None:
        """Read store and metrics while the gateway still stands."""
        for name, call in self.calls.items():
            self.rows[name] = msgspec.to_builtins(world.gateway.store.call(call.call_sid))
            said = world.ai.session_of(call.number)
            if said is not None:
                self.said[name] = said
        for event in world.gateway.events("stream_refused"):
            self.refused.setdefault(event["call_sid"] or "", []).append(event["data"]["reason"])
        self.metrics = world.gateway.metrics()
        for name, value in self.metrics.items():
            if name.startswith("gw_calls_ended_total{") and value:
                self.ended[name.split('"')[1]] = int(value)

    def check_ended(self, name: str, reason: str, refused: Sequence[str] = ()) -> None:
        """The call ended for `reason`, alike in log and store. `refused`: why other streams that named this call were."""
        call, row = self.calls[name], self.rows[name]
        assert row is not None, f"{name} is in no table"
        assert (row["reason"], row["result"]) == (reason, result_of(Reason(reason)).value), row["detail"]
        logged = self.log.reasons(call.call_sid)
        assert logged == [*refused, reason], logged
        assert self.refused.get(call.call_sid, []) == [*refused]

    def check_refused(self, name: str, reason: str) -> None:
        """The stream never started, and that is told alike in log and store."""
        call = self.calls[name]
        assert self.rows[name] is None
        assert self.refused.get(call.call_sid) == [reason]
        assert self.log.reasons(call.call_sid) == [reason]

    def check_nothing_left(self) -> None:
        """No call is open in the metrics, no greenlet and no descriptor stayed."""
        assert {name: value for name, value in self.metrics.items() if name.startswith("gw_calls{") and value} == {}
        assert self.left == {}, f"more than before: {self.left}"

    def check_good(self, name: str = "good", refused: Sequence[str] = ()) -> None:
        """Every byte of it, both ways."""
        call, said = self.calls[name], self.said[name]
        self.check_ended(name, "caller_hangup", refused)
        assert call.received_audio == padded(said.responses[0].audio)
        assert bytes(said.uplink) == bytes(call.sent_speech)
        assert (call.error, call.warnings, call.notices, call.closed_by) == ("", [], [], "caller")
        assert said.violations == []


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
    """Let `body` happen in a world, and say what is known of it and what it left behind.

    The default agent lives at the AI's own path; `agents` names more.
    """
    outcome = Outcome()
    before = standing()
    with outcome.log:
        opened = open_world(folder / "var", store, script, agents=agents, signed=signed, **options)
        _live(lambda world: body(world, outcome), opened)
        del opened
    for _ in range(300):  # what ends by itself ends within moments
        left = standing()
        outcome.left = {kind: (before[kind], left[kind]) for kind in before if len(left[kind]) > len(before[kind])}
        if not outcome.left:
            break
        gevent.sleep(scaled(0.01))
    return outcome


def _live(body: Callable[[World], None], opened: contextlib.AbstractContextManager[World]) -> None:
    """A function of its own, so that nobody keeps a part of the world once it is over."""
    with opened as world:
        body(world)


def standing() -> dict[str, list[str]]:
    """Greenlets alive and descriptors open in this process."""
    gc.collect()
    alive = [repr(one) for one in gc.get_objects() if isinstance(one, gevent.Greenlet) and not one.dead]
    opened = []
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that reads the list
            opened.append(str(one.readlink()))
    return {"greenlets": alive, "descriptors": opened}


# -- the good call ------------------------------------------------------------------------------------------------------


def murmur(seconds: float, seed: int = 1) -> tuple[bytes, ...]:
    """A caller's line noise: no frame like another, none loud enough to be speech."""
    chance = random.Random(seed)
    return tuple(bytes(chance.choices((0xFF, 0xFE, 0xFD, 0x7F, 0x7E), k=FRAME_BYTES)) for _ in range(int(seconds * 50)))


def speaking(seconds: float, **changes: Any) -> AiScript:
    """An AI that speaks for so long once it is asked to, and then listens."""
    return AiScript(greeting=lasting(seconds), **changes)


def padded(audio: bytes | bytearray) -> bytes:
    """A response as frames."""
    return bytes(audio) + SILENCE * (-len(audio) % FRAME_BYTES)


def place_good(world: World, outcome: Outcome, name: str = "good") -> None:
    """A call that stays until it is hung up."""
    outcome.calls[name] = world.twilio.place(CallPlan(speech=murmur(60), hang_up=False, max_s=scaled(90)))


def end_good(world: World, outcome: Outcome, name: str = "good") -> None:
    """Let the good call hear the AI out, then hang up; wait until it is in the store."""
    call = outcome.calls[name]
    said = world.ai.session_of(call.number)
    assert said is not None
    world.gateway.until(lambda: said.responses[0].status == "completed", "the AI said all", 60)
    expected = padded(said.responses[0].audio)
    world.gateway.until(lambda: len(call.received_audio) >= len(expected), "the good call received all", 60)
    gevent.sleep(0.2)  # and nothing more
    call.hang_up()
    assert call.wait(scaled(10))
    world.gateway.ended(call.call_sid)


# -- preludes -----------------------------------------------------------------------------------------------------------


def start_with(**parameters: str) -> Hook:
    """An ordinary beginning with other custom parameters; an empty one is left out."""

    def prelude(call: TwinCall) -> None:
        merged = {**call.parameters, **parameters}
        call.parameters = {name: value for name, value in merged.items() if value}
        call.send_text(CONNECTED)
        call.send_start()

    return prelude
