"""`calls`: which calls there are and were, one of them in full, and how to end one."""

from __future__ import annotations

from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from gw.cli.context import Failure, Settings, config_option, json_option, length_s, pass_settings
from gw.errors import GatewayError

#: How long the shell may wait for call SIDs while somebody types.
COMPLETION_S: Final = 1.0
#: A SID as Twilio writes it: two letters and 32 hexadecimal digits.
SID_CHARS: Final = 34
#: Where an abbreviated SID is looked for.
RECENT: Final = 200

Row = dict[str, Any]


@click.group()
def calls() -> None:
    """List calls, show one, end one.

    \b
    The newest twenty:             gateway.py calls list
    Those that go on right now:    gateway.py calls list --live
    Everything about one:          gateway.py calls show CA0123456789abcdef0123456789abcdef
    The same, by its beginning:    gateway.py calls show CA0123
    End one:                       gateway.py calls hangup CA0123
    """


def complete_sid(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """SIDs of recent calls, asked of the gateway or read from the store, for a second at most."""
    import gevent

    from gw.cli.output import local_time

    root = ctx.find_root()
    settings = Settings(root.params.get("path"))
    live = ctx.info_name == "hangup"
    with gevent.Timeout(COMPLETION_S, GatewayError("the gateway took too long")):
        try:
            rows = _recent(settings, live=live, quiet=True)
        except (GatewayError, click.ClickException):
            return []
    return [
        CompletionItem(row["call_sid"], help=f"{local_time(row['started_at'])} {row['reason'] or 'live'}")
        for row in rows
        if row["call_sid"].startswith(incomplete)
    ]


sid_argument = click.argument("call_sid", shell_complete=complete_sid)


@calls.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many, newest first.")
@click.option("--live", is_flag=True, help="Only calls that have not ended.")
@config_option
@json_option
@pass_settings
def list_calls(settings: Settings, limit: int, live: bool, as_json: bool) -> None:
    """List calls, newest first."""
    from gw.cli.output import Column, dash, duration, ending, local_time, print_json, print_rows

    rows = _recent(settings, limit=limit, live=live)
    if as_json:
        print_json(rows)
    elif rows:
        columns = (
            Column("started", lambda row: local_time(row["started_at"])),
            Column(">length", lambda row: duration(length_s(row))),
            Column("from", lambda row: dash(row["from_number"]), needs=92),
            Column("agent", lambda row: dash(row["agent"]), needs=120),
            Column("ended", lambda row: ending(row["reason"], row["result"])),
            Column("recording", lambda row: dash(row["recording_state"]), needs=104),
            Column(">call", lambda row: row["call_sid"]),
        )
        print_rows(columns, rows)
    else:
        click.echo("No call goes on." if live else "No calls yet.")


@calls.command(short_help="Show everything about one call.")
@sid_argument
@config_option
@json_option
@pass_settings
def show(settings: Settings, call_sid: str, as_json: bool) -> None:
    """Show one call: its life, what was said, its recording, its audio's quality, its events.

    The beginning of a SID is enough where only one recent call has it.
    """
    from gw.cli.call_view import print_call
    from gw.cli.output import print_json

    sid = _whole_sid(settings, call_sid)
    call = settings.ask_or_read("call", lambda store: store.call(sid), call_sid=sid)
    if call is None:
        raise Failure(f"no call {sid} is known; gateway.py calls list shows those that are")
    if as_json:
        print_json(call)
    else:
        print_call(call)


@calls.command()
@sid_argument
@config_option
@json_option
@pass_settings
def hangup(settings: Settings, call_sid: str, as_json: bool) -> None:
    """End a call that goes on. The gateway must run; exit code 3 if it does not."""
    from gw.cli.output import print_json

    settings.ask("status")  # exit code 3, before a SID is looked up in a store that cannot know who is on the line
    sid = _whole_sid(settings, call_sid)
    answer = settings.ask("hangup", call_sid=sid)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{sid} is being ended.")


def _recent(settings: Settings, limit: int = RECENT, *, live: bool = False, quiet: bool = False) -> list[Row]:
    rows: list[Row] = settings.ask_or_read(
        "calls", lambda store: store.calls(limit=limit, open_only=live), quiet=quiet, limit=limit, open_only=live
    )
    return rows


def _whole_sid(settings: Settings, call_sid: str) -> str:
    """A SID from its beginning. Raises Failure when no recent call or more than one begins so."""
    if len(call_sid) >= SID_CHARS:
        return call_sid
    found = [row["call_sid"] for row in _recent(settings, quiet=True) if row["call_sid"].startswith(call_sid)]
    if len(found) != 1:
        what = "no recent call begins" if not found else f"{len(found)} recent calls begin"
        raise Failure(f"{what} with {call_sid}; gateway.py calls list shows them")
    return str(found[0])
