"""An hour of a busy worker in a few minutes: what the garbage collector stopped, and what held the hub.

    .venv/bin/python tests/bench/hour.py [--calls 200] [--came 4000] [--json]

The collector is driven by calls that begin and end, not by time: 200 calls at a time, of three minutes each, are 4,000 an hour.
Here as many come and go at ten a second, three seconds each, beside calls that stay, so that 200 live at a time; the hub is
watched all the time. A hold is ours by its CPU time, since a wall clock counts the machine's pauses as well; a pause of the
collector is by the wall clock. Exit code 1: a pause over 1 ms, more than one hold in 100,000 over 1 ms, an underrun, a lost
frame, or a void run.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Final  # noqa: E402

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import click  # noqa: E402

from gw.bench.pressure import CALLS_PER_S, PressedGateway, Window  # noqa: E402
from gw.bench.result import Page  # noqa: E402
from gw.bench.result import Window as Pages  # noqa: E402
from gw.bench.run import Load, Tell, measure_beside  # noqa: E402
from gw.bench.stalling_store import open_store  # noqa: E402
from gw.control.admin.client import AdminClient  # noqa: E402
from gw.errors import GatewayError  # noqa: E402
from gw.terminal import console, figure_table, ms  # noqa: E402

#: How many calls live at a time of those that come and go: each lasts three seconds.
_COMING: Final = 3 * CALLS_PER_S
_GENERATIONS: Final = ("young", "middle", "full")
_LIMIT_S: Final = 0.001
#: A slice of ours that is too long comes with every call; an interrupt or a pause of the host counts as CPU time, and is rare.
_HOLDS: Final = 1e-5


class Watched(PressedGateway):
    """The gateway with callers who come and go, and the collector's pauses in the window."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.pages: Pages | None = None
        self.worst: list[dict[str, Any]] = []  # the long holds that were kept, with where they were

    @contextmanager
    def in_window(self) -> Iterator[None]:
        before = Page(self.metrics())
        with super().in_window():
            yield
        self.pages = Pages(before, Page(self.metrics()))
        self.worst = AdminClient(self.admin_socket).request("holds")

    def collections(self) -> dict[str, dict[str, float]]:
        """How many there were, how long all took together, and how many were over the limit, by generation."""
        assert self.pages is not None
        name = "gw_gc_pause_seconds"
        over = self.pages.over(name, _LIMIT_S, "generation")
        return {
            kind: {
                "count": self.pages.total(f"{name}_count", generation=kind),
                "sum_ms": self.pages.total(f"{name}_sum", generation=kind) * 1000,
                "over_1ms": over.get(kind, 0),
            }
            for kind in _GENERATIONS
        }


def _told(quiet: bool) -> Tell:
    if quiet or not sys.stderr.isatty():
        return lambda _: None
    return lambda step: click.echo(f"\r\x1b[K{step}", nl=False, err=True)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--calls", type=click.IntRange(_COMING + 1), default=200, show_default=True, help="Calls that live at a time.")
@click.option("--came", type=click.IntRange(100), default=4000, show_default=True, help="Calls that come and go in all.")
@click.option("--json", "as_json", is_flag=True)
def main(calls: int, came: int, as_json: bool) -> None:
    out = ROOT / "out" / "bench" / "hour"
    load = Load(calls - _COMING, came / CALLS_PER_S, maxima=False, watched=True)
    out.mkdir(parents=True, exist_ok=True)
    store = open_store(out)
    try:
        gateway = Watched([sys.executable, str(ROOT / "gateway.py")], out, load, store, "coming")
        measured = measure_beside(gateway, gateway, out, load, _told(as_json))
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    finally:
        store.close()
    window = Window(measured, 0, gateway.came, gateway.refused, 0, 0)
    document = {
        **window.document(),
        "collections": gateway.collections(),
        "holds": measured.holds,
        "cpu_holds_over_1ms": dict(measured.cpu_holds_over_1ms),
        "holds_over_1ms": dict(measured.holds_over_1ms),
        "seconds": measured.seconds,
        "worst": gateway.worst,
    }
    (out / "hour.json").write_text(json.dumps(document, indent=2) + "\n")
    found = [*measured.void(), *window.failures()]
    for kind, value in gateway.collections().items():
        if value["over_1ms"]:
            found.append(f"{value['over_1ms']:.0f} {kind} collections over 1 ms")
    if sum(measured.cpu_holds_over_1ms.values()) > measured.holds * _HOLDS:
        found += [f"{count} holds over 1 ms by {who}" for who, count in measured.cpu_holds_over_1ms.items()]
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        table = figure_table("collections", ">how many", ">mean, ms", ">over 1 ms")
        for kind, value in gateway.collections().items():
            mean = value["sum_ms"] / value["count"] if value["count"] else None
            table.add_row(kind, f"{value['count']:.0f}", ms(mean), f"{value['over_1ms']:.0f}")
        console().print(table)
        over, ours = sum(measured.holds_over_1ms.values()), sum(measured.cpu_holds_over_1ms.values())
        console().print(f"{gateway.came} calls came and went in {measured.seconds:.0f} s, {calls} at a time.")
        console().print(f"{measured.holds} holds of the hub, {over} over 1 ms by the clock, {ours} by CPU time.")
        for what in found:
            console().print(what, style="red")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
