"""Sweeps over old calls in small transactions.

The number of calls in a transaction follows the time of the one before: the store's other users wait for locks no longer than
that. The caller pauses between the pages, or stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from gw.config import Config
from gw.control.store import Store
from gw.control.store.retention import Page, Place, Policy

#: Calls in one transaction, at most and at least.
MAX_CALLS: Final = 500
MIN_CALLS: Final = 10
#: A transaction that takes longer halves the next one; a shorter one doubles it.
LONG_S: Final = 0.2
SHORT_S: Final = 0.05
#: Least pause after a page: a database on this machine shares the cores with the calls.
PAUSE_S: Final = 0.1
#: Share of the time in which a sweep uses the store.
SHARE: Final = 0.1


class Swept(NamedTuple):
    """One page: calls and other events removed, and its time."""

    calls: int
    events: int
    took_s: float

    def pause_s(self, share: float = SHARE) -> float:
        """Return the pause after it. `share`: of the time in which the sweep may use the store; 1 is without pauses."""
        return max(PAUSE_S, self.took_s * (1 / share - 1)) if share < 1 else 0.0


def policy_of(config: Config) -> Policy:
    """Return what the configuration does with a recording before its call is removed."""
    return Policy(fetches=bool(config.recording.fetch_dir), deletes=bool(config.recording.keep_days))


def next_limit(limit: int, took_s: float) -> int:
    """Return the number of calls in the next transaction."""
    if took_s > LONG_S:
        return max(MIN_CALLS, limit // 2)
    return min(MAX_CALLS, limit * 2) if took_s < SHORT_S else limit


def sweep(store: Store, before: float, policy: Policy, *, dry_run: bool = False) -> Iterator[Swept]:
    """Remove calls that ended before an epoch time; yield after each transaction.

    Events older than that and without a call follow. `dry_run`: counts the calls instead. Raises StoreError.
    """
    for page, took_s in _pages(lambda limit, after: store.purge_calls(before, limit, policy, after, dry_run=dry_run)):
        yield Swept(page.removed, 0, took_s)
    if not dry_run:
        for page, took_s in _pages(lambda limit, after: store.purge_events(before, limit, after)):
            yield Swept(0, page.removed, took_s)
        while True:
            began_s = time.monotonic()
            if not store.purge_dials(before, MAX_CALLS):
                return
            yield Swept(0, 0, time.monotonic() - began_s)


def _pages(one: Callable[[int, Place | None], Page]) -> Iterator[tuple[Page, float]]:
    limit, after = MAX_CALLS // 5, None
    while True:
        began_s = time.monotonic()
        page = one(limit, after)
        took_s = time.monotonic() - began_s
        yield page, took_s
        if page.after is None:
            return
        limit, after = next_limit(limit, took_s), page.after
