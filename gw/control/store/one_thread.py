"""Runs blocking work in one native thread, so that the hub continues.

SQLite has no cooperative waiting: a commit that syncs the disk would block the hub of control. All work on one database file runs
in one thread, one piece at a time, first come first served; the calling greenlet waits. The work must not use gevent: no events,
no sleeps, no logging.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, cast

from gevent import Timeout
from gevent.threadpool import ThreadPool

T = TypeVar("T")

#: `close` waits this long for work under way: many commits on a slow disk.
_CLOSE_S: Final = 10.0


class OneThread:
    """One native thread, started with the first work. Only greenlets of the creating thread may use it."""

    __slots__ = ("_closed", "_limit_s", "_pool", "_too_slow")

    def __init__(self, limit_s: float, too_slow: Callable[[str], Exception]) -> None:
        """`limit_s` bounds every `run`, including the wait for its turn; `too_slow` builds the error raised after it."""
        self._pool = ThreadPool(1)
        self._limit_s = limit_s
        self._too_slow = too_slow
        self._closed = False

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def run(self, work: Callable[[], T]) -> T:
        """Return or raise the outcome of `work()`. After the limit this raises, while the work itself continues."""
        if self._closed:
            raise self._too_slow("the store's file is closed")

        def outcome() -> tuple[T, None] | tuple[None, Exception]:
            # Errors return as values: the pool prints a traceback of every error that reaches it.
            try:
                return work(), None
            except Exception as error:  # noqa: BLE001  top of the thread; raised again in the caller
                return None, error

        with Timeout(self._limit_s, self._too_slow(f"no answer from the disk within {self._limit_s:g} s")):
            ended = cast("tuple[T, None] | tuple[None, Exception]", self._pool.spawn(outcome).get())
        result, error = ended
        if error is not None:
            raise error
        return cast(T, result)

    def close(self) -> None:
        """End the thread after the work under way. A second call does nothing."""
        if not self._closed:
            self._closed = True
            with Timeout(_CLOSE_S, self._too_slow(f"the work under way did not end within {_CLOSE_S:g} s")):
                self._pool.kill()
