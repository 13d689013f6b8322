"""`loglevel`: shows and changes the log level of the running gateway."""

from __future__ import annotations

import click

from gw.cli.context import ADMIN_TIMEOUT_S, EXIT_CODES, Settings, gateway_options

LEVELS = ("debug", "info", "warning", "error", "configured")


@click.command(
    short_help="Show or change the log level of the running gateway.",
    epilog="\b\nExamples:\n"
    "  gateway.py loglevel\n"
    "  gateway.py loglevel debug --process worker-0\n"
    "  gateway.py loglevel configured\n\n" + EXIT_CODES,
)
@click.argument("level", required=False, type=click.Choice(LEVELS))
@click.option("--process", default="", help="One process, by its name in the log: control, worker-0, ... Default: all.")
@gateway_options
def loglevel(settings: Settings, level: str | None, process: str, as_json: bool) -> None:
    """Show the log level of each process, or set it to LEVEL.

    A new level applies within half a second, without a restart. `configured` restores ops.log_level. A level for all processes
    also applies to processes that start later, until the gateway stops. A level for one process ends with that process. The loop
    that sends audio logs nothing at any level.
    """
    from gw.terminal import Column, print_json, print_rows

    answer = settings.act("loglevel", timeout_s=ADMIN_TIMEOUT_S, level=level, process=process)
    if as_json:
        print_json(answer)
        return
    columns = (Column("process", lambda row: row["process"]), Column("level", lambda row: row["level"]))
    print_rows(columns, [{"process": name, "level": what} for name, what in answer["processes"].items()])
