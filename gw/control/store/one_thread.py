"""Runs blocking work in one native thread while the hub goes on.

SQLite knows no cooperative waiting: a commit that syncs the disk would hold the control hub for its whole time. All work on one
database file goes to one thread, one piece at a time, in the order it was asked for; the asking greenlet waits, everybody else
runs. The work itself must use nothing of gevent's: no events, no sleeps, no logging.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, cast

from gevent import Timeout
from gevent.threadpool import ThreadPool

T = TypeVar("T")

#: How long `close` waits for work under way: a commit on a slow disk fits many times over.
_CLOSE_S: Final = 10.0


class OneThread:
    """One thread, started with the first piece of work. Belongs to the greenlets of the thread that made it."""

    __slots__ = ("_closed", "_limit_s", "_pool", "_too_slow")

    def __init__(self, limit_s: float, too_slow: Callable[[str], Exception]) -> None:
        """`limit_s` bounds every `run`, waiting in line included; `too_slow` makes the error raised then."""
        self._pool = ThreadPool(1)
        self._limit_s = limit_s
        self._too_slow = too_slow
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def run(self, work: Callable[[], T]) -> T:
        """What `work()` returns or raises. After the limit the caller is let go with an error; the work itself runs on."""
        if self._closed:
            raise self._too_slow("it is closed")

        def outcome() -> tuple[T, None] | tuple[None, Exception]:
            # Errors come back as values: the pool would print a traceback of each that reaches it.
            try:
                return work(), None
            except Exception as error:  # noqa: BLE001  the top of a thread; raised again where it was asked for
                return None, error

        with Timeout(self._limit_s, self._too_slow(f"no answer from the disk within {self._limit_s:g} s")):
            ended = cast("tuple[T, None] | tuple[None, Exception]", self._pool.spawn(outcome).get())
        result, error = ended
        if error is not None:
            raise error
        return cast(T, result)

    def close(self) -> None:
        """End the thread after the work under way. Harmless when called twice."""
        if not self._closed:
            self._closed = True
            with Timeout(_CLOSE_S, self._too_slow(f"its work did not end within {_CLOSE_S:g} s")):
                self._pool.kill()
