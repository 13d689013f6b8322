"""Measure whether a second worker on a second core holds nearly as many calls again.

    .venv/bin/python tests/bench/workers.py [--calls 60] [--seconds 12] [--rounds 3] [--json]

Measures one worker with `calls`, and two with as many each, in turns, 25 s each. A worker holds calls until its core is full,
so two hold `2 * cost alone / cost of two` times the calls of one. Costs are the workers' own CPU times, without load processes
and control process, which run on the same cores where there is no third; their effect on the workers' caches is included. An
overloaded worker skips work and looks cheap, so a round counts only if every call stayed up and none had an underrun. Exit code
1 if the median ratio is below 1.7, or a round does not count: other programs were busy, or `calls` are too many for the
machine.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gw.bench.result import Measured
from gw.bench.run import Load, measure_gateway
from tests.bench.script import COMMAND

#: Least ratio of calls held by two workers to calls held by one.
WANTED: Final = 1.7


def cost_ms(measured: Measured) -> float:
    """Return a call's cost in its worker, milliseconds of CPU each second."""
    used_s = sum(process.cpu_s for process in measured.processes if process.role == "worker")
    return used_s * 1000 / measured.calls / measured.seconds


def figures(measured: Measured) -> dict[str, Any]:
    """Return the figures of one measurement."""
    return {
        "calls": measured.calls,
        "standing": measured.alive,
        "cost_ms_per_call_s": round(cost_ms(measured), 3),
        "worker_share": round(measured.measured_share, 3),
        "twins_share": round(sum(process["cpu_share"] for process in measured.load_processes.values()), 3),
        "lateness_p99_ms": None if measured.lateness is None else measured.lateness.summary()["p99"],
        "underruns_at_60_ms": measured.far["underruns"],
        "gateway_underrun_ms": round(measured.underrun_ms, 1),
    }


def is_held(found: dict[str, Any]) -> bool:
    """True if all calls were served to the end, without underrun."""
    return found["standing"] == found["calls"] and not found["underruns_at_60_ms"] and not found["gateway_underrun_ms"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=60, help="of each worker")
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="workers.", dir="/var/tmp") as folder:
        for _ in range(given.rounds):
            one, two = (
                measure_gateway(
                    COMMAND,
                    Path(folder) / str(workers),
                    Load(calls=given.calls * workers, seconds=given.seconds, workers=workers, maxima=False),
                    lambda step: sys.stderr.write(f"{step}\n"),
                )
                for workers in (1, 2)
            )
            rounds.append({"ratio": round(2 * cost_ms(one) / cost_ms(two), 3), "one": figures(one), "two": figures(two)})
    ratio = statistics.median(each["ratio"] for each in rounds)
    held = all(is_held(each[name]) for each in rounds for name in ("one", "two"))
    if given.json:
        sys.stdout.write(json.dumps({"ratio": ratio, "wanted": WANTED, "held": held, "rounds": rounds}, indent=1) + "\n")
    else:
        for each in rounds:
            for name in ("one", "two"):
                sys.stdout.write(f"{name}  " + "  ".join(f"{key} {value}" for key, value in each[name].items()) + "\n")
            sys.stdout.write(f"two workers hold {each['ratio']:.2f} times the calls of one\n")
        sys.stdout.write(
            f"median of {given.rounds}: {ratio:.2f} (wanted: {WANTED})" + ("" if held else ", but not every call was held") + "\n"
        )
    return 0 if ratio >= WANTED and held else 1


if __name__ == "__main__":
    sys.exit(main())
