"""`reload`: new code and configuration for the running gateway, without losing a call."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from gw.cli.context import EXIT_CODES, Failure, Settings, Unreachable, config_option, json_option, pass_settings

#: One step: the check, the start of one worker, or control's end, start and, where it refuses, the former one's. Each is bounded.
STEP_S: Final = 120.0
#: Between two looks; control is away for about a second in between.
LOOK_S: Final = 0.1


@click.command(short_help="New code and configuration for the running gateway; no call is lost.", epilog=EXIT_CODES)
@config_option
@json_option
@pass_settings
def reload(settings: Settings, as_json: bool) -> None:
    """Replace every worker and control by ones with the code and the configuration file as they are now.

    New workers are started beside the old ones; once all are ready they take the calls, and the old ones end with their last
    call, at the latest after server.reload_timeout_s. A file with an error, or code that does not start, changes nothing: what is
    wrong is said here, and what served before serves on. SIGHUP to the supervisor does the same. Environment variables,
    server.listen and ops.var_dir are those of the start.

    \b
    After an edit or an upgrade:   gateway.py config check && gateway.py reload
    """
    from gw.terminal import print_json

    report = _follow(settings, settings.ask("reload")["report"], quiet=as_json)
    if as_json:
        print_json(report)
    if report["state"] != "done":
        if as_json:
            raise click.exceptions.Exit(1)
        raise Failure(f"{report['problem']}; {report['step']}")
    if not as_json:
        click.echo(f"Reloaded: {report['step']}.")


def _follow(settings: Settings, number: int, *, quiet: bool) -> dict[str, Any]:
    """The report of that number once it is at its end. Raises Failure when one step takes too long."""
    deadline_s = time.monotonic() + STEP_S
    said = ""
    while time.monotonic() < deadline_s:
        try:
            report: dict[str, Any] = settings.ask("status")["fleet"]["reload"]
        except Unreachable:
            report = {}  # control is being replaced
        if report.get("n", 0) >= number:
            if report["state"] != "running":
                return report
            if report["step"] != said:
                said = report["step"]
                deadline_s = time.monotonic() + STEP_S
                if not quiet:
                    click.echo(f"{said} ...", err=True)
        time.sleep(LOOK_S)
    raise Failure(f"the reload did not come further for {STEP_S:.0f} s; gateway.py status shows what becomes of it")
