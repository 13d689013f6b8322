"""Finds unsettled recordings that no greenlet works on, and resumes them.

Each pass reads the unsettled rows, page by page, and decides for each, in a pure function, whether to act: a wish that was not
claimed, a claim whose process is gone or gave up, a recording whose status callback never came. Wishes and claims come first, the
newest before the others, because their calls may be alive. Of the started rows only the old ones are read, a bounded number in
each pass, in turn. Listings are spread: the wait between two looks at a row doubles, one pass makes only so many, and while
Twilio is down for an account a pass sends one for it, for another row each time. A row of an account that is not configured here
is left to a gateway that has it. A claim that the recorder works on is renewed, so that other hosts see
a live owner. Never creates a recording: the recorder does, after its own claim.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, repeat
from typing import Final, Literal

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from gw.control.recording.lifecycle import Outcome, best_of, outcome_of
from gw.control.recording.recorder import Recorder
from gw.control.recording.rows import RecordingRows
from gw.control.rows import RecordingRow, RowState
from gw.control.store import Store, StoreError, claimant_of
from gw.control.store.reads import PAGE
from gw.control.twilio_api.accounts import Account, Accounts
from gw.control.twilio_api.answers import RestError

log = logging.getLogger(__name__)

#: Between two passes.
PASS_S: Final = 10.0
#: Waits between the first passes. Calls of the earlier process are still alive, and its rows reach the store a moment after the
#: start; meanwhile a worker's event, sent again, may start the recording.
FIRST_PASSES_S: Final = (0.1, 0.4, 1.0, 2.0, 4.0)
#: Between two looks whether the gateway's id is held.
AWAIT_ID_S: Final = 0.2
#: At this age a wish was not taken up by its event, in whichever gateway that was.
WANTED_AGE_S: Final = 2.0
#: Age at which a claim under way is renewed.
RENEW_S: Final = 30.0
#: Age at which another host's claim is abandoned: a live owner would have renewed it several times.
FOREIGN_AGE_S: Final = 180.0
#: Age at which a recording is looked at if its call is not alive here: the status callback usually comes within seconds.
STARTED_AGE_S: Final = 120.0
#: Waits between looks at one row: the first doubles up to the last.
LOOK_FIRST_S: Final = 60.0
LOOK_LAST_S: Final = 3600.0
#: Age at which an unsettled recording is reported: neither its status callback nor several looks settled it.
OVERDUE_S: Final = 3600.0
#: Listings in one pass.
MAX_LOOKS: Final = 20
#: Time for the listings of a pass that an operator asked for; below the admin socket's timeout.
ASKED_S: Final = 10.0
#: Started recordings read in one pass, of this gateway's own, of each one that is gone, and of all others.
MAX_STARTED: Final = 2_000
#: Rows whose looks are remembered.
MAX_REMEMBERED: Final = 100_000
#: Accounts that are not configured, of which a line is logged.
MAX_MISSING: Final = 16
#: A call that Twilio does not have: a probe, for which any answer will do.
NO_CALL: Final = "CA" + "0" * 32
#: States of rows without a recording.
UNSTARTED: Final[tuple[RowState, ...]] = ("wanted", "claimed")

ReconcileStep = Literal["leave", "want", "take_up", "look", "close"]


def reconcile_step(
    row: RecordingRow,
    *,
    claimant: str,
    owned: bool,
    now: float,
    since: float = 0.0,
    asked: bool = False,
    adopted: bool = False,
) -> ReconcileStep:
    """Decide what a row needs that this process is not working on.

    `claimant`: this gateway; `owned`: the call is alive at a worker of this gateway; `since`: the start of this process, before
    which an earlier one got the events; `asked`: an operator waits for the answer; `adopted`: the row's gateway is gone, and this
    one looks after its recordings.

    want: claim the row and create. take_up: continue a claim of this gateway whose process is gone or gave up for a while. close:
    settle the row of a lost host; create only for a call that is alive here. look: ask Twilio for the recording's status.
    """
    ours = claimant_of(row.owner) == claimant
    match row.state:
        case "wanted":
            at = row.first_audio_at or 0.0
            return "want" if now - at > WANTED_AGE_S or (owned and at < since) else "leave"
        case "claimed" if ours:
            age_s = now - (row.first_audio_at or row.claimed_at or 0.0)
            return "take_up" if owned or age_s < OVERDUE_S else "close"
        case "claimed":
            return "close" if now - (row.claimed_at or 0.0) > (STARTED_AGE_S if adopted else FOREIGN_AGE_S) else "leave"
        case "started" if not owned:
            age_s = now - (row.started_at or row.claimed_at or 0.0)
            return "look" if asked or age_s > (STARTED_AGE_S if ours or adopted else LOOK_LAST_S) else "leave"
        case _:
            return "leave"


class Passed(msgspec.Struct):
    """Counts of one pass. `unsettled`: rows found; `left`: rows without action for now."""

    unsettled: int = 0
    taken_up: int = 0
    asked: int = 0
    settled: int = 0
    left: int = 0


class _Pass(msgspec.Struct):
    """One pass under way: its epoch and monotonic time, whether an operator asked, and until when such a pass lasts."""

    now: float
    now_s: float
    asked: bool
    until_s: float
    done: Passed
    adopted: Sequence[str]  # gateways that are gone
    tried: set[str]  # accounts for which Twilio was asked, or a row taken up that asks while Twilio is down


class Reconciler:
    """Periodic passes over the unsettled rows, in one greenlet."""

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        rows: RecordingRows,
        accounts: Accounts,
        *,
        claimant: str,
        is_owned: Callable[[str], bool],
        may_settle: Callable[[], bool] = lambda: True,
        adopted: Callable[[], Sequence[str]] = lambda: (),
        on_overdue: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """`may_settle`: whether this gateway's id is held here. `adopted`: gateways that are gone. `on_overdue` receives, after
        each pass, the number of this gateway's rows that are overdue."""
        self._store = store
        self._recorder = recorder
        self._rows = rows
        self._accounts = accounts
        self._claimant = claimant
        self._is_owned = is_owned
        self.may_settle = may_settle
        self._adopted = adopted
        self._on_overdue = on_overdue
        self._looks: dict[str, tuple[float, float]] = {}  # call SID: when to look next, the wait after that
        self._after: dict[str, int] = {}  # by claimant, empty for others: id of the started row where the last pass stopped
        self._missing: set[str] = set()  # accounts that are not configured, each logged once
        self._since = 0.0
        self._passing = BoundedSemaphore(1)
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        """Start the greenlet: the first pass runs immediately."""
        self._since = time.time()
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Kill the greenlet; waits at most 2 s."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=2.0)

    def _run(self) -> None:
        for wait_s in chain(FIRST_PASSES_S, repeat(PASS_S)):
            while not self.may_settle():
                gevent.sleep(AWAIT_ID_S)
            try:
                self.pass_over(time.time(), time.monotonic())
            except StoreError as error:
                log.warning("the reconcile pass is postponed: %s", error, extra={"reason": error.code})
            except Exception:  # this greenlet's top: the next pass tries again
                log.exception("the reconcile pass failed")
            gevent.sleep(wait_s)

    def pass_over(self, now: float, now_s: float, *, asked: bool = False) -> Passed:
        """Visit every unsettled row once. `asked`: by an operator, so rows are looked at before their time. Raises StoreError."""
        with self._passing:
            return self._pass_over(now, now_s, asked)

    def _pass_over(self, now: float, now_s: float, asked: bool) -> Passed:
        done = Passed()
        self._drop_old_looks(now_s)
        adopted = () if asked else self._adopted()  # an operator asks about every row
        one = _Pass(now, now_s, asked, time.monotonic() + ASKED_S, done, adopted, set())
        for state in UNSTARTED:
            below: int | None = None
            while page := self._store.unstarted_recordings(state, below):
                for _, row in page:
                    self._visit(row, one)
                below = page[-1][0]
                if state == "wanted" and self._recorder.is_full:
                    break  # the rest could not be taken up
        self._pass_over_started(self._claimant, one)
        for claimant in one.adopted:
            self._pass_over_started(claimant, one)
        self._pass_over_started("", one)
        self._after = {claimant: after for claimant, after in self._after.items() if after}
        for account in self._accounts:
            if account.breaker.is_open and account.sid not in one.tried:
                _probe(account)
        overdue = self._store.overdue_recordings(self._claimant, now - OVERDUE_S)
        self._on_overdue(sum(not self._is_owned(call_sid) for call_sid in overdue))
        return done

    def _pass_over_started(self, claimant: str, one: _Pass) -> None:
        """Visit started recordings of a gateway, or of all others, from where the last pass stopped.

        At most MAX_STARTED, unless an operator asked.
        """
        own = bool(claimant)
        before = None if one.asked else one.now - (STARTED_AGE_S if own else LOOK_LAST_S)
        above = 0 if one.asked else self._after.get(claimant, 0)
        visited = 0
        while one.asked or visited < MAX_STARTED:
            page = self._store.started_recordings(claimant or self._claimant, own=own, before=before, above=above)
            for number, row in page:
                if not self._has_time(one):
                    break
                if own or claimant_of(row.owner) not in one.adopted:
                    self._visit(row, one)
                above = number
            else:
                visited += len(page)
                if len(page) == PAGE:
                    continue
                above = 0  # the next pass begins again
            break
        self._after[claimant] = above

    def _visit(self, row: RecordingRow, one: _Pass) -> None:
        """Decide what a row needs, and do it."""
        one.done.unsettled += 1
        if self._recorder.is_working_on(row.call_sid):
            self._renew(row, one.now)
            return
        account = self._accounts.of(row.account_sid or "")
        if account is None and self._accounts:
            self._note_missing(row)
            one.done.left += 1
            return
        owned = self._is_owned(row.call_sid)
        adopted = claimant_of(row.owner) in one.adopted
        step = reconcile_step(
            row, claimant=self._claimant, owned=owned, now=one.now, since=self._since, asked=one.asked, adopted=adopted
        )
        if step in ("close", "take_up") and not owned and account is not None and account.breaker.is_open:
            # One row of a call that ended tries whether Twilio is back, in turn; a live call waits in the recorder.
            if account.sid in one.tried or not self._is_due(row.call_sid, one):
                step = "leave"
            else:
                self._note_look(row.call_sid, one)
                one.tried.add(account.sid)
        if step == "look" and account is not None and self._may_look(row.call_sid, account, one):
            one.done.asked += 1
            one.done.settled += self._look(account, row)
            return
        took_up = False
        if step not in ("leave", "look") and not self._recorder.is_full:
            if step == "want":
                took_up = self._recorder.want(row.call_sid, row.account_sid or "", row.first_audio_at, lists=True)
            else:
                took_up = self._recorder.take_up(row, create=owned or step == "take_up")
        one.done.taken_up += took_up
        one.done.left += not took_up

    def _has_time(self, one: _Pass) -> bool:
        return time.monotonic() < one.until_s if one.asked else one.done.asked < MAX_LOOKS

    def _note_missing(self, row: RecordingRow) -> None:
        sid = row.account_sid or ""
        if sid not in self._missing and len(self._missing) < MAX_MISSING:
            self._missing.add(sid)
            log.error("recordings wait: their account %s is not configured here", sid, extra={"call_sid": row.call_sid})

    def _may_look(self, call_sid: str, account: Account, one: _Pass) -> bool:
        """Return whether Twilio may be asked about a row now. While Twilio is down, one row in a pass may, in turn."""
        now_s = time.monotonic()
        if now_s < account.hold_until_s or not self._is_due(call_sid, one):
            return False
        if account.breaker.is_open and account.sid in one.tried:
            return False
        one.tried.add(account.sid)
        if not account.breaker.may_ask(now_s):
            return False
        self._note_look(call_sid, one)
        return True

    def _is_due(self, call_sid: str, one: _Pass) -> bool:
        at_s, _ = self._looks.get(call_sid, (0.0, 0.0))
        return one.asked or (one.now_s >= at_s and (call_sid in self._looks or len(self._looks) < MAX_REMEMBERED))

    def _note_look(self, call_sid: str, one: _Pass) -> None:
        _, wait_s = self._looks.get(call_sid, (0.0, LOOK_FIRST_S))
        self._looks[call_sid] = (one.now_s + wait_s, min(LOOK_LAST_S, wait_s * 2))

    def _renew(self, row: RecordingRow, now: float) -> None:
        """Renew this process's claim of a row, so that other hosts see a live owner."""
        owner = self._recorder.owner
        if row.state == "claimed" and row.owner == owner and now - (row.claimed_at or 0.0) > RENEW_S:
            self._store.reclaim_recording(row.call_sid, owner, now, from_owner=owner)

    def _look(self, account: Account, row: RecordingRow) -> bool:
        """Ask Twilio for a recording's status. True when the answer settled the row."""
        sid = row.recording_sid or ""
        try:
            entry = best_of(account.ask(lambda rest: rest.list_recordings(row.call_sid)), sid)
        except RestError as error:
            if error.kind != "gone":
                extra = {"call_sid": row.call_sid, "reason": error.kind}
                log.warning("a recording's status could not be read: %s", error, extra=extra)
                return False
            entry = None
        gone = Outcome("absent", sid, error_code="gone", error_text="Twilio no longer has the recording")
        outcome = gone if entry is None else outcome_of(entry)
        settled = outcome.state != "started" and self._rows.write(row.call_sid, outcome)
        if settled:
            self._looks.pop(row.call_sid, None)
        return settled

    def _drop_old_looks(self, now_s: float) -> None:
        """Drop the looks of rows that no pass has found for a while: they are settled."""
        oldest_s = now_s - LOOK_LAST_S
        self._looks = {call_sid: look for call_sid, look in self._looks.items() if look[0] > oldest_s}


def _probe(account: Account) -> None:
    """Ask whether Twilio is back, if it may be asked now: no row is due, and without calls no recorder would."""
    now_s = time.monotonic()
    if now_s >= account.hold_until_s and account.breaker.may_ask(now_s):
        with suppress(RestError):  # noted by the account
            account.ask(lambda rest: rest.list_recordings(NO_CALL))
