"""`drain` and `undrain`: take a machine out of service, and back in."""

from __future__ import annotations

import time
from typing import Final

import click

from gw.cli.context import EXIT_CODES, Failure, Settings, Unreachable, config_option, json_option, pass_settings

#: Between two looks at the calls that are left.
LOOK_S: Final = 0.5


@click.command(short_help="Take this machine out: no new calls, live ones go on.", epilog=EXIT_CODES)
@config_option
@click.option("--wait", is_flag=True, help="Stay until the last call has ended, and show how many are left.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.0),
    show_default="server.reload_timeout_s",
    help="With --wait: the bound, in seconds.",
)
@json_option
@pass_settings
def drain(settings: Settings, wait: bool, timeout_s: float | None, as_json: bool) -> None:
    """Take this machine out of service: /readyz answers 503, new callers get what [overflow] says, live calls go on.

    Where several machines share one URL (server.machine) the callers of the next three seconds are still taken: a balancer needs
    them to notice. It stays drained, whatever restarts or reloads, until `undrain` or the gateway's stop. With --wait the exit
    code is 1 when calls are left after the time.

    \b
    Before an update of the machine:   gateway.py drain --wait
    Take calls again:                  gateway.py undrain
    """
    from gw.terminal import print_json

    answer = settings.ask("drain", on=True)
    left = _wait(settings, timeout_s or settings.config.server.reload_timeout_s, quiet=as_json) if wait else None
    if as_json:
        print_json({**answer, "calls_left": left})
    elif left:
        raise Failure(f"{left} call(s) are left; they go on, and new ones are still turned away")
    else:
        click.echo("Drained: new calls are turned away, " + ("live ones go on." if left is None else "and no call is left."))
    if left:
        raise click.exceptions.Exit(1)


@click.command(short_help="Take calls on this machine again.", epilog=f"\b\nExample:  gateway.py undrain\n\n{EXIT_CODES}")
@config_option
@json_option
@pass_settings
def undrain(settings: Settings, as_json: bool) -> None:
    """Take calls on this machine again, after `drain`."""
    from gw.terminal import print_json

    answer = settings.ask("drain", on=False)
    if as_json:
        print_json(answer)
    else:
        click.echo("Calls are taken again.")


def _wait(settings: Settings, timeout_s: float, *, quiet: bool) -> int:
    """Wait for the last call. Returns how many are left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from gw.terminal import console

    columns = (TextColumn("calls ended"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    deadline_s = time.monotonic() + timeout_s
    with Progress(*columns, console=console(stderr=True), disable=quiet, transient=True) as progress:
        first = left = _calls(settings)
        bar = progress.add_task("", total=first)
        while left and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
            left = _calls(settings)
            first = max(first, left)
            progress.update(bar, total=first, completed=first - left)
    return left


def _calls(settings: Settings) -> int:
    """Calls alive, and those let in whose stream is about to come. One while control is replaced: nobody can say."""
    try:
        fleet = settings.ask("status")["fleet"]
    except Unreachable:
        return 1
    return int(fleet["calls"] + fleet["reserved"])
