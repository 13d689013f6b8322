"""What one measured window amounts to: figures, and whether they may be believed. Pure.

The gateway's own figures are the difference of two of its `/metrics` pages; percentiles are read off buckets and never flatter.
A run is void when what was measured is the load and not the gateway: a twin that was late itself, a core that others used.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from gw.bench.histogram import Histogram, read_histogram

#: The golden rule, and the far end's jitter buffer.
PROMISE_MS: Final = 1.0
#: A load that is later than this at p99 is what was measured.
TWIN_LATE_MS: Final = 5.0
#: A load that needs more of its core has no room left to be punctual.
TWIN_BUSY: Final = 0.97
#: More than this share of the measured core used by others is said; more than the second voids the run, and so does the first on
#: a core that has nothing left.
OTHERS_NOTED: Final = 0.02
OTHERS_VOID: Final = 0.10
FULL: Final = 0.97
#: What runs on the measured cores; the others of a gateway run beside the load.
MEDIA_ROLES: Final = ("worker", "floor", "pipecat", "threads")

_SAMPLE: Final = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')

Labels = tuple[tuple[str, str], ...]


class MetricsPage:
    """A metrics page, its samples by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples: dict[str, dict[Labels, float]] = {}
        for match in _SAMPLE.finditer(text):
            labels = tuple(sorted(_LABEL.findall(match["labels"] or "")))
            self._samples.setdefault(match["name"], {})[labels] = float(match["value"])

    def series(self, name: str) -> Mapping[Labels, float]:
        return self._samples.get(name, {})

    def value(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels; 0 where there are none."""
        return sum(value for found, value in self.series(name).items() if labels.items() <= dict(found).items())


@dataclass(frozen=True)
class PageDelta:
    """Two pages and what happened between them."""

    before: MetricsPage
    after: MetricsPage

    def histogram(self, name: str, max_s: float) -> Histogram | None:
        """A histogram of the window; None where the page has none. `max_s`: a bound on its maximum known from elsewhere."""
        try:
            first, last = read_histogram(self.before.text, name, max_s), read_histogram(self.after.text, name, max_s)
        except ValueError:
            return None
        counts = tuple(after - before for before, after in zip(first.counts, last.counts, strict=True))
        return Histogram(last.edges_s, counts, min(max_s, highest_edge_s(last.edges_s, counts)))

    def total(self, name: str, **labels: str) -> float:
        """How much a counter grew."""
        return self.after.value(name, **labels) - self.before.value(name, **labels)

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """How much each series grew, by one label's value; those that did not are left out."""
        found: dict[str, float] = {}
        for labels in self.after.series(name):
            key = dict(labels).get(label, "")
            found[key] = found.get(key, 0.0) + self.after.series(name)[labels] - self.before.series(name).get(labels, 0.0)
        return {key: value for key, value in found.items() if value}

    def over(self, name: str, limit_s: float, label: str = "") -> dict[str, int]:
        """Observations above `limit_s`, which is a bucket's edge, by a label's value."""
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
    """The upper edge of the highest bucket that holds anything; counts are cumulative."""
    return edges_s[bisect_left(counts, counts[-1])] if counts and counts[-1] else 0.0


def match_bargeins(
    began: Mapping[str, Sequence[float]], cleared: Mapping[str, Sequence[float]], until_s: float, within_s: float = 1.0
) -> list[float]:
    """From each interruption to the first clear of its call behind it; inf where none came in time.

    Clears are known up to `until_s`: one that had none by then and still had time is left out.
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
    """One measured process in the window."""

    role: str
    cpu_s: float
    rss_bytes: int
    pss_bytes: int
    pss_before_bytes: int  # when it had no calls


@dataclass(frozen=True)
class Measured:
    """Everything known of one subject's window."""

    subject: str
    calls: int
    alive: int  # calls that stood at the window's end
    seconds: float
    pattern: str
    processes: Sequence[Process]
    send: Histogram | None
    lateness: Histogram | None
    far: Mapping[str, Any]  # the callers' end
    uplink: Mapping[str, Any]  # the AI's end
    bargein: Mapping[str, Any]  # empty unless asked for
    twins: Mapping[str, Mapping[str, Any]]  # each one's own lateness and share of a core
    other_cpu: float  # share of the measured cores that others used
    steal: float  # share of the measured cores the hypervisor gave to others
    shared_cores: bool
    holds_over_1ms: Mapping[str, int] = field(default_factory=dict)
    cpu_holds_over_1ms: Mapping[str, int] = field(default_factory=dict)  # only where the hub is watched all the time
    holds: int = 0  # that were watched
    gc_over_1ms: int = 0
    underrun_ms: float = 0.0
    drops: Mapping[str, float] = field(default_factory=dict)
    ended: Mapping[str, float] = field(default_factory=dict)
    over_time: Sequence[Sequence[float]] = ()  # second, lateness p99 ms, highest bucket's edge ms
    lead_ms: int = 100
    tls: bool = False  # to the AI

    @property
    def cpu_ms_per_call_s(self) -> float:
        """Milliseconds of CPU a call costs each second, all processes counted."""
        return sum(process.cpu_s for process in self.processes) * 1000 / self.calls / self.seconds

    @property
    def pss_per_call_kb(self) -> float:
        """Memory a call costs, beyond what the processes have without any."""
        grown = sum(process.pss_bytes - process.pss_before_bytes for process in self.processes)
        return grown / 1024 / self.calls

    def void(self) -> list[str]:
        """Why nothing was measured here."""
        found = []
        for name, twin in self.twins.items():
            late_ms = twin["own"]["p99"]
            if late_ms is None or late_ms > TWIN_LATE_MS:
                found.append(f"the {name} twin was late itself: p99 {late_ms} ms, over {TWIN_LATE_MS:g} ms")
        busy = sum(twin["cpu_share"] for twin in self.twins.values())
        if busy > TWIN_BUSY:
            found.append(f"the twins needed {busy:.0%} of a core: they are saturated")
        if self.other_cpu > OTHERS_VOID or (self.other_cpu > OTHERS_NOTED and self.other_cpu + self.measured_share > FULL):
            found.append(f"other processes used {self.other_cpu:.0%} of the measured core")
        return found

    @property
    def measured_share(self) -> float:
        """How much of its cores the media path used."""
        used = [process.cpu_s for process in self.processes if process.role in MEDIA_ROLES]
        return sum(used) / self.seconds / len(used) if used else 0.0

    def noted(self) -> list[str]:
        """What a reader should know."""
        found = []
        if self.other_cpu > OTHERS_NOTED and not self.void():
            found.append(f"other processes used {self.other_cpu:.1%} of the measured core")
        if self.steal > 0.005:
            found.append(f"the hypervisor took {self.steal:.1%} of the measured core")
        if self.shared_cores:
            found.append("too few cores to keep the load apart from what is measured")
        return found

    def broken(self) -> list[str]:
        """What a caller would have noticed."""
        found = []
        if self.alive < self.calls:
            found.append(f"{self.calls - self.alive} of {self.calls} calls ended: {', '.join(self.ended) or self.far['ended']}")
        if self.far["underruns"]:
            found.append(f"{self.far['underruns']} underruns at a 60 ms buffer, {self.far['gap_ms']} ms of gaps")
        if self.underrun_ms:
            found.append(f"{self.underrun_ms:.0f} ms of underrun by its own count")
        lost = self.far["lost"] + self.uplink["lost"] + sum(v for k, v in self.drops.items() if k != "bargein")
        if lost:
            found.append(f"{lost:.0f} frames lost or dropped")
        if self.far["disorder"] or self.uplink["disorder"] or self.far["unexpected"] or self.uplink["unexpected"]:
            found.append("frames out of order, or not of this call")
        if missed := self.bargein.get("missed"):
            found.append(f"{missed} interruptions without a clear within a second")
        return found

    def summary(self) -> dict[str, Any]:
        """The document scripts rely on; keys are added, never renamed."""
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
                name: {"own_lateness_ms": _quantiles(twin["own"]), "cpu_share": round(twin["cpu_share"], 3)}
                for name, twin in self.twins.items()
            },
            "foreign_share": round(self.other_cpu, 4),
            "steal_share": round(self.steal, 4),
            "over_time": [list(row) for row in self.over_time],
            "far_over_time": self.far["lateness"]["over_time"],
            "send_buckets": _buckets(self.send),
            "lateness_buckets": _buckets(self.lateness),
        }


def ratio(measured: Measured, floor: Measured) -> float:
    """How many times the floor's CPU per call-second."""
    return measured.cpu_ms_per_call_s / floor.cpu_ms_per_call_s if floor.cpu_ms_per_call_s else float("inf")


def holds(measured: Measured, floor_p999_ms: float, *, at_caller: bool = False) -> list[str]:
    """Why this many calls are more than the machine holds; empty where it holds them.

    The criterion: lateness p99.9 under 5 ms beyond the floor's own, no underrun at a 60 ms buffer, nothing lost. Lateness is
    TX's own, or what arrived `at_caller`, which is all there is of a subject without metrics.
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


def _buckets(histogram: Histogram | None) -> dict[str, Any] | None:
    if histogram is None:
        return None
    known = asdict(histogram)
    return {"edges_s": [edge for edge in known["edges_s"] if edge != float("inf")], "counts": list(known["counts"])}
