"""Jobs of the kind `event` and an endpoint: events of calls, each delivered at least once.

A job is made in the commit that accepts the bus event; the job of a recording, before its row becomes `completed`. The job's
first run completes the body with the store's facts of the call; the same bytes are sent until the endpoint answers with 2xx. An
event that fails holds back the later ones of its call for that endpoint, and no others. A status 410 stops an endpoint until an
operator retries its events. A stream may end before its call does: such an end is dropped.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, Protocol

import msgspec

from gw import bus
from gw.call.resume import RESUMABLE
from gw.call.state import Reason
from gw.config import Config, EventHook
from gw.control.jobs import lifecycle, table
from gw.control.jobs.dial import DialEnded
from gw.control.jobs.lifecycle import EVENT, Again, Ended, Job, Outcome, Rewritten
from gw.control.jobs.service import Disk
from gw.control.jobs.table import Wanted
from gw.control.rows import TRANSFERRED, CallDetails
from gw.errors import GatewayError, ProtocolError
from gw.protocol.hooks.event import Draft, EventType, complete, decode_draft, encode_draft, is_draft
from gw.protocol.hooks.tool_call import CallFacts
from metrics.page import Page

log = logging.getLogger(__name__)

#: Events under way to one endpoint at a time: its connections.
RUNNERS: Final = 8
#: Events that wait for one endpoint: a day of an outage at ten calls a minute with several events each.
CAPACITY: Final = 100_000
#: Bound on one request, and on an attempt with its wait for a connection.
REQUEST_S: Final = 10.0
LIMIT_S: Final = 60.0
#: Pauses between attempts: doubled from the first to the last, and spread by half.
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_LAST_S: Final = 600.0
JITTER: Final = 0.5
#: Longest pause that an endpoint may ask for.
RETRY_AFTER_S: Final = 3600.0
#: Bytes read of an answer.
ANSWER_BYTES: Final = 4096
#: Between two looks for the facts of a call that the store lacks yet.
LOOK_S: Final = 1.0
#: After the end of a stream that may resume: Twilio asks for the next step within 15 s.
RESUME_S: Final = 20.0
#: The same after a transfer: the longest ringing and whisper come before.
TRANSFER_S: Final = 180.0
#: Two times of one moment: the store has microseconds.
_SAME_S: Final = 0.001
_HOUR_S: Final = 3600.0
#: Names in the event that differ from those of DialEnded.
_DIAL_NAMES: Final = {"is_last": "last", "list_name": "list"}


class Answer(Protocol):
    """An endpoint's answer."""

    @property
    def status(self) -> int: ...

    @property
    def retry_after(self) -> str: ...


class Client(Protocol):
    """Sends the requests: `gw.control.hooks.client.HookClient`."""

    def prepare(self, url: str, body: bytes, key: str = "") -> Any: ...

    def send(self, request: Any, *, deadline_s: float, max_bytes: int) -> Answer:
        """Send a request. Raises GatewayError without an answer."""


