"""Values for the bench's tests: a measured window, quiet and whole unless changed."""

from __future__ import annotations

from typing import Any

from gw.bench.histogram import LatencyHistogram
from gw.bench.load.loop import summary
from gw.bench.result import Measured, Process

MB = 2**20


def histogram(*late_ms: float) -> LatencyHistogram:
    edges = (0.0001, 0.001, 0.005, 0.01, float("inf"))
    return LatencyHistogram(
        edges, tuple(sum(ms / 1000 <= edge for ms in late_ms) for edge in edges), max(late_ms, default=0.0) / 1000
    )


def measured(**changes: Any) -> Measured:
    """Return ten calls of ten seconds at 4 ms a call-second.

    The worker has 40 MB, 30 of them before the first call.
    """
    lateness = {**summary([0.0001, 0.0002]), "over_time": [[0, 0.2, 0.2]]}
    values: dict[str, Any] = {
        "subject": "gateway",
        "calls": 10,
        "alive": 10,
        "seconds": 10.0,
        "pattern": "steady",
        "processes": [Process("worker", 0.35, 50 * MB, 40 * MB, 30 * MB), Process("control", 0.05, 80 * MB, 60 * MB, 60 * MB)],
        "send": histogram(0.05, 0.05, 0.5),
        "lateness": histogram(0.05, 0.5, 2.0),
        "far": {"lateness": lateness, "underruns": 0, "gap_ms": 0.0, "lost": 0, "disorder": 0, "unexpected": 0, "ended": []},
        "uplink": {"uplink": lateness, "lost": 0, "disorder": 0, "unexpected": 0},
        "bargein": {},
        "load_processes": {
            name: {"own": lateness, "steps": {"count": 9, "over_1ms": 0, "cpu_s": 2.0}, "cpu_share": 0.2}
            for name in ("callers", "ai")
        },
        "other_cpu": 0.0,
        "steal": 0.0,
        "shared_cores": False,
        "over_time": [[0, 0.5, 1.0]],
    }
    return Measured(**{**values, **changes})
