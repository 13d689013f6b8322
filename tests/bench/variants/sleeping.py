"""Variants of waiting in TX, behind `Clock.wait_until`.

gevent's compiled timers cannot be given another delay, so none is used twice.
"""

from __future__ import annotations

import ctypes
import os
from heapq import heappop, heappush
from time import monotonic
from typing import Any, Final

import gevent

from gw.media.hub.clock import Clock
from tests.bench.variants.seam import NotHereError, swap

TOGETHER_S: Final = 0.00025
_CLOCK_MONOTONIC: Final = 1
_TFD_TIMER_ABSTIME: Final = 1
_NS: Final = 1_000_000_000


def private_timer() -> None:
    """Wait by a timer that switches straight to TX, before I/O callbacks.

    libev calls ready watchers by priority.
    """
    hub = gevent.get_hub()
    loop = hub.loop

    def wait_until(_: Clock, deadline_s: float) -> None:
        delay_s = deadline_s - monotonic()
        if delay_s > 0.0:
            timer = loop.timer(delay_s, priority=loop.MAXPRI)
            timer.start(gevent.getcurrent().switch, update=True)
            try:
                hub.switch()
            finally:
                timer.close()

    swap(Clock, "wait_until", wait_until)


def timerfd() -> None:
    swap(Clock, "wait_until", _Deadlines(0.0).wait_until)


def timerfd_together() -> None:
    swap(Clock, "wait_until", _Deadlines(TOGETHER_S).wait_until)


class _Spec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


class _Deadlines:
    """Heap of all calls' deadlines, the first of them in one absolute timerfd."""

    def __init__(self, together_s: float) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise NotHereError(f"no timerfd: {os.strerror(ctypes.get_errno())}")
        self._spec = _Spec(0, 0, 0, 0)
        self._at = ctypes.byref(self._spec)
        self._together_s = together_s
        self._heap: list[list[Any]] = []  # deadline, number, switch of the waiting greenlet (None: gave up)
        self._number = 0
        self._armed_s = 0.0
        self._hub = gevent.get_hub()
        loop = self._hub.loop
        self._watcher = loop.io(self._fd, 1, priority=loop.MAXPRI)
        self._watcher.start(self._fire)

    @property
    def wait_until(self) -> Any:
        """A function for `Clock`, which ignores the object it is called on."""

        def wait_until(_: Clock, deadline_s: float) -> None:
            if deadline_s > monotonic():
                self._wait(deadline_s)

        return wait_until

    def _wait(self, deadline_s: float) -> None:
        self._number += 1
        entry = [deadline_s, self._number, gevent.getcurrent().switch]
        heappush(self._heap, entry)
        if not self._armed_s or deadline_s < self._armed_s:
            self._arm(deadline_s)
        try:
            self._hub.switch()
        finally:
            entry[2] = None

    def _arm(self, deadline_s: float) -> None:
        self._armed_s = deadline_s
        spec = self._spec
        spec.value_s, spec.value_ns = divmod(int(deadline_s * _NS), _NS)
        self._settime(self._fd, _TFD_TIMER_ABSTIME, self._at, None)

    def _fire(self) -> None:
        """Switch to each greenlet that is due; called by the hub at the first deadline."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # rearmed since
        heap, together_s = self._heap, self._together_s
        self._armed_s = monotonic() + 1.0  # a greenlet woken here does not arm the timer
        while heap and heap[0][0] <= monotonic() + together_s:
            switch = heappop(heap)[2]
            if switch is not None:
                switch()
        if heap:
            self._arm(heap[0][0])
        else:
            self._armed_s = 0.0
