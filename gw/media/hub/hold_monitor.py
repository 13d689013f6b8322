"""The hub is watched: how long each kind of work held it, and for a hold over the budget what it was doing.

A greenlet does not isolate CPU: whoever runs for 5 ms delays every call of the process by 5 ms. A tracer of greenlet switches
measures the time from one switch to the next and files it under the kind of greenlet that ran. What the hub runs itself, between
two polls and in no greenlet, is a hold too: of the kind its owner names (`hold_as`), else of the kind "hub"; waiting in the poll
is nobody's. In production it is on for a tenth of each second, which costs a tenth of what it costs. `always` keeps it on, and
measures the thread's CPU time beside the time that passed: a machine that did not run the thread is nobody's doing.

The culprit's stack is taken during the hold, by a timer signal each millisecond while the monitor is on: Python runs the handler
in the hub's own thread and hands it the frame it interrupted. So a hold over the budget is caught in the act, and one inside C
code at the line that called it. Kept is the first stack after the budget, else the last before. A look costs the thread some
10 us, most of it the kernel's, a hundred times a second on duty; it notes no text. Two other ways were tried. The suspended stack
of the greenlet at the switch shows where it waits next, not what it did, and nothing where it ended. A thread that samples the
hub's frames needs the interpreter's lock: of 200 holds of 2.5 ms it saw none, nor any in C; the signal saw all of them, and 193
of 200 in C of 1.1 ms.

At most one hold a second, the worst, leaves the process, as a droppable message of the bus; names and lines are looked up then,
in a slice of its own. Never prints, logs, or reads a source file.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from time import monotonic, perf_counter, thread_time, time
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

import gevent
import greenlet

from gw import ROOT, bus
from gw.media.hub.greenlets import spawn
from metrics.declare import HUB_HOLD, HUB_HOLD_CPU, Histogram
from metrics.page import Page

DUTY_S: Final = 1.0
DUTY_ON_S: Final = 0.1
#: The budget of a slice: of a longer hold the stack is kept.
LONG_HOLD_S: Final = 0.001
#: How often the timer looks: a hold over the budget is seen at least once.
LOOK_S: Final = LONG_HOLD_S
#: A slice that has not lasted so long by then is looked at no further: nearly none has, and frames cost more than the look.
SUSPECT_S: Final = LONG_HOLD_S / 10
#: The innermost frames of a stack: from a call's body to a library's depths.
MAX_FRAMES: Final = 16
#: A path or a function's name; more is cut.
MAX_NAME: Final = 200
#: Seconds whose longest holds are remembered: a call of an hour is told the longest during its life.
MAX_SECONDS: Final = 3600
_ROOT: Final = f"{ROOT}/"

#: What a frame is until it has names: its code, and how far in it the frame was.
_Frames = list[tuple[CodeType, int]]
_Cells = dict[str, Callable[[float], None]]


class _LongHold(NamedTuple):
    """A hold over the budget, before its stack has names."""

    at: float
    kind: str
    wall_s: float
    cpu_s: float
    frames: _Frames


class _Watch:
    """What a monitor that is on does at each boundary of a slice. Functions of one scope: they run at every switch, so they look
    up as little as they can."""

    def __init__(self, monitor: HoldMonitor, cells: _Cells, cpu_cells: _Cells | None) -> None:
        hub, clock, other = gevent.get_hub(), perf_counter, cells["other"]
        since_s = cpu_since_s = 0.0  # when the slice under way began, and the thread's CPU time then
        in_hub = "hub"  # what the hub's own slices are
        look_cpu_s = base_cpu_s = 0.0  # the thread's CPU time at the last look, and at the last one before the slice looked at
        frames: _Frames = []
        looked_since_s = frames_since_s = -1.0  # the slice last looked at, and the one they are of
        frames_over = False  # whether it was over the budget by then

        def begin() -> None:
            """A slice begins, and what was before is nobody's."""
            nonlocal since_s, cpu_since_s
            since_s = clock()
            if cpu_cells is not None:
                cpu_since_s = thread_time()

        def end_by_clock(kind: str) -> None:
            """A slice of this kind ends, the next begins."""
            nonlocal since_s
            now_s = clock()
            held_s = now_s - since_s
            cells.get(kind, other)(held_s)
            if held_s > monitor.second_max_s:
                monitor.second_max_s = held_s
                if held_s > LONG_HOLD_S:
                    cpu_s = thread_time() - (base_cpu_s if looked_since_s == since_s else look_cpu_s)
                    seen = frames if frames_since_s == since_s else []
                    monitor.worst = _LongHold(time(), kind, held_s, min(held_s, cpu_s), seen)
            since_s = now_s

        def end_with_cpu(kind: str) -> None:
            nonlocal cpu_since_s
            if cpu_cells is not None:
                cpu_cells.get(kind, cpu_cells["other"])(thread_time() - cpu_since_s)
            end_by_clock(kind)
            cpu_since_s = thread_time()

        end = end_by_clock if cpu_cells is None else end_with_cpu

        def on_switch(event: str, sides: tuple[Any, Any]) -> None:
            origin = sides[0]
            end(in_hub if origin is hub else getattr(origin, "kind", "other"))

        def run(kind: str, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
            """A callback of the hub's: its slice, or slices where it switches, are of this kind."""
            nonlocal in_hub
            end(in_hub)
            before, in_hub = in_hub, kind
            try:
                callback(*arguments)
            finally:
                end(kind)
                in_hub = before

        def look(frame: FrameType | None) -> None:
            """The timer's signal: what runs right now, and the thread's CPU time so far."""
            nonlocal look_cpu_s, base_cpu_s, looked_since_s, frames, frames_since_s, frames_over
            if looked_since_s != since_s:
                looked_since_s, base_cpu_s, frames_over = since_s, look_cpu_s, False
            look_cpu_s = thread_time()
            lasted_s = clock() - since_s
            if frames_over or lasted_s < SUSPECT_S:
                return
            frames, frames_since_s, frames_over = [], since_s, lasted_s > LONG_HOLD_S
            while frame is not None and len(frames) < MAX_FRAMES:
                frames.append((frame.f_code, frame.f_lasti))
                frame = frame.f_back

        def start() -> None:
            nonlocal look_cpu_s
            look_cpu_s = thread_time()
            begin()

        self.start, self.begin, self.end, self.on_switch, self.run, self.look = start, begin, end, on_switch, run, look


#: The watch that is on: one hub, one thread, one timer.
_watch: _Watch | None = None


def hold_as(kind: str, callback: Callable[..., object], *arguments: object) -> None:
    """Run a callback of the hub's so that the time it takes is of this kind (a label value of gw_hub_hold_seconds).

    For watchers' callbacks, which run in no greenlet: `watcher.start(hold_as, "rx", self._on_readable)`. It costs 0.1 us while
    nobody watches.
    """
    watch = _watch
    if watch is None:
        callback(*arguments)
    else:
        watch.run(kind, callback, arguments)


def _on_alarm(_number: int, frame: FrameType | None) -> None:
    """Stays installed for the life of the process: a signal that is still on its way when the timer stops must end nothing."""
    if _watch is not None:
        _watch.look(frame)


class HoldMonitor:
    """The tracer of this thread's hub, which is the main thread's, and what it saw."""

    def __init__(self, page: Page, *, always: bool = False, report: Callable[[bus.HubHold], None] = lambda hold: None) -> None:
        """`report` is told of a long hold, once a second at most; it must not wait."""
        self._always = always
        self._report = report
        cpu_cells = _cells(page, HUB_HOLD_CPU) if always else None
        self._watch = _Watch(self, _cells(page, HUB_HOLD), cpu_cells)
        loop = gevent.get_hub().loop
        # after gevent's own, which runs its callbacks; and before any callback of the poll's
        self._before_poll = loop.prepare(ref=False, priority=loop.MINPRI)  # type: ignore[attr-defined]
        self._after_poll = loop.check(ref=False, priority=loop.MAXPRI)  # type: ignore[attr-defined]
        self._on = False
        self._seconds: gevent.Greenlet[[], None] | None = None
        self._longest: deque[tuple[float, float]] = deque(maxlen=MAX_SECONDS)  # when, how long; each shorter than those before
        self.second_max_s = 0.0  # the longest hold since the last report
        self.worst: _LongHold | None = None  # the same, where it was over the budget

    def start(self) -> None:
        """Begin watching this thread's hub. Harmless when called twice."""
        if self._seconds is None:
            if self._always:
                self._trace(True)
            self._seconds = spawn("other", self._run)

    def stop(self) -> None:
        """Stop watching. Harmless when called twice."""
        if self._seconds is not None:
            self._seconds.kill()
            self._seconds = None
        self._trace(False)

    def max_hold_s(self, since_s: float) -> float:
        """The longest hold seen since the monotonic time given, a second more or less; -1.0 where none was."""
        longest = next((held_s for at_s, held_s in self._longest if at_s >= since_s), 0.0)
        return max(longest, self.second_max_s) or -1.0

    def _run(self) -> None:
        while True:
            if self._always:
                gevent.sleep(DUTY_S)
            else:
                gevent.sleep(DUTY_S - DUTY_ON_S)
                self._trace(True)
                gevent.sleep(DUTY_ON_S)
                self._trace(False)
            self._end_second()

    def _end_second(self) -> None:
        """Remember the second's longest hold, and report it where it was over the budget."""
        held_s, self.second_max_s = self.second_max_s, 0.0
        worst, self.worst = self.worst, None
        if held_s:
            while self._longest and self._longest[-1][1] <= held_s:
                self._longest.pop()
            self._longest.append((monotonic(), held_s))
        if worst is not None:
            stack = [_named(code, at) for code, at in worst.frames]
            self._report(bus.HubHold(worst.at, worst.kind, worst.wall_s, worst.cpu_s, stack))

    def _trace(self, on: bool) -> None:
        global _watch
        if on == self._on:
            return
        self._on = on
        watch = self._watch
        if on:
            watch.start()
            _watch = watch
            self._before_poll.start(watch.end, "hub")
            self._after_poll.start(watch.begin)
            greenlet.settrace(watch.on_switch)
            signal.signal(signal.SIGALRM, _on_alarm)
            signal.setitimer(signal.ITIMER_REAL, LOOK_S, LOOK_S)
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            greenlet.settrace(None)
            self._before_poll.stop()
            self._after_poll.stop()
            _watch = None


def _cells(page: Page, family: Histogram) -> _Cells:
    return {kind: page.histogram(family, greenlet=kind).observe for kind in family.labels["greenlet"]}


def _named(code: CodeType, at: int) -> bus.StackFrame:
    """A frame in words: the file as short as it is unmistakable, the line, the function."""
    path = code.co_filename.rpartition("/site-packages/")[2].removeprefix(_ROOT)
    line = next((line for start, end, line in code.co_lines() if start <= at < end and line), code.co_firstlineno)
    return bus.StackFrame(path[-MAX_NAME:], line, code.co_qualname[:MAX_NAME])
