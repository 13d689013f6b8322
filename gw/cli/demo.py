"""`demo`: hear the gateway work, without a key or a phone, and see in numbers whether it kept its promises."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gw.cli.context import EXIT_CODES_HERE, Failure, Settings, json_option, pass_settings
from gw.cli.interrupt import Interrupted, interruptible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gw.demo.report import DemoReport
    from gw.demo.run import DemoRun

#: Shown this often: often enough to follow, too seldom to disturb the twins in the same process.
REFRESH_S = 0.25


@click.command(short_help="Hear the gateway work, without a key or a phone.", epilog=EXIT_CODES_HERE)
@click.option("--calls", type=click.IntRange(1, 100), default=3, show_default=True, help="How many callers at once.")
@click.option(
    "--seconds", type=click.FloatRange(1, 600), default=15, show_default=True, help="How long each conversation lasts, at least."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("out/demo"), show_default=True, help="Where files go."
)
@json_option
@pass_settings
def demo(settings: Settings, calls: int, seconds: float, out: Path, as_json: bool) -> None:
    """Let callers of real speech talk to an agent through a real gateway, and sum up what each heard.

    Starts `gateway.py serve` as you would, between a stand-in for Twilio and one for the AI, both on this machine. Leaves behind
    summary.json, what each caller heard as call-<n>.wav, the latency histograms as latency.png, and the gateway's log. Exit
    code 1 if anything was not as promised.

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
        raise Failure("interrupted; everything that was started has ended") from None
    _print(report, out, as_json)
    if report.broken():
        raise click.exceptions.Exit(1)


def _print(report: DemoReport, out: Path, as_json: bool) -> None:
    from gw.demo.report import tables
    from gw.terminal import console, print_json

    if as_json:
        print_json(report.summary())
        return
    screen = console()
    screen.print(tables(report))
    screen.print(f"{report.seconds:.0f} s. Hear: {out}/call-1.wav  See: {out}/latency.png  Read: {out}/summary.json")


@contextmanager
def _shown(run: DemoRun, *, quiet: bool) -> Iterator[None]:
    """Show how it goes: live on a terminal, one line elsewhere, nothing beside a JSON document."""
    if quiet or not sys.stdout.isatty():
        if not quiet:
            click.echo(f"{run.calls} calls of about {run.script.seconds:.0f} s at once, through a gateway of their own ...")
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
    """One line per call: what happens on it, and how much of the agent was heard."""
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
