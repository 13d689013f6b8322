"""Prometheus exposition: the sums over the pages of all processes.

Counters and histograms are summed over every page, including those of ended processes, so that a sum never drops. Gauges are
summed over live writers only. Every series is exported from the start, at 0, so that a rate includes its first event. A few
sums are exported per worker as well. A file that is not a page of this version is skipped and counted. Rendering takes
milliseconds, so only the control process does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from metrics.declare import (
    CALLS,
    FAMILIES,
    LATE_S,
    TX_FRAMES,
    TX_LATENESS,
    TX_UNDERRUN,
    ConfiguredCounter,
    ConfiguredFamily,
    ConfiguredHistogram,
    Counter,
    Family,
    Gauge,
    Histogram,
)
from metrics.layout import width_of
from metrics.page import Page, PageError

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
#: Computed by the renderer, so pages have no place for it.
PAGES_NAME: Final = "gw_metric_pages"
_PAGES_HELP: Final = "Metric pages: of a live process, left by an ended process, or of another version and skipped."
#: Exported per worker, to find the worst one. Pages are named after worker indexes, which replacements reuse, so labels are few.
WORKER_FAMILIES: Final[tuple[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str], ...]] = (
    (GaugeMetricFamily, "gw_worker_calls", "Calls in progress, by worker."),
    (CounterMetricFamily, "gw_worker_tx_frames_total", "Frames sent to callers, by worker."),
    (CounterMetricFamily, "gw_worker_tx_late_frames_total", "Frames sent more than 5 ms after their deadline, by worker."),
    (CounterMetricFamily, "gw_worker_tx_underrun_seconds_total", "Silence heard by callers by the gateway's fault, by worker."),
)
_LATE: Final = TX_LATENESS.bounds.index(LATE_S) + 1  # first bucket of late frames

Series = dict[tuple[str, ...], list[float]]
#: Values of the families beside the pages, by label values: one, or a histogram's as in a page.
Beside = Mapping[ConfiguredFamily, Mapping[tuple[str, ...], Sequence[float]]]


class Totals:
    """Sums over all pages in a directory, read once."""

    def __init__(self, pages_dir: Path) -> None:
        """Read the pages. A missing directory counts as empty. Raises OSError."""
        self.pages = {"live": 0, "left": 0, "other_version": 0}
        self.workers: dict[str, tuple[float, ...]] = {}  # by page, in the order of WORKER_FAMILIES
        self.series: dict[str, Series] = {
            family.name: {labels: [0.0] * width_of(family) for labels in family.series()} for family in FAMILIES
        }
        for path in sorted(pages_dir.glob("*.page")):
            self._add(path)

    def _add(self, path: Path) -> None:
        try:
            page = Page.open(path)
        except FileNotFoundError:
            return
        except PageError:
            self.pages["other_version"] += 1
            return
        try:
            live = page.has_writer
            self.pages["live" if live else "left"] += 1
            if path.name.startswith("worker-"):
                self.workers[path.stem] = _worker_values(page, live)
            for family in FAMILIES:
                if isinstance(family, Gauge) and not live:
                    continue
                for labels, total in self.series[family.name].items():
                    for i, value in enumerate(page.values(family, labels)):
                        total[i] += value
        finally:
            page.close()

    def value(self, family: Family, **labels: str) -> float:
        """Return the sum of the series with these labels: for a histogram, of its counts."""
        chosen = [
            values
            for key, values in self.series[family.name].items()
            if all(dict(zip(family.labels, key, strict=True))[label] == value for label, value in labels.items())
        ]
        return sum(sum(values[:-1]) if isinstance(family, Histogram) else values[0] for values in chosen)

    def buckets(self, family: Histogram, *labels: str) -> list[float]:
        """Return the observations of one histogram series by bucket, not cumulative."""
        return self.series[family.name][labels][:-1]


class _Adapter(Collector):
    """Converts totals to prometheus_client's families."""

    def __init__(self, totals: Totals, beside: Beside) -> None:
        self._totals = totals
        self._beside = beside

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            yield _convert(family, self._totals.series[family.name])
        for beside, series in self._beside.items():
            yield _convert(beside, series)
        pages = GaugeMetricFamily(PAGES_NAME, _PAGES_HELP, labels=["state"])
        for state, count in self._totals.pages.items():
            pages.add_metric([state], count)
        yield pages
        for n, (kind, name, text) in enumerate(WORKER_FAMILIES):
            of_workers = kind(name, text, labels=["worker"])
            for worker, values in self._totals.workers.items():
                of_workers.add_metric([worker], values[n])
            yield of_workers


def _worker_values(page: Page, live: bool) -> tuple[float, ...]:
    """Return the values of WORKER_FAMILIES for one page."""
    calls = sum(page.values(CALLS, labels)[0] for labels in CALLS.series()) if live else 0.0
    late = sum(page.values(TX_LATENESS, ())[_LATE:-1])
    return calls, page.values(TX_FRAMES, ())[0], late, page.values(TX_UNDERRUN, ("gateway",))[0]


def _convert(family: Family | ConfiguredFamily, series: Mapping[tuple[str, ...], Sequence[float]]) -> Metric:
    names = list(family.labels)
    if isinstance(family, Histogram | ConfiguredHistogram):
        edges = [*map(floatToGoString, family.bounds), "+Inf"]
        histogram = HistogramMetricFamily(family.name, family.help, labels=names)
        for labels, values in series.items():
            histogram.add_metric(list(labels), list(zip(edges, accumulate(values[:-1]), strict=True)), values[-1])
        return histogram
    is_sum = isinstance(family, Counter | ConfiguredCounter)
    simple = (CounterMetricFamily if is_sum else GaugeMetricFamily)(family.name, family.help, labels=names)
    for labels, values in series.items():
        simple.add_metric(list(labels), values[0])
    return simple


def render(pages_dir: Path, beside: Beside | None = None) -> bytes:
    """Render the exposition of all `*.page` files in `pages_dir`, of type CONTENT_TYPE. Raises OSError."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Adapter(Totals(pages_dir), beside or {}))
    return generate_latest(registry)
