"""Construction of the recording parts: recorder, reconcile pass and row writer.

Recorder and reconcile pass share the row writer and the accounts. Claims carry an owner unique to this process's life.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

import gevent

from gw.config import Config
from gw.control.recording.claims import Claims
from gw.control.recording.lifecycle import OUR_SOURCE
from gw.control.recording.reconcile import Reconciler
from gw.control.recording.recorder import Recorder
from gw.control.recording.rows import RecordingRows
from gw.control.store import Store, StoreError
from gw.control.twilio_api.accounts import Account, Accounts
from gw.control.twilio_api.answers import RestError
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
        accounts: Accounts,
        page: Page,
        *,
        claimant: str,
        claims: Claims,
        is_owned: Callable[[str], bool],
        is_over: Callable[[str], bool],
        store_away_s: Callable[[], float],
        is_concealed: Callable[[str], bool],
        may_settle: Callable[[], bool],
        adopted: Callable[[], Sequence[str]],
        on_completed: Callable[[str, str, int | None], None],
    ) -> None:
        """`claimant`: this gateway's id. `is_owned`, `is_over`, `store_away_s`, `is_concealed`: as in `Recorder`;
        `may_settle`, `adopted`: `Reconciler`; `on_completed`: `RecordingRows`."""
        self.rows = RecordingRows(store, page, on_completed)
        self.recorder = Recorder(
            config,
            store,
            accounts,
            self.rows,
            page,
            owner=f"{claimant}/{os.getpid()}-{time.time_ns():x}",
            claims=claims,
            is_owned=is_owned,
            is_over=is_over,
            store_away_s=store_away_s,
            is_concealed=is_concealed,
        )
        self._enabled = config.recording.enabled
        self._accounts = accounts
        self._store = store
        overdue = page.gauge(declare.RECORDINGS_OVERDUE)
        self.reconciler = Reconciler(
            store,
            self.recorder,
            self.rows,
            accounts,
            claimant=claimant,
            is_owned=is_owned,
            may_settle=may_settle,
            adopted=adopted,
            on_overdue=lambda n: overdue.set(float(n)),
        )

    def recover_claims(self, live_calls: Callable[[], set[str]]) -> None:
        """Adopt the recordings of live calls whose claims were lost with a corrupt spool: Twilio's lists have them.

        Creates none: a call without a recording may not have had its first audio yet. The body of a greenlet.
        """
        gevent.sleep(RECOVER_S)
        if not self._enabled:
            return
        for call_sid in sorted(live_calls()):
            for account in self._accounts_of(call_sid):
                try:
                    if any(listed.source == OUR_SOURCE for listed in account.rest.list_recordings(call_sid)):
                        self.recorder.want(call_sid, account.sid, None, lists=True)
                        break
                except RestError as error:
                    if error.kind != "gone" or len(self._accounts) == 1:
                        log.error("the recordings of a call cannot be listed: %s", error, extra={"call_sid": call_sid})

    def _accounts_of(self, call_sid: str) -> list[Account]:
        """Return a call's account, or all of them where the start of the call was lost with the spool."""
        try:
            known = self._accounts.of_call(call_sid, self._store.account_of)
        except StoreError:
            known = None
        return list(self._accounts) if known is None else [known]
