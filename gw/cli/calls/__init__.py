"""`calls`: which calls there are and were, one of them in full or explained, followed, ended or handed on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

from gw.cli.context import EXIT_CODES, Failure, Settings, config_option, elsewhere, json_option, pass_settings
from gw.control.rows import CallDetails, ListedCall
from gw.errors import GatewayError

if TYPE_CHECKING:
    from gw.control.store import Store

#: How long the shell may wait for call SIDs while somebody types.
COMPLETION_S: Final = 1.0
#: A SID as Twilio writes it: two letters and 32 hexadecimal digits.
SID_CHARS: Final = 34
#: What a command that asks Twilio may take; the gateway's own bound is below it.
ACT_S: Final = 16.0
#: Where an abbreviated SID is looked for.
RECENT: Final = 200


@click.group(epilog=EXIT_CODES)
def calls() -> None:
    """List calls, show one, say why it sounded bad, follow, end or transfer it.

    \b
    The newest twenty:             gateway.py calls list
    Those that go on right now:    gateway.py calls list --live
    Everything about one:          gateway.py calls show CA0123456789abcdef0123456789abcdef
    The same, by its beginning:    gateway.py calls show CA0123
    Why it sounded bad:            gateway.py calls explain CA0123
    All that happens, as it does:  gateway.py calls watch
    End one:                       gateway.py calls hangup CA0123
    Hand it to a person:           gateway.py calls transfer CA0123 --to +15551234567
    """


def complete_sid(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """SIDs of recent calls, asked of the gateway or read from the store, for a second at most. None of another host."""
    import gevent

    from gw.terminal import local_time

    if elsewhere(ctx):
        return []
    settings = Settings(ctx.find_root().params.get("path"))
    live = ctx.info_name in ("hangup", "transfer", "watch")
    with gevent.Timeout(COMPLETION_S, GatewayError("the gateway took too long")):
        try:
            rows = _recent(settings, live=live, quiet=True)
        except (GatewayError, click.ClickException):
            return []
    return [
        CompletionItem(row.call_sid, help=f"{local_time(row.started_at)} {row.reason or 'live'}")
        for row in rows
        if row.call_sid.startswith(incomplete)
    ]


def dialled(_: click.Context, parameter: click.Parameter, value: str) -> str:
    """What Twilio can dial, as the gateway checks it again. Raises click.BadParameter."""
    from gw.config.rules import DIALLED

    if DIALLED.fullmatch(value):
        return value
    raise click.BadParameter(f"{value!r} is neither a number in E.164, as +15551234567, nor sip:user@host")


sid_argument = click.argument("call_sid", shell_complete=complete_sid)


@calls.command("list", epilog=f"\b\nExample:  gateway.py calls list --limit 100 --json\n\n{EXIT_CODES}")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many, newest first.")
@click.option("--live", is_flag=True, help="Only calls that have not ended.")
@config_option
@json_option
@pass_settings
def list_calls(settings: Settings, limit: int, live: bool, as_json: bool) -> None:
    """List calls, newest first: when, how long, from whom, how each ended, its recording, its SID.

    A narrow terminal shows fewer columns; --json has every field of the store.
    """
    from gw.terminal import Column, dash, duration, ending, local_time, print_json, print_rows

    rows = _recent(settings, limit=limit, live=live)
    if as_json:
        print_json(rows)
    elif rows:
        columns = (
            Column("started", lambda row: local_time(row.started_at)),
            Column(">length", lambda row: duration(row.length_s)),
            Column("from", lambda row: dash(row.from_number), needs=92),
            Column("agent", lambda row: dash(row.agent), needs=120),
            Column("ended", lambda row: ending(row.reason, row.result)),
            Column("recording", lambda row: dash(row.recording_state), needs=104),
            Column(">call", lambda row: row.call_sid),
        )
        print_rows(columns, rows)
    else:
        click.echo("No call goes on." if live else "No calls yet.")


@calls.command(short_help="Show everything about one call.", epilog=f"\b\nExample:  gateway.py calls show CA0123\n\n{EXIT_CODES}")
@sid_argument
@config_option
@json_option
@pass_settings
def show(settings: Settings, call_sid: str, as_json: bool) -> None:
    """Show one call: its life, what was said, its recording, its audio's quality, its events.

    The beginning of a SID is enough where only one recent call has it.
    """
    from gw.cli.calls.view import print_call
    from gw.terminal import print_json

    call = _one(settings, call_sid)
    if as_json:
        print_json(call)
    else:
        print_call(call)


@calls.command(
    short_help="Say why a call sounded as it did.",
    epilog="\b\nExamples:\n"
    "  gateway.py calls explain CA0123\n"
    f"  gateway.py calls explain CA0123 --json | jq '.findings[] | select(.weight == \"bad\")'\n\n{EXIT_CODES}",
)
@sid_argument
@config_option
@json_option
@pass_settings
def explain(settings: Settings, call_sid: str, as_json: bool) -> None:
    """Say why a call sounded as it did, in sentences with figures, then all that happened in order.

    Made of what the store keeps: the quality report of the call's end, its turns, events and recording. So it also tells on
    Monday about a call of Friday, and with a gateway that does not run. Findings are `bad` (the caller heard it, or a promise was
    broken), `odd` (may explain something) or `good`. The beginning of a SID is enough where only one recent call has it.
    """
    from gw.cli.calls.explain import as_document, print_story
    from gw.terminal import print_json

    call = _one(settings, call_sid)
    if as_json:
        print_json(as_document(call))
    else:
        print_story(call)


@calls.command(
    short_help="Follow calls live.",
    epilog=f"\b\nExamples:\n  gateway.py calls watch\n  gateway.py calls watch CA0123 --json\n\n{EXIT_CODES}",
)
@click.argument("call_sid", required=False, shell_complete=complete_sid)
@config_option
@json_option
@pass_settings
def watch(settings: Settings, call_sid: str | None, as_json: bool) -> None:
    """Follow one call, or all of them: what is said and what happens, about a second after it does.

    With a SID it ends with that call and says what stands out; without one it says which calls begin and end, until Ctrl-C. With
    --json every line is one JSON object. The gateway must run, but it may be reloaded meanwhile.
    """
    from gw.cli.calls.watch import watch_all, watch_one

    settings.ask("calls", limit=1, open_only=True)  # exit code 3, before anything is followed
    try:
        if call_sid is None:
            watch_all(settings, as_json=as_json)
        else:
            watch_one(settings, _whole_sid(settings, call_sid), as_json=as_json)
    except KeyboardInterrupt:
        click.echo(err=True)


@calls.command(epilog=f"\b\nExample:  gateway.py calls hangup CA0123\n\n{EXIT_CODES}")
@sid_argument
@config_option
@json_option
@pass_settings
def hangup(settings: Settings, call_sid: str, as_json: bool) -> None:
    """End a call that goes on, for the reason admin_hangup. Its worker is told, and Twilio where there are credentials.

    The gateway must run. Exit code 1 when no such call goes on.
    """
    from gw.terminal import print_json

    settings.ask("status")  # exit code 3, before a SID is looked up in a store that cannot know who is on the line
    sid = _whole_sid(settings, call_sid)
    answer = settings.ask("hangup", call_sid=sid)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{sid} is being ended.")


@calls.command(
    short_help="Hand a live call to another number.",
    epilog="\b\nExamples:\n"
    "  gateway.py calls transfer CA0123 --to +15551234567\n"
    f"  gateway.py calls transfer CA0123 --to sip:desk@example.com\n\n{EXIT_CODES}",
)
@sid_argument
@click.option("--to", required=True, callback=dialled, help="A number in E.164, or sip:user@host.")
@config_option
@json_option
@pass_settings
def transfer(settings: Settings, call_sid: str, to: str, as_json: bool) -> None:
    """Hand a live call to another number: Twilio takes the caller from the agent and dials it.

    The agent's part ends as caller_hangup, with an event `transferred`; a recording of the call goes on. Needs the running
    gateway and Twilio credentials. Exit code 1 when Twilio did not do it.
    """
    from gw.terminal import print_json

    settings.ask("status")
    sid = _whole_sid(settings, call_sid)
    answer = settings.act("transfer", timeout_s=ACT_S, call_sid=sid, to=to)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{sid} is handed to {to}.")


def _one(settings: Settings, call_sid: str) -> CallDetails:
    """A call by its SID, or by the beginning of it. Raises Failure."""
    sid = _whole_sid(settings, call_sid)
    call = settings.ask_or_read("call", lambda store: store.call(sid), CallDetails | None, call_sid=sid)
    if call is None:
        raise Failure(f"no call {sid} is known; gateway.py calls list shows those that are")
    return call


def _recent(settings: Settings, limit: int = RECENT, *, live: bool = False, quiet: bool = False) -> list[ListedCall]:
    def read(store: Store) -> list[ListedCall]:
        return store.calls(limit=limit, open_only=live)

    return settings.ask_or_read("calls", read, list[ListedCall], quiet=quiet, limit=limit, open_only=live)


def _whole_sid(settings: Settings, call_sid: str) -> str:
    """A SID from its beginning. Raises Failure when no recent call or more than one begins so."""
    if len(call_sid) >= SID_CHARS:
        return call_sid
    found = [row.call_sid for row in _recent(settings, quiet=True) if row.call_sid.startswith(call_sid)]
    if len(found) != 1:
        what = "no recent call begins" if not found else f"{len(found)} recent calls begin"
        raise Failure(f"{what} with {call_sid}; gateway.py calls list shows them")
    return found[0]
