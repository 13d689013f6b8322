"""Figures of one measured window, and whether they are valid. Pure.

The gateway's own figures are the difference of two of its `/metrics` pages; percentiles never flatter, see `LatencyHistogram`. A
window is void when a load process was late itself, or other programs used the measured core: it measured them and not the
gateway.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from gw.bench.histogram import LatencyHistogram, read_histogram

#: Bound on one send in the TX loop.
PROMISE_MS: Final = 1.0
#: A load process later than this at p99 voids the window.
LOAD_LATE_MS: Final = 5.0
#: Load processes that use more of their core in sum have no room left to be punctual.
LOAD_BUSY: Final = 0.97
#: Share of the measured core used by others that is noted, and that voids the window; on a core with nothing left the first one
#: voids it too.
OTHERS_NOTED: Final = 0.02
OTHERS_VOID: Final = 0.10
FULL: Final = 0.97
#: Reasons of dropped messages that leave no gap: the rest of a response or of a call, whose end is counted apart, and the echo of
#: a mark that an interruption's clear returned.
_NO_GAP: Final = ("bargein", "call_ended", "unknown_mark")
#: Roles that run on the measured cores; a gateway's other processes run beside the load.
MEDIA_ROLES: Final = ("worker", "floor", "pipecat", "threads")

_SAMPLE: Final = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')

Labels = tuple[tuple[str, str], ...]


class MetricsPage:
    """Samples of a metrics page, by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples: dict[str, dict[Labels, float]] = {}
        for match in _SAMPLE.finditer(text):
            labels = tuple(sorted(_LABEL.findall(match["labels"] or "")))
            self._samples.setdefault(match["name"], {})[labels] = float(match["value"])

    def series(self, name: str) -> Mapping[Labels, float]:
        return self._samples.get(name, {})

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the series that have these labels; 0 without any."""
        return sum(value for found, value in self.series(name).items() if labels.items() <= dict(found).items())


@dataclass(frozen=True)
class PageDelta:
    """Two metrics pages, and the growth between them."""

    before: MetricsPage
    after: MetricsPage

    def histogram(self, name: str, max_s: float) -> LatencyHistogram | None:
        """Return a histogram's growth; None if the page has none. `max_s`: a known bound on its maximum."""
        try:
            first, last = read_histogram(self.before.text, name, max_s), read_histogram(self.after.text, name, max_s)
        except ValueError:
            return None
        counts = tuple(after - before for before, after in zip(first.counts, last.counts, strict=True))
        return LatencyHistogram(last.edges_s, counts, min(max_s, highest_edge_s(last.edges_s, counts)))

    def total(self, name: str, **labels: str) -> float:
        """Return a counter's growth."""
        return self.after.value(name, **labels) - self.before.value(name, **labels)

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """Return each series' growth, by one label's value, without those that did not grow."""
        found: dict[str, float] = {}
        for labels in self.after.series(name):
            key = dict(labels).get(label, "")
            found[key] = found.get(key, 0.0) + self.after.series(name)[labels] - self.before.series(name).get(labels, 0.0)
        return {key: value for key, value in found.items() if value}

    def over(self, name: str, limit_s: float, label: str = "") -> dict[str, int]:
        """Return how many observations exceeded `limit_s`, which is a bucket's edge, by a label's value."""
        found: dict[str, int] = {}
        for labels, value in self.after.series(f"{name}_bucket").items():
            edge = float(dict(labels)["le"])
            sign = 1 if edge == float("inf") else -1 if edge == limit_s else 0
            if sign:
                key = dict(labels).get(label, "all")
                grown = value - self.before.series(f"{name}_bucket").get(labels, 0.0)
                found[key] = found.get(key, 0) + sign * int(grown)
        return {key: count for key, count in found.items() if count}


def highest_edge_s(edges_s: Sequence[float], counts: Sequence[int]) -> float:
    """Return the upper edge of the highest bucket that is not empty; counts are cumulative."""
    return edges_s[bisect_left(counts, counts[-1])] if counts and counts[-1] else 0.0


def match_bargeins(
    began: Mapping[str, Sequence[float]], cleared: Mapping[str, Sequence[float]], until_s: float, within_s: float = 1.0
) -> list[float]:
    """Return the seconds from each interruption to its call's next clear.

    inf where none came within `within_s`. Clears are known up to `until_s`: an interruption without one that still had time
    then is left out.
    """
    took: list[float] = []
    for call, starts in began.items():
        clears = sorted(cleared.get(call, ()))
        for start in starts:
            at = bisect_left(clears, start)
            if at < len(clears) and clears[at] - start <= within_s:
                took.append(clears[at] - start)
            elif start + within_s <= until_s:
                took.append(float("inf"))
    return took


