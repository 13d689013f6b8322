"""Finds recordings nobody is working on and sets them going again, now and then.

Reads the unsettled rows and decides for each, in a pure function, whether somebody should take it up: a wish that was not
claimed, a claim whose process is gone or gave up, a recording whose webhook never came. Listings are spread: each row is looked
at less and less often, and only so many in one pass; while Twilio is down one a pass tries. A claim the recorder works on is
renewed, so that other hosts know that somebody lives behind it. Never creates a recording itself: the recorder does, after its
own claim.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any, Final, Literal

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from gw.control.recording.recorder import Recorder
from gw.control.recording.rows import RecordingRows
from gw.control.recording.rules import Settle, best_of, settled
from gw.control.store import Store, StoreError
from gw.control.twilio_api.answers import RestError
from gw.control.twilio_api.circuit_breaker import CircuitBreaker
from gw.control.twilio_api.rest import TwilioRest

log = logging.getLogger(__name__)

#: Between two passes.
PASS_S: Final = 10.0
#: Before that: after a crash the calls of an earlier process still talk, and what it left half done is not all in the store when
#: the first pass comes, or a worker's event, sent again, is just asking for it.
FIRST_PASSES_S: Final = (0.5, 1.0, 2.0, 4.0)
#: A wish this old was not taken up by the event itself.
WANTED_AGE_S: Final = 2.0
#: A claim is renewed when it is this old and somebody works on it.
RENEW_S: Final = 30.0
#: A claim of another host this old is nobody's: its owner renewed it several times otherwise.
FOREIGN_AGE_S: Final = 180.0
#: A recording of a call that is not alive here: its webhook usually comes within seconds of the end.
STARTED_AGE_S: Final = 120.0
#: The first wait between two looks at one row; each further one doubles up to the last.
LOOK_FIRST_S: Final = 60.0
LOOK_LAST_S: Final = 3600.0
#: A recording that has no last word by then is somebody's work: its webhook and several looks brought none.
OVERDUE_S: Final = 3600.0
#: Listings in one pass.
MAX_LOOKS: Final = 20
#: A pass an operator asked for lists until then; below what the admin socket waits.
ASKED_S: Final = 10.0
#: Rows whose looks are remembered.
MAX_REMEMBERED: Final = 10_000

Step = Literal["leave", "want", "take_up", "look", "close"]


def next_step(row: dict[str, Any], *, host: str, owned: bool, now: float, asked: bool = False) -> Step:
    """What a row needs that this process is not working on. `host` is what our claims' owners begin with; `owned`: the call
    is alive at a worker of ours; `asked`: an operator wants to know now.

    want: claim it and create. take_up: go on with a claim of this host whose process is gone, or gave up for a while. close:
    settle what a lost host left; create only for a call that is alive here. look: ask Twilio how far the recording is.
    """
    state = row["state"]
    if state == "wanted":
        age_s = now - (row["first_audio_at"] or 0.0)
        return "want" if age_s > WANTED_AGE_S else "leave"
    if state == "claimed":
        if (row["owner"] or "").rpartition("/")[0] == host:
            age_s = now - (row["first_audio_at"] or row["claimed_at"] or 0.0)
            return "take_up" if owned or age_s < OVERDUE_S else "close"
        return "close" if now - (row["claimed_at"] or 0.0) > FOREIGN_AGE_S else "leave"
    if state == "started" and not owned:
        own = (row["owner"] or "").rpartition("/")[0] == host
        age_s = now - (row["started_at"] or row["claimed_at"] or 0.0)
        return "look" if asked or age_s > (STARTED_AGE_S if own else LOOK_LAST_S) else "leave"
    return "leave"


def is_overdue(row: dict[str, Any], host: str, now: float) -> bool:
    """Whether a row of this host, or one that nobody claimed, has had more than an hour to come to its end."""
    if row["owner"] and row["owner"].rpartition("/")[0] != host:
        return False
    since = row["started_at"] or row["claimed_at"] or row["first_audio_at"] or 0.0
    return bool(now - since > OVERDUE_S)


class Passed(msgspec.Struct):
    """What a pass did. `unsettled`: rows it found; `left`: those it did nothing with, for now."""

    unsettled: int = 0
    taken_up: int = 0
    asked: int = 0
    settled: int = 0
    left: int = 0


class Reconciler:
    """Passes over the unsettled rows until stopped."""

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        rows: RecordingRows,
        rest: TwilioRest | None,
        breaker: CircuitBreaker,
        *,
        host: str,
        is_owned: Callable[[str], bool],
        on_overdue: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """`on_overdue` is told, after each pass, how many rows of this host have waited too long for a last word."""
        self._store = store
        self._recorder = recorder
        self._rows = rows
        self._rest = rest
        self._breaker = breaker
        self._host = host
        self._is_owned = is_owned
        self._on_overdue = on_overdue
        self._looks: dict[str, tuple[float, float]] = {}  # call SID: when to look next, the wait after that
        self._passing = BoundedSemaphore(1)
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill(timeout=2.0)

    def _run(self) -> None:
        for wait_s in chain(FIRST_PASSES_S, repeat(PASS_S)):
            try:
                self.pass_over(time.time(), time.monotonic())
            except StoreError as error:
                log.warning("the reconcile pass is put off: %s", error, extra={"reason": error.code})
            except Exception:  # this greenlet's top: the next pass tries again
                log.exception("the reconcile pass failed")
            gevent.sleep(wait_s)

    def pass_over(self, now: float, now_s: float, *, asked: bool = False) -> Passed:
        """Look at every unsettled row once. `asked`: by an operator, who does not wait for the next look. Raises StoreError."""
        with self._passing:
            return self._pass_over(now, now_s, asked)

    def _pass_over(self, now: float, now_s: float, asked: bool) -> Passed:
        done = Passed()
        until_s = time.monotonic() + ASKED_S
        unsettled = self._store.unsettled_recordings()
        done.unsettled = len(unsettled)
        tries = 0
        self._forget({row["call_sid"] for row in unsettled})
        self._on_overdue(sum(is_overdue(row, self._host, now) and not self._is_owned(row["call_sid"]) for row in unsettled))
        for row in unsettled:
            call_sid = row["call_sid"]
            if self._recorder.is_working_on(call_sid):
                self._renew(row, now)
                continue
            owned = self._is_owned(call_sid)
            step = next_step(row, host=self._host, owned=owned, now=now, asked=asked)
            if self._breaker.is_open and not owned and step not in ("leave", "want"):
                tries += 1
                if tries > 1:
                    step = "leave"  # what lives waits for Twilio, what is over waits here but for one that tries
            took_up = False
            match step:
                case "want":
                    took_up = self._recorder.want(call_sid, row["account_sid"] or "", row["first_audio_at"], lists=True)
                case "take_up":
                    took_up = self._recorder.take_up(row, create=True)
                case "close":
                    took_up = self._recorder.take_up(row, create=owned)
                case "look" if self._rest is not None and self._has_time(done, asked, until_s):
                    if (asked or self._may_look(call_sid, now_s)) and self._breaker.may_ask(time.monotonic()):
                        done.asked += 1
                        done.settled += self._look(self._rest, row)
                        continue
                case _:
                    pass
            done.taken_up += took_up
            done.left += not took_up
        return done

    def _has_time(self, done: Passed, asked: bool, until_s: float) -> bool:
        return time.monotonic() < until_s if asked else done.asked < MAX_LOOKS

    def _renew(self, row: dict[str, Any], now: float) -> None:
        """Let other hosts see that somebody works on this claim of ours."""
        if row["state"] == "claimed" and row["owner"] == self._recorder.owner and now - row["claimed_at"] > RENEW_S:
            self._store.reclaim_recording(row["call_sid"], self._recorder.owner, now, from_owner=self._recorder.owner)

    def _may_look(self, call_sid: str, now_s: float) -> bool:
        at_s, wait_s = self._looks.get(call_sid, (0.0, LOOK_FIRST_S))
        if now_s < at_s or (call_sid not in self._looks and len(self._looks) >= MAX_REMEMBERED):
            return False
        self._looks[call_sid] = (now_s + wait_s, min(LOOK_LAST_S, wait_s * 2))
        return True

    def _look(self, rest: TwilioRest, row: dict[str, Any]) -> bool:
        """Ask Twilio how far a recording is. True when the row is settled by what it says."""
        call_sid, sid = row["call_sid"], row["recording_sid"] or ""
        try:
            entry = best_of(rest.list_recordings(call_sid), sid)
            self._breaker.on_answer()
        except RestError as error:
            self._breaker.on_error(error.kind, str(error), time.monotonic())
            if error.kind != "gone":
                log.warning("a recording's end is not known yet: %s", error, extra={"call_sid": call_sid, "reason": error.kind})
                return False
            entry = None
        gone = Settle("absent", sid, error_code="gone", error_text="Twilio has it no more")
        settle = gone if entry is None else settled(entry)
        return settle.state != "started" and self._rows.settle(call_sid, settle)

    def _forget(self, unsettled: set[str]) -> None:
        for call_sid in [call_sid for call_sid in self._looks if call_sid not in unsettled]:
            del self._looks[call_sid]
