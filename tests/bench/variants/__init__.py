"""Variants of the gateway for the study: one thing swapped in each.

A variant is a function, called in a media worker before anything else runs, that swaps one thing at a public seam. It raises
`NotHereError` if the seam is gone or the machine does not permit the change. The product adopts a variant only if the study's
figures support it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tests.bench.variants import process, reading, sleeping, watching


class Variant(NamedTuple):
    """One change of the gateway."""

    description: str
    apply: Callable[[], None]
    pinned: bool = True  # the worker has its own core, as in every other measurement
    tls: bool = False  # between gateway and AI


def _nothing() -> None:
    """Change nothing."""


BASE: Final = "as-it-is"
#: Prefix of the log line with which a worker confirms its variant; without one, nothing was compared.
APPLIED: Final = "variant: "

VARIANTS: Final = {
    BASE: Variant("the unchanged gateway: against itself, the noise of the comparison", _nothing),
    "private-timer": Variant("TX waits by a timer that switches to it, before I/O callbacks", sleeping.private_timer),
    "timerfd": Variant("one absolute timerfd over a heap of deadlines, before I/O", sleeping.timerfd),
    "timerfd-250us": Variant("the same; deadlines within 250 us share a wake-up", sleeping.timerfd_together),
    "rx-switch": Variant("a phone message is handled by RX's greenlet, not in the hub's callback", reading.switched),
    "recv-first": Variant("a read is tried without waiting for readiness, as gevent's socket does", reading.recv_first),
    "read-2048": Variant("a read takes 2 KB at most, not 8", reading.bounded(2048)),
    "read-65536": Variant("a read takes 64 KB at most, not 8", reading.bounded(65536)),
    "slack-1us": Variant("the kernel may delay a timer by 1 us, not 50", process.timer_slack),
    "unpinned": Variant("the worker may run on the load's cores too", _nothing, pinned=False),
    "round-robin": Variant("the worker is real-time (SCHED_RR): it starves every other process on its core", process.round_robin),
    "locked": Variant("touched memory is locked (mlockall, on fault)", process.locked_memory),
    "tls": Variant("the AI is reached by TLS, as OpenAI is; in all other variants it is not", _nothing, tls=True),
    "watch-off": Variant("the hub's holds are not watched", watching.off),
    "watch-always": Variant("the hub is watched all the time and with CPU times, not a tenth of the time", watching.always),
    "tree-off": Variant("gevent does not record a greenlet's parent and its stack", watching.no_tree),
    "gc-often": Variant("young and middle garbage collections run automatically", process.often_gc),
    "gc-default": Variant("the collector's thresholds are Python's own", process.default_gc),
}