@dataclass(frozen=True)
class Process:
    """CPU and memory of one measured process in the window."""

    role: str
    cpu_s: float
    rss_bytes: int
    pss_bytes: int
    pss_before_bytes: int  # before the first call


@dataclass(frozen=True)
class Measured:
    """All figures of one subject's window."""

    subject: str
    calls: int
    alive: int  # calls up at the window's end
    seconds: float
    pattern: str
    processes: Sequence[Process]
    send: LatencyHistogram | None
    lateness: LatencyHistogram | None
    far: Mapping[str, Any]  # measured at the callers
    uplink: Mapping[str, Any]  # measured at the AI
    bargein: Mapping[str, Any]  # empty for other patterns
    load_processes: Mapping[str, Mapping[str, Any]]  # lateness, steps and share of a core of each load process
    other_cpu: float  # share of the measured cores that other processes used
    steal: float  # share of the measured cores the hypervisor gave to others
    shared_cores: bool
    holds_over_1ms: Mapping[str, int] = field(default_factory=dict)
    cpu_holds_over_1ms: Mapping[str, int] = field(default_factory=dict)  # filled only if the hub is watched all the time
    holds: int = 0  # number of watched holds
    gc_over_1ms: int = 0
    underrun_ms: float = 0.0
    drops: Mapping[str, float] = field(default_factory=dict)
    ended: Mapping[str, float] = field(default_factory=dict)
    over_time: Sequence[Sequence[float]] = ()  # second, lateness p99 ms, highest bucket's edge ms
    lead_ms: int = 100
    tls: bool = False  # between gateway and AI

    @property
    def cpu_ms_per_call_s(self) -> float:
        """CPU of a call, milliseconds each second, summed over all processes."""
        return sum(process.cpu_s for process in self.processes) * 1000 / self.calls / self.seconds

    @property
    def pss_per_call_kb(self) -> float:
        """Memory of a call: growth since before the first one, per call."""
        grown = sum(process.pss_bytes - process.pss_before_bytes for process in self.processes)
        return grown / 1024 / self.calls

    def void(self) -> list[str]:
        """Return the reasons why the window measured something else than the subject."""
        found = []
        for name, process in self.load_processes.items():
            late_ms = process["own"]["p99"]
            if late_ms is None or late_ms > LOAD_LATE_MS:
                found.append(f"the load process {name} was late itself: p99 {late_ms} ms, over {LOAD_LATE_MS:g} ms")
        busy = sum(process["cpu_share"] for process in self.load_processes.values())
        if busy > LOAD_BUSY:
            found.append(f"the load processes used {busy:.0%} of a core: they are saturated")
        if self.other_cpu > OTHERS_VOID or (self.other_cpu > OTHERS_NOTED and self.other_cpu + self.measured_share > FULL):
            found.append(f"other processes used {self.other_cpu:.0%} of the measured core")
        return found

    @property
    def measured_share(self) -> float:
        """Share of its cores that the media path used."""
        used = [process.cpu_s for process in self.processes if process.role in MEDIA_ROLES]
        return sum(used) / self.seconds / len(used) if used else 0.0

    def noted(self) -> list[str]:
        """Return disturbances that do not void the window."""
        found = []
        if self.other_cpu > OTHERS_NOTED and not self.void():
            found.append(f"other processes used {self.other_cpu:.1%} of the measured core")
        if self.steal > 0.005:
            found.append(f"the hypervisor took {self.steal:.1%} of the measured core")
        if self.shared_cores:
            found.append("too few cores to keep the load apart from what is measured")
        return found

    def broken(self) -> list[str]:
        """Return a sentence for each fault that a caller would have noticed."""
        found = []
        if self.alive < self.calls:
            found.append(f"{self.calls - self.alive} of {self.calls} calls ended: {', '.join(self.ended) or self.far['ended']}")
        if self.far["underruns"]:
            found.append(f"{self.far['underruns']} underruns at a 60 ms buffer, {self.far['gap_ms']} ms of gaps")
        if self.underrun_ms:
            found.append(f"{self.underrun_ms:.0f} ms of underrun by its own count")
        lost = self.far["lost"] + self.uplink["lost"] + sum(v for k, v in self.drops.items() if k not in _NO_GAP)
        if lost:
            found.append(f"{lost:.0f} frames lost or dropped")
        if self.far["disorder"] or self.uplink["disorder"] or self.far["unexpected"] or self.uplink["unexpected"]:
            found.append("frames out of order, or not of this call")
        if missed := self.bargein.get("missed"):
            found.append(f"{missed} interruptions without a clear within a second")
        return found

    def summary(self) -> dict[str, Any]:
        """Return the document that scripts read; keys are added, never renamed."""
        processes: dict[str, dict[str, float]] = {}
        for process in self.processes:
            sums = processes.setdefault(process.role, {"cpu_ms_per_call_s": 0.0, "rss_mb": 0.0, "pss_mb": 0.0})
            sums["cpu_ms_per_call_s"] += process.cpu_s * 1000 / self.calls / self.seconds
            sums["rss_mb"] += process.rss_bytes / 2**20
            sums["pss_mb"] += process.pss_bytes / 2**20
        return {
            "subject": self.subject,
            "calls": self.calls,
            "seconds": round(self.seconds, 2),
            "pattern": self.pattern,
            "lead_ms": self.lead_ms,
            "tls": self.tls,
            "void": self.void(),
            "noted": self.noted(),
            "broken": self.broken(),
            "tx_send_ms": None if self.send is None else self.send.summary(),
            "tx_lateness_ms": None if self.lateness is None else self.lateness.summary(),
            "tx_frames": None if self.send is None else self.send.total,
            "far_lateness_ms": _quantiles(self.far["lateness"]),
            "uplink_ms": _quantiles(self.uplink["uplink"]),
            "bargein_ms": _quantiles(self.bargein) if self.bargein else None,
            "cpu_ms_per_call_s": round(self.cpu_ms_per_call_s, 4),
            "processes": {role: {key: round(value, 3) for key, value in sums.items()} for role, sums in processes.items()},
            "pss_per_call_kb": round(self.pss_per_call_kb, 1),
            "hub_holds_over_1ms": dict(self.holds_over_1ms),
            "hub_cpu_holds_over_1ms": dict(self.cpu_holds_over_1ms),
            "hub_holds": self.holds,
            "gc_pauses_over_1ms": self.gc_over_1ms,
            "underrun_ms": round(self.underrun_ms, 1),
            "far_underruns": self.far["underruns"],
            "drops": dict(self.drops),
            "lost_down": self.far["lost"],
            "lost_up": self.uplink["lost"],
            "ended": dict(self.ended),
            "twins": {
                name: {
                    "own_lateness_ms": _quantiles(process["own"]),
                    "own_steps": process["steps"],
                    "cpu_share": round(process["cpu_share"], 3),
                }
                for name, process in self.load_processes.items()
            },
            "foreign_share": round(self.other_cpu, 4),
            "steal_share": round(self.steal, 4),
            "over_time": [list(row) for row in self.over_time],
            "far_over_time": self.far["lateness"]["over_time"],
            "send_buckets": _buckets(self.send),
            "lateness_buckets": _buckets(self.lateness),
        }


