"""Latency histograms read from a `/metrics` page.

Percentiles never flatter: the upper edge of their bucket, or the true maximum where that is lower.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

QUANTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

_BUCKET: Final = re.compile(r"^(?P<name>\w+)_bucket\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE)

_EDGE: Final = re.compile(r'le="([^"]+)"')


@dataclass(frozen=True)
class LatencyHistogram:
    """Cumulative counts by upper edge in seconds, the last edge infinite, and the true maximum."""

    edges_s: tuple[float, ...]
    counts: tuple[int, ...]
    max_s: float

    @property
    def total(self) -> int:
        return self.counts[-1] if self.counts else 0

    def quantile_ms(self, share: float) -> float | None:
        """Return the upper edge of the bucket with quantile `share`; None if empty."""
        if not self.total:
            return None
        wanted = math.ceil(share * self.total)
        edge_s = next(edge for edge, count in zip(self.edges_s, self.counts, strict=True) if count >= wanted)
        return round(min(edge_s, self.max_s) * 1000, 4)

    def summary(self) -> dict[str, float | None]:
        """Return p50, p99, p99.9 and max in milliseconds."""
        numbers = {name: self.quantile_ms(share) for name, share in QUANTILES.items()}
        return {**numbers, "max": round(self.max_s * 1000, 4) if self.total else None}


def read_histogram(exposition: str, name: str, max_s: float) -> LatencyHistogram:
    """Read a histogram from a `/metrics` page, summed over its series. Raises ValueError if missing."""
    sums: dict[float, int] = {}
    for match in _BUCKET.finditer(exposition):
        edge = _EDGE.search(match["labels"])
        if match["name"] == name and edge is not None:
            edge_s = float(edge[1])
            sums[edge_s] = sums.get(edge_s, 0) + int(float(match["count"]))
    if not sums:
        raise ValueError(f"the metrics page has no histogram {name}")
    edges = tuple(sorted(sums))
    return LatencyHistogram(edges, tuple(sums[edge] for edge in edges), max_s)
