"""The admin commands over calls, recordings and poison: one function and one line in `table` each.

Commands that read use memory or one query of the store. Commands that act (`hangup`, `transfer`, `dial`) send to the worker or to
Twilio and return the acts done.
"""

from __future__ import annotations

import base64
import logging
import os
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Final

import gevent
import gevent.pool
import msgspec

from gw import bus
from gw.call.leave import KIND, MAX_SUMMARY_CHARS, TRANSFER, Leave, encode_leave
from gw.call.state import Reason
from gw.config import DIALLED, NO_TALK, Config, host_and_port, talk_url
from gw.control.admin.audit import Audit
from gw.control.admin.server import Command, CommandError, NoArguments, acts, reads
from gw.control.bus.server import BusServer
from gw.control.jobs import lifecycle
from gw.control.jobs.service import Jobs
from gw.control.outbound.list_file import variables_problems
from gw.control.outbound.plan import FINAL
from gw.control.outbound.service import call_request
from gw.control.recording.pauses import Pauses
from gw.control.recording.reconcile import Reconciler
from gw.control.recording.recorder import Recorder
from gw.control.rows import HUNG_UP, TRANSFERRED, CallFilter, RecordingRow
from gw.control.spool import Spool, SpoolError
from gw.control.store import ALL_CALLS, Store, StoreError, claimant_of
from gw.control.twilio_api.accounts import Account, Accounts
from gw.control.twilio_api.answers import UNCLEAR, RestError
from gw.protocol import twiml

log = logging.getLogger(__name__)

#: Simultaneous completions by REST; beyond it only the worker ends the call.
MAX_COMPLETIONS: Final = 32
#: `recordings retry` waits this long for the outcome: less than its client waits.
RETRY_ANSWER_S: Final = 8.0
#: Upper bound on a transfer at Twilio: less than its client waits.
ACT_S: Final = 10.0

Limit = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Sid = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class _Calls(msgspec.Struct, forbid_unknown_fields=True):
    limit: Limit = 50
    open_only: bool = False
    which: CallFilter = ALL_CALLS


class _Audit(msgspec.Struct, forbid_unknown_fields=True):
    limit: Limit = 50
    since: float | None = None  # epoch time


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    call_sid: Sid


Dialled = Annotated[str, msgspec.Meta(pattern=rf"\A(?:{DIALLED.pattern})\Z", max_length=255)]


class _Transfer(msgspec.Struct, forbid_unknown_fields=True):
    call_sid: Sid
    to: Dialled
    warm: bool = False
    summary: Annotated[str, msgspec.Meta(max_length=MAX_SUMMARY_CHARS)] = ""


class _Dial(msgspec.Struct, forbid_unknown_fields=True):
    to: Dialled
    caller: Dialled
    agent: str = "default"
    account: str = ""  # the main one
    variables: dict[str, str] = {}
    amd: bool = False


class _DialStatus(msgspec.Struct, forbid_unknown_fields=True):
    call_sid: Sid
    account: str = ""


class _Poison(msgspec.Struct, forbid_unknown_fields=True):
    limit: Limit = 50


class _Recordings(_Poison, forbid_unknown_fields=True):
    state: str | None = None


class _Ids(msgspec.Struct, forbid_unknown_fields=True):
    ids: Annotated[list[int], msgspec.Meta(max_length=1000)] = []  # empty: all


class _After(msgspec.Struct, forbid_unknown_fields=True):
    after: int = 0  # the last id of the page before


