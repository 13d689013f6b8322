"""The parts that see a recording from the wish to its end, put together: who starts it, who looks after it, who writes it down.

They share the row's writer and the breaker that spares a Twilio which is down. Names this process's life, under which it claims.
Decides nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from gw.config import Config
from gw.control.recording.claims import Claims
from gw.control.recording.reconcile import Reconciler
from gw.control.recording.recorder import Recorder
from gw.control.recording.rows import RecordingRows
from gw.control.store import Store
from gw.control.twilio_api.circuit_breaker import CircuitBreaker
from gw.control.twilio_api.rest import TwilioRest
from metrics import declare
from metrics.page import Page


class RecordingService:
    """The parts, each for whoever needs it; nothing runs before `reconciler.start()` and the recorder's first event."""

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
        """`claimant`: this gateway, whichever process of it claims. `is_owned`, `store_away_s`: as the recorder has them."""
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
        overdue = page.gauge(declare.RECORDINGS_OVERDUE)
        self.reconciler = Reconciler(
            store,
            self.recorder,
            self.rows,
            rest,
            self.breaker,
            host=claimant,
            is_owned=is_owned,
            on_overdue=lambda n: overdue.set(float(n)),
        )
