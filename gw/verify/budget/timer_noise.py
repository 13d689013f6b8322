"""How punctual this machine is by itself: a bare process that sleeps to a deadline every two milliseconds, and how late it wakes.

Run as a process of its own, without gevent, on the core the gateway's worker will have: `python -m gw.verify.budget.timer_noise`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Final

from gw import ROOT

PERIOD_S: Final = 0.002
_START_S: Final = 10.0


def wake_ups(seconds: float) -> list[float]:
    """The lateness of each wake-up in seconds, in order of size."""
    late_s: list[float] = []
    origin_s = time.monotonic()
    n = 0
    while (due_s := origin_s + (n + 1) * PERIOD_S) < origin_s + seconds:
        time.sleep(max(0.0, due_s - time.monotonic()))
        late_s.append(max(0.0, time.monotonic() - due_s))
        n = max(n + 1, int((time.monotonic() - origin_s) / PERIOD_S))  # a deadline slept through is one late wake-up, not many
    return sorted(late_s)


def summary(late_s: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds; empty where nothing was measured."""
    if not late_s:
        return {}
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    found = {name: late_s[min(len(late_s) - 1, int(share * len(late_s)))] * 1000 for name, share in shares.items()}
    return {**{name: round(value, 4) for name, value in found.items()}, "count": float(len(late_s))}


def measure(seconds: float, core: int) -> dict[str, float]:
    """Measure on a core, in a process of its own. Raises subprocess.SubprocessError."""
    done = subprocess.run(
        [sys.executable, "-m", "gw.verify.budget.timer_noise", str(seconds), str(core)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds + _START_S,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[2])})
    sys.stdout.write(json.dumps(summary(wake_ups(float(sys.argv[1])))))