class EventHandler:
    """Delivers events to one endpoint."""

    runners: Final = RUNNERS
    capacity: Final = CAPACITY
    limit_s: Final = LIMIT_S

    def __init__(
        self,
        hook: EventHook,
        client: Client,
        call: Callable[[str], CallDetails | None],
        disk: Disk,
        is_owned: Callable[[str], bool],
        is_over: Callable[[str], bool] = lambda call_sid: False,
    ) -> None:
        """`call` reads a call from the store, and raises GatewayError.

        `is_owned`: whether a call is alive here; `is_over`: whether Twilio reported its end.
        """
        self.hook = hook
        self.kind = f"{EVENT} {hashlib.sha256(hook.url.encode()).hexdigest()[:12]}"
        self.is_stopped = False
        self._client = client
        self._call = call
        self._disk = disk
        self._is_owned = is_owned
        self._is_over = is_over

    def of_event(self, event: bus.Event, now: float) -> Wanted | None:
        """Return the job of a bus event, if the endpoint receives such events."""
        draft = None if self.is_stopped else self._draft(event)
        return None if draft is None else self._wanted(draft, now)

    def of_recording(self, call_sid: str, recording_sid: str, duration_s: int | None, now: float) -> Wanted | None:
        """Return the job of a completed recording, if the endpoint receives such events. The same recording has the same id."""
        data = {"recording_sid": recording_sid, "duration_s": duration_s}
        draft = None if self.is_stopped else self._of("recording.completed", call_sid, now, data)
        if draft is None:
            return None
        return self._wanted(msgspec.structs.replace(draft, id=self._id_of(recording_sid or call_sid)), now)

    def _wanted(self, draft: Draft, now: float) -> Wanted:
        deadline_at = now + self.hook.give_up_h * _HOUR_S
        job = lifecycle.want(draft.id, self.kind, draft.call_sid, encode_draft(draft), deadline_at=deadline_at, now=now)
        return Wanted(job, self.capacity)

    def _id_of(self, subject: str) -> str:
        """Return the id of the one event about a subject."""
        return f"evt_{hashlib.sha256(f'{self.kind} {subject}'.encode()).hexdigest()[:32]}"

    def of_dial(self, ended: DialEnded, now: float) -> Wanted | None:
        """Return the job of a dial's end, if the endpoint receives such events. The same end has the same id."""
        if self.is_stopped or "dial.ended" not in self.hook.types:
            return None
        draft = Draft(id=self._id_of(ended.dial), type="dial.ended", at=ended.at, call_sid=ended.call_sid)
        facts = CallFacts(
            sid=ended.call_sid, agent=ended.agent, direction="outbound-api", from_=ended.caller, to=ended.to, started_at=""
        )
        names = ("dial", "result", "status", "answered_by", "attempt", "is_last", "list_name", "line")
        data = {_DIAL_NAMES.get(name, name): getattr(ended, name) for name in names}
        body = complete(draft, iso_time(ended.at), facts, data)
        deadline_at = now + self.hook.give_up_h * _HOUR_S
        job = lifecycle.want(draft.id, self.kind, ended.call_sid or ended.dial, body, deadline_at=deadline_at, now=now)
        return Wanted(job, self.capacity)

    def repeats(self, job: Job) -> float | None:
        return 0.0  # at least once: the endpoint recognises the id

    def run(self, job: Job, attempt: int) -> Outcome:
        if self.is_stopped:
            return Ended("failed", "gone", "")
        if is_draft(job.body):
            return self._complete(job)
        request = self._client.prepare(self.hook.url, job.body.encode(), job.id)
        try:
            answer = self._client.send(request, deadline_s=time.monotonic() + REQUEST_S, max_bytes=ANSWER_BYTES)
        except GatewayError as error:
            log.info("an event waits, %s", error, extra={"call_sid": job.call_sid})
            return Again(backoff_s(attempt, random.random()))
        if 200 <= answer.status < 300:
            return Ended("done", "ok", "")
        if answer.status == 410:
            self._stop()
            return Ended("failed", "gone", "")
        return Again(max(backoff_s(attempt, random.random()), retry_after_s(answer.retry_after)))

    def _stop(self) -> None:
        """Make and send no more events, also after a restart."""
        self.is_stopped = True
        log.error("the endpoint %s answered 410: it receives no more events until `gateway.py hooks retry`", self.hook.url)
        try:
            self._disk.transact(partial(table.stop, kind=self.kind, now=time.time()))
        except GatewayError as error:
            log.error("a stopped endpoint is not on disk, and receives events after the next start: %s", error)

    # -- the body ---------------------------------------------------------------------------------------------------------

    def _draft(self, event: bus.Event) -> Draft | None:
        match event:
            case bus.CallStarted():
                return self._of("call.started", event.call_sid, event.answered_at, {})
            case bus.CallEnded():
                return self._of("call.ended", event.call_sid, event.ended_at, {"reason": event.reason})
            case bus.CallEvent(kind="tool_called"):
                return self._of("tool.called", event.call_sid, event.at, _tool_of(event.data))
            case bus.CallEvent(kind="transfer_ended"):
                ended = {name: event.data.get(name) for name in ("target", "status")}
                return self._of("transfer.ended", event.call_sid, event.at, ended)
            case bus.Turn():
                turn = {name: getattr(event, name) for name in ("n", "role", "text", "start_ms", "heard_ms", "interrupted")}
                return self._of("transcript.turn", event.call_sid, time.time(), turn)
            case _:
                return None

    def _of(self, kind: EventType, call_sid: str, at: float, data: dict[str, Any]) -> Draft | None:
        wanted = self.hook.transcript == "live" if kind == "transcript.turn" else kind in self.hook.types
        if not wanted or not call_sid:
            return None
        turns = kind == "call.ended" and self.hook.transcript != "none"
        return Draft(id=f"evt_{uuid.uuid4().hex}", type=kind, at=at, call_sid=call_sid, turns=turns, data=data)

    def _complete(self, job: Job) -> Outcome:
        """Complete a draft, let it wait for the store, or end it because the call continues."""
        try:
            draft = decode_draft(job.body)
            details = self._call(draft.call_sid)
            owned, over = self._is_owned(draft.call_sid), self._is_over(draft.call_sid)
            state = state_of(draft, details, time.time(), owned=owned, over=over)
            if state == "stale":
                return Ended("done", "stale", "")
            if state == "wait" or details is None:
                return Rewritten(job.body, LOOK_S)
            data = ended_data(details, turns=draft.turns) if draft.type == "call.ended" else {}
            return Rewritten(complete(draft, iso_time(draft.at), facts_of(details), data))
        except ProtocolError as error:
            log.error("an event cannot be built: %s", error, extra={"call_sid": job.call_sid})
            return Ended("failed", "invalid", "")
        except GatewayError:  # the store is away: the event waits for it
            return Rewritten(job.body, 5 * LOOK_S)


