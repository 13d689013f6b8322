"""Construction of the recording parts: recorder, reconcile pass, row writer and circuit breaker.

Recorder and reconcile pass share the row writer and the circuit breaker. Claims carry an owner unique to this process's life.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Final

import gevent

from gw.config import Config
from gw.control.recording.claims import Claims
from gw.control.recording.lifecycle import OUR_SOURCE
from gw.control.recording.reconcile import Reconciler
from gw.control.recording.recorder import Recorder
from gw.control.recording.rows import RecordingRows
from gw.control.store import Store
from gw.control.twilio_api.answers import RestError
from gw.control.twilio_api.circuit_breaker import CircuitBreaker
from gw.control.twilio_api.rest import TwilioRest
from metrics import declare
from metrics.page import Page

log = logging.getLogger(__name__)

#: From the start until the workers have reported their live calls.
RECOVER_S: Final = 5.0


class RecordingService:
    """The recording parts. Nothing runs before `reconciler.start()` and the recorder's first event."""

    def __init__(
        self,
        config: Config,
        store: Store,
        rest: TwilioRest | None,
        page: Page,
        *,
        claimant: str,
        claims: Claims,
        is_owned: Callable[[str], bool],
        store_away_s: Callable[[], float],
    ) -> None:
        """`claimant`: this gateway, across its processes. `is_owned`, `store_away_s`: as in `Recorder`."""
        self.rows = RecordingRows(store, page)
        self.breaker = CircuitBreaker(2 * rest.bound_s if rest else 0.0)
        self.recorder = Recorder(
            config,
            store,
            rest,
            self.rows,
            page,
            owner=f"{claimant}/{os.getpid()}-{time.time_ns():x}",
            claims=claims,
            breaker=self.breaker,
            is_owned=is_owned,
            store_away_s=store_away_s,
        )
        self._account_sid = config.twilio.account_sid
        self._rest = rest if config.recording.enabled else None
        overdue = page.gauge(declare.RECORDINGS_OVERDUE)
        self.reconciler = Reconciler(
            store,
            self.recorder,
            self.rows,
            rest,
            self.breaker,
            claimant=claimant,
            is_owned=is_owned,
            on_overdue=lambda n: overdue.set(float(n)),
        )

    def recover_claims(self, live_calls: Callable[[], set[str]]) -> None:
        """Adopt the recordings of live calls whose claims were lost with a corrupt spool: Twilio's lists have them.

        Creates none: a call without a recording may not have had its first audio yet. The body of a greenlet.
        """
        gevent.sleep(RECOVER_S)
        if self._rest is None:
            return
        for call_sid in sorted(live_calls()):
            try:
                if any(listed.source == OUR_SOURCE for listed in self._rest.list_recordings(call_sid)):
                    self.recorder.want(call_sid, self._account_sid, None, lists=True)
            except RestError as error:
                log.error("the recordings of a call cannot be listed: %s", error, extra={"call_sid": call_sid})
