"""The events of one call for control: start, first audio, recording, turns, notes and end.

Notes and turns are limited, whatever the peers send: the surplus of a kind is dropped and counted, its first event noted. AI-out
holds methods of this object, not of the call, and this object holds no call: an ended call is freed with its last reference,
without the collector. Never waits: the bus keeps what control does not take.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic
from types import MappingProxyType
from typing import Final

from gw import bus
from gw.call.limits import Allowance, event_allowance
from gw.call.resume import LEFT, parse_resumed
from gw.call.turns import Turn
from gw.media.shared.context import MediaContext
from gw.protocol.hooks.tool_call import CallFacts
from gw.protocol.twilio import Start

log = logging.getLogger(__name__)

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class CallEvents:
    """One call's identity, and the events that carry it to control."""

    __slots__ = (
        "_allowances",
        "_context",
        "_first_audio_at",
        "_surplus",
        "account_sid",
        "resumed",
        "sid",
        "started_at",
        "started_s",
    )

    def __init__(self, context: MediaContext, start: Start, *, started_s: float, started_at: float) -> None:
        """`started_s`, `started_at`: the stream's start, monotonic and in epoch seconds."""
        self._context = context
        self.account_sid = start.account_sid
        self._allowances: dict[str, Allowance] = {}  # by kind
        self._surplus: set[str] = set()  # kinds of which events were dropped
        self.sid = start.call_sid
        self.started_s = started_s
        self.started_at = self._first_audio_at = started_at
        self.resumed = parse_resumed(start.parameters, started_at)

    @property
    def continues(self) -> bool:
        """True if the caller heard an earlier stream of the call."""
        return self.resumed is not None and self.resumed.was_heard

    def emit(self, event: bus.Event) -> None:
        """Send an event to control."""
        self._context.emit(event)

    def cancel_job(self, job_id: str) -> None:
        """Have control end the request of a job whose result is not awaited any more."""
        self._context.cancel_job(job_id)

    def on_start(self, start: Start, agent_name: str, voice_at: float | None, variables: Mapping[str, str] = _NONE) -> None:
        """Report the call's start. `voice_at`: when the voice webhook was answered, epoch seconds. `variables`: the route's."""
        parameters = start.parameters
        if variables and self.resumed is None:  # before the start, which makes an event for the user's endpoint
            self.emit(bus.CallEvent(self.sid, "variables", time.time(), dict(variables)))
        self.emit(
            bus.CallStarted(
                self.sid,
                start.stream_sid,
                start.account_sid,
                agent_name,
                parameters.get("direction", "inbound"),
                parameters.get("caller", ""),
                parameters.get("called", ""),
                voice_at if voice_at is not None else self.started_at,
                self.started_at,
            )
        )
        if self.resumed is not None:
            outcome = {"outcome": self.resumed.outcome} if self.resumed.outcome else {}
            self.note("resumed", n=self.resumed.n, after=self.resumed.after, **outcome)
            level = logging.INFO if self.resumed.after in LEFT else logging.WARNING
            log.log(level, "the call resumes after %s", self.resumed.after, extra={"call_sid": self.sid})

    def facts(self, start: Start, agent_name: str, voice_at: float | None, variables: Mapping[str, str]) -> CallFacts:
        """Return the facts of the call for the endpoints of tools."""
        parameters = start.parameters
        began_at = self.resumed.began_at if self.resumed is not None else voice_at
        began = datetime.fromtimestamp(began_at if began_at is not None else self.started_at, UTC)
        return CallFacts(
            sid=self.sid,
            agent=agent_name,
            direction=parameters.get("direction", "inbound"),
            from_=parameters.get("caller", ""),
            to=parameters.get("called", ""),
            started_at=began.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            variables=dict(variables),
        )

    def may_emit(self, kind: str) -> bool:
        """Return whether one more event of this kind is within the call's limit.

        One beyond is counted, and the first of its kind noted.
        """
        allowance = self._allowances.get(kind)
        if allowance is None:
            allowance = self._allowances[kind] = event_allowance(kind)
        if allowance.take(monotonic()):
            return True
        surplus = self._context.cells.surplus
        surplus.get(kind, surplus["other"]).add()
        if kind not in self._surplus:
            self._surplus.add(kind)
            self.emit(bus.CallEvent(self.sid, "surplus", time.time(), {"of": kind}))
            log.warning("too many events of the kind %s; more are dropped", kind, extra={"call_sid": self.sid})
        return False

    def note(self, kind: str, **data: str | int | float | bool | None) -> bool:
        """Add a row to the events table. Returns False when it is dropped. `kind`: one of a few words."""
        allowed = self.may_emit(kind)
        if allowed:
            self.emit(bus.CallEvent(self.sid, kind, time.time(), data))
        return allowed

    def report_turns(self, turns: list[Turn]) -> None:
        """Report finished turns."""
        for turn in turns:
            if self.may_emit("turn"):
                self.emit(bus.Turn(self.sid, *turn))

    # -- AI-out's ---------------------------------------------------------------------------------------------------------

    def on_first_audio(self, sent_s: float) -> None:
        """Report the agent's first frame. `sent_s`: when TX sent it, monotonic."""
        self._first_audio_at = self.started_at + sent_s - self.started_s
        self.emit(bus.FirstAudio(self.sid, self._first_audio_at))

    def pool_has_room(self) -> bool:
        """Return whether a recording's start can be spawned now."""
        return not self._context.recording_pool.full()

    def on_record(self) -> None:
        """Request the recording, in the pool. Comes after `on_first_audio`."""
        request = bus.StartRecording(self.sid, self.account_sid, self._first_audio_at, self.continues)
        self._context.recording_pool.spawn(self.emit, request)
