"""Comparison of two variants measured in turns: fine percentiles, medians of rounds, ratios of pairs. Pure.

A histogram's bucket is a third wider than the one before, so percentiles that never flatter cannot show a change of ten
percent. Here a percentile is estimated within its bucket; estimates are for comparisons only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from gw.bench.histogram import LatencyHistogram
from gw.bench.result import Measured

SHARES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

Figures = Mapping[str, float]


def estimate_ms(histogram: LatencyHistogram, share: float) -> float | None:
    """Estimate a percentile by linear interpolation within its bucket; None without values."""
    if not histogram.total:
        return None
    wanted = share * histogram.total
    lower_s, below = 0.0, 0
    for edge_s, count in zip(histogram.edges_s, histogram.counts, strict=True):
        if count >= wanted:
            upper_s = edge_s if edge_s != float("inf") else max(histogram.max_s, lower_s)
            if upper_s == float("inf"):
                upper_s = lower_s
            return round((lower_s + (upper_s - lower_s) * (wanted - below) / (count - below)) * 1000, 5)
        lower_s, below = edge_s, count
    return None


def figures(measured: Measured) -> dict[str, float]:
    """Return the compared figures of a window, without those it lacks."""
    found = {"cpu_ms_per_call_s": measured.cpu_ms_per_call_s}
    if measured.lateness is not None:
        for name, share in SHARES.items():
            late_ms = estimate_ms(measured.lateness, share)
            if late_ms is not None:
                found[f"tx_{name}_ms"] = late_ms
    for name in SHARES:
        if measured.far["lateness"][name] is not None:
            found[f"caller_{name}_ms"] = measured.far["lateness"][name]
    return found


def medians(rounds: Sequence[Figures]) -> dict[str, float]:
    """Return the median of each figure, over the rounds that have it."""
    names = dict.fromkeys(name for one in rounds for name in one)
    return {name: round(median(one[name] for one in rounds if name in one), 5) for name in names}


def ratios(pairs: Sequence[tuple[Figures, Figures]]) -> dict[str, float]:
    """Return the median of the pairs' ratios, second to first: slow disturbances cancel."""
    found: dict[str, list[float]] = {}
    for before, after in pairs:
        for name in before.keys() & after.keys():
            if before[name] > 0.0:
                found.setdefault(name, []).append(after[name] / before[name])
    return {name: round(median(values), 4) for name, values in found.items()}
