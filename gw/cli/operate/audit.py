"""`audit`: lists the acts of operators."""

from __future__ import annotations

import click

from gw.cli.calls import began
from gw.cli.context import EXIT_CODES, Settings, gateway_options
from gw.control.rows import EventRow


@click.command(
    short_help="List the acts of operators.",
    epilog=f"\b\nExamples:\n  gateway.py audit --since 7d\n  gateway.py audit --json | jq '.[].data'\n\n{EXIT_CODES}",
)
@click.option("--since", callback=began, help="Only acts since: 30m, 12h, 7d, 2026-11-28 or 2026-11-28T09:30.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Number of acts, newest first.")
@gateway_options
def audit(settings: Settings, since: float | None, limit: int, as_json: bool) -> None:
    """List commands that changed something on any machine of this store: time, user, command, outcome.

    The user is the uid that the kernel reports for the command; `root` through sudo is uid 0. Acts are kept for store.keep_days,
    those on a call as long as the call. Numbers are masked; lists, variables and texts are shown by their size, and
    ids of events in full, up to 500 characters.
    """
    from gw.terminal import Column, dash, local_time, print_listing

    rows = settings.ask_or_read(
        "audit", lambda store: store.acts(limit=limit, since=since), list[EventRow], limit=limit, since=since
    )
    columns = (
        Column("time", lambda row: local_time(row.at)),
        Column("machine", lambda row: dash(row.host), needs=110),
        Column(">uid", lambda row: str(row.data.get("uid"))),
        Column("command", lambda row: str(row.data.get("command"))),
        Column("outcome", lambda row: str(row.data.get("outcome"))),
        Column("arguments", lambda row: str(row.data.get("arguments"))),
    )
    print_listing(columns, rows, empty="No operator has acted.", as_json=as_json)
