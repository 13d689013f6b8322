"""`loglevel`: what the running gateway logs, shown and changed."""

from __future__ import annotations

import click

from gw.cli.context import ADMIN_TIMEOUT_S, EXIT_CODES, Settings, config_option, json_option, pass_settings

LEVELS = ("debug", "info", "warning", "error", "configured")


@click.command(
    short_help="Show or change what the running gateway logs.",
    epilog="\b\nExamples:\n"
    "  gateway.py loglevel\n"
    "  gateway.py loglevel debug --process worker-0\n"
    "  gateway.py loglevel configured\n\n" + EXIT_CODES,
)
@click.argument("level", required=False, type=click.Choice(LEVELS))
@click.option("--process", default="", help="Only this one: control, worker-0, ... as the log names it. Else every process.")
@config_option
@json_option
@pass_settings
def loglevel(settings: Settings, level: str | None, process: str, as_json: bool) -> None:
    """Show what each process logs, or have it log from LEVEL up, within half a second and without a restart.

    `configured` goes back to ops.log_level. A level for every process also holds for those that start later, until the gateway
    stops; one for a single process ends with it. At debug a worker writes more, though never from the loop that sends audio.
    """
    from gw.terminal import Column, print_json, print_rows

    answer = settings.act("loglevel", timeout_s=ADMIN_TIMEOUT_S, level=level, process=process)
    if as_json:
        print_json(answer)
        return
    columns = (
        Column("process", lambda row: row["process"]),
        Column("logs from", lambda row: row["level"]),
    )
    print_rows(columns, [{"process": name, "level": what} for name, what in answer["processes"].items()])