def ratio(measured: Measured, floor: Measured) -> float:
    """Return the CPU of a call-second as a multiple of the floor's."""
    return measured.cpu_ms_per_call_s / floor.cpu_ms_per_call_s if floor.cpu_ms_per_call_s else float("inf")


def holds(measured: Measured, floor_p999_ms: float, *, at_caller: bool = False) -> list[str]:
    """Return why the machine does not hold this many calls; empty if it does.

    The criterion: lateness p99.9 under 5 ms beyond the floor's own, no underrun at a 60 ms buffer, nothing lost. Lateness is
    TX's own or, for subjects without metrics, measured `at_caller`.
    """
    found = measured.broken()
    if at_caller:
        late_ms = measured.far["lateness"]["p99.9"]
    else:
        late_ms = None if measured.lateness is None else measured.lateness.quantile_ms(0.999)
    if late_ms is None:
        found.append("no frame was sent")
    elif late_ms > floor_p999_ms + 5.0:
        found.append(f"lateness p99.9 is {late_ms:g} ms, over {floor_p999_ms + 5.0:g} ms")
    return found


def _quantiles(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in ("p50", "p99", "p99.9", "max", "count")}


def _buckets(histogram: LatencyHistogram | None) -> dict[str, Any] | None:
    if histogram is None:
        return None
    known = asdict(histogram)
    return {"edges_s": [edge for edge in known["edges_s"] if edge != float("inf")], "counts": list(known["counts"])}
