"""Dials the running lists at their pace, and settles what Twilio reports about each dial.

A list runs while its command asks for it: RUN_S after its last request no further dial begins. Dials under way are settled
anyway. State is in the store (`gw.control.store.dials`); in memory are the lists that run, and dials whose job has not had its
turn. A dial's end comes by Twilio's status webhook, which is in the spool until it was acted on; without a webhook the call is
looked up at Twilio. Twilio's verdict about an answering machine goes to the worker of the call.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import gevent
import msgspec
from gevent.event import Event

from gw import bus
from gw.config import REPEATED, Config
from gw.config.route_times import parse_hours
from gw.control.jobs import table
from gw.control.jobs.dial import DialBody, DialEnded, want
from gw.control.jobs.service import Disk
from gw.control.outbound.plan import FAILURES, FINAL, DialName, after_end, opens_at, parse_name, result_of
from gw.control.rows import DialListRow, DialRow, DialState
from gw.control.spool import SpoolError
from gw.control.store import StoreUnavailable
from gw.control.store.dials import Dials
from gw.control.twilio_api.accounts import Account, Accounts
from gw.control.twilio_api.answers import RestError
from gw.control.twilio_api.rest import CallRequest
from gw.errors import GatewayError
from gw.latest import Latest

T = TypeVar("T")

log = logging.getLogger(__name__)

#: A list stops this long after its command's last request.
RUN_S: Final = 30.0
#: A dial that has not had its turn for this long is not counted any more.
TURN_S: Final = 60.0
#: A dial is begun this long after its turn came, or not at all: the hours of its callee may end.
BEGIN_S: Final = 20.0
#: Looks at the lists while nothing is due.
IDLE_S: Final = 0.5
#: Lines looked at for one dial: some may be outside the hours of their callees.
LOOK_AHEAD: Final = 20
#: Looks for dials without an end: the first comes when a call that was not answered is over.
LOST_EVERY_S: Final = 30.0
LOST_AFTER_S: Final = 90.0
LOST_AT_ONCE: Final = 10
LOST_LINES: Final = 500
#: A verdict waits this long for the worker of its call.
DELIVER_S: Final = 60.0
#: Verdicts that are remembered, for the events of single calls.
MAX_VERDICTS: Final = 1000


class Running(msgspec.Struct):
    """A list that runs."""

    row: DialListRow
    until_s: float  # monotonic
    failures: int = 0  # in a row


class Outbound:
    """The lists of one gateway."""

    def __init__(
        self,
        config: Config,
        lines: Dials,
        accounts: Accounts,
        *,
        disk: Disk,
        wake_jobs: Callable[[], None],
        refusal: Callable[[], str],
        send_verdict: Callable[[str, str], bool],
        events: Callable[[DialEnded], Sequence[table.Wanted]],
    ) -> None:
        """`refusal`: why the gateway takes no call now, empty if it does. `send_verdict` sends one to a call's worker."""
        self._config = config
        self._rules = config.outbound
        self._spans = parse_hours(self._rules.hours)
        self._lines = lines
        self._accounts = accounts
        self._disk = disk
        self._wake_jobs = wake_jobs
        self._refusal = refusal
        self._send_verdict = send_verdict
        self._events = events
        self._running: dict[str, Running] = {}
        self._stopped: dict[str, str] = {}  # why a list stopped
        self._waiting: dict[tuple[str, int], float] = {}  # dials whose job has not had its turn: since when, monotonic
        self._looked_s: dict[tuple[str, int], float] = {}  # at dials without an end, monotonic
        self._verdicts: Latest[str, str] = Latest(MAX_VERDICTS)  # by call
        self._undelivered: Latest[str, float] = Latest(MAX_VERDICTS)  # verdicts whose call no worker reported: since when
        self._next_s = 0.0  # of the next dial, monotonic
        self.problem = ""  # why the last dial was not placed
        self._wake = Event()
        self._stopping = Event()
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Dial, and look for dials without an end, from now on."""
        self._greenlets = [gevent.spawn(self._dial), gevent.spawn(self._look_for_lost)]

    def stop(self, timeout_s: float = 2.0) -> None:
        """Begin no further dial."""
        self._stopping.set()
        self._wake.set()
        gevent.joinall(self._greenlets, timeout=timeout_s)
        gevent.killall(self._greenlets, timeout=timeout_s)

    # -- the lists ----------------------------------------------------------------------------------------------------

    def run(self, row: DialListRow) -> None:
        """Dial a list from now on, for RUN_S."""
        self._stopped.pop(row.list_id, None)
        self._running[row.list_id] = Running(row, time.monotonic() + RUN_S)
        self._wake.set()

    def keep(self, list_id: str) -> bool:
        """Let a list run on for RUN_S. Returns whether it runs."""
        running = self._running.get(list_id)
        if running is not None:
            running.until_s = time.monotonic() + RUN_S
        return running is not None

    def end(self, list_id: str, why: str = "") -> None:
        """Begin no further dial of a list."""
        if self._running.pop(list_id, None) is not None and why:
            self._stopped[list_id] = why
            log.warning("a list stops: %s", why)

    def why_stopped(self, list_id: str) -> str:
        """Return why a list has stopped; empty if its command ended it."""
        return self._stopped.get(list_id, "")

    # -- dialling -----------------------------------------------------------------------------------------------------

    def _dial(self) -> None:
        while not self._stopping.is_set():
            try:
                wait_s = self._turn()
            except GatewayError as error:
                self.problem = str(error)
                log.warning("the lists wait: %s", error)
                wait_s = IDLE_S
            except Exception:  # this greenlet's top: the lists are in the store, and the next turn tries again
                log.exception("a turn of the lists failed")
                wait_s = IDLE_S
            self._wake.wait(wait_s)
            self._wake.clear()

    def _turn(self) -> float:
        """Begin one dial if one may begin. Returns the time until the next turn. Raises GatewayError."""
        now_s = time.monotonic()
        for call_sid, since_s in list(self._undelivered.items()):
            if self._send_verdict(call_sid, self._verdicts.get(call_sid, "")) or since_s < now_s - DELIVER_S:
                del self._undelivered[call_sid]
        for list_id in [key for key, one in self._running.items() if one.until_s < now_s]:
            log.warning("a list stops: its command has ended", extra={"reason": "list_left"})
            self.end(list_id)
        for key in [key for key, since_s in self._waiting.items() if since_s < now_s - TURN_S]:
            del self._waiting[key]
        if not self._running:
            return IDLE_S
        if now_s < self._next_s:
            return self._next_s - now_s
        if refusal := self._refusal():
            self.problem = refusal
            return IDLE_S
        if self._lines.under_way() + len(self._waiting) >= self._rules.concurrent:
            return min(IDLE_S, 1.0 / self._rules.calls_per_s)
        for list_id in list(self._running):
            if self._begin_one(self._running[list_id]):
                running = self._running.pop(list_id)  # the next dial is another list's
                self._running[list_id] = running
                pause_s = 1.0 / self._rules.calls_per_s
                self._next_s = max(self._next_s, now_s - pause_s) + pause_s
                return max(0.0, self._next_s - time.monotonic())
        return IDLE_S

    def _begin_one(self, running: Running) -> bool:
        """Begin the next dial of a list. Returns False if none is due."""
        now, row = time.time(), running.row
        for line in self._lines.due(row.list_id, now, LOOK_AHEAD + len(self._waiting)):
            if (line.list_id, line.n) in self._waiting:
                continue
            opens = opens_at(self._spans, ZoneInfo(line.zone), now)
            if opens > now:
                self._lines.defer(line.list_id, line.n, line.attempts, opens)
                continue
            body = _body(row, line, line.attempts + 1, until=now + BEGIN_S)
            self._want(msgspec.structs.replace(body, variables=line.variables, former_sid=line.call_sid or ""))
            return True
        return False

    def _want(self, body: DialBody) -> None:
        job = want(body, f"dial/{DialName(body.list_id, body.n, body.attempt)}/{uuid.uuid4().hex[:8]}", time.time())
        self._waiting[body.list_id, body.n] = time.monotonic()
        self._disk.transact(partial(table.insert, wanted=[job], now=time.time()))
        self._wake_jobs()

    # -- Twilio, for the jobs -----------------------------------------------------------------------------------------

    def place(self, body: DialBody) -> str:
        """Place the call of a dial. Returns its SID. Raises RestError."""
        name = DialName(body.list_id, body.n, body.attempt)
        request = call_request(self._config, str(name), body.to, body.caller, body.agent, body.variables, amd=self._rules.amd)
        try:
            call_sid = self._ask(body.account, lambda account: account.ask(lambda rest: rest.create_call(request)))
        except RestError as error:
            self.problem = f"Twilio did not place a call: {error}"
            raise
        self.problem = ""
        log.info("calling by a list, dial %s", name, extra={"call_sid": call_sid})
        return call_sid

    def find(self, body: DialBody, since: float) -> str:
        """Return the SID of a dial's call; empty if Twilio lists none. Raises RestError."""
        found = self._ask(body.account, lambda account: account.ask(lambda rest: rest.list_calls(body.to, body.caller, since)))
        return next((sid for sid in found if sid != body.former_sid and not self._lines.has_call(sid)), "")

    def _ask(self, name: str, request: Callable[[Account], T]) -> T:
        account = self._accounts.named(name)
        if account is None:
            raise RestError("rejected", 0, 0, f"the account {name!r} is not configured")
        if not account.breaker.may_ask(time.monotonic()):
            raise RestError("unreachable", 0, 0, account.breaker.last_problem)
        return request(account)

    def on_turn(self, body: DialBody) -> None:
        """A dial has had its turn."""
        self._waiting.pop((body.list_id, body.n), None)

    def on_refused(self, row: DialRow, detail: str) -> None:
        """Twilio refused a dial. Raises StoreError."""
        after = msgspec.structs.replace(row, state="done", result="rejected", detail=detail, ended_at=time.time())
        self._settle(row, after, "")

    def on_lost(self, row: DialRow) -> None:
        """The outcome of a dial is unknown. Raises StoreError."""
        detail = "the request was interrupted, and Twilio lists no such call"
        after = msgspec.structs.replace(row, state="unknown", result=None, detail=detail, ended_at=time.time())
        self._lines.end(after)
        log.warning("the outcome of a dial is unknown: %s", detail)

    # -- Twilio's webhooks --------------------------------------------------------------------------------------------

    def on_event(self, event: bus.Event) -> None:
        """Subscriber of the bus: passes a verdict to the call's worker, and returns immediately."""
        if isinstance(event, bus.Webhook) and event.kind == "amd":
            call_sid, verdict = event.fields.get("CallSid", ""), event.fields.get("AnsweredBy", "")
            if call_sid and verdict:
                self._verdicts[call_sid] = self._verdicts.get(call_sid, verdict)
                if not self._send_verdict(call_sid, verdict):
                    self._undelivered[call_sid] = time.monotonic()

    def on_stored(self, event: bus.Event) -> None:
        """Settle what a webhook reports. Idempotent. Raises StoreUnavailable, and SpoolError."""
        if not isinstance(event, bus.Webhook) or event.kind not in ("amd", "status") or not event.fields.get("dial"):
            return
        try:
            self._settle_report(event)
        except (StoreUnavailable, SpoolError):
            raise
        except Exception:  # a boundary: one webhook must not block the spool behind it
            log.exception("a webhook could not be acted on", extra={"call_sid": event.fields.get("CallSid", "")})

    def _settle_report(self, event: bus.Webhook) -> None:
        dial = event.fields["dial"]
        name, call_sid = parse_name(dial), event.fields.get("CallSid", "")
        if event.kind == "amd":
            if call_sid not in self._verdicts:
                self.on_event(event)  # spooled by an earlier process
            if name is not None:
                self._lines.note_verdict(*name, event.fields.get("AnsweredBy", "") or "unknown")
        elif (status := event.fields.get("CallStatus", "")) in FINAL:
            if name is not None:
                self._on_end(name, call_sid, status, event.fields)
            else:
                self._report(_single(dial, event, status, self._verdicts.get(call_sid, "")))

    def _on_end(self, name: DialName, call_sid: str, status: str, fields: Mapping[str, str]) -> None:
        row = self._lines.one(name.list_id, name.n)
        if row is None or row.attempts != name.attempt or (row.call_sid or call_sid) != call_sid:
            return
        code = fields.get("SipResponseCode", "")
        detail = fields.get("ErrorMessage", "") or (f"SIP {code}" if status == "failed" and code else "")
        result = result_of(status, row.answered_by or self._verdicts.get(call_sid, ""))
        self._settle(row, after_end(row, result, detail, call_sid, self._rules, time.time()), status)

    def _settle(self, row: DialRow, after: DialRow, status: str) -> None:
        """Write the end of a dial, and report it. The report comes first: its id is known if this happens again."""
        if row.state in ("waiting", "done"):
            return
        running = self._running.get(row.list_id)
        listed = running.row if running is not None else self._lines.one_list(row.list_id)
        if listed is not None:
            self._report(_of_line(listed, row, after, status))
        if not self._lines.end(after) or running is None:
            return
        running.failures = running.failures + 1 if after.result in FAILURES else 0
        if 0 < self._rules.stop_at_failures <= running.failures:
            self.end(row.list_id, f"{running.failures} dials in a row failed (outbound.stop_at_failures)")

    def _report(self, ended: DialEnded) -> None:
        if wanted := self._events(ended):
            self._disk.transact(partial(table.insert, wanted=wanted, now=time.time()))
            self._wake_jobs()

    # -- dials without an end -----------------------------------------------------------------------------------------

    def _look_for_lost(self) -> None:
        while not self._stopping.wait(LOST_EVERY_S):
            try:
                self.look_for_lost(time.time())
            except GatewayError as error:
                log.debug("dials without an end cannot be looked for: %s", error)
            except Exception:  # this greenlet's top: the next look tries again
                log.exception("the look for dials without an end failed")

    def look_for_lost(self, now: float) -> None:
        """Ask Twilio about calls without an end, or without a known SID. Raises GatewayError."""
        now_s = time.monotonic()
        for key in [key for key, at_s in self._looked_s.items() if at_s < now_s - LOST_AFTER_S]:
            del self._looked_s[key]
        for row in self._unlooked("claimed", now):
            if listed := self._lines.one_list(row.list_id):
                job_id, name = row.claim or "", DialName(row.list_id, row.n, row.attempts)
                if any(job.is_open for job in self._disk.transact(partial(table.find, ids=[job_id]))):
                    continue
                log.warning("a dial without an answer is looked up: %s", name)
                body = msgspec.structs.replace(_body(listed, row, row.attempts, until=0.0), is_asked=True)
                self._disk.transact(partial(table.renew, wanted=want(body, job_id, now), now=now))
                self._wake_jobs()
        for row in self._unlooked("placed", now):
            if listed := self._lines.one_list(row.list_id):
                self._check_call(listed, row)

    def _unlooked(self, state: DialState, now: float) -> list[DialRow]:
        """Return some lines in a state that were not looked at for a while."""
        rows = self._lines.in_state(state, now - LOST_AFTER_S, LOST_LINES)
        chosen = [row for row in rows if (row.list_id, row.n) not in self._looked_s][:LOST_AT_ONCE]
        self._looked_s |= {(row.list_id, row.n): time.monotonic() for row in chosen}
        return chosen

    def _check_call(self, listed: DialListRow, row: DialRow) -> None:
        call_sid = row.call_sid or ""
        try:
            call = self._ask(listed.account, lambda account: account.ask(lambda rest: rest.fetch_call(call_sid)))
        except RestError as error:
            if error.kind != "gone":
                return
            status, answered_by = "failed", ""
        else:
            status, answered_by = call.status, call.answered_by
        if status not in FINAL:
            return
        name = DialName(row.list_id, row.n, row.attempts)
        if answered_by:
            self._lines.note_verdict(*name, answered_by)
        self._on_end(name, call_sid, status, {})


