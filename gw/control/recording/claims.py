"""Keeps recording claims made while the store is away, and delivers them later.

A claim is kept in the spool's file, synced like an event, so that this host never starts a recording twice, whatever dies. Claims
are delivered before any event of the spool: the row then is `claimed` before it can be `wanted`, and the reconcile pass of
another host leaves it alone. If another host claimed the row meanwhile, that host keeps it, and a recording made here is noted in
the row. Never asks Twilio; the recorder decides what follows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from gw.control.spool import Spool, SpoolError
from gw.control.store import HeldClaim, Store, StoreError, StoreUnavailable, claimant_of

log = logging.getLogger(__name__)

#: Claims held at a time: a day of an outage at 20 calls a minute is 28,800.
MAX_CLAIMS: Final = 100_000
#: Claims in one transaction of the store.
BATCH: Final = 100


class Claims:
    """The claims held in one spool. `on_conflict` receives each claim whose row is another host's, once."""

    def __init__(self, spool: Spool, *, claimant: str) -> None:
        """`claimant`: this gateway, with which its owners begin. Raises SpoolError."""
        self._spool = spool
        self._claimant = claimant
        self._held = {claim.call_sid: claim for claim in spool.claims()}
        self.on_conflict: Callable[[HeldClaim], None] = lambda claim: None

    def __len__(self) -> int:
        return len(self._held)

    def holds(self, call_sid: str) -> bool:
        """Return whether a claim of the call is held here, not yet in the store."""
        return call_sid in self._held

    def take(self, claim: HeldClaim) -> None:
        """Hold a claim, unless one is held for the call. Raises SpoolError when it may not be on disk."""
        if claim.call_sid in self._held:
            return
        if len(self._held) >= MAX_CLAIMS:
            raise SpoolError(f"the spool holds its limit of {MAX_CLAIMS} claims until the store is back")
        self._spool.keep_claim(claim)
        self._held[claim.call_sid] = claim

    def note(self, call_sid: str, recording_sid: str) -> None:
        """Add the recording that was made under a claim held here. Raises SpoolError."""
        claim = self._held.get(call_sid)
        if claim is not None and recording_sid:
            self._held[call_sid] = claim._replace(recording_sid=recording_sid)
            self._spool.note_claim(call_sid, recording_sid)

    def drop(self, call_sid: str) -> None:
        """Delete a claim that the store has. Raises SpoolError."""
        if call_sid in self._held:
            self._spool.drop_claims([call_sid])
            self._held.pop(call_sid, None)

    def keep_again(self) -> None:
        """Store every held claim in a spool that replaces a corrupt one."""
        for claim in list(self._held.values()):
            try:
                self._spool.keep_claim(claim)
            except SpoolError as error:
                log.error("a claim is in memory only: %s", error, extra={"call_sid": claim.call_sid, "reason": error.code})

    def deliver(self, store: Store) -> None:
        """Write every held claim to the store. Raises StoreUnavailable, SpoolError."""
        while self._held:
            batch = list(self._held.values())[:BATCH]
            try:
                owners = store.bring_claims(batch)
            except StoreUnavailable:
                raise
            except StoreError as error:
                log.error("%d claims of recordings cannot be delivered to the store: %s", len(batch), error)
                return
            self._spool.drop_claims([claim.call_sid for claim in batch])
            log.info("%d claims of recordings were delivered to the store", len(batch))
            for claim in batch:
                latest = self._held.pop(claim.call_sid, claim)  # its recording may have been noted meanwhile
                owner = owners.get(claim.call_sid, "")
                if claimant_of(owner) != self._claimant:
                    log.error("a recording claimed here belongs to %s", owner or "no owner", extra={"call_sid": claim.call_sid})
                    self.on_conflict(latest)
