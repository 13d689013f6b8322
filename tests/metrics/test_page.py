"""metrics.page: correct counting, pages that outlive their process, and consistent reads."""

import os
import subprocess
import sys
from pathlib import Path

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as ReferenceHistogram

from metrics import page as page_module
from metrics.declare import BOUNDS, CALLS, CALLS_ENDED, FAMILIES, HUB_HOLD, TX_FRAMES, TX_SEND, WEBHOOKS, Counter
from metrics.layout import LAYOUT, Layout, UnknownSeriesError
from metrics.page import MAX_CLAIMS, Page, PageBusyError, PageError
from tests.examples import examples

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pages" / "worker-0.page"


@pytest.fixture
def page(path):
    page = Page.create(path)
    yield page
    page.close()


def test_counters(page):
    frames = page.counter(TX_FRAMES)
    frames.add()
    frames.add(2.5)
    page.view[frames.base] += 1.0
    assert frames.value == page.counter(TX_FRAMES).value == 4.5


def test_gauges(page):
    active = page.gauge(CALLS, state="active")
    active.set(3)
    active.add(-1)
    assert active.value == 2.0
    assert page.gauge(CALLS, state="waiting").value == 0.0


def test_series_are_independent(page):
    total = 0.0
    for family in FAMILIES:
        for labels in family.series():
            total += 1.0
            page.view[LAYOUT.places[family.name][labels]] = total
    total = 0.0
    for family in FAMILIES:
        for labels in family.series():
            total += 1.0
            assert page.values(family, labels)[0] == total


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (0.0, 0),
        (0.00001, 0),
        (0.0000101, 1),
        (0.001, BOUNDS.index(0.001)),
        (0.0010001, BOUNDS.index(0.001) + 1),
        (1.0, 40),
        (1.1, 41),
    ],
)
def test_an_edge_belongs_to_its_bucket(page, seconds, bucket):
    cell = page.histogram(TX_SEND)
    cell.observe(seconds)
    assert cell.buckets.index(1.0) == bucket
    assert sum(cell.buckets) == 1.0
    assert cell.sum == seconds


@settings(max_examples=examples(50))
@given(st.lists(st.floats(0.0, 5.0) | st.sampled_from(BOUNDS), max_size=50))
def test_a_histogram_agrees_with_the_reference(tmp_path_factory, durations):
    reference = ReferenceHistogram("x_seconds", "X.", buckets=BOUNDS, registry=CollectorRegistry())
    page = Page.create(tmp_path_factory.mktemp("page") / "a.page")
    cell = page.histogram(HUB_HOLD, greenlet="tx")
    for seconds in durations:
        cell.observe(seconds)
        reference.observe(seconds)
    samples = reference.collect()[0].samples
    cumulative, so_far = [], 0.0
    for count in cell.buckets:
        so_far += count
        cumulative.append(so_far)
    assert cumulative == [sample.value for sample in samples if sample.name.endswith("_bucket")]
    assert cell.sum == next(sample.value for sample in samples if sample.name.endswith("_sum"))
    page.close()


def test_wrong_labels_raise_when_the_cell_is_made(page):
    with pytest.raises(UnknownSeriesError):
        page.counter(CALLS_ENDED, reason="boredom")
    with pytest.raises(UnknownSeriesError):
        page.counter(WEBHOOKS, kind="voice")
    with pytest.raises(UnknownSeriesError):
        page.counter(Counter("gw_other_total", "Other."))
    with pytest.raises(TypeError):
        page.counter(TX_SEND)


def test_a_restart_keeps_counters_and_zeroes_gauges(path):
    first = Page.create(path)
    first.counter(TX_FRAMES).add(7)
    first.histogram(TX_SEND).observe(0.5)
    first.gauge(CALLS, state="active").set(3)
    first.close()
    second = Page.create(path)
    assert second.counter(TX_FRAMES).value == 7.0
    assert second.histogram(TX_SEND).sum == 0.5
    assert second.gauge(CALLS, state="active").value == 0.0
    second.close()


def test_a_page_can_be_reopened_immediately_beside_a_hub(path):
    gevent.sleep(0)
    for _ in range(2):
        Page.create(path).close()


def test_a_page_has_one_writer(page, path):
    with pytest.raises(PageBusyError):
        Page.create(path)


def test_claim_takes_the_first_free_page(tmp_path):
    pages = [Page.claim(tmp_path, "worker-0") for _ in range(MAX_CLAIMS)]
    assert [page.path.name for page in pages[:3]] == ["worker-0.page", "worker-0-2.page", "worker-0-3.page"]
    with pytest.raises(PageBusyError):
        Page.claim(tmp_path, "worker-0")
    pages.pop(1).close()
    pages.append(Page.claim(tmp_path, "worker-0"))
    assert pages[-1].path.name == "worker-0-2.page"
    for page in pages:
        page.close()


