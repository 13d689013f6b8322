"""Keeps the claims of recordings that were taken while the store was away, and brings them to it when it is back.

A claim stands in the spool's file, synced like an event, so that this host never starts a recording twice whatever dies. It is
brought to the store before any event of the spool: the row then says `claimed` before it could say `wanted`, and another host's
pass leaves it alone. Where another host claimed the row meanwhile, the row is that host's; what was recorded here is said in it.

Never asks Twilio, never decides what follows: the recorder does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from gw.control.spool import Spool, SpoolError
from gw.control.store import HeldClaim, Store, StoreError, StoreUnavailable

log = logging.getLogger(__name__)

#: Claims held at a time: a day of an outage at 20 calls a minute is 28,800.
MAX_CLAIMS: Final = 100_000
#: Claims in one transaction of the store.
AT_ONCE: Final = 100


class Claims:
    """The claims of one spool. `on_conflict` is told a claim whose row is another host's, once."""

    def __init__(self, spool: Spool, *, claimant: str) -> None:
        """`claimant` is what owners of this gateway begin with. Raises SpoolError."""
        self._spool = spool
        self._claimant = claimant
        self._held = {claim.call_sid: claim for claim in spool.claims()}
        self.on_conflict: Callable[[HeldClaim], None] = lambda claim: None

    def __len__(self) -> int:
        return len(self._held)

    def holds(self, call_sid: str) -> bool:
        """Whether this host has claimed the call's recording and the store does not have the claim yet."""
        return call_sid in self._held

    def take(self, claim: HeldClaim) -> None:
        """Keep a claim; one that is held already stays. Raises SpoolError: then it is not known to be kept."""
        if claim.call_sid in self._held:
            return
        if len(self._held) >= MAX_CLAIMS:
            raise SpoolError(f"{MAX_CLAIMS} claims wait for the store already")
        self._spool.keep_claim(claim)
        self._held[claim.call_sid] = claim

    def note(self, call_sid: str, recording_sid: str) -> None:
        """Remember which recording was made under a claim that is still here. Raises SpoolError."""
        claim = self._held.get(call_sid)
        if claim is not None and recording_sid:
            self._held[call_sid] = claim._replace(recording_sid=recording_sid)
            self._spool.note_claim(call_sid, recording_sid)

    def drop(self, call_sid: str) -> None:
        """The store has the claim. Raises SpoolError."""
        if call_sid in self._held:
            self._spool.drop_claims([call_sid])
            self._held.pop(call_sid, None)

    def deliver(self, store: Store) -> None:
        """Bring every claim to the store. Raises StoreUnavailable, SpoolError."""
        while self._held:
            some = list(self._held.values())[:AT_ONCE]
            try:
                owners = store.bring_claims(some)
            except StoreUnavailable:
                raise
            except StoreError as error:
                log.error("%d claims of recordings cannot be brought to the store: %s", len(some), error)
                return
            self._spool.drop_claims([claim.call_sid for claim in some])
            log.info("%d claims of recordings were brought to the store", len(some))
            for claim in some:
                latest = self._held.pop(claim.call_sid, claim)  # its recording may have become known meanwhile
                owner = owners.get(claim.call_sid, "")
                if owner.rpartition("/")[0] != self._claimant:
                    log.error("a recording claimed here is %s's", owner or "nobody", extra={"call_sid": claim.call_sid})
                    self.on_conflict(latest)
