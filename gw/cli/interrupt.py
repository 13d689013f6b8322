"""Ctrl-C and SIGTERM end a long command cleanly."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: the run unwinds, ending everything it started."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted at the first signal; the unwinding is bounded and is not interrupted itself."""
    import gevent

    running = [gevent.getcurrent()]

    def interrupt() -> None:
        if running:
            gevent.kill(running.pop(), Interrupted)

    watchers = [gevent.signal_handler(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.cancel()