def test_a_reader_sees_the_values_and_whether_the_writer_is_alive(page, path):
    reader = Page.open(path)
    page.counter(TX_FRAMES).add(2)
    assert reader.values(TX_FRAMES, ()) == [2.0]
    assert reader.has_writer
    with pytest.raises(TypeError):
        reader.counter(TX_FRAMES).add()
    reader.close()


def test_a_closed_page_raises(path):
    page = Page.create(path)
    cell = page.counter(TX_FRAMES)
    page.close()
    with pytest.raises(ValueError, match="released"):
        cell.add()
    reader = Page.open(path)
    assert not reader.has_writer
    reader.close()


@pytest.mark.parametrize("content", [b"", b"no page", bytes(LAYOUT.page_bytes), LAYOUT.header])
def test_another_file_is_refused_by_readers_and_replaced_by_the_writer(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(PageError):
        Page.open(path)
    page = Page.create(path)
    page.counter(TX_FRAMES).add()
    reader = Page.open(path)
    assert reader.values(TX_FRAMES, ()) == [1.0]
    reader.close()
    page.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_page_of_another_layout_is_refused_and_replaced(path):
    other = Layout((TX_FRAMES,))
    Page.create(path, layout=other).close()
    with pytest.raises(PageError):
        Page.open(path)
    Page.create(path).close()
    with pytest.raises(PageError):
        Page.open(path, layout=other)


def test_a_creator_that_lost_the_race_tries_again(path, monkeypatch):
    path.parent.mkdir()
    real, rivals = os.link, [Page.create(path.with_name("rival"))]

    def link_after_a_rival(source, target):
        if rivals:
            rival = rivals.pop()
            real(rival.path, path)
            rival.close()
        real(source, target)

    monkeypatch.setattr(page_module.os, "link", link_after_a_rival)
    page = Page.create(path)
    page.counter(TX_FRAMES).add()
    assert Page.open(path).values(TX_FRAMES, ()) == [1.0]
    page.close()


def test_a_creator_whose_file_was_replaced_under_it_tries_again(path, monkeypatch):
    Page.create(path).close()
    answers = [False]
    real = page_module._still_at
    monkeypatch.setattr(page_module, "_still_at", lambda *a: answers.pop() if answers else real(*a))
    Page.create(path).close()
    assert not answers
    monkeypatch.setattr(page_module, "_still_at", lambda *a: False)
    with pytest.raises(PageBusyError):
        Page.create(path)


def test_still_at_is_false_for_a_removed_path(tmp_path):
    descriptor = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    assert page_module._still_at(descriptor, tmp_path / "f")
    (tmp_path / "f").unlink()
    assert not page_module._still_at(descriptor, tmp_path / "f")
    os.close(descriptor)


def test_a_page_is_readable_by_its_owner_only(page, path):
    assert path.stat().st_mode & 0o777 == 0o600


WRITER = """
import sys
from pathlib import Path
from metrics.declare import HUB_HOLD, TX_FRAMES
from metrics.page import Page
page = Page.create(Path(sys.argv[1]))
observe, add = page.histogram(HUB_HOLD, greenlet="tx").observe, page.counter(TX_FRAMES).add
print("ready", flush=True)
for n in range(200_000):
    add()
    observe(0.0005)
print("done", flush=True)
"""


def test_a_reader_beside_a_busy_writer(path):
    """Counts only increase, no value is torn, and the final count is complete."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert writer.stdout.readline() == b"ready\n"
        reader = Page.open(path)
        last_frames = last_holds = last_sum = 0.0
        while writer.poll() is None:
            for _ in range(100):
                (frames,) = reader.values(TX_FRAMES, ())
                *buckets, total = reader.values(HUB_HOLD, ("tx",))
                holds = buckets[BOUNDS.index(0.0005)]
                assert last_frames <= frames <= 200_000
                assert last_holds <= holds == sum(buckets)
                assert frames == int(frames)
                assert last_sum <= total <= 100.0 + 1e-6
                last_frames, last_holds, last_sum = frames, holds, total
        assert reader.values(TX_FRAMES, ()) == [200_000.0]
        *buckets, total = reader.values(HUB_HOLD, ("tx",))
        assert sum(buckets) == 200_000.0
        assert total == pytest.approx(100.0)
        assert not reader.has_writer
        reader.close()
        assert writer.wait(10) == 0
    finally:
        writer.kill()
        writer.communicate(timeout=10)
