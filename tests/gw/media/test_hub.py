"""gw.media.hub: who held the hub is told apart, the loop's own waiting is nobody's hold, and collections are counted."""

import gc
import time

import gevent
import gevent.monkey
import greenlet
import pytest

from gw.media import hub as subject
from gw.media.greenlets import spawn
from gw.media.hub import GC_THRESHOLDS, LONG_HOLD_S, MAX_LONG_HOLDS, HoldMonitor, freeze_gc
from metrics.declare import GC_PAUSE, HUB_HOLD, HUB_HOLD_CPU
from metrics.page import Page


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


def test_waiting_is_nobodys_hold(page, monitor):
    monitor.start()
    spawn("tx", lambda: gevent.sleep(0.2)).join(5)
    monitor.stop()
    total = sum(_held_s(page, kind) for kind in HUB_HOLD.labels["greenlet"])
    assert 0.0 < total < 0.1


def test_long_holds_are_kept_with_their_kind(page, monitor):
    monitor.start()
    spawn("ai_in", lambda: _burn(0.004)).join(5)
    monitor.stop()
    hold = max(monitor.long_holds, key=lambda hold: hold.duration_s if hold.kind == "ai_in" else 0.0)
    assert hold.kind == "ai_in"
    assert hold.duration_s >= 0.004 > LONG_HOLD_S
    assert monitor.max_hold_s >= hold.duration_s


def test_long_holds_are_bounded(page, monitor):
    monitor.start()
    for _ in range(MAX_LONG_HOLDS + 5):
        spawn("ai_in", lambda: _burn(LONG_HOLD_S * 1.1)).join(5)
    monitor.stop()
    assert len(monitor.long_holds) == MAX_LONG_HOLDS
    at = [hold.at_s for hold in monitor.long_holds]
    assert at == sorted(at)


def test_what_was_held_before_the_start_does_not_count(page, monitor):
    _burn(0.1)
    monitor.start()
    gevent.sleep(0)
    monitor.stop()
    assert _held_s(page, "other") < 0.1


def test_nothing_is_seen_after_the_stop(page, monitor):
    monitor.start()
    monitor.stop()
    before = _holds(page, "tx")
    spawn("tx", lambda: gevent.sleep(0)).join(5)
    assert _holds(page, "tx") == before
    monitor.stop()


def test_start_again(page, monitor):
    for _ in range(2):
        monitor.start()
        monitor.start()
        spawn("tx", lambda: None).join(5)
        monitor.stop()
    assert _holds(page, "tx") == 2


def test_duty_cycle(page, monkeypatch):
    """On for a part of each period only: a greenlet that is always busy is seen some of the time."""
    monkeypatch.setattr(subject, "DUTY_S", 0.03)
    monkeypatch.setattr(subject, "DUTY_ON_S", 0.01)
    monitor = HoldMonitor(page)
    monitor.start()
    monitor.start()
    seen, turns = set(), 0
    until = time.perf_counter() + 5.0
    while (len(seen) < 2 or _holds(page, "other") == 0) and time.perf_counter() < until:
        seen.add(greenlet.gettrace() is not None)
        turns += 1
        gevent.sleep(0.001)
    assert seen == {True, False}
    assert 0 < _holds(page, "other") < turns + 10
    monitor.stop()
    assert greenlet.gettrace() is None


def test_the_collector_is_tuned_and_measured(page):
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    pauses = page.histogram(GC_PAUSE)
    try:
        thaw = freeze_gc(page)
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() == GC_THRESHOLDS
        assert sum(pauses.buckets) == 0.0
        gc.collect(0)
        gc.collect()
        assert sum(pauses.buckets) == 2.0
        assert pauses.sum > 0.0
        thaw()
        assert (gc.get_threshold(), gc.callbacks, gc.get_freeze_count()) == (thresholds, callbacks, 0)
    finally:
        gc.callbacks[:] = callbacks
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def test_watched_always_a_holds_cpu_time_is_told_from_the_time_that_passed(page, monitor):
    block = gevent.monkey.get_original("time", "sleep")
    monitor.start()
    gevent.joinall([spawn("rx", lambda: _burn(0.004)), spawn("bus", lambda: block(0.02))], timeout=5)
    monitor.stop()
    cpu = {kind: page.histogram(HUB_HOLD_CPU, greenlet=kind) for kind in ("rx", "bus")}
    assert cpu["rx"].sum > 0.001
    assert _held_s(page, "bus") >= 0.02
    assert cpu["bus"].sum < 0.01, "it held the hub and did nothing"


def test_on_duty_no_cpu_time_is_taken(page):
    monitor = HoldMonitor(page)
    monitor._trace(True)
    spawn("rx", lambda: _burn(0.002)).join(5)
    monitor.stop()
    assert _holds(page, "rx") == 1
    assert sum(page.histogram(HUB_HOLD_CPU, greenlet="rx").buckets) == 0
