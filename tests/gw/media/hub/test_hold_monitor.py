"""gw.media.hub.hold_monitor: holds are filed by kind, waiting is not a hold, long holds have a stack."""

import json
import os
import signal
import time

import gevent
import gevent.monkey
import greenlet
import pytest

from gw.media.hub import hold_monitor as subject
from gw.media.hub.greenlets import spawn
from gw.media.hub.hold_monitor import LONG_HOLD_S, MAX_FRAMES, HoldMonitor, hold_as
from metrics.declare import HUB_HOLD, HUB_HOLD_CPU
from metrics.page import Page
from tests.timing import scaled


@pytest.fixture
def page(tmp_path):
    page = Page.create(tmp_path / "worker-0.page")
    yield page
    page.close()


@pytest.fixture
def monitor(page):
    monitor = HoldMonitor(page, always=True)
    yield monitor
    monitor.stop()
    assert greenlet.gettrace() is None


def _holds(page, kind) -> float:
    return sum(page.histogram(HUB_HOLD, greenlet=kind).buckets)


def _held_s(page, kind) -> float:
    return page.histogram(HUB_HOLD, greenlet=kind).sum


def _burn(seconds) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def _work(cpu_s) -> None:
    """Burn CPU time, however seldom the machine runs this thread."""
    until = time.thread_time() + cpu_s
    while time.thread_time() < until:
        pass


def test_each_kind_has_its_own_holds(page, monitor):
    monitor.start()
    gevent.joinall([spawn("tx", lambda: gevent.sleep(0)), spawn("rx", lambda: _burn(0.003))], timeout=5)
    monitor.stop()
    assert _holds(page, "tx") == 2  # before its sleep and after
    assert _holds(page, "rx") == 1
    assert _held_s(page, "rx") >= 0.003
    assert _holds(page, "ai_in") == 0


def test_greenlets_without_a_kind_or_of_an_unknown_one_are_other(page, monitor):
    monitor.start()
    gevent.joinall([gevent.spawn(_burn, 0.002), spawn("nonsense", lambda: _burn(0.002))], timeout=5)
    monitor.stop()
    assert _held_s(page, "other") >= 0.004


def test_waiting_in_the_poll_is_not_a_hold(page, monitor):
    begun = time.perf_counter()
    monitor.start()
    spawn("tx", lambda: gevent.sleep(0.2)).join(scaled(20))
    monitor.stop()
    passed = time.perf_counter() - begun
    total = sum(_held_s(page, kind) for kind in HUB_HOLD.labels["greenlet"])
    assert 0.0 < total < passed - 0.1, "the loop waited for the rest of the time"


class HoldLog(list):
    """The holds a monitor reported."""

    def of(self, kind):
        return [hold for hold in self if hold.kind == kind]


@pytest.fixture
def holds(page, monkeypatch):
    """Reports of a monitor that is always on and has short seconds."""
    monkeypatch.setattr(subject, "DUTY_S", 0.02)
    holds = HoldLog()
    monitor = HoldMonitor(page, always=True, report=holds.append)
    monitor.start()
    gevent.sleep(0.002)  # a whole turn of the loop is watched from here on
    yield holds
    monitor.stop()
    assert greenlet.gettrace() is None


def _until(holds) -> None:
    with gevent.Timeout(scaled(10.0)):
        while not holds():
            gevent.sleep(0.005)


def _seen(holds, kind, function):
    """A hold of this kind with this function on its stack."""
    return [hold for hold in holds.of(kind) if any(frame.function == function for frame in hold.stack)]


def test_a_long_hold_is_reported_with_its_stack(holds):
    with gevent.Timeout(scaled(30)):
        while not _seen(holds, "ai_in", "_burn"):
            spawn("ai_in", lambda: _burn(0.004)).join(5)
            gevent.sleep(0.03)
    hold = _seen(holds, "ai_in", "_burn")[-1]
    assert LONG_HOLD_S < 0.004 <= hold.wall_s
    assert 0.0 < hold.cpu_s <= hold.wall_s
    assert abs(hold.at - time.time()) < 60.0
    burning = next(frame for frame in hold.stack if frame.function == "_burn")
    assert burning.file == "tests/gw/media/hub/test_hold_monitor.py"
    first = _burn.__code__.co_firstlineno
    assert first < burning.line <= first + 3
    assert hold.stack.index(burning) < len(hold.stack) <= MAX_FRAMES


def test_a_hold_inside_c_code_is_reported_at_the_calling_line(holds):
    numbers = list(range(100_000))

    def encode():
        json.dumps(numbers)

    with gevent.Timeout(scaled(30)):
        while not (seen := [hold for hold in holds.of("rx") if hold.stack and hold.stack[0].function.endswith("encode")]):
            spawn("rx", encode).join(5)
            gevent.sleep(0.03)
    assert any(frame.line == encode.__code__.co_firstlineno + 1 for hold in seen for frame in hold.stack)


def test_a_librarys_frame_is_named_from_its_package_on():
    code = gevent.sleep.__code__
    assert subject._named(code, 0).file == "gevent/hub.py"
    assert subject._named(code, 10_000).line == code.co_firstlineno, "no line has this offset"


def test_a_hold_that_slept_took_no_cpu_time(holds):
    block = gevent.monkey.get_original("time", "sleep")
    spawn("bus", lambda: block(0.05)).join(5)
    _until(lambda: holds.of("bus"))
    hold = holds.of("bus")[0]
    assert hold.wall_s >= 0.05
    assert hold.cpu_s < 0.03
    assert hold.stack[0].function.endswith("<lambda>")


