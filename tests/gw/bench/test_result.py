"""gw.bench.result: figures of a window from two pages, and their verdict."""

from __future__ import annotations

from typing import Any

import pytest

from gw.bench.load.loop import summary
from gw.bench.result import MetricsPage, PageDelta, Process, highest_edge_s, holds, match_bargeins, ratio
from tests.gw.bench.values import histogram, measured

BEFORE = """\
# HELP gw_tx_send_seconds Time to hand one frame to the kernel.
gw_tx_send_seconds_bucket{le="0.0001"} 100.0
gw_tx_send_seconds_bucket{le="0.001"} 110.0
gw_tx_send_seconds_bucket{le="+Inf"} 111.0
gw_tx_underrun_seconds_total 0.5
gw_rx_dropped_frames_total{reason="ai_connecting"} 7.0
gw_rx_dropped_frames_total{reason="call_ended"} 1.0
gw_hub_hold_seconds_bucket{greenlet="tx",le="0.001"} 10.0
gw_hub_hold_seconds_bucket{greenlet="tx",le="+Inf"} 12.0
gw_hub_hold_seconds_bucket{greenlet="rx",le="0.001"} 10.0
gw_hub_hold_seconds_bucket{greenlet="rx",le="+Inf"} 10.0
"""
AFTER = """\
gw_tx_send_seconds_bucket{le="0.0001"} 1098.0
gw_tx_send_seconds_bucket{le="0.001"} 1110.0
gw_tx_send_seconds_bucket{le="+Inf"} 1111.0
gw_tx_underrun_seconds_total 0.75
gw_rx_dropped_frames_total{reason="ai_connecting"} 7.0
gw_rx_dropped_frames_total{reason="call_ended"} 4.0
gw_hub_hold_seconds_bucket{greenlet="tx",le="0.001"} 20.0
gw_hub_hold_seconds_bucket{greenlet="tx",le="+Inf"} 25.0
gw_hub_hold_seconds_bucket{greenlet="rx",le="0.001"} 30.0
gw_hub_hold_seconds_bucket{greenlet="rx",le="+Inf"} 30.0
"""


@pytest.fixture
def window() -> PageDelta:
    return PageDelta(MetricsPage(BEFORE), MetricsPage(AFTER))


def test_a_page_is_read_by_name_and_labels() -> None:
    page = MetricsPage(BEFORE)
    assert page.value("gw_tx_underrun_seconds_total") == 0.5
    assert page.value("gw_rx_dropped_frames_total") == 8.0
    assert page.value("gw_rx_dropped_frames_total", reason="call_ended") == 1.0
    assert page.value("gw_nothing") == 0.0


def test_a_windows_histogram_is_the_growth_between_the_pages(window: PageDelta) -> None:
    found = window.histogram("gw_tx_send_seconds", float("inf"))
    assert found is not None
    assert found.counts == (998, 1000, 1000)
    assert found.quantile_ms(0.5) == 0.1
    assert found.quantile_ms(0.999) == 1.0
    assert found.max_s == 0.001  # the highest bucket that grew, without slow sends before the window


def test_a_known_maximum_is_finer_than_a_bucket(window: PageDelta) -> None:
    found = window.histogram("gw_tx_send_seconds", 0.0004)
    assert found is not None
    assert found.summary() == {"p50": 0.1, "p99": 0.1, "p99.9": 0.4, "max": 0.4}


def test_a_page_without_the_histogram_has_none(window: PageDelta) -> None:
    assert window.histogram("gw_gc_pause_seconds", 1.0) is None


def test_counters_grow_by_label(window: PageDelta) -> None:
    assert window.total("gw_tx_underrun_seconds_total") == 0.25
    assert window.by_label("gw_rx_dropped_frames_total", "reason") == {"call_ended": 3.0}


def test_observations_over_an_edge_are_counted_by_label(window: PageDelta) -> None:
    assert window.over("gw_hub_hold_seconds", 0.001, "greenlet") == {"tx": 3}
    assert window.over("gw_gc_pause_seconds", 0.001) == {}


def test_the_highest_edge_is_the_last_bucket_that_is_not_empty() -> None:
    assert highest_edge_s((1.0, 2.0, 3.0), (0, 4, 4)) == 2.0
    assert highest_edge_s((1.0, 2.0, 3.0), (0, 0, 0)) == 0.0


def test_an_interruption_is_matched_with_the_next_clear() -> None:
    began = {"1": [10.0, 12.0], "2": [5.0], "3": [1.0]}
    cleared = {"1": [12.004, 10.002], "2": [7.5]}
    took = match_bargeins(began, cleared, until_s=20.0)
    assert took[:2] == pytest.approx([0.002, 0.004])
    assert took[2:] == [float("inf")] * 2


