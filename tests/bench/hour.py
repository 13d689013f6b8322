"""Measure an hour of a busy worker in a few minutes: the garbage collector's pauses and the holds of the hub.

    .venv/bin/python tests/bench/hour.py [--calls 200] [--came 4000] [--json]

Calls that begin and end drive the collector, not time: 200 concurrent calls of three minutes each are 4,000 an hour. Here 4,000
calls of three seconds each come and go, ten a second, beside long calls, so that 200 are alive at any time; the hub is watched
all the time. A hold counts by its CPU time, since a wall clock counts the machine's pauses too; a pause of the collector counts
by the wall clock. Exit code 1: a pause over 1 ms, more than one hold in 100,000 over 1 ms, an underrun, a lost frame, or a void
run.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click

from gw import ROOT
from gw.bench.result import MetricsPage, PageDelta
from gw.bench.run import Load, OnStep
from gw.control.admin.client import AdminClient
from gw.terminal import figure_table, ms
from tests.bench.load.pressure import CALLS_PER_S, PressedGateway
from tests.bench.script import conclude, measure_one_window

#: Short calls alive at any time: each lasts three seconds.
_SHORT_CALLS: Final = 3 * CALLS_PER_S
_GENERATIONS: Final = ("young", "middle", "full")
_LIMIT_S: Final = 0.001
#: A long slice of the gateway's own would recur with every call; interrupts and pauses of the host are rare.
_HOLDS: Final = 1e-5


class WatchedGateway(PressedGateway):
    """The gateway beside short calls, and the collector's pauses in the window."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.delta: PageDelta | None = None
        self.worst: list[dict[str, Any]] = []  # the long holds that were kept, with their stacks

    @contextmanager
    def around_window(self) -> Iterator[None]:
        before = MetricsPage(self.metrics())
        with super().around_window():
            yield
        self.delta = PageDelta(before, MetricsPage(self.metrics()))
        self.worst = AdminClient(self.admin_socket).request("holds")

    def collections(self) -> dict[str, dict[str, float]]:
        """Count the collections, their time in all, and those over the limit, by generation."""
        assert self.delta is not None
        name = "gw_gc_pause_seconds"
        over = self.delta.over(name, _LIMIT_S, "generation")
        return {
            kind: {
                "count": self.delta.total(f"{name}_count", generation=kind),
                "sum_ms": self.delta.total(f"{name}_sum", generation=kind) * 1000,
                "over_1ms": over.get(kind, 0),
            }
            for kind in _GENERATIONS
        }


def _progress(quiet: bool) -> OnStep:
    if quiet or not sys.stderr.isatty():
        return lambda _: None
    return lambda step: click.echo(f"\r\x1b[K{step}", nl=False, err=True)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--calls", type=click.IntRange(_SHORT_CALLS + 1), default=200, show_default=True, help="Calls alive at any time.")
@click.option("--came", type=click.IntRange(100), default=4000, show_default=True, help="Short calls in all.")
@click.option("--json", "as_json", is_flag=True)
def main(calls: int, came: int, as_json: bool) -> None:
    out = ROOT / "out" / "bench" / "hour"
    load = Load(calls - _SHORT_CALLS, came / CALLS_PER_S, maxima=False, watched=True)
    gateway, window = measure_one_window(WatchedGateway, out, load, _progress(as_json))
    measured, collections = window.measured, gateway.collections()
    over, by_cpu = sum(measured.holds_over_1ms.values()), sum(measured.cpu_holds_over_1ms.values())
    failures = [*measured.void(), *window.failures()]
    failures += [f"{c['over_1ms']:.0f} {kind} collections over 1 ms" for kind, c in collections.items() if c["over_1ms"]]
    if by_cpu > measured.holds * _HOLDS:
        failures += [f"{count} holds over 1 ms by {greenlet}" for greenlet, count in measured.cpu_holds_over_1ms.items()]
    document = {
        **window.document(),
        "collections": collections,
        "holds": measured.holds,
        "cpu_holds_over_1ms": dict(measured.cpu_holds_over_1ms),
        "holds_over_1ms": dict(measured.holds_over_1ms),
        "seconds": measured.seconds,
        "worst": gateway.worst,
    }

    def parts() -> Iterator[Any]:
        table = figure_table("collections", ">how many", ">mean, ms", ">over 1 ms")
        for kind, value in collections.items():
            mean = value["sum_ms"] / value["count"] if value["count"] else None
            table.add_row(kind, f"{value['count']:.0f}", ms(mean), f"{value['over_1ms']:.0f}")
        yield table
        yield f"{gateway.came} calls came and went in {measured.seconds:.0f} s, {calls} at a time."
        yield f"{measured.holds} holds of the hub, {over} over 1 ms by the clock, {by_cpu} by CPU time."

    conclude(out / "hour.json", document, failures, as_json, parts)


if __name__ == "__main__":
    main()
