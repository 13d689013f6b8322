"""gw.bench.load.loop: percentiles, buckets and seconds of samples."""

from __future__ import annotations

from gw.bench.load.loop import EDGES_S, over_time, percentile_ms, summary
from metrics.declare import BOUNDS


def test_edges_are_those_of_the_gateways_metrics() -> None:
    assert EDGES_S == BOUNDS


def test_percentiles_are_the_smallest_values_not_exceeded() -> None:
    values = [n / 1000 for n in range(1, 1001)]
    assert [percentile_ms(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500.0, 990.0, 999.0, 1000.0]
    assert percentile_ms([0.002], 0.5) == 2.0
    assert percentile_ms([], 0.5) is None


def test_a_summary_counts_by_bucket_and_second() -> None:
    found = summary([0.000_01, 0.001, 2.0])
    assert found["count"] == sum(found["buckets"]) == 3
    assert found["buckets"][0] == found["buckets"][EDGES_S.index(0.001)] == found["buckets"][-1] == 1
    assert over_time([0.001, 0.003, 0.002], [0.1, 0.9, 2.5]) == [[0, 3.0, 3.0], [2, 2.0, 2.0]]
