"""Verdicts of `verify budget`: measured value, limit and result for each promise.

Pure: takes a bench summary and the machine's timer noise. The machine's share is reported separately: a hold of the hub counts by
its CPU time, except time the kernel spent within a send (on loopback the sender delivers packets of other processes), and beyond
what the load processes' own long steps in the same window explain; lateness counts beyond the timer noise; a failed promise of a
disturbed run is marked as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from gw.bench.result import PROMISE_MS
from gw.verify.budget.chance import Base, holds_by_chance

#: Lateness beyond the timer noise: an eighth of a 40 ms jitter buffer, a twentieth of the default lead.
LATE_MS: Final = 5.0
#: From a signed newcomer's webhook to its open stream, with strangers at the door.
NEWCOMER_MS: Final = 100.0
#: Limit on the median send of a quick run: ten times the normal value, beyond the influence of other processes.
QUICK_SEND_MS: Final = 0.1
#: Limit on the share of holds of a quick run: a slice of the gateway that is too long recurs every turn, an interrupt does not.
QUICK_HOLDS: Final = 1e-4


class Line(NamedTuple):
    """One promise. `holds` is empty for a figure that is shown without a limit."""

    promise: str
    measured: str
    limit: str
    holds: bool | None


def judge(run: Mapping[str, Any], noise: Mapping[str, float], *, quick: bool = False) -> list[Line]:
    """Judge a run. `quick` includes only figures that a busy machine does not change."""
    send, late = run["tx_send_ms"] or {}, run["tx_lateness_ms"] or {}
    working, passed = run["hub_cpu_holds_over_1ms"], run["hub_holds_over_1ms"]
    noise_ms = noise.get("p99.9")
    beyond_ms = None if late.get("p99.9") is None or noise_ms is None else max(0.0, late["p99.9"] - noise_ms)
    strangers = run["strangers"]
    ended = sum(run["ended"].values()) - strangers["calls"]
    kernel = min(working.get("tx", 0), _sends_over(run, PROMISE_MS))
    ours = sum(working.values()) - kernel
    beside = _beside(run)
    limit = holds_by_chance(beside.expected(_worker_cpu_s(run)))
    if quick:
        limit = max(limit, int(run["hub_holds"] * QUICK_HOLDS))
    lines = [
        Line("frames were sent", str(run["tx_frames"] or 0), "more than 0", bool(run["tx_frames"])),
        Line("strangers at the door", _door(strangers), "some of each", bool(strangers["calls"] and strangers["pings"])),
        Line("calls that ended by themselves", f"{ended:g}", "0", ended == 0),
        Line("TX send, median", _ms(send.get("p50")), f"under {QUICK_SEND_MS:g} ms", _under(send.get("p50"), QUICK_SEND_MS)),
        Line("TX send, p99.9", _ms(send.get("p99.9")), f"under {PROMISE_MS:g} ms", _under(send.get("p99.9"), PROMISE_MS)),
        Line(
            "hub holds over 1 ms by our code",
            f"{ours} of {run['hub_holds']}{_kinds(working)}{f', {kernel} more within a send' if kernel else ''}",
            f"{limit}",
            run["hub_holds"] > 0 and ours <= limit,
        ),
        Line(
            "hub holds over 1 ms by the clock",
            f"{sum(passed.values())} of {run['hub_holds']}{_kinds(passed)}",
            "no limit: includes pauses of the machine",
            None,
        ),
        Line("the load's own steps over 1 ms", f"{beside.long_holds} in {beside.cpu_s:.1f} s of CPU", "no limit", None),
        Line("this machine's own timer noise, p99.9", _ms(noise_ms), "no limit", None),
        Line("TX lateness, p99.9, beyond that noise", _ms(beyond_ms), f"under {LATE_MS:g} ms", _under(beyond_ms, LATE_MS)),
        Line(
            "answer to a signed newcomer, slowest",
            f"{_ms(strangers['slowest_ms'])}, {strangers['not_answered']} without",
            f"under {NEWCOMER_MS:g} ms",
            strangers["slowest_ms"] < NEWCOMER_MS and not strangers["not_answered"],
        ),
        Line("audible gaps", "; ".join(run["broken"]) or "nothing", "nothing", not run["broken"]),
    ]
    if quick:
        judged = {
            "frames were sent",
            "strangers at the door",
            "calls that ended by themselves",
            "TX send, median",
            "hub holds over 1 ms by our code",
        }
        lines = [line if line.promise in judged else line._replace(holds=None) for line in lines]
    # a promise kept on a busy machine is kept; one broken there may be broken by the machine
    disturbed = None if quick or kept(lines) else False
    lines.append(
        Line("nothing else disturbed the run", "; ".join(run["void"]) or "nothing", "nothing", not run["void"] or disturbed)
    )
    return lines


def kept(lines: Sequence[Line]) -> bool:
    """True if every judged promise holds."""
    return all(line.holds is not False for line in lines)


def _under(value: float | None, limit: float) -> bool:
    return value is not None and value < limit


def _sends_over(run: Mapping[str, Any], limit_ms: float) -> int:
    """Count sends above a bucket edge."""
    buckets = run.get("send_buckets")
    if not buckets or not buckets["counts"]:
        return 0
    within = [count for edge, count in zip(buckets["edges_s"], buckets["counts"], strict=False) if edge <= limit_ms / 1000]
    return int(buckets["counts"][-1] - (within[-1] if within else 0))


def _beside(run: Mapping[str, Any]) -> Base:
    """Return the steps of the load processes in the window of a run."""
    steps = [twin["own_steps"] for twin in run["twins"].values()]
    return sum((Base(one["cpu_s"], one["over_1ms"]) for one in steps), Base())


def _worker_cpu_s(run: Mapping[str, Any]) -> float:
    worker = run["processes"].get("worker", {"cpu_ms_per_call_s": 0.0})
    return float(worker["cpu_ms_per_call_s"] * run["calls"] * run["seconds"] / 1000)


def _door(strangers: Mapping[str, Any]) -> str:
    held = f"{strangers['half_open']} half-open, {strangers['silent']} silent, {strangers['closed']} closed"
    return f"{held}; {strangers['pings']:,} pings in {strangers['calls']} calls"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} ms"


def _kinds(holds: Mapping[str, int]) -> str:
    found = ", ".join(f"{kind} {count}" for kind, count in sorted(holds.items()) if count)
    return f" ({found})" if found else ""
