"""gw.media.hub.clock: TX's wait and AI-out's alarm end in time and leave nothing behind."""

from __future__ import annotations

import time

import gevent
import pytest

from gw.media.hub.clock import Alarm, Clock, turn_loop
from tests.timing import scaled


def test_a_wait_never_returns_early():
    clock = Clock()
    for n in range(20):
        deadline_s = time.monotonic() + n * 0.0003
        clock.wait_until(deadline_s)
        assert time.monotonic() >= deadline_s - 1e-4  # libev reads its clock a moment earlier


def test_a_deadline_that_passed_causes_no_switch():
    ran = []
    gevent.spawn(ran.append, 1)
    Clock().wait_until(time.monotonic() - 1.0)
    assert ran == []
    gevent.sleep(0)


def test_a_due_timer_comes_before_the_next_slice():
    begun_s: list[float] = []

    def work() -> None:
        while True:
            begun_s.append(time.monotonic())
            while time.monotonic() < begun_s[-1] + 0.0005:
                pass
            turn_loop()

    workers = [gevent.spawn(work) for _ in range(3)]
    try:
        for _ in range(20):
            deadline_s = time.monotonic() + 0.0137
            Clock().wait_until(deadline_s)
            assert sum(at_s > deadline_s for at_s in begun_s) <= len(workers) + 1
    finally:
        gevent.killall(workers)


def test_many_waits_end_in_sequence(monkeypatch: pytest.MonkeyPatch):
    clock, begun_s, woken = Clock(), time.monotonic() + 0.01, []
    monkeypatch.setattr("gw.media.hub.clock.monotonic", lambda: begun_s - 0.01)  # however late the waits begin

    def wait(n: int) -> None:
        clock.wait_until(begun_s + n * 0.002)
        woken.append(n)

    gevent.joinall([gevent.spawn(wait, n) for n in (3, 1, 4, 0, 2)], timeout=scaled(20))
    assert woken == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("error", [gevent.GreenletExit, gevent.Timeout])
def test_a_wait_cut_short_leaves_no_timer(error: type[BaseException]):
    loop = gevent.get_hub().loop
    before = loop.activecnt
    greenlet = gevent.spawn(Clock().wait_until, time.monotonic() + 60.0)
    gevent.sleep(0)
    assert loop.activecnt == before + 1
    greenlet.kill(error)
    assert loop.activecnt == before


# -- the alarm --------------------------------------------------------------------------------------------------------


def test_an_alarm_ends_the_wait_under_way():
    alarm, returned = Alarm(), []
    greenlet = gevent.spawn(lambda: (alarm.wait(60.0), returned.append(1)))
    gevent.sleep(0)
    alarm.set()
    assert returned == [], "the caller of `set` continues first"
    greenlet.join(timeout=scaled(20))
    assert returned == [1]


def test_a_set_before_a_wait_ends_one_wait():
    alarm = Alarm()
    alarm.set()
    alarm.set()
    alarm.wait(60.0)
    begun_s = time.monotonic()
    alarm.wait(0.01)
    assert time.monotonic() - begun_s >= 0.009


@pytest.mark.parametrize("woken", [False, True])
def test_an_alarm_leaves_nothing_behind(woken: bool):
    """Also when the waiting greenlet was woken, and killed before it ran."""
    loop = gevent.get_hub().loop
    before, alarm = loop.activecnt, Alarm()
    greenlet = gevent.spawn(alarm.wait, 60.0)
    gevent.sleep(0)
    if woken:
        alarm.set()
    greenlet.kill()
    gevent.sleep(0)
    assert loop.activecnt == before
    assert greenlet.dead