class AdminCommands:
    """The commands over the parts of control. `status` returns the document of that command."""

    def __init__(
        self,
        store: Store,
        bus: BusServer,
        accounts: Accounts,
        status: Callable[[], dict[str, Any]],
        *,
        recorder: Recorder,
        reconciler: Reconciler,
        pauses: Pauses,
        spool: Spool,
        audit: Audit,
        notify: Callable[[], None],
        jobs: Jobs,
        config: Config | None = None,
    ) -> None:
        """`notify` is called when the spool has a new event. `config`: the agents, and the URLs for Twilio."""
        self._config = config or Config()
        self._audit = audit
        self._jobs = jobs
        self._recorder = recorder
        self._reconciler = reconciler
        self._pauses = pauses
        self._spool = spool
        self._notify = notify
        self._store = store
        self._bus = bus
        self._accounts = accounts
        self._status = status
        self._completions = gevent.pool.Pool(MAX_COMPLETIONS)

    def table(self) -> dict[str, Command]:
        """Return every command by name."""
        return {
            "status": reads(NoArguments, lambda _: self._status()),
            "holds": reads(NoArguments, lambda _: self._bus.holds()),
            "calls": reads(_Calls, lambda args: self._store.calls(limit=args.limit, open_only=args.open_only, which=args.which)),
            "call": reads(_Call, lambda args: self._store.call(args.call_sid)),
            "audit": reads(_Audit, lambda args: self._store.acts(limit=args.limit, since=args.since)),
            "hangup": acts(_Call, self._hangup),
            "transfer": acts(_Transfer, self._transfer),
            "dial": acts(_Dial, self._dial),
            "dial_status": reads(_DialStatus, self._dial_status),
            "talk": acts(NoArguments, lambda _: self._talk()),
            "recordings": reads(_Recordings, lambda args: self._store.recordings(limit=args.limit, state=args.state)),
            "recordings_retry": acts(_Call, self._retry_recording),
            "recordings_pause": acts(_Call, lambda args: self._hold_recording(args, on=True)),
            "recordings_resume": acts(_Call, lambda args: self._hold_recording(args, on=False)),
            "recordings_reconcile": acts(NoArguments, lambda _: self._reconcile()),
            "poison_list": reads(_Poison, lambda args: self._spool.list_poison(limit=args.limit)),
            "poison_retry": acts(_Ids, self._retry_poison),
            "poison_drop": acts(_Ids, self._drop_poison),
            "poison_export": reads(_After, self._export_poison),
        }

    def stop(self) -> None:
        self._completions.kill(timeout=1.0)

    def _retry_recording(self, args: _Call) -> Any:
        """Retry a failed recording, or a waiting one now. Returns its row, and whether the attempt has ended."""
        row = self._store.recording(args.call_sid)
        if row is None:
            hint = ": pass the SID of a call, not of a recording" if args.call_sid.startswith("RE") else ""
            raise CommandError("not_found", f"no recording was requested for {args.call_sid}{hint}")
        if row.state not in ("wanted", "claimed", "failed"):
            raise CommandError("failed", f"the recording of {args.call_sid} is {row.state}: there is nothing to retry")
        if row.recording_sid:
            raise CommandError("failed", f"Twilio already had {row.recording_sid} of this call: a second one is not started")
        self._require_credentials()
        if self._accounts.of(row.account_sid or "") is None:
            raise CommandError("failed", f"the account of {args.call_sid}, {row.account_sid}, is not configured here")
        if not self._recorder.is_working_on(args.call_sid) and not self._take_up(row):
            raise CommandError("failed", "too many recordings are being started: try again later")
        until_s = time.monotonic() + RETRY_ANSWER_S
        while self._recorder.is_working_on(args.call_sid) and time.monotonic() < until_s:
            gevent.sleep(0.05)
        return {"done": not self._recorder.is_working_on(args.call_sid), "recording": self._store.recording(args.call_sid)}

    def _hold_recording(self, args: _Call, *, on: bool) -> Any:
        """Pause a live call's recording, or let it continue. While the caller types digits, Twilio is not asked: it is paused."""
        self._require_credentials()
        if not self._bus.calls.is_owned(args.call_sid):
            self._refuse_ended(args.call_sid)
        is_typing = self._pauses.is_concealed(args.call_sid)
        try:
            done = self._pauses.hold(self._account_of(args.call_sid), args.call_sid, on)
        except RestError as error:
            raise CommandError(_code_of(error), f"Twilio did not {'pause' if on else 'resume'} the recording: {error}") from error
        if not done:
            raise CommandError("not_found", f"no recording of {args.call_sid} {'runs' if on else 'is paused'}")
        return {"call_sid": args.call_sid, "state": "paused" if on or is_typing else "in-progress", "digits": is_typing}

    def _take_up(self, row: RecordingRow) -> bool:
        if row.state == "wanted":
            return self._recorder.want(row.call_sid, row.account_sid or "", row.first_audio_at, lists=True)
        if row.state == "claimed" and claimant_of(row.owner) != self._recorder.claimant:
            raise CommandError("failed", f"{row.owner} has claimed it: retry there, or wait until the claim expires")
        return self._recorder.take_up(row, create=self._bus.calls.is_owned(row.call_sid))

    def _reconcile(self) -> Any:
        self._require_credentials()
        if not self._reconciler.may_settle():
            raise CommandError("unavailable", "this gateway does not hold its id; see gateway.py status")
        return self._reconciler.pass_over(time.time(), time.monotonic(), asked=True)

    def _retry_poison(self, args: _Ids) -> Any:
        moved = self._spool.requeue(args.ids or None)
        self._notify()
        return {"queued": moved, "set_aside": self._spool.poisoned()}

    def _drop_poison(self, args: _Ids) -> Any:
        dropped = self._spool.drop_poison(args.ids or None)
        return {"dropped": dropped, "set_aside": self._spool.poisoned()}

    def _export_poison(self, args: _After) -> Any:
        """Return a page of refused events with their contents; undecodable ones as base64."""
        return [{**msgspec.structs.asdict(one), **_event_of(body)} for one, body in self._spool.export_poison(args.after)]

    def _hangup(self, args: _Call) -> Any:
        """End a call through its worker, and also through Twilio, which ends it even if the worker hangs."""
        if self._bus.hang_up(args.call_sid, str(Reason.ADMIN_HANGUP)):
            return {"call_sid": args.call_sid, "worker": True, "rest": self._complete_later(args.call_sid)}
        self._refuse_ended(args.call_sid)
        if not self._accounts:
            raise CommandError(
                "not_found", f"no connected worker has the call {args.call_sid}, and there are no Twilio credentials"
            )
        account = self._account_of(args.call_sid)
        try:
            account.rest.complete_call(args.call_sid)
        except RestError as error:
            raise CommandError(_code_of(error), f"Twilio did not end the call: {error}") from error
        self._audit.store(args.call_sid, HUNG_UP)
        return {"call_sid": args.call_sid, "worker": False, "rest": "completed"}

    def _transfer(self, args: _Transfer) -> Any:
        """Let Twilio leave the stream of a live call and dial another number."""
        self._require_credentials()
        if args.warm:
            return self._transfer_warm(args)
        if not self._bus.calls.is_owned(args.call_sid):
            self._refuse_ended(args.call_sid)
        account = self._account_of(args.call_sid)
        self._bus.expect_stop(args.call_sid, True)
        try:
            account.rest.redirect_call(args.call_sid, twiml.dial(args.to), bound_s=ACT_S)
        except RestError as error:
            if error.kind not in UNCLEAR:
                self._bus.expect_stop(args.call_sid, False)
            raise CommandError(_code_of(error), f"Twilio did not transfer the call: {error}") from error
        self._audit.store(args.call_sid, TRANSFERRED, to=args.to)
        return {"call_sid": args.call_sid, "to": args.to}

    def _transfer_warm(self, args: _Transfer) -> Any:
        """Let Twilio whisper to another party, and connect it if it accepts; otherwise the caller is back with the agent."""
        if not self._bus.calls.is_owned(args.call_sid):
            self._refuse_ended(args.call_sid)
            raise CommandError("failed", f"the call {args.call_sid} is not with an agent of this gateway: there is no way back")
        account, call = self._account_of(args.call_sid), self._bus.calls.get(args.call_sid, time.monotonic())
        agent = self._config.agents.get(call.agent if call is not None else "") or self._config.agents["default"]
        key, now = os.urandom(16).hex(), time.time()
        whisper = f"{args.summary} {agent.transfer.accept}".strip()
        wish = Leave(key=key, tool=TRANSFER, account_sid=account.sid, to=args.to, whisper=whisper, ring_s=agent.transfer.ring_s)
        job_id, deadline_at = f"{args.call_sid}/operator/{key}", now + ACT_S / 2
        job = lifecycle.want(job_id, KIND, args.call_sid, encode_leave(wish), deadline_at=deadline_at, now=now)
        try:
            self._jobs.add(job)
            while job.is_open and time.time() < now + ACT_S:
                gevent.sleep(0.05)
                job = next((one for one in self._jobs.of_call(args.call_sid, KIND) if one.id == job_id), job)
        except SpoolError as error:
            raise CommandError("unavailable", f"the transfer may have begun, the spool failed: {error}") from error
        if job.outcome != "ok":
            why = job.outcome or "no answer"
            raise CommandError("failed", f"Twilio did not transfer the call: {why}; see the log of control")
        self._audit.store(args.call_sid, "leaving", tool=TRANSFER, target=args.to)
        return {"call_sid": args.call_sid, "to": args.to, "warm": True}

    def _dial(self, args: _Dial) -> Any:
        """Let Twilio place a call and connect it to this gateway when it is answered."""
        account = account_named(self._accounts, args.account)
        if args.agent not in self._config.agents:
            raise CommandError("not_found", f"no agent {args.agent!r}; use one of: {', '.join(sorted(self._config.agents))}")
        readiness = self._status()["readiness"]
        if not readiness["ready"]:
            raise CommandError("unavailable", f"the gateway accepts no call now: {'; '.join(readiness['reasons'])}")
        if problems := variables_problems(args.variables):
            raise CommandError("bad_request", "; ".join(problems))
        dial = f"call-{uuid.uuid4().hex[:12]}"
        request = call_request(self._config, dial, args.to, args.caller, args.agent, args.variables, amd=args.amd)
        try:
            call_sid = account.rest.create_call(request)
        except RestError as error:
            unclear = "; it may ring anyway" if error.kind in UNCLEAR else ""
            raise CommandError("failed", f"Twilio did not place the call: {error}{unclear}") from error
        return {"call_sid": call_sid, "to": args.to, "from": args.caller, "agent": args.agent, "account": account.name}

    def _dial_status(self, args: _DialStatus) -> Any:
        """Ask Twilio about a call that was placed."""
        account = account_named(self._accounts, args.account)
        try:
            call = account.rest.fetch_call(args.call_sid)
        except RestError as error:
            raise CommandError(_code_of(error), f"Twilio does not report the call: {error}") from error
        return {"call_sid": args.call_sid, **call._asdict(), "is_over": call.status in FINAL}

    def _talk(self) -> Any:
        """Return the talk page's URL, which has its key."""
        if self._config.signed:
            raise CommandError("failed", NO_TALK)
        host, port = host_and_port(self._config.server.listen)
        if not self._config.secrets.talk_key or not port:
            raise CommandError("failed", "the talk page has no fixed address; use the URL that `gateway.py serve` printed")
        return {"url": talk_url(host, port, self._config.secrets.talk_key)}

    def _account_of(self, call_sid: str) -> Account:
        """Return the account of a call. Raises CommandError, StoreError."""
        account = self._accounts.of_call(call_sid, self._store.account_of)
        if account is None:
            raise CommandError("failed", f"the account of {call_sid} is not configured here, or the store has no such call yet")
        return account

    def _require_credentials(self) -> None:
        if not self._accounts:
            raise CommandError("failed", "there are no Twilio credentials")

    def _refuse_ended(self, call_sid: str) -> None:
        row = self._store.call(call_sid)
        if row is None or row.ended_at is not None:
            raise CommandError("not_found", f"the call {call_sid} {'is unknown' if row is None else 'has already ended'}")

    def _complete_later(self, call_sid: str) -> str:
        if not self._accounts:
            return "no_credentials"
        if self._completions.full():
            return "busy"
        self._completions.spawn(self._complete, call_sid)
        return "requested"

    def _complete(self, call_sid: str) -> None:
        began_s = time.monotonic()
        try:
            self._account_of(call_sid).rest.complete_call(call_sid)
        except (CommandError, StoreError) as error:
            log.warning("Twilio was not asked to end a call: %s", error, extra={"call_sid": call_sid})
        except RestError as error:
            took_s = time.monotonic() - began_s
            level = logging.INFO if error.kind in ("gone", "not_in_progress") else logging.WARNING
            log.log(level, "Twilio did not end a call, after %.1f s: %s", took_s, error, extra={"call_sid": call_sid})


def account_named(accounts: Accounts, name: str) -> Account:
    """Return an account by its name, empty for the main one. Raises CommandError."""
    if not accounts:
        raise CommandError("failed", "there are no Twilio credentials")
    account = accounts.named(name)
    if account is None:
        names = ", ".join(one.name for one in accounts if one.name)
        known = f"use one of: {names}" if names else "there is no [twilio.accounts.NAME]"
        raise CommandError("not_found", f"no account {name!r}; {known}")
    return account


def _event_of(body: bytes) -> dict[str, Any]:
    try:
        event = bus.decode_event(body)
    except bus.BusError:
        return {"body": base64.b64encode(body).decode()}
    return {"kind": type(event).__name__, "event": msgspec.to_builtins(event)}


def _code_of(error: RestError) -> str:
    return "not_found" if error.kind == "gone" else "failed"
