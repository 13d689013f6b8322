"""`drain` and `undrain`: take this machine, or another of the fleet, out of service and back."""

from __future__ import annotations

import time
from typing import Final

import click

from gw.cli.context import EXIT_CODES, Failure, Settings, Unreachable, counted, gateway_options, print_answer

#: Interval for counting the remaining calls.
POLL_S: Final = 0.5
#: Another machine answers at its next heartbeat, after its notice.
FLEET_S: Final = 20.0

machine_option = click.option(
    "--machine", metavar="NAME", help="Another gateway of the same store: its machine or its id, as in status --fleet."
)


@click.command(short_help="Take this machine out of service: no new calls, live ones continue.", epilog=EXIT_CODES)
@click.option("--wait", is_flag=True, help="Wait for the last call to end, and show how many are left.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.0),
    show_default="server.reload_timeout_s",
    help="With --wait: the longest wait, in seconds.",
)
@machine_option
@gateway_options
def drain(settings: Settings, wait: bool, timeout_s: float | None, machine: str | None, as_json: bool) -> None:
    """Take this machine out of service: /readyz answers 503, new callers get the [overflow] answer, live calls continue.

    With server.machine set, new callers are accepted for three more seconds, until a balancer has noticed. The machine stays
    drained through reloads and restarts of its processes, until `undrain` or the stop of the whole gateway. With --wait, exit
    code 1 if calls are left.

    \b
    Before an update of the machine:   gateway.py drain --wait
    Accept calls again:                gateway.py undrain
    Another machine of the fleet:      gateway.py drain --machine vm2
    """
    from gw.terminal import print_json

    if machine is not None:
        if wait:
            raise click.UsageError("--wait counts the calls of this machine: leave it out, and see gateway.py status --fleet")
        answer = settings.act("drain_machine", timeout_s=FLEET_S, machine=machine, on=True)
        sentence = f"{answer['machine']} ({answer['gateway']}) is drained: it refuses new calls, live ones continue."
        print_answer(answer, sentence, as_json=as_json)
        return
    answer = settings.ask("drain", on=True)
    left = _wait(settings, _longest_s(settings) if timeout_s is None else timeout_s, quiet=as_json) if wait else None
    if as_json:
        print_json({**answer, "calls_left": left})
    elif left:
        calls = counted(left, "call is left and continues", "calls are left and continue")
        raise Failure(f"{calls}; new ones are still refused")
    else:
        click.echo("Drained: new calls are refused, " + ("live ones continue." if left is None else "and no call is left."))
    if left:
        raise click.exceptions.Exit(1)


@click.command(short_help="Accept calls on this machine again.", epilog=f"\b\nExample:  gateway.py undrain\n\n{EXIT_CODES}")
@machine_option
@gateway_options
def undrain(settings: Settings, machine: str | None, as_json: bool) -> None:
    """Accept calls on this machine again, after `drain`."""
    if machine is not None:
        answer = settings.act("drain_machine", timeout_s=FLEET_S, machine=machine, on=False)
        print_answer(answer, f"{answer['machine']} ({answer['gateway']}) accepts calls again.", as_json=as_json)
        return
    print_answer(settings.ask("drain", on=False), "Calls are accepted again.", as_json=as_json)


def _longest_s(settings: Settings) -> float:
    """Return server.reload_timeout_s; its default for a file with errors, which the running gateway does not need."""
    from gw.config import Server
    from gw.errors import ConfigError

    try:
        return settings.config.server.reload_timeout_s
    except ConfigError:
        return Server().reload_timeout_s


def _wait(settings: Settings, timeout_s: float, *, quiet: bool) -> int:
    """Wait for the last call. Returns the number of remaining calls."""
    from gw.terminal import progress

    deadline_s = time.monotonic() + timeout_s
    with progress("calls ended", shown=not quiet) as shown:
        first = left = _calls(settings)
        bar = shown.add_task("", total=first)
        while left and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
            left = _calls(settings)
            first = max(first, left)
            shown.update(bar, total=first, completed=first - left)
    return left


def _calls(settings: Settings) -> int:
    """Return live calls and reserved slots; 1 while control is being replaced and cannot answer."""
    try:
        machine = settings.ask("status")["machine"]
    except Unreachable:
        return 1
    return int(machine["calls"] + machine["reserved"])
