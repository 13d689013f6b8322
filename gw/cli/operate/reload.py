"""`reload`: new code, configuration and secrets for the running gateway, without losing a call."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from gw.cli.context import EXIT_CODES, Failure, Settings, Unreachable, gateway_options

#: Longest step: the check, the start of one worker, or the replacement of control. Each is bounded.
STEP_S: Final = 120.0
#: Interval for reading the report; control is away for about a second.
POLL_S: Final = 0.1


@click.command(short_help="Load new code and configuration without losing a call.", epilog=EXIT_CODES)
@click.option("--check", is_flag=True, help="Only report whether a reload would start: replace nothing.")
@gateway_options
def reload(settings: Settings, check: bool, as_json: bool) -> None:
    """Replace all workers and control by processes with the present code and configuration file.

    First control and a worker are constructed on trial. Then new workers start beside the old ones. Once all are ready they take
    the calls, and the old ones end with their last call, at the latest after server.reload_timeout_s. A file with an error, a
    taken address, or code that does not start, changes nothing: the error is reported here, and the present processes continue
    to serve. SIGHUP to the supervisor does the same. Secrets in the folder SUBMILLI_CREDENTIALS are read again; environment
    variables, server.listen and ops.var_dir keep their values from the start.

    \b
    After an edit or an upgrade:   gateway.py reload
    Only to find its errors:       gateway.py reload --check
    """
    from gw.terminal import print_json

    report = _follow(settings, settings.ask("reload", **({"check": True} if check else {}))["report"], quiet=as_json)
    if as_json:
        print_json(report)
    if report["state"] != "done":
        if as_json:
            raise click.exceptions.Exit(1)
        raise Failure(f"{report['problem']}; {report['step']}")
    if not as_json:
        click.echo("A reload would start: configuration and code are valid." if check else f"Reloaded: {report['step']}.")


def _follow(settings: Settings, number: int, *, quiet: bool) -> dict[str, Any]:
    """Return the report of that number once its reload has ended. Raises Failure when one step takes too long."""
    deadline_s = time.monotonic() + STEP_S
    shown = ""
    while time.monotonic() < deadline_s:
        try:
            report: dict[str, Any] = settings.ask("status")["machine"]["reload"]
        except Unreachable:
            report = {}  # control is being replaced
        if report.get("n", 0) >= number:
            if report["state"] != "running":
                return report
            if report["step"] != shown:
                shown = report["step"]
                deadline_s = time.monotonic() + STEP_S
                if not quiet:
                    click.echo(f"{shown} ...", err=True)
        time.sleep(POLL_S)
    raise Failure(f"the reload made no progress for {STEP_S:.0f} s; see gateway.py status for its outcome")
