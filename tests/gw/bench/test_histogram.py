"""gw.bench.histogram: percentiles that do not flatter, and histograms of a metrics page."""

from __future__ import annotations

import math

import pytest

from gw.bench.histogram import LatencyHistogram, read_histogram

SEND = LatencyHistogram((1e-5, 1e-4, 1e-3, math.inf), (500, 998, 1000, 1000), 0.0004)
LATENESS = LatencyHistogram((1e-4, 1e-2, math.inf), (10, 99, 100), 0.5)


def test_a_percentile_is_its_buckets_upper_edge() -> None:
    assert SEND.quantile_ms(0.5) == 0.01
    assert SEND.quantile_ms(0.501) == 0.1
    assert LATENESS.quantile_ms(0.99) == 10.0


def test_a_percentile_never_exceeds_the_true_maximum() -> None:
    assert SEND.quantile_ms(0.999) == 0.4
    assert LATENESS.quantile_ms(1.0) == 500.0


def test_an_empty_histogram_has_no_percentiles() -> None:
    nothing = LatencyHistogram((0.001, math.inf), (0, 0), 0.0)
    assert nothing.summary() == {"p50": None, "p99": None, "p99.9": None, "max": None}


def test_a_histogram_is_read_and_its_series_are_summed() -> None:
    page = (
        "# TYPE gw_x_seconds histogram\n"
        'gw_x_seconds_bucket{kind="a",le="0.001"} 3.0\n'
        'gw_x_seconds_bucket{kind="b",le="0.001"} 4.0\n'
        'gw_x_seconds_bucket{kind="a",le="+Inf"} 5.0\n'
        'gw_x_seconds_bucket{kind="b",le="+Inf"} 6.0\n'
        'gw_xy_seconds_bucket{le="0.001"} 100.0\n'
        "gw_x_seconds_count 11.0\n"
    )
    assert read_histogram(page, "gw_x_seconds", 0.2) == LatencyHistogram((0.001, math.inf), (7, 11), 0.2)
    with pytest.raises(ValueError, match="gw_other_seconds"):
        read_histogram(page, "gw_other_seconds", 0.2)
