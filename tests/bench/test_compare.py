"""tests.bench.compare: percentiles fine enough to compare, medians of rounds, ratios of pairs."""

from __future__ import annotations

import math

import pytest

from gw.bench.histogram import LatencyHistogram
from tests.bench.compare import estimate_ms, figures, medians, ratios
from tests.gw.bench.values import histogram, measured

EDGES = (0.001, 0.002, 0.004, math.inf)


def test_a_percentile_lies_within_its_bucket_by_its_rank() -> None:
    found = LatencyHistogram(EDGES, (10, 20, 100, 100), 0.004)
    assert estimate_ms(found, 0.15) == pytest.approx(1.5)
    assert estimate_ms(found, 0.2) == pytest.approx(2.0)
    assert estimate_ms(found, 0.6) == pytest.approx(3.0)


def test_beyond_the_last_edge_the_maximum_is_the_bound() -> None:
    assert estimate_ms(LatencyHistogram(EDGES, (0, 0, 0, 4), 0.008), 0.5) == pytest.approx(6.0)
    assert estimate_ms(LatencyHistogram(EDGES, (0, 0, 0, 4), math.inf), 0.5) == pytest.approx(4.0)


def test_an_empty_histogram_has_no_estimate() -> None:
    assert estimate_ms(LatencyHistogram(EDGES, (0, 0, 0, 0), 0.0), 0.5) is None


def test_figures_that_a_window_lacks_are_left_out() -> None:
    whole = figures(measured())
    assert whole["cpu_ms_per_call_s"] == pytest.approx(4.0)
    assert whole["caller_p50_ms"] == pytest.approx(0.1)
    assert set(whole) == {"cpu_ms_per_call_s", *(f"{end}_{q}_ms" for end in ("tx", "caller") for q in ("p50", "p99", "p99.9"))}
    bare = figures(measured(lateness=None, far={"lateness": dict.fromkeys(("p50", "p99", "p99.9"))}))
    assert set(bare) == {"cpu_ms_per_call_s"}
    assert "tx_p50_ms" not in figures(measured(lateness=histogram()))


def test_medians_are_of_the_rounds_that_have_the_figure() -> None:
    assert medians([{"a": 1.0, "b": 5.0}, {"a": 9.0}, {"a": 2.0}]) == {"a": 2.0, "b": 5.0}
    assert medians([]) == {}


def test_a_ratio_is_the_median_of_the_pairs_own() -> None:
    pairs = [({"a": 1.0}, {"a": 1.1}), ({"a": 10.0}, {"a": 11.0}), ({"a": 2.0}, {"a": 8.0}), ({"a": 0.0, "b": 1.0}, {"a": 5.0})]
    assert ratios(pairs) == {"a": pytest.approx(1.1)}