def test_an_interruption_with_time_left_is_not_a_miss() -> None:
    began, cleared = {"1": [8.0, 9.0, 9.5]}, {"1": [8.001, 9.6]}
    assert match_bargeins(began, cleared, until_s=9.7) == pytest.approx([0.001, 0.6, 0.1])
    assert match_bargeins({"1": [8.6, 9.5]}, {}, until_s=9.7) == [float("inf")]
    assert match_bargeins({"1": [8.75]}, {}, until_s=9.75) == [float("inf")]
    assert match_bargeins({"1": [8.8]}, {}, until_s=9.7) == []


def test_the_cost_of_a_call_counts_all_processes() -> None:
    found = measured()
    assert found.cpu_ms_per_call_s == pytest.approx(4.0)
    assert found.pss_per_call_kb == pytest.approx(1024.0)
    assert ratio(found, measured(calls=20)) == pytest.approx(2.0)


def test_a_quiet_run_is_valid_and_holds() -> None:
    found = measured()
    assert (found.void(), found.noted(), found.broken()) == ([], [], [])
    assert holds(found, 0.0) == []


LATE = {"own": {**summary([0.02]), "over_time": []}, "cpu_share": 0.2}
SILENT = {"own": {**summary([]), "over_time": []}, "cpu_share": 0.2}
BUSY = {"own": {**summary([0.0001]), "over_time": []}, "cpu_share": 0.6}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"load_processes": {"callers": LATE}}, "load process callers was late"),
        ({"load_processes": {"ai": SILENT}}, "load process ai was late"),
        ({"load_processes": {"callers": BUSY, "ai": BUSY}}, "saturated"),
        ({"other_cpu": 0.2}, "other processes"),
        ({"other_cpu": 0.03, "processes": [Process("worker", 9.6, 1, 1, 1)]}, "other processes"),
    ],
)
def test_a_run_that_measured_something_else_is_void(changes: dict[str, Any], why: str) -> None:
    (sentence,) = measured(**changes).void()
    assert why in sentence


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"other_cpu": 0.05}, "other processes"), ({"steal": 0.02}, "hypervisor"), ({"shared_cores": True}, "too few cores")],
)
def test_a_disturbed_run_is_noted(changes: dict[str, Any], why: str) -> None:
    found = measured(**changes)
    assert found.void() == []
    (sentence,) = found.noted()
    assert why in sentence


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"alive": 8, "ended": {"phone_lost": 2.0}}, "2 of 10 calls ended: phone_lost"),
        ({"far": {**measured().far, "underruns": 3, "gap_ms": 40.0}}, "3 underruns"),
        ({"underrun_ms": 20.0}, "20 ms of underrun"),
        ({"far": {**measured().far, "lost": 2}}, "2 frames lost"),
        ({"uplink": {**measured().uplink, "lost": 1}}, "1 frames lost"),
        ({"drops": {"overrun": 4.0, "bargein": 9.0}}, "4 frames lost"),
        ({"uplink": {**measured().uplink, "disorder": 1}}, "out of order"),
        ({"bargein": {**summary([0.001]), "missed": 1}}, "without a clear"),
    ],
)
def test_a_fault_that_a_caller_would_notice_breaks_the_run(changes: dict[str, Any], why: str) -> None:
    found = measured(**changes)
    (sentence,) = found.broken()
    assert why in sentence
    assert holds(found, 0.0) == [sentence]


def test_frames_dropped_by_an_interruption_or_with_their_call_are_not_lost() -> None:
    assert measured(drops={"bargein": 500.0, "call_ended": 24.0, "unknown_mark": 3.0}).broken() == []


def test_lateness_beyond_the_floors_own_by_five_milliseconds_does_not_hold() -> None:
    late = measured(lateness=histogram(7.0))
    assert holds(late, 0.0) == ["lateness p99.9 is 7 ms, over 5 ms"]
    assert holds(late, 2.5) == []


def test_a_run_without_a_frame_does_not_hold() -> None:
    assert holds(measured(lateness=None), 0.0) == ["no frame was sent"]
    assert holds(measured(lateness=histogram()), 0.0) == ["no frame was sent"]


def test_the_summary_has_the_keys_that_scripts_read() -> None:
    found = measured().summary()
    assert list(found["tx_send_ms"]) == list(found["tx_lateness_ms"]) == ["p50", "p99", "p99.9", "max"]
    assert found["cpu_ms_per_call_s"] == 4.0
    assert found["processes"]["worker"] == {"cpu_ms_per_call_s": 3.5, "rss_mb": 50.0, "pss_mb": 40.0}
    assert found["bargein_ms"] is None
    assert found["lateness_buckets"]["counts"][-1] == 3
