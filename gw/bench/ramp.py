"""Number of calls a core of this machine holds: the load grows until the criterion fails twice.

Each step measures the gateway and, where there is a compiler, the floor, since the machine's own lateness is not the gateway's.
A step fails when it failed twice while no other program used its core; a step that was disturbed each time is void. Between the
last step that held and the first that did not, one more is measured in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gw.bench.result import Measured, holds
from gw.bench.run import Load, OnStep, measure_floor, measure_gateway
from gw.bench.subject import compiler

STEPS: Final = (10, 25, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500)
#: A smaller gap between two steps is not refined.
_FINE: Final = 25
#: Undisturbed failures after which a step has failed, and attempts in all.
_FAILURES: Final = 2
_TRIES: Final = 4

Measure = Callable[[Load], tuple[Measured, Measured | None]]


def measuring(command: Sequence[str], out: Path, on_step: OnStep) -> Measure:
    """Return the function that measures one step."""
    with_floor = compiler() is not None

    def measure(load: Load) -> tuple[Measured, Measured | None]:
        floor = measure_floor(out, load, on_step) if with_floor else None
        return measure_gateway(command, out, load, on_step), floor

    return measure


def step(load: Load, measure: Measure) -> dict[str, Any]:
    """Measure one number of calls until it held, failed twice, or ran out of attempts."""
    failed: list[dict[str, Any]] = []
    disturbed: list[dict[str, Any]] = []
    for _ in range(_TRIES):
        result = once(load, measure)
        if not result["void"] and not result["beyond"]:
            return result
        (disturbed if result["void"] or result["gateway"]["noted"] else failed).append(result)
        if len(failed) == _FAILURES:
            break
    result = (failed or disturbed)[-1]
    if not failed and not result["void"]:
        result["void"] = result["gateway"]["noted"]
    return result


def once(load: Load, measure: Measure) -> dict[str, Any]:
    """Measure a number of calls, and judge whether it held."""
    gateway, floor = measure(load)
    floor_ms = 0.0 if floor is None or floor.lateness is None else floor.lateness.quantile_ms(0.999) or 0.0
    return {
        "calls": load.calls,
        "beyond": holds(gateway, floor_ms),
        "void": gateway.void(),
        "worker_share": gateway.measured_share,
        "gateway": gateway.summary(),
        "floor": None if floor is None else floor.summary(),
    }


def climb(load: Load, steps: Sequence[int], measure: Measure, results: list[dict[str, Any]]) -> None:
    """Measure steps until one fails, then the middle between it and the one before.

    Steps are put into `results` as they come, in order of calls, so that an interrupt keeps them.
    """
    for calls in steps:
        results.append(step(replace(load, calls=calls), measure))
        if results[-1]["beyond"] and not results[-1]["void"]:
            below = held(results[:-1])
            middle = (below + calls) // 2
            if below and middle - below >= _FINE:
                results.insert(-1, step(replace(load, calls=middle), measure))
            break


def held(steps: Sequence[dict[str, Any]]) -> int:
    """Return the largest number of calls that held and was not void; 0 if none."""
    return max((result["calls"] for result in steps if not result["beyond"] and not result["void"]), default=0)