class EventHooks:
    """All endpoints that receive events."""

    def __init__(self, handlers: Sequence[EventHandler]) -> None:
        self.handlers = handlers

    def of_event(self, event: bus.Event) -> Sequence[Wanted]:
        """Return the jobs of a bus event, one for each endpoint that receives it."""
        return self._each(lambda handler, now: handler.of_event(event, now))

    def of_recording(self, call_sid: str, recording_sid: str, duration_s: int | None) -> Sequence[Wanted]:
        """Return the jobs of a completed recording, in the same way."""
        return self._each(lambda handler, now: handler.of_recording(call_sid, recording_sid, duration_s, now))

    def of_dial(self, ended: DialEnded) -> Sequence[Wanted]:
        """Return the jobs of a dial's end, in the same way."""
        return self._each(lambda handler, now: handler.of_dial(ended, now))

    def _each(self, make: Callable[[EventHandler, float], Wanted | None]) -> list[Wanted]:
        now = time.time()
        return [wanted for handler in self.handlers if (wanted := make(handler, now)) is not None]


def state_of(
    draft: Draft, details: CallDetails | None, now: float, *, owned: bool, over: bool = False
) -> Literal["ready", "wait", "stale"]:
    """Judge whether a draft can be completed. `stale`: the call had begun before, or continues.

    `owned`: it is alive here; `over`: Twilio reported its end, so that it cannot resume. How a transfer ended may follow later.
    """
    if details is None or details.began_at is None:
        return "wait"
    if draft.type == "call.started":
        first = details.answered_at
        return "wait" if first is None else "stale" if first < draft.at - _SAME_S else "ready"
    if draft.type == "call.ended":
        resumed = any(event.kind == "resumed" and event.at > draft.at for event in details.events)
        ended_later = details.ended_at is not None and details.ended_at > draft.at + _SAME_S
        if owned or resumed or (ended_later and not _left_ringing(details)):
            return "stale"
        is_settled = over and (draft.data.get("reason") != Reason.TRANSFERRED or bool(_transfer_ends(draft, details)))
        may_resume = not is_settled and now < draft.at + _may_return_s(draft, details)
        return "wait" if details.ended_at is None or may_resume else "ready"
    return "ready"


