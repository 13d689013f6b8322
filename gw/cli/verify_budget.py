"""`verify budget`: a run on this machine, judged against what is promised, with the machine's own noise measured first."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any, Final

import click

from gw.cli.context import EXIT_CODES_HERE, Settings, json_option

#: A run for a commit, and how long the machine's own timers are looked at before either.
QUICK_CALLS: Final = 20
QUICK_S: Final = 10.0
_NOISE_S: Final = 3.0


@click.command(short_help="Calls on this machine, judged against the budget.", epilog=EXIT_CODES_HERE)
@click.option("--calls", type=click.IntRange(1, 2000), default=50, show_default=True, help="Full-duplex calls at once.")
@click.option("--seconds", type=click.FloatRange(2, 3600), default=30, show_default=True, help="The measured window.")
@click.option("--quick", is_flag=True, help="20 calls, 10 s, judged only on what a busy machine cannot move.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/verify"),
    show_default=True,
    help="Where files go.",
)
@json_option
def budget(calls: int, seconds: float, quick: bool, out: Path, as_json: bool) -> None:
    """Place calls through a gateway on this machine and judge what is promised: no send over 1 ms, no hold of the hub over 1 ms.

    First the machine's own timers are measured, so that lateness is judged beyond what the machine does by itself. The hub is
    watched all the time, each hold by its CPU time: a machine that did not run the gateway is not blamed on it. Writes
    report.html and report.json. Exit code 1 if a promise was not kept, or the run could not show it.

    \b
    As promised, a minute:              gateway.py verify budget
    For a commit, half a minute:        gateway.py verify budget --quick
    A hundred calls:                    gateway.py verify budget --calls 100
    """
    from gw.terminal import print_json
    from gw.verify.budget.html import page
    from gw.verify.budget.judge import judge, kept

    if quick:
        calls, seconds = QUICK_CALLS, QUICK_S
    noise, run = _measure(calls, seconds, out, as_json)
    lines = judge(run, noise, quick=quick)
    about = [f"{calls} calls, {seconds:g} s", platform.node(), f"Python {platform.python_version()}", *run["noted"]]
    document: dict[str, Any] = {
        "ok": kept(lines),
        "quick": quick,
        "machine": platform.node(),
        "timer_noise_ms": noise,
        "lines": [line._asdict() for line in lines],
        "run": run,
    }
    (out / "report.json").write_text(json.dumps(document, indent=2) + "\n")
    (out / "report.html").write_text(page("The budget of the TX loop", about, lines, run))
    if as_json:
        print_json(document)
    else:
        _show(lines, about, out)
    if not kept(lines):
        raise click.exceptions.Exit(1)


def _measure(calls: int, seconds: float, out: Path, quiet: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """The machine's noise, then the run."""
    from gw.bench import machine
    from gw.bench.run import Load, measure_gateway
    from gw.cli.bench.options import show_steps
    from gw.verify.budget.timer_noise import measure

    out.mkdir(parents=True, exist_ok=True)
    with show_steps(quiet) as tell:
        tell("listening to the machine's own timers")
        noise = measure(_NOISE_S, machine.plan(machine.cores(), 1).measured[0])
        load = Load(calls=calls, seconds=seconds, watched=True)
        return noise, measure_gateway(Settings(None).command_line(), out, load, tell).summary()


def _show(lines: Any, about: list[str], out: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from gw.terminal import console

    words = {True: Text("holds", "green"), False: Text("DOES NOT HOLD", "red"), None: Text("not judged", "dim")}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("promise", "measured", "limit", ""):
        table.add_column(title, overflow="fold")
    for line in lines:
        table.add_row(line.promise, line.measured, line.limit, words[line.holds])
    screen = console()
    screen.print(", ".join(about))
    screen.print(table)
    screen.print(f"See: {out}/report.html  Read: {out}/report.json")
