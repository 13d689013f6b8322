"""Hold monitor: measures how long each kind of work held the hub, with the stack of every hold over the budget.

A greenlet does not isolate CPU: code that runs for 5 ms delays every call of the process by 5 ms. A tracer of greenlet switches
measures the time from one switch to the next and files it under the kind of the greenlet that ran. Callbacks that the hub itself
runs between two polls are a hold too: of the kind their owner names (`hold_as`), else of the kind "hub". Waiting in the poll is
not a hold. In production the monitor is on for 10 % of each second, so a tenth of the overhead. With `always` it stays on and
also measures the thread's CPU time, which distinguishes a slow slice from a machine that did not run the thread.

The stack is taken during the hold, by a timer signal each millisecond while the monitor is on: Python runs the handler in the
hub's own thread and passes the frame it interrupted. So a hold over the budget is seen while it lasts, and one inside C code at
the line that called it. The first stack after the budget is kept, else the last one before. A sample costs the thread some 10
us, most of it the kernel's, a hundred times a second on duty, and formats no text. Two other ways were tried. The suspended
stack of the greenlet at the switch shows where it waits next, not where it spent the time, and nothing where it ended. A thread
that samples the hub's frames needs the interpreter's lock: of 200 holds of 2.5 ms it saw none, nor any in C; the signal saw all
of them, and 193 of 200 in C of 1.1 ms.

At most one hold a second, the worst, is sent to control, as a droppable message of the bus. Only then names and lines are looked
up, in a separate slice. Never prints, logs, or reads a source file.
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
#: The budget of a slice: a longer hold is reported with its stack.
LONG_HOLD_S: Final = 0.001
#: Interval of the samples: a hold over the budget is seen at least once.
SAMPLE_S: Final = LONG_HOLD_S
#: A younger slice is not sampled: nearly all are younger, and walking the frames costs more than the signal.
SUSPECT_S: Final = LONG_HOLD_S / 10
#: Innermost frames kept of a stack: enough from a call's code into a library.
MAX_FRAMES: Final = 16
#: Length of a path or a function's name; longer ones are cut.
MAX_NAME: Final = 200
#: Seconds whose longest holds are kept: the report of a call of an hour has the longest during that call.
MAX_SECONDS: Final = 3600
_ROOT: Final = f"{ROOT}/"

#: Frames before their names are looked up: code and offset of the instruction.
_Frames = list[tuple[CodeType, int]]
_Cells = dict[str, Callable[[float], None]]


class _LongHold(NamedTuple):
    """Hold over the budget, with the names of its stack still to be looked up."""

    at: float
    kind: str
    wall_s: float
    cpu_s: float
    frames: _Frames


class _Tracer:
    """Functions that run at each boundary of a slice. They share one scope, because they run at every switch and must look up
    little."""

    def __init__(self, monitor: HoldMonitor, cells: _Cells, cpu_cells: _Cells | None) -> None:
        hub, clock, other = gevent.get_hub(), perf_counter, cells["other"]
        since_s = cpu_since_s = 0.0  # start of the current slice, and the thread's CPU time then
        in_hub = "hub"  # kind of the hub's own slices
        sample_cpu_s = base_cpu_s = 0.0  # the thread's CPU time at the last sample, and at the last one before the sampled slice
        frames: _Frames = []
        sampled_since_s = frames_since_s = -1.0  # the slice last sampled, and the slice of `frames`
        frames_over = False  # whether that slice was over the budget when `frames` were taken

        def begin() -> None:
            """Begin a slice; the time before is not counted."""
            nonlocal since_s, cpu_since_s
            since_s = clock()
            if cpu_cells is not None:
                cpu_since_s = thread_time()

        def end_by_clock(kind: str) -> None:
            """End a slice of this kind and begin the next."""
            nonlocal since_s
            now_s = clock()
            held_s = now_s - since_s
            cells.get(kind, other)(held_s)
            if held_s > monitor.second_max_s:
                monitor.second_max_s = held_s
                if held_s > LONG_HOLD_S:
                    cpu_s = thread_time() - (base_cpu_s if sampled_since_s == since_s else sample_cpu_s)
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
            """Run a callback of the hub; its slices are of this kind."""
            nonlocal in_hub
            end(in_hub)
            before, in_hub = in_hub, kind
            try:
                callback(*arguments)
            finally:
                end(kind)
                in_hub = before

        def sample(frame: FrameType | None) -> None:
            """Note the interrupted frames and the thread's CPU time. The timer's signal handler."""
            nonlocal sample_cpu_s, base_cpu_s, sampled_since_s, frames, frames_since_s, frames_over
            if sampled_since_s != since_s:
                sampled_since_s, base_cpu_s, frames_over = since_s, sample_cpu_s, False
            sample_cpu_s = thread_time()
            lasted_s = clock() - since_s
            if frames_over or lasted_s < SUSPECT_S:
                return
            frames, frames_since_s, frames_over = [], since_s, lasted_s > LONG_HOLD_S
            while frame is not None and len(frames) < MAX_FRAMES:
                frames.append((frame.f_code, frame.f_lasti))
                frame = frame.f_back

        def start() -> None:
            nonlocal sample_cpu_s
            sample_cpu_s = thread_time()
            begin()

        self.start, self.begin, self.end, self.on_switch, self.run, self.sample = start, begin, end, on_switch, run, sample


#: The tracer that is on: one hub, one thread, one timer.
_tracer: _Tracer | None = None


def hold_as(kind: str, callback: Callable[..., object], *arguments: object) -> None:
    """Run a hub callback under this kind of hold, a label value of gw_hub_hold_seconds.

    For callbacks of watchers, which run in no greenlet: `watcher.start(hold_as, "rx", self._on_readable)`. Costs 0.1 us while the
    monitor is off.
    """
    tracer = _tracer
    if tracer is None:
        callback(*arguments)
    else:
        tracer.run(kind, callback, arguments)


def _on_alarm(_number: int, frame: FrameType | None) -> None:
    """Stays installed: a signal still on its way when the timer stops must not end the process."""
    if _tracer is not None:
        _tracer.sample(frame)


class HoldMonitor:
    """Monitor of this thread's hub, which must be the main thread's."""

    def __init__(self, page: Page, *, always: bool = False, report: Callable[[bus.HubHold], None] = lambda hold: None) -> None:
        """`report` receives a long hold, once a second at most, and must not wait."""
        self._always = always
        self._report = report
        cpu_cells = _cells(page, HUB_HOLD_CPU) if always else None
        self._tracer = _Tracer(self, _cells(page, HUB_HOLD), cpu_cells)
        loop = gevent.get_hub().loop
        # after gevent's own watcher, which runs its callbacks; before every callback of the poll
        self._before_poll = loop.prepare(ref=False, priority=loop.MINPRI)  # type: ignore[attr-defined]
        self._after_poll = loop.check(ref=False, priority=loop.MAXPRI)  # type: ignore[attr-defined]
        self._on = False
        self._seconds: gevent.Greenlet[[], None] | None = None
        self._longest: deque[tuple[float, float]] = deque(maxlen=MAX_SECONDS)  # time and duration; each shorter than those before
        self.second_max_s = 0.0  # the longest hold since the last report
        self.worst: _LongHold | None = None  # the same hold, if over the budget

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
        """Longest hold since a monotonic time, within a second; -1.0 if none."""
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
        """Keep the second's longest hold, and report it if over the budget."""
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
        global _tracer
        if on == self._on:
            return
        self._on = on
        tracer = self._tracer
        if on:
            tracer.start()
            _tracer = tracer
            self._before_poll.start(tracer.end, "hub")
            self._after_poll.start(tracer.begin)
            greenlet.settrace(tracer.on_switch)
            signal.signal(signal.SIGALRM, _on_alarm)
            signal.setitimer(signal.ITIMER_REAL, SAMPLE_S, SAMPLE_S)
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            greenlet.settrace(None)
            self._before_poll.stop()
            self._after_poll.stop()
            _tracer = None


def _cells(page: Page, family: Histogram) -> _Cells:
    return {kind: page.histogram(family, greenlet=kind).observe for kind in family.labels["greenlet"]}


def _named(code: CodeType, at: int) -> bus.StackFrame:
    """Look up the shortest unambiguous path, the line and the function of a frame."""
    path = code.co_filename.rpartition("/site-packages/")[2].removeprefix(_ROOT)
    line = next((line for start, end, line in code.co_lines() if start <= at < end and line), code.co_firstlineno)
    return bus.StackFrame(path[-MAX_NAME:], line, code.co_qualname[:MAX_NAME])