def _left_ringing(details: CallDetails) -> bool:
    """Return whether the call's end is that the caller left a transfer: no stream ended then."""
    ended_at = details.ended_at or 0.0
    left = [event for event in details.events if event.kind == "transfer_ended" and event.data.get("status") == "canceled"]
    return any(abs(event.at - ended_at) <= _SAME_S for event in left)


def _transfer_ends(draft: Draft, details: CallDetails) -> list[str]:
    """Return how the transfers ended that followed the end of a stream."""
    return [str(event.data.get("status")) for event in details.events if event.kind == "transfer_ended" and event.at > draft.at]


def _may_return_s(draft: Draft, details: CallDetails) -> float:
    """Return how long after the end of a stream the call may continue on another one."""
    reason = draft.data.get("reason")
    if reason != Reason.TRANSFERRED:
        return RESUME_S if reason in RESUMABLE else 0.0
    if any(event.kind == TRANSFERRED for event in details.events):  # by an operator, without a way back
        return 0.0
    ends = _transfer_ends(draft, details)
    return 0.0 if ends and ends[-1] in ("completed", "canceled") else TRANSFER_S


def facts_of(details: CallDetails) -> CallFacts:
    """Return the facts of a call that each event names."""
    return CallFacts(
        sid=details.call_sid,
        agent=details.agent or "",
        direction=details.direction or "",
        from_=details.from_number or "",
        to=details.to_number or "",
        started_at=iso_time(details.started_at),
        variables=details.variables,
    )


def ended_data(details: CallDetails, *, turns: bool) -> dict[str, Any]:
    """Return the data of `call.ended`."""
    said = [
        {name: getattr(turn, name) for name in ("n", "role", "text", "start_ms", "heard_ms", "interrupted")}
        for turn in details.turns
    ]
    tools = [event.data for event in details.events if event.kind == "tool_called"]
    recording = details.recording
    return {
        "reason": details.reason,
        "result": details.result,
        "duration_s": None if details.length_s is None else round(details.length_s, 3),
        **({"turns": said} if turns else {}),
        "tools": [_tool_of(data) for data in tools],
        "usage": details.usage,
        "cost_usd": details.cost_usd,
        "recording_sid": None if recording is None else recording.recording_sid,
        "quality": None if details.quality is None else msgspec.to_builtins(details.quality),
    }


def iso_time(at: float | None) -> str:
    """Return an epoch time as ISO 8601 in UTC; empty without one."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _tool_of(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data.get(name) for name in ("tool", "id", "status", "ms")}


def backoff_s(attempt: int, chance: float) -> float:
    """Return the pause after an attempt, from 1. `chance` in [0, 1) spreads it."""
    nominal_s = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 30))
    return min(BACKOFF_LAST_S, max(BACKOFF_FIRST_S, nominal_s * (1.0 - JITTER + 2.0 * JITTER * chance)))


def retry_after_s(text: str) -> float:
    """Return the seconds of a Retry-After, bounded; 0 for a date or anything else."""
    return min(RETRY_AFTER_S, float(text)) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0


def event_hooks(
    config: Config,
    page: Page,
    call: Callable[[str], CallDetails | None],
    disk: Disk,
    is_owned: Callable[[str], bool],
    is_over: Callable[[str], bool] = lambda call_sid: False,
) -> EventHooks:
    """Return the configured endpoints. Their client is imported only if there are some. Raises GatewayError."""
    if not config.events:
        return EventHooks([])
    from gw.control.hooks.client import client_of

    client = client_of(config, "event", page)
    if any(hook.url.startswith("https:") for hook in config.events):
        client.open_tls()
    handlers = [EventHandler(hook, client, call, disk, is_owned, is_over) for hook in config.events]
    stopped = disk.transact(table.stopped)
    for handler in handlers:
        if handler.kind in stopped:
            handler.is_stopped = True
            since = iso_time(stopped[handler.kind])
            log.warning(
                "the endpoint %s answered 410 at %s: `gateway.py hooks retry` sends it events again", handler.hook.url, since
            )
    return EventHooks(handlers)
