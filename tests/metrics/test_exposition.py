"""metrics.exposition: the sum of all pages, complete from the start and consistent."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from metrics.declare import (
    AI_COST,
    BUILD_INFO,
    CALLS,
    CALLS_ENDED,
    FAMILIES,
    HUB_HOLD,
    TURN_LATENCY,
    TX_FRAMES,
    TX_LATENESS,
    TX_SEND,
    TX_UNDERRUN,
    WORKERS,
    Histogram,
)
from metrics.exposition import CONTENT_TYPE, WORKER_FAMILIES, Totals, render
from metrics.layout import Layout
from metrics.page import Page


def _samples(pages_dir) -> dict[tuple[str, frozenset], float]:
    families = text_string_to_metric_families(render(pages_dir).decode())
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


def _key(name, **labels):
    return name, frozenset(labels.items())


@pytest.fixture
def two(tmp_path):
    pages = [Page.create(tmp_path / f"worker-{n}.page") for n in range(2)]
    yield pages
    for page in pages:
        page.close()


def test_every_series_is_exported_as_zero_from_the_start(tmp_path):
    samples = _samples(tmp_path / "not-there-yet")
    expected = 0
    for family in FAMILIES:
        for values in family.series():
            labels = dict(zip(family.labels, values, strict=True))
            if isinstance(family, Histogram):
                assert samples[_key(family.name + "_count", **labels)] == 0.0
                assert samples[_key(family.name + "_bucket", **labels, le="+Inf")] == 0.0
                expected += len(family.bounds) + 3
            else:
                assert samples[_key(family.name, **labels)] == 0.0
                expected += 1
    assert len(samples) == expected + 3  # the pages themselves, by state


def test_pages_are_summed(two, tmp_path):
    for n, page in enumerate(two, 1):
        page.counter(TX_FRAMES).add(n)
        page.counter(CALLS_ENDED, reason="ai_lost").add(n)
        page.gauge(CALLS, state="active").set(n * 10)
        for _ in range(n):
            page.histogram(TX_SEND).observe(0.001)
            page.histogram(HUB_HOLD, greenlet="rx").observe(2.0)
    samples = _samples(tmp_path)
    assert samples[_key("gw_tx_frames_total")] == 3.0
    assert samples[_key("gw_calls_ended_total", reason="ai_lost")] == 3.0
    assert samples[_key("gw_calls_ended_total", reason="ai_closed")] == 0.0
    assert samples[_key("gw_calls", state="active")] == 30.0
    assert samples[_key("gw_tx_send_seconds_bucket", le="0.0007")] == 0.0
    assert samples[_key("gw_tx_send_seconds_bucket", le="0.001")] == 3.0
    assert samples[_key("gw_tx_send_seconds_count")] == 3.0
    assert samples[_key("gw_tx_send_seconds_sum")] == pytest.approx(0.003)
    assert samples[_key("gw_hub_hold_seconds_bucket", greenlet="rx", le="1.0")] == 0.0
    assert samples[_key("gw_hub_hold_seconds_bucket", greenlet="rx", le="+Inf")] == 3.0


def test_counters_of_an_ended_process_count_and_its_gauges_do_not(tmp_path):
    page = Page.create(tmp_path / "worker-0.page")
    page.counter(TX_FRAMES).add(5)
    page.gauge(CALLS, state="active").set(9)
    page.gauge(WORKERS, state="up").set(1)
    page.close()
    samples = _samples(tmp_path)
    assert samples[_key("gw_tx_frames_total")] == 5.0
    assert samples[_key("gw_calls", state="active")] == 0.0
    assert samples[_key("gw_workers", state="up")] == 0.0
    assert samples[_key("gw_metric_pages", state="left")] == 1.0


def test_other_files_are_skipped_and_counted(two, tmp_path):
    two[0].counter(TX_FRAMES).add(5)
    (tmp_path / "broken.page").write_bytes(b"")
    Page.create(tmp_path / "old.page", layout=Layout((TX_FRAMES,))).close()
    (tmp_path / "notes.txt").write_text("no page at all")
    samples = _samples(tmp_path)
    assert samples[_key("gw_tx_frames_total")] == 5.0
    assert samples[_key("gw_metric_pages", state="live")] == 2.0
    assert samples[_key("gw_metric_pages", state="other_version")] == 2.0


def test_a_page_removed_while_reading_is_skipped(tmp_path):
    (tmp_path / "gone.page").symlink_to(tmp_path / "nowhere")
    assert Totals(tmp_path).pages == {"live": 0, "left": 0, "other_version": 0}


def test_totals_are_readable_without_rendering(two, tmp_path):
    two[0].counter(CALLS_ENDED, reason="ai_lost").add(2)
    two[1].counter(CALLS_ENDED, reason="shutdown").add(3)
    two[1].histogram(TX_SEND).observe(0.001)
    totals = Totals(tmp_path)
    assert totals.value(CALLS_ENDED) == 5.0
    assert totals.value(CALLS_ENDED, reason="ai_lost") == 2.0
    assert totals.value(TX_SEND) == 1.0
    assert totals.buckets(TX_SEND)[TX_SEND.bounds.index(0.001)] == 1.0
    assert sum(totals.buckets(HUB_HOLD, "tx")) == 0.0


def test_the_text_matches_its_content_type(two, tmp_path):
    text = render(tmp_path).decode()
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    assert text.endswith("\n")
    assert "# TYPE gw_tx_send_seconds histogram\n" in text
    assert "# TYPE gw_tx_frames_total counter\n" in text
    assert "# TYPE gw_calls gauge\n" in text
    assert "\nprocess_" not in text
    assert "_created" not in text


def test_each_worker_has_its_own_series(two, tmp_path):
    for n, page in enumerate(two, 1):
        page.gauge(CALLS, state="active").set(n)
        page.gauge(CALLS, state="closing").set(n)
        page.counter(TX_FRAMES).add(10 * n)
        for lateness_s in (0.005, 0.0051, 5.0):
            page.histogram(TX_LATENESS).observe(lateness_s)
        page.counter(TX_UNDERRUN, cause="gateway").add(0.5 * n)
    Page.create(tmp_path / "control.page").close()
    Page.create(tmp_path / "worker-0-2.page").close()
    samples = _samples(tmp_path)
    told = {
        name: {dict(key[1])["worker"]: value for key, value in samples.items() if key[0] == name}
        for _, name, _ in WORKER_FAMILIES
    }
    assert told == {
        "gw_worker_calls": {"worker-0": 2.0, "worker-0-2": 0.0, "worker-1": 4.0},
        "gw_worker_tx_frames_total": {"worker-0": 10.0, "worker-0-2": 0.0, "worker-1": 20.0},
        "gw_worker_tx_late_frames_total": {"worker-0": 2.0, "worker-0-2": 0.0, "worker-1": 2.0},
        "gw_worker_tx_underrun_seconds_total": {"worker-0": 0.5, "worker-0-2": 0.0, "worker-1": 1.0},
    }


def test_counters_beside_the_pages_have_names_of_the_configuration(tmp_path):
    page = render(tmp_path, {AI_COST: {("a-b",): (1.5,), ("other",): (0.0,)}}).decode()
    assert 'gw_ai_cost_usd_total{agent="a-b"} 1.5' in page
    assert 'gw_ai_cost_usd_total{agent="other"} 0.0' in page
    assert f"# HELP gw_ai_cost_usd_total {AI_COST.help}" in page


def test_histograms_and_facts_beside_the_pages_are_families_too(tmp_path):
    series = [0.0] * (len(TURN_LATENCY.bounds) + 2)
    series[TURN_LATENCY.bounds.index(1.0)] += 2
    series[-1] += 1.9
    page = render(tmp_path, {TURN_LATENCY: {("a-b",): series}, BUILD_INFO: {("0.1.0", "3.11.2"): (1.0,)}}).decode()
    assert "# TYPE gw_turn_latency_seconds histogram" in page
    assert 'gw_turn_latency_seconds_bucket{agent="a-b",le="0.63"} 0.0' in page
    assert 'gw_turn_latency_seconds_bucket{agent="a-b",le="1.0"} 2.0' in page
    assert 'gw_turn_latency_seconds_sum{agent="a-b"} 1.9' in page
    assert 'gw_turn_latency_seconds_count{agent="a-b"} 2.0' in page
    assert "# TYPE gw_build_info gauge" in page
    assert 'gw_build_info{python="3.11.2",version="0.1.0"} 1.0' in page
