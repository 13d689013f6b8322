"""Timer noise of this machine: wake-up lateness of a bare process that sleeps to a deadline every 2 ms.

Runs as a separate process, without gevent, on the core of the gateway's worker: `python -m gw.verify.budget.timer_noise`.
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
    """Lateness of each wake-up in seconds, sorted."""
    late_s: list[float] = []
    origin_s = time.monotonic()
    n = 0
    while (due_s := origin_s + (n + 1) * PERIOD_S) < origin_s + seconds:
        time.sleep(max(0.0, due_s - time.monotonic()))
        late_s.append(max(0.0, time.monotonic() - due_s))
        n = max(n + 1, int((time.monotonic() - origin_s) / PERIOD_S))  # a missed deadline is one late wake-up
    return sorted(late_s)


def summary(late_s: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds; empty without measurements."""
    if not late_s:
        return {}
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    found = {name: late_s[min(len(late_s) - 1, int(share * len(late_s)))] * 1000 for name, share in shares.items()}
    return {**{name: round(value, 4) for name, value in found.items()}, "count": float(len(late_s))}


def measure(seconds: float, core: int) -> dict[str, float]:
    """Measure on a core, in a separate process. Raises subprocess.SubprocessError."""
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
