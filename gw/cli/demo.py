"""`demo`: calls through a real gateway without a key or a phone, with a report of what each caller heard."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gw.cli.context import (
    EXIT_CODES_HERE,
    Failure,
    Interrupted,
    Settings,
    interruptible,
    json_option,
    out_folder_option,
    pass_settings,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gw.demo.report import DemoReport
    from gw.demo.run import DemoRun

#: Interval of the display, long enough not to disturb the stand-ins in the same process.
REFRESH_S = 0.25


@click.command(short_help="Try the gateway, without a key or a phone.", epilog=EXIT_CODES_HERE)
@click.option("--calls", type=click.IntRange(1, 100), default=3, show_default=True, help="Concurrent callers.")
@click.option(
    "--seconds", type=click.FloatRange(1, 600), default=15, show_default=True, help="Shortest duration of each conversation."
)
@out_folder_option("out/demo")
@json_option
@pass_settings
def demo(settings: Settings, calls: int, seconds: float, out: Path, as_json: bool) -> None:
    """Place calls with recorded speech through a real gateway, and report on each.

    Starts `gateway.py serve` between a stand-in for Twilio and one for the AI, all on this machine. Writes summary.json, the
    audio that each caller heard as call-<n>.wav, the latency histograms as latency.png, and the gateway's log. Exit code 1 if a
    result breaks a guarantee.

    \b
    Three callers, half a minute:       gateway.py demo
    Twenty callers, a longer talk:      gateway.py demo --calls 20 --seconds 20
    For a script:                       gateway.py demo --json
    """
    from gw.demo.run import DemoRun

    run = DemoRun(Settings(None).command_line(), out, calls=calls, seconds=seconds)
    try:
        with interruptible(), _shown(run, quiet=as_json):
            report = run.run()
    except Interrupted:
        raise Failure("interrupted; all processes it started have ended") from None
    _print(report, out, run.picture, as_json)
    if report.broken():
        raise click.exceptions.Exit(1)


def _print(report: DemoReport, out: Path, picture: str, as_json: bool) -> None:
    from gw.demo.report import tables
    from gw.terminal import console, print_json

    if as_json:
        print_json(report.summary())
        return
    screen = console()
    screen.print(tables(report))
    screen.print(f"{report.seconds:.0f} s. Listen: {out}/call-1.wav  {picture}  Read: {out}/summary.json")


@contextmanager
def _shown(run: DemoRun, *, quiet: bool) -> Iterator[None]:
    """Show progress: live on a terminal, one line elsewhere, nothing with --json."""
    if quiet or not sys.stdout.isatty():
        if not quiet:
            click.echo(f"{run.calls} concurrent calls of about {run.script.seconds:.0f} s, through a new gateway ...")
        yield
        return
    import gevent
    from rich.live import Live

    from gw.terminal import console

    with Live(console=console(), auto_refresh=False, transient=True) as live:

        def refresh() -> None:
            while True:
                live.update(_progress(run), refresh=True)
                gevent.sleep(REFRESH_S)

        painter = gevent.spawn(refresh)
        try:
            yield
        finally:
            painter.kill()


def _progress(run: DemoRun) -> RenderableType:
    """Return one line per call: the seconds of agent heard, and the state."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(no_wrap=True)
    made.add_column(justify="right", no_wrap=True)
    made.add_column(no_wrap=True, overflow="ellipsis")
    if run.step != "calls":
        made.add_row(run.step, "", "")
        return made
    for caller in run.callers:
        made.add_row(f"call {caller.number}", f"{caller.heard_s:.1f} s", caller.state)
    return made
