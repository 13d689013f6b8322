"""Finds recordings nobody is working on and sets them going again, now and then.

Reads the unsettled rows and decides for each, in a pure function, whether somebody should take it up: a wish that was not
claimed, a claim whose process is gone, a recording whose webhook never came. Listings are spread: each row is looked at less and
less often, and only so many in one pass. Never creates a recording itself: the recorder does, after its own claim.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any, Final, Literal

import gevent

from gw.control.recorder import Recorder
from gw.control.recording_rows import RecordingRows
from gw.control.recording_rules import Settle, best_of, settled
from gw.control.rest_answers import RestError
from gw.control.store import Store, StoreError
from gw.control.twilio_rest import TwilioRest

log = logging.getLogger(__name__)

#: Between two passes.
PASS_S: Final = 10.0
#: Before that: after a crash the calls of an earlier process still talk, and what it left half done is not all in the store when
#: the first pass comes, or a worker's event, sent again, is just asking for it.
FIRST_PASSES_S: Final = (0.5, 1.0, 2.0, 4.0)
#: A wish this old was not taken up by the event itself.
WANTED_AGE_S: Final = 2.0
#: A claim of another host this old is nobody's: an effort lasts `recording.retry_s` and a few requests.
FOREIGN_AGE_S: Final = 900.0
#: A recording of a call that is not alive here: its webhook usually comes within seconds of the end.
STARTED_AGE_S: Final = 120.0
#: The first wait between two looks at one row; each further one doubles up to the last.
LOOK_FIRST_S: Final = 60.0
LOOK_LAST_S: Final = 3600.0
#: A recording that has no last word by then is somebody's work: its webhook and several looks brought none.
OVERDUE_S: Final = 3600.0
#: Listings in one pass.
MAX_LOOKS: Final = 20
#: Rows whose looks are remembered.
MAX_REMEMBERED: Final = 10_000

Step = Literal["leave", "want", "take_up", "look", "close"]


def next_step(row: dict[str, Any], *, host: str, owned: bool, now: float) -> Step:
    """What a row needs that this process is not working on. `host` is what our claims' owners begin with; `owned`: the call
    is alive at a worker of ours.

    want: claim it and create. take_up: go on with a claim of an earlier process of this host. close: settle what a lost host
    left, without creating. look: ask Twilio how far the recording is.
    """
    state = row["state"]
    if state == "wanted":
        age_s = now - (row["first_audio_at"] or 0.0)
        return "want" if age_s > WANTED_AGE_S else "leave"
    if state == "claimed":
        if (row["owner"] or "").rpartition("/")[0] == host:
            return "take_up"
        return "close" if now - (row["claimed_at"] or 0.0) > FOREIGN_AGE_S else "leave"
    if state == "started" and not owned:
        own = (row["owner"] or "").rpartition("/")[0] == host
        age_s = now - (row["started_at"] or row["claimed_at"] or 0.0)
        return "look" if age_s > (STARTED_AGE_S if own else LOOK_LAST_S) else "leave"
    return "leave"


def is_overdue(row: dict[str, Any], host: str, now: float) -> bool:
    """Whether a row of this host, or one that nobody claimed, has had more than an hour to come to its end."""
    if row["owner"] and row["owner"].rpartition("/")[0] != host:
        return False
    since = row["started_at"] or row["claimed_at"] or row["first_audio_at"] or 0.0
    return bool(now - since > OVERDUE_S)


class Reconciler:
    """Passes over the unsettled rows until stopped."""

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        rows: RecordingRows,
        rest: TwilioRest | None,
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
        self._host = host
        self._is_owned = is_owned
        self._on_overdue = on_overdue
        self._looks: dict[str, tuple[float, float]] = {}  # call SID: when to look next, the wait after that
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

    def pass_over(self, now: float, now_s: float) -> None:
        """Look at every unsettled row once. Raises StoreError."""
        looks = 0
        unsettled = self._store.unsettled_recordings()
        self._forget({row["call_sid"] for row in unsettled})
        self._on_overdue(sum(is_overdue(row, self._host, now) and not self._is_owned(row["call_sid"]) for row in unsettled))
        for row in unsettled:
            call_sid = row["call_sid"]
            if self._recorder.is_working_on(call_sid):
                continue
            owned = self._is_owned(call_sid)
            match next_step(row, host=self._host, owned=owned, now=now):
                case "want":
                    self._recorder.want(call_sid, row["account_sid"] or "", row["first_audio_at"])
                case "take_up":
                    self._recorder.take_up(row, create=True)
                case "close":
                    self._recorder.take_up(row, create=False)
                case "look" if self._rest is not None and looks < MAX_LOOKS and self._may_look(call_sid, now_s):
                    looks += 1
                    self._look(self._rest, row)
                case _:
                    pass

    def _may_look(self, call_sid: str, now_s: float) -> bool:
        at_s, wait_s = self._looks.get(call_sid, (0.0, LOOK_FIRST_S))
        if now_s < at_s or (call_sid not in self._looks and len(self._looks) >= MAX_REMEMBERED):
            return False
        self._looks[call_sid] = (now_s + wait_s, min(LOOK_LAST_S, wait_s * 2))
        return True

    def _look(self, rest: TwilioRest, row: dict[str, Any]) -> None:
        call_sid, sid = row["call_sid"], row["recording_sid"] or ""
        try:
            entry = best_of(rest.list_recordings(call_sid), sid)
        except RestError as error:
            if error.kind != "gone":
                log.warning("a recording's end is not known yet: %s", error, extra={"call_sid": call_sid, "reason": error.kind})
                return
            entry = None
        gone = Settle("failed", sid, error_code="gone", error_text="Twilio has it no more")
        settle = gone if entry is None else settled(entry)
        if settle.state != "started":
            self._rows.settle(call_sid, settle)

    def _forget(self, unsettled: set[str]) -> None:
        for call_sid in [call_sid for call_sid in self._looks if call_sid not in unsettled]:
            del self._looks[call_sid]
