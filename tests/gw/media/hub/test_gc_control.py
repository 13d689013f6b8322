"""gw.media.hub.gc_control: no automatic collection, a full one when idle, pauses counted."""

import gc

import gevent
import pytest

from gw.media.hub import gc_control as subject
from gw.media.hub.gc_control import GROWTH_BYTES, collect_when_idle, tune
from metrics.declare import GC_PAUSE
from metrics.page import Page
from tests.timing import scaled


@pytest.fixture
def page(tmp_path):
    page = Page.create(tmp_path / "worker-0.page")
    yield page
    page.close()


@pytest.fixture
def tuned(page):
    """Tune the collector for one test. Yields a function that returns the pauses by generation."""
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    thaw = tune(page)
    try:
        yield lambda: {name: sum(page.histogram(GC_PAUSE, generation=name).buckets) for name in GC_PAUSE.labels["generation"]}
        thaw()
        assert (gc.get_threshold(), gc.callbacks, gc.get_freeze_count()) == (thresholds, callbacks, 0)
    finally:
        gc.callbacks[:] = callbacks
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def test_the_collector_is_tuned_and_measured(page, tuned):
    assert gc.get_freeze_count() > 0
    kept = [[] for _ in range(100_000)]
    assert sum(tuned().values()) == 0.0, "no automatic collection, however many objects are made"
    del kept
    for generation in (0, 0, 1, 2):
        gc.collect(generation)
    assert tuned() == {"young": 2.0, "middle": 1.0, "full": 1.0}
    assert page.histogram(GC_PAUSE, generation="full").sum > 0.0


class Looks:
    """The collecting greenlet, with calls and a peak that the test sets."""

    def __init__(self) -> None:
        self.count = self.calls = self.peak = 0

    def is_idle(self) -> bool:
        self.count += 1
        return not self.calls

    def pass_(self, count=6) -> None:
        until = self.count + count
        with gevent.Timeout(scaled(10.0)):
            while self.count < until:
                gevent.sleep(0.001)


@pytest.fixture
def looks(tuned, monkeypatch):
    made = Looks()
    monkeypatch.setattr(subject, "LOOK_S", 0.001)
    monkeypatch.setattr(subject, "_peak_bytes", lambda: made.peak)
    collecting = gevent.spawn(collect_when_idle, made.is_idle)
    yield made
    collecting.kill()


def test_a_full_collection_comes_once_after_each_busy_time(tuned, looks):
    looks.pass_()
    assert tuned()["full"] == 0, "no call has come yet"
    for times in (1, 2):
        looks.calls = 1
        looks.pass_()
        assert tuned()["full"] == times - 1, "a call lives"
        looks.calls = 0
        looks.pass_()
        assert tuned()["full"] == times


def test_a_process_that_grows_is_collected_while_calls_live(tuned, looks):
    looks.calls = 1
    looks.pass_()
    looks.peak = GROWTH_BYTES
    looks.pass_()
    assert tuned()["full"] == 0
    for times in (1, 2):
        looks.peak += GROWTH_BYTES + 1
        looks.pass_()
        assert tuned()["full"] == times


def test_the_peak_is_of_the_whole_process(tuned):
    assert 10 << 20 < subject._peak_bytes() < 1 << 40
