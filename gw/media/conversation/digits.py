"""One call's sensitive digits: the silence while the caller types them, and their way to control.

Concealed, the AI receives silence and no recording starts; one that runs is paused by a job of control, and the digits count once
that job is done. Digits are in no event, note or log: control receives them beside the numbered events, which are on disk, and
keeps them in memory under a reference.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import gevent

from gw import bus
from gw.call.dialogue import inputs as given
from gw.call.dialogue.rules import CONCEAL_MS
from gw.call.digits import REFS_PER_STREAM, ref_of
from gw.call.guard import RecordingGuard
from gw.media.call_events import CallEvents
from gw.media.hub.greenlets import KindGreenlet
from gw.media.shared.context import MediaContext
from gw.media.uplink import Uplink
from gw.protocol.hooks.pause import encode_pause

log = logging.getLogger(__name__)

#: Attempts to hand digits over, and the pause between two: a control that restarts takes seconds.
KEEP_TRIES: Final = 5
KEEP_PAUSE_S: Final = 0.5


class CallDigits:
    """One call's sensitive digits."""

    def __init__(
        self,
        context: MediaContext,
        events: CallEvents,
        uplink: Uplink,
        guard: RecordingGuard,
        on_crash: Callable[[KindGreenlet], None],
    ) -> None:
        """`on_crash`: ends the call for a greenlet that failed."""
        self._context = context
        self._events = events
        self._uplink = uplink
        self._guard = guard
        self._on_crash = on_crash
        self._streams = 0 if events.resumed is None else events.resumed.n
        self._refs = 0
        self._pauses = 0
        self._pause = ""  # the name of the pause in effect, or requested
        self._awaited = ""  # the job of the pause, until it is settled

    @property
    def open_jobs(self) -> list[str]:
        """The names of the jobs whose results are awaited."""
        return [self._awaited] if self._awaited else []

    def conceal(self, on: bool) -> given.Concealed | None:
        """Let neither AI nor recording hear the caller, or both again. Returns an input if nothing has to be awaited."""
        self._uplink.is_concealed = self._guard.is_concealed = on
        if not on:
            self._resume()
            return None
        guard = self._guard
        is_recorded = guard.enabled and (guard.recording_started or self._events.continues)
        if not is_recorded:
            return given.Concealed(was_heard=False)
        self._pauses += 1
        self._pause = str(self._streams * REFS_PER_STREAM + self._pauses)
        self._awaited = self._want("pause", time.time() + CONCEAL_MS / 1000)
        return None

    def _resume(self) -> None:
        """Have the recording continue. The job outlives this call's stream, worker and control."""
        if self._pause:
            self._want("resume", time.time() + self._context.config.media.max_call_s)
            self._pause = self._awaited = ""

    def _want(self, kind: str, deadline_at: float) -> str:
        """Have control do a job for the pause in effect. Returns the job's name."""
        job_id = f"{self._events.sid}/{kind}/{self._pause}"
        body = encode_pause(self._events.account_sid, self._pause)
        self._events.emit(bus.JobWanted(job_id, kind, self._events.sid, int(deadline_at * 1000), body))
        return job_id

    def on_settled(self, settled: bus.JobSettled) -> given.Concealed | given.NotConcealed | None:
        """Take the result of a pause. Returns the dialogue's input; None for a job that is not awaited."""
        if not self._awaited or settled.id != self._awaited:
            return None
        self._awaited = ""
        if settled.outcome == "ok":
            return given.Concealed()
        log.error("the recording cannot be paused: %s", settled.outcome, extra={"call_sid": self._events.sid})
        return given.NotConcealed()

    def next_ref(self) -> str:
        """Return the reference of further digits."""
        self._refs += 1
        return ref_of(self._streams, self._refs)

    def keep(self, ref: str, digits: str, on_kept: Callable[[], None]) -> None:
        """Hand digits over to control, in a greenlet. `on_kept` is called once control has them."""
        greenlet = KindGreenlet("other", lambda: self._keep(ref, digits, on_kept))
        greenlet.link_exception(self._on_crash)
        greenlet.start()

    def _keep(self, ref: str, digits: str, on_kept: Callable[[], None]) -> None:
        for _ in range(KEEP_TRIES):
            if self._context.keep_digits(self._events.sid, ref, digits):
                on_kept()
                return
            gevent.sleep(KEEP_PAUSE_S)
        log.error("control does not keep the caller's digits", extra={"call_sid": self._events.sid})