def call_request(
    config: Config, dial: str, to: str, caller: str, agent: str, variables: Mapping[str, str], *, amd: bool
) -> CallRequest:
    """Return the request for a call. `dial`: its name, in the URLs that Twilio requests about it."""
    public = config.server.public_base
    named = {"agent": agent, "dial": dial, **{f"var_{name}": value for name, value in variables.items()}}
    query = urlencode({"dial": dial})
    return CallRequest(
        to=to,
        caller=caller,
        url=f"{public}/twilio/voice?{urlencode(named)}{REPEATED}",
        status_url=f"{public}/twilio/status?{query}{REPEATED}",
        amd_url=f"{public}/twilio/amd?{query}{REPEATED}" if amd else "",
        ring_s=config.outbound.ring_s,
    )


def _body(listed: DialListRow, row: DialRow, attempt: int, *, until: float) -> DialBody:
    return DialBody(
        list_id=row.list_id,
        n=row.n,
        attempt=attempt,
        to=row.to_number,
        caller=listed.from_number,
        agent=row.agent,
        account=listed.account,
        until=until,
    )


def _of_line(listed: DialListRow, row: DialRow, after: DialRow, status: str) -> DialEnded:
    return DialEnded(
        call_sid=after.call_sid or "",
        dial=str(DialName(row.list_id, row.n, row.attempts)),
        at=after.ended_at or time.time(),
        to=row.to_number,
        caller=listed.from_number,
        agent=row.agent,
        result=after.result or "",
        status=status,
        answered_by=row.answered_by or "",
        attempt=row.attempts,
        is_last=after.state == "done",
        list_name=listed.name,
        line=row.n,
    )


def _single(dial: str, event: bus.Webhook, status: str, answered_by: str) -> DialEnded:
    fields = event.fields
    return DialEnded(
        call_sid=fields.get("CallSid", ""),
        dial=dial,
        at=event.at,
        to=fields.get("To", ""),
        caller=fields.get("From", ""),
        agent="",
        result=result_of(status, answered_by),
        status=status,
        answered_by=answered_by,
        attempt=1,
        is_last=True,
        list_name="",
        line=0,
    )
