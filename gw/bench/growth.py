"""Cost of one more call when there are many already: CPU and memory of a call against the number of calls.

Every number of calls is measured, whether the machine holds it or not, until the worker's core is full. Beyond that a call only
looks cheaper, since its work is not done in time; the verdict uses the steps before. Memory is also judged by the slope between
steps: what a process allocates once, divided by few calls, is not the cost of a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from gw.bench.ramp import Measure, once
from gw.bench.run import Load

STEPS: Final = (10, 25, 50, 100, 200, 300, 400, 500)
#: A core this busy has no room left: the step measured an overload.
FULL: Final = 0.97
#: Costs that differ by less are the same.
SAME: Final = 1.05
#: Below this many calls, one-time work and wake-ups that no other call shares are most of the cost.
MANY: Final = 50
_TRIES: Final = 3


def grow(load: Load, steps: Sequence[int], measure: Measure, results: list[dict[str, Any]]) -> None:
    """Measure steps until the machine is full.

    Each is appended to `results` as it comes, so that an interrupt keeps it.
    """
    for calls in steps:
        result = once(replace(load, calls=calls), measure)
        for _ in range(_TRIES - 1):
            if not result["void"]:
                break
            result = once(replace(load, calls=calls), measure)
        results.append({**result, "full": is_full(result)})
        if results[-1]["full"]:
            break


def is_full(step: dict[str, Any]) -> bool:
    """True if the worker's core has no room left, or the load itself was saturated."""
    return step["worker_share"] >= FULL or any("saturated" in why for why in step["void"])


def verdict(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Judge whether the cost of a call grows with the number of calls.

    For gateway and floor, each with the cost at the fewest and at the most calls.
    """
    good = [step for step in results if not step["void"] and not step["full"] and step["calls"] >= MANY]
    return {
        "cpu_ms_per_call_s": _course(good, "gateway", lambda step: step["cpu_ms_per_call_s"]),
        "floor_cpu_ms_per_call_s": _course(good, "floor", lambda step: step["cpu_ms_per_call_s"]),
        "kb_per_call": _course(good, "gateway", lambda step: step["pss_per_call_kb"]),
        "floor_kb_per_call": _course(good, "floor", lambda step: step["pss_per_call_kb"]),
        "kb_of_one_more_call": _slope(
            [(step["calls"], step["gateway"]["pss_per_call_kb"] * step["calls"]) for step in results if not step["void"]]
        ),
        "full_at": next((step["calls"] for step in results if step["full"]), None),
    }


def _course(good: Sequence[dict[str, Any]], subject: str, of: Callable[[dict[str, Any]], float]) -> dict[str, Any] | None:
    """Cost at the fewest and at the most calls; None with less than two steps."""
    costs = [(step["calls"], of(step[subject])) for step in good if step[subject] is not None]
    if len(costs) < 2:
        return None
    lowest = min(cost for _, cost in costs[:-1])
    (first, first_cost), (last, last_cost) = costs[0], costs[-1]
    return {"from": [first, first_cost], "to": [last, last_cost], "grows": last_cost > lowest * SAME}


def _slope(points: Sequence[tuple[int, float]]) -> float | None:
    """Slope of the least-squares line through the points; None with less than two."""
    if len(points) < 2:
        return None
    middle_x, middle_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    across: float = sum((x - middle_x) ** 2 for x, _ in points)
    along: float = sum((x - middle_x) * (y - middle_y) for x, y in points)
    return round(along / across, 1)


def sentences(found: dict[str, Any]) -> list[str]:
    """Return the verdict as sentences for people."""
    lines = []
    for key, what in (("cpu_ms_per_call_s", "CPU of a call, ms each second"), ("kb_per_call", "memory of a call, KB")):
        course = found[key]
        if course is None:
            lines.append(f"{what}: too few undisturbed steps of {MANY} calls and more to judge whether it grows.")
            continue
        (first, first_cost), (last, last_cost) = course["from"], course["to"]
        ending = "it grows with their number" if course["grows"] else "it does not grow with their number"
        lines.append(f"{what}: {first_cost:.3g} at {first} calls, {last_cost:.3g} at {last}: {ending}.")
    if found["kb_of_one_more_call"] is not None:
        lines.append(f"One more call takes {found['kb_of_one_more_call']:.0f} KB.")
    if found["full_at"] is not None:
        lines.append(f"The machine is full at {found['full_at']} calls.")
    return lines
