"""gw.media.collector: the collector is tuned, its pauses are counted by generation, and the full one waits for an idle moment."""

import gc

import gevent
import pytest

from gw.media import collector as subject
from gw.media.collector import THRESHOLDS, collect_when_idle, tune
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
    """Tuned for the test; pauses by generation."""
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
    assert gc.get_threshold() == THRESHOLDS
    assert sum(tuned().values()) == 0.0
    for generation in (0, 0, 1, 2):
        gc.collect(generation)
    assert tuned() == {"young": 2.0, "middle": 1.0, "full": 1.0}
    assert page.histogram(GC_PAUSE, generation="full").sum > 0.0


def test_a_full_collection_comes_once_after_each_busy_time(tuned, monkeypatch):
    monkeypatch.setattr(subject, "IDLE_LOOK_S", 0.001)
    looks, calls = 0, 0

    def is_idle():
        nonlocal looks
        looks += 1
        return not calls

    def pass_looks(count):
        until = looks + count
        with gevent.Timeout(scaled(10.0)):
            while looks < until:
                gevent.sleep(0.001)

    collecting = gevent.spawn(collect_when_idle, is_idle)
    try:
        pass_looks(3)
        assert tuned()["full"] == 0, "nothing happened yet"
        for times in (1, 2):
            calls = 1
            pass_looks(3)
            assert tuned()["full"] == times - 1, "a call lives"
            calls = 0
            pass_looks(5)
            assert tuned()["full"] == times
    finally:
        collecting.kill()
