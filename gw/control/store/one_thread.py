"""Runs blocking work in one native thread, so that the hub continues.

SQLite has no cooperative waiting: a commit that syncs the disk would block the hub of control. All work on one database file runs
in one thread, one piece at a time, first come first served; the calling greenlet waits. The work must not use gevent: no events,
no sleeps, no logging.

Not gevent's ThreadPool: a newcomer there may pass a greenlet that waits, and a turn of the jobs relies on the sequence.
"""

from __future__ import annotations

from _queue import SimpleQueue  # the one of `queue` waits for greenlets
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gevent import Timeout, get_hub
from gevent.event import AsyncResult
from gevent.monkey import get_original

if TYPE_CHECKING:
    from gevent._types import _AsyncWatcher

T = TypeVar("T")

#: `close` waits this long for work under way: many commits on a slow disk.
_CLOSE_S: Final = 10.0


class _Work:
    """Some work, and its outcome: a value or an error."""

    __slots__ = ("act", "ended", "is_abandoned", "outcome")

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act
        self.outcome: tuple[Any, Exception | None] = (None, None)
        self.ended: AsyncResult[None] = AsyncResult()
        self.is_abandoned = False  # its caller has stopped waiting


class OneThread:
    """One native thread, started with the first work. Only greenlets of the creating thread may use it."""

    __slots__ = ("_closed", "_done", "_limit_s", "_open", "_queue", "_started", "_too_slow", "_watcher")

    def __init__(self, limit_s: float, too_slow: Callable[[str], Exception]) -> None:
        """`limit_s` bounds every `run`, including the wait for its turn; `too_slow` builds the error raised after it."""
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._done: deque[_Work] = deque()
        self._open = 0  # work without a delivered outcome
        self._watcher: _AsyncWatcher = get_hub().loop.async_()
        self._limit_s = limit_s
        self._too_slow = too_slow
        self._started = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def run(self, work: Callable[[], T]) -> T:
        """Return or raise the outcome of `work()`. After the limit this raises, while work that has begun continues."""
        if self._closed:
            raise self._too_slow("the store's file is closed")
        given = self._put(work)
        try:
            with Timeout(self._limit_s, self._too_slow(f"no answer from the disk within {self._limit_s:g} s")):
                given.ended.get()
        except BaseException:
            given.is_abandoned = True
            raise
        value: T
        value, error = given.outcome
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the thread after the work under way. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if not self._started:
            return
        last = self._put(lambda: None)
        self._queue.put(None)
        with Timeout(_CLOSE_S, self._too_slow(f"the work under way did not end within {_CLOSE_S:g} s")):
            last.ended.get()

    def _put(self, act: Callable[[], Any]) -> _Work:
        if not self._started:
            get_original("_thread", "start_new_thread")(self._run, ())
            self._started = True
        if not self._open:
            self._watcher.start(self._deliver)  # it keeps the hub's loop alive
        self._open += 1
        given = _Work(act)
        self._queue.put(given)
        return given

    def _deliver(self) -> None:
        """Wake the callers of work that has ended; the hub calls this."""
        while self._done:
            self._open -= 1
            self._done.popleft().ended.set(None)
        if not self._open:
            self._watcher.stop()

    def _run(self) -> None:
        """Do the work, in sequence. The body of the thread."""
        while (given := self._queue.get()) is not None:
            if not given.is_abandoned:
                try:
                    given.outcome = (given.act(), None)
                except Exception as error:  # noqa: BLE001  top of the thread; raised again in the caller
                    given.outcome = (None, error)
            self._done.append(given)
            del given  # not kept while the thread waits: the work refers to its caller
            self._watcher.send()
