"""What the study compares a gateway with: the same gateway, one thing swapped.

Each variant is a function that is called in a media worker before anything runs there, and swaps one thing at a public seam. It
raises `NotHereError` where that seam is gone, or where this machine does not let it. Nothing of a variant is in the product
unless the study's figures say that it should be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tests.bench.variants import process, reading, sleeping, watching


class Variant(NamedTuple):
    """One thing that is done otherwise."""

    says: str
    apply: Callable[[], None]
    pinned: bool = True  # the worker has a core of its own, as in every other measurement
    tls: bool = False  # between it and the AI


def _nothing() -> None:
    """The gateway as it is."""


BASE: Final = "as-it-is"
#: What a worker writes into the gateway's log when its variant's name follows: a comparison that never swapped anything is none.
APPLIED: Final = "variant: "

VARIANTS: Final = {
    BASE: Variant("the gateway as it is: against itself, the noise of the comparison", _nothing),
    "private-timer": Variant("TX waits by a timer that switches to it, before I/O callbacks", sleeping.private_timer),
    "timerfd": Variant("one absolute timerfd over a heap of deadlines, before I/O", sleeping.timerfd),
    "timerfd-250us": Variant("the same; what is due within 250 us is woken at once", sleeping.timerfd_together),
    "rx-switch": Variant("a phone message is handled by RX's greenlet, not in the hub's callback", reading.switched),
    "recv-first": Variant("a read is tried without waiting for readiness, as gevent's socket does", reading.recv_first),
    "read-2048": Variant("a read takes 2 KB at most, not 8", reading.bounded(2048)),
    "read-65536": Variant("a read takes 64 KB at most, not 8", reading.bounded(65536)),
    "slack-1us": Variant("the kernel may delay a timer by 1 us, not 50", process.timer_slack),
    "unpinned": Variant("the worker may run on the load's cores too", _nothing, pinned=False),
    "round-robin": Variant("the worker is real-time (SCHED_RR): it starves whatever else is on its core", process.round_robin),
    "locked": Variant("memory is locked as it is touched (mlockall, on fault)", process.locked_memory),
    "tls": Variant("the AI is reached by TLS, as OpenAI is; all others are plain", _nothing, tls=True),
    "watch-off": Variant("nobody watches what holds the hub", watching.off),
    "watch-always": Variant("the hub is watched all the time and with CPU times, not for a tenth", watching.always),
    "tree-off": Variant("gevent does not keep who spawned a greenlet, nor from where", watching.no_tree),
    "gc-often": Variant("young and middle garbage collections come by themselves", process.often_gc),
    "gc-default": Variant("the collector's thresholds are Python's own", process.default_gc),
}