def test_a_hub_callback_has_the_kind_its_owner_names(page, holds):
    loop, done = gevent.get_hub().loop, []

    def slow():
        _burn(0.006)
        done.append(True)

    for callback in (lambda: hold_as("rx", slow), slow):
        loop.run_callback(callback)
    timer = loop.timer(0.001)
    timer.start(hold_as, "ai_in", slow)
    _until(lambda: len(done) == 3)
    timer.close()
    for kind in ("rx", "hub", "ai_in"):
        assert page.histogram(HUB_HOLD_CPU, greenlet=kind).sum > 0.0, kind
        assert _held_s(page, kind) >= 0.006, kind


def test_a_callback_that_switches_counts_its_own_time_only(page, holds):
    def callback():
        _burn(0.003)
        worker.switch()
        _burn(0.003)

    worker = spawn("tx", lambda: _burn(0.003))
    gevent.get_hub().loop.run_callback(hold_as, "rx", callback)
    worker.join(5)
    _until(lambda: _held_s(page, "rx") >= 0.006)
    assert _held_s(page, "tx") >= 0.003


def test_a_callback_that_fails_ends_its_hold(page, holds):
    with pytest.raises(ZeroDivisionError):
        hold_as("rx", lambda: 1 / 0)
    before = _held_s(page, "rx")
    gevent.get_hub().loop.run_callback(_burn, 0.005)
    _until(lambda: _held_s(page, "hub") >= 0.005)
    assert _held_s(page, "rx") == before


def test_without_a_monitor_a_callback_is_only_run(page):
    ran = []
    hold_as("rx", ran.append, 1)
    assert (ran, _holds(page, "rx")) == ([1], 0)


def test_a_second_reports_only_its_worst_hold(page):
    holds = HoldLog()
    monitor = HoldMonitor(page, report=holds.append)
    monitor._trace(True)
    for held_s in (0.002, 0.02, 0.003):
        spawn("rx", lambda held_s=held_s: _burn(held_s)).join(5)
    monitor._trace(False)
    monitor._end_second()
    monitor._end_second()
    assert len(holds) == 1
    assert holds[0].wall_s >= 0.02


def test_the_longest_hold_is_kept_by_the_second(page, monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(subject, "monotonic", lambda: now_s)
    monitor = HoldMonitor(page)
    assert monitor.max_hold_s(0.0) == -1.0
    for held_s in (0.5, 0.1, 0.3, 0.0, 0.2):
        monitor.second_max_s = held_s
        monitor._end_second()
        now_s += 1.0
    assert [monitor.max_hold_s(since_s) for since_s in (0.0, 100.0, 100.5, 102.0, 102.5, 104.0)] == [0.5, 0.5, 0.3, 0.3, 0.2, 0.2]
    assert monitor.max_hold_s(105.0) == -1.0
    monitor.second_max_s = 0.4
    assert monitor.max_hold_s(105.0) == 0.4, "the current second counts"


def test_a_late_signal_does_nothing(page):
    monitor = HoldMonitor(page)
    monitor._trace(True)
    monitor._trace(False)
    os.kill(os.getpid(), signal.SIGALRM)
    gevent.sleep(0.01)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_time_before_the_start_does_not_count(page, monitor):
    _burn(0.1)
    begun = time.perf_counter()
    monitor.start()
    gevent.sleep(0)
    monitor.stop()
    assert _held_s(page, "other") <= time.perf_counter() - begun


def test_no_hold_is_counted_after_the_stop(page, monitor):
    monitor.start()
    monitor.stop()
    before = _holds(page, "tx")
    spawn("tx", lambda: gevent.sleep(0)).join(5)
    assert _holds(page, "tx") == before
    monitor.stop()


def test_a_monitor_can_be_started_again(page, monitor):
    for _ in range(2):
        monitor.start()
        monitor.start()
        spawn("tx", lambda: None).join(5)
        monitor.stop()
    assert _holds(page, "tx") == 2


def test_duty_cycle(page, monkeypatch):
    """The monitor is on for a part of each period: it sees some of the slices of a busy greenlet."""
    monkeypatch.setattr(subject, "DUTY_S", 0.03)
    monkeypatch.setattr(subject, "DUTY_ON_S", 0.01)
    monitor = HoldMonitor(page)
    monitor.start()
    monitor.start()
    seen, turns = set(), 0
    until = time.perf_counter() + scaled(20.0)
    while (len(seen) < 2 or _holds(page, "other") == 0) and time.perf_counter() < until:
        seen.add(greenlet.gettrace() is not None)
        turns += 1
        gevent.sleep(0.001)
    assert seen == {True, False}
    assert 0 < _holds(page, "other") < turns + 10
    monitor.stop()
    assert greenlet.gettrace() is None


def test_always_on_the_cpu_time_of_a_hold_is_measured_too(page, monitor):
    block = gevent.monkey.get_original("time", "sleep")
    monitor.start()
    gevent.joinall([spawn("rx", lambda: _work(0.004)), spawn("bus", lambda: block(0.02))], timeout=5)
    monitor.stop()
    cpu = {kind: page.histogram(HUB_HOLD_CPU, greenlet=kind) for kind in ("rx", "bus")}
    assert cpu["rx"].sum >= 0.004
    assert _held_s(page, "bus") >= 0.02
    assert cpu["bus"].sum < 0.01, "it held the hub without CPU time"


def test_on_duty_no_cpu_time_is_measured(page):
    monitor = HoldMonitor(page)
    monitor._trace(True)
    spawn("rx", lambda: _burn(0.002)).join(5)
    monitor.stop()
    assert _holds(page, "rx") == 1
    assert sum(page.histogram(HUB_HOLD_CPU, greenlet="rx").buckets) == 0
