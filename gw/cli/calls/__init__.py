"""`calls`: lists, shows, explains, follows, ends, transfers and removes calls; dials lists of numbers.

dial            `call`: places a call
dial_list       `calls dial`: dials a list of numbers
explain         `calls explain`: prints findings and the timeline
findings        findings and the timeline of one call, from the store's rows
reason_words    the meaning of each reason
waits           waits for answers, and their parts
view watch      `calls show`, `calls watch`
"""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from click.shell_completion import CompletionItem

from gw.cli.context import EXIT_CODES, Failure, Settings, gateway_options, names_host, parse_age_s, print_answer
from gw.control.rows import CallDetails, CallFilter, ListedCall
from gw.errors import GatewayError

#: Bound on completing call SIDs.
COMPLETION_S: Final = 1.0
#: Length of a SID: two letters and 32 hexadecimal digits.
SID_CHARS: Final = 34
#: Bound on a command that sends requests to Twilio, above the gateway's own bound.
ACT_S: Final = 16.0
#: Calls searched for an abbreviated SID.
RECENT: Final = 200


@click.group(epilog=EXIT_CODES)
def calls() -> None:
    """List, show, explain, follow, end, transfer and remove calls; dial a list of numbers.

    \b
    The newest twenty:              gateway.py calls list
    Live calls:                     gateway.py calls list --live
    Everything about one call:      gateway.py calls show CA0123456789abcdef0123456789abcdef
    The same, by its first digits:  gateway.py calls show CA0123
    Causes of bad audio:            gateway.py calls explain CA0123
    Follow all calls:               gateway.py calls watch
    End a call:                     gateway.py calls hangup CA0123
    Transfer a call to a person:    gateway.py calls transfer CA0123 --to +15551234567
    Remove everything about it:     gateway.py calls forget CA0123
    Dial a list of numbers:         gateway.py calls dial list.csv
    """


def complete_sid(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return SIDs of recent calls, from the gateway or the store, within COMPLETION_S.

    Empty for another host, and for any error.
    """
    import gevent

    from gw.terminal import local_time

    if names_host(ctx):
        return []
    settings = Settings(ctx.find_root().params.get("path"), warns=False)
    live = ctx.info_name in ("hangup", "transfer", "watch", "pause", "resume")
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


def dialled(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check a party that Twilio can dial. Raises click.BadParameter."""
    from gw.config import DIALLED

    if value is None or DIALLED.fullmatch(value):
        return value
    raise click.BadParameter(f"{value!r} is neither a number in E.164, such as +15551234567, nor sip:user@host")


def began(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Parse a time of the past into epoch seconds. Raises click.BadParameter."""
    if value is None:
        return None
    if age_s := parse_age_s(value):
        return time.time() - age_s
    try:
        return datetime.fromisoformat(value).timestamp()  # without a zone: local time
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a time; use 30m, 12h, 7d, 2026-11-28 or 2026-11-28T09:30") from None


sid_argument = click.argument("call_sid", shell_complete=complete_sid)


@calls.command(
    "list",
    short_help="List calls, newest first.",
    epilog="\b\nExamples:\n"
    "  gateway.py calls list --limit 100 --json\n"
    "  gateway.py calls list --number +15551234567 --since 7d\n"
    "  gateway.py calls list --worst --since 2026-11-28\n"
    f"  gateway.py calls list --cost --since 1d\n\n{EXIT_CODES}",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Number of calls, newest first.")
@click.option("--live", is_flag=True, help="Only calls that have not ended.")
@click.option("--since", callback=began, help="Only calls that began since: 30m, 12h, 7d, 2026-11-28 or 2026-11-28T09:30.")
@click.option("--agent", help="Only calls of this agent.")
@click.option("--number", help="Only calls from or to this number, as Twilio writes it: +15551234567.")
@click.option("--machine", help="Only calls of this machine, by its host name.")
@click.option("--reason", help="Only calls that ended for this reason, such as caller_hangup.")
@click.option("--cost", is_flag=True, help="Show the cost of the AI, in USD.")
@click.option("--worst", is_flag=True, help="The longest gaps in the agent's audio first; without --since, of the last day.")
@gateway_options
def list_calls(settings: Settings, limit: int, live: bool, cost: bool, as_json: bool, **conditions: Any) -> None:
    """List calls, newest first: time, length, caller, end, recording, SID.

    A narrow terminal shows fewer columns; --json has every field of the store.
    """
    from gw.terminal import Column, dash, duration, ending, local_time, milliseconds, print_listing, usd

    which = CallFilter(**conditions)
    if which.worst and which.since is None:
        which = msgspec.structs.replace(which, since=time.time() - 86_400)
    rows = _recent(settings, limit=limit, live=live, which=which)
    gaps = (
        Column(">gaps ms", lambda row: dash(row.underrun_ms)),
        Column(">late p99.9", lambda row: milliseconds(row.lateness_p999_s)),
    )
    columns = (
        Column("started", lambda row: local_time(row.started_at)),
        Column(">length", lambda row: duration(row.length_s)),
        Column("from", lambda row: dash(row.from_number), needs=92),
        Column("agent", lambda row: dash(row.agent), needs=120),
        *(gaps if which.worst else ()),
        *((Column(">cost", lambda row: usd(row.cost_usd)),) if cost else ()),
        Column("ended", lambda row: ending(row.reason, row.result)),
        Column("recording", lambda row: dash(row.recording_state), needs=104),
        Column(">call", lambda row: row.call_sid),
    )
    empty = "No live calls." if live else "No calls yet." if which == CallFilter() else "No call meets these conditions."
    print_listing(columns, rows, empty=empty, as_json=as_json)


@calls.command(short_help="Show everything about one call.", epilog=f"\b\nExample:  gateway.py calls show CA0123\n\n{EXIT_CODES}")
@sid_argument
@gateway_options
def show(settings: Settings, call_sid: str, as_json: bool) -> None:
    """Show one call: its facts, turns, recording, audio quality and events.

    The first digits of a SID suffice if only one recent call has them.
    """
    from gw.cli.calls.view import print_call
    from gw.terminal import print_json

    call = _one(settings, call_sid)
    if as_json:
        print_json(call)
    else:
        print_call(call)


@calls.command(
    short_help="Explain the audio quality of a call.",
    epilog="\b\nExamples:\n"
    "  gateway.py calls explain CA0123\n"
    f"  gateway.py calls explain CA0123 --json | jq '.findings[] | select(.weight == \"bad\")'\n\n{EXIT_CODES}",
)
@sid_argument
@gateway_options
def explain(settings: Settings, call_sid: str, as_json: bool) -> None:
    """Explain the audio quality of a call, in sentences with figures, followed by the timeline.

    The sources are in the store: the quality report from the call's end, its turns, events and recording. The gateway need not
    run. Findings are `bad` (audible, or a broken guarantee), `odd` (a possible explanation) or `good`. The first digits of a SID
    suffice if only one recent call has them.
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
@gateway_options
def watch(settings: Settings, call_sid: str | None, as_json: bool) -> None:
    """Follow one call or all calls, about a second behind.

    With a SID: prints turns and events until the call ends, then the findings. Without: prints each call that begins or ends,
    until Ctrl-C. With --json every line is one JSON object. Needs the running gateway, and continues through a reload.
    """
    from gw.cli.calls.watch import watch_all, watch_one

    settings.ask("calls", limit=1, open_only=True)  # fail with exit code 3 before the first line
    try:
        if call_sid is None:
            watch_all(settings, as_json=as_json)
        else:
            watch_one(settings, whole_sid(settings, call_sid), as_json=as_json)
    except KeyboardInterrupt:
        click.echo(err=True)


@calls.command(epilog=f"\b\nExample:  gateway.py calls hangup CA0123\n\n{EXIT_CODES}")
@sid_argument
@gateway_options
def hangup(settings: Settings, call_sid: str, as_json: bool) -> None:
    """End a live call, with the reason admin_hangup.

    The worker ends its call, and with credentials Twilio is asked to end it too. Needs the running gateway. Exit code 1 if the
    call is not live.
    """
    settings.ask("status")  # fail with exit code 3 before the store is searched, which does not have the live calls
    sid = whole_sid(settings, call_sid)
    answer = settings.ask("hangup", call_sid=sid)
    print_answer(answer, f"Ending {sid}.", as_json=as_json)


@calls.command(
    short_help="Transfer a live call to another number.",
    epilog="\b\nExamples:\n"
    "  gateway.py calls transfer CA0123 --to +15551234567\n"
    "  gateway.py calls transfer CA0123 --to +15551234567 --warm --summary 'Anna, about order 12'\n"
    f"  gateway.py calls transfer CA0123 --to sip:desk@example.com\n\n{EXIT_CODES}",
)
@sid_argument
@click.option("--to", required=True, callback=dialled, help="A number in E.164, or sip:user@host.")
@click.option("--warm", is_flag=True, help="The callee accepts with the key 1; otherwise the caller is back with the agent.")
@click.option("--summary", default="", help="With --warm: spoken to the callee first.")
@gateway_options
def transfer(settings: Settings, call_sid: str, to: str, warm: bool, summary: str, as_json: bool) -> None:
    """Transfer a live call: Twilio disconnects the agent and dials the other number.

    The agent's part ends with the reason transferred; a recording of the call continues. With --warm the caller hears ringing
    until the callee accepts; calls explain shows the outcome. Needs the running gateway and Twilio credentials. Exit code 1 if
    Twilio fails or refuses.
    """
    if summary and not warm:
        raise click.UsageError("--summary needs --warm: without it the callee is connected as it answers")
    settings.ask("status")
    sid = whole_sid(settings, call_sid)
    more = {"warm": True, "summary": summary} if warm else {}
    answer = settings.act("transfer", timeout_s=ACT_S, call_sid=sid, to=to, **more)
    rings = f"The telephone of {to} rings; gateway.py calls explain {sid} shows the outcome."
    print_answer(answer, rings if warm else f"{sid} is transferred to {to}.", as_json=as_json)


@calls.command(
    short_help="Remove everything about one call.",
    epilog="\b\nExamples:\n"
    "  gateway.py calls forget CA0123456789abcdef0123456789abcdef\n"
    f"  gateway.py calls forget CA0123 --twilio --yes --json\n\n{EXIT_CODES}",
)
@sid_argument
@click.option("--twilio", is_flag=True, help="Delete the call's recordings at Twilio too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@gateway_options
def forget(settings: Settings, call_sid: str, twilio: bool, yes: bool, as_json: bool) -> None:
    """Remove one call from the store and the spool, and its downloaded recording.

    Twilio keeps its own record of the call; --twilio deletes the recordings there. Logs and backups are not changed. Needs the
    running gateway. Exit code 1 if the call has not ended or a part cannot be removed; the error names it.
    """
    settings.ask("status")
    sid = whole_sid(settings, call_sid)
    if not yes:
        click.confirm(f"Remove {sid}{' here and its recordings at Twilio' if twilio else ''}?", abort=True, err=True)
    done = settings.act("forget", timeout_s=ACT_S, call_sid=sid, twilio=twilio)
    rows = ", ".join(f"{count} of {table}" for table, count in done["store"].items() if count) or "no rows"
    spool = done["spool"]
    parts = [f"the store: {rows}", f"waiting events: {spool['entries']}", f"refused events: {spool['poison']}"]
    parts.append(f"requests to your endpoints: {spool.get('jobs', 0)}")  # an older gateway has none
    parts += [f"Twilio: {', '.join(done['twilio']) or 'no recording'}"] if twilio else []
    parts += [f"the file {done['file']}"] if done["file"] else []
    lines = [f"{sid} was removed from", *(f"  {part}" for part in parts), *(f"Note: {one}." for one in done["remains"])]
    print_answer(done, "\n".join(lines), as_json=as_json)


@calls.command(
    "dial",
    short_help="Dial a list of numbers.",
    epilog="\b\nExamples:\n"
    "  gateway.py calls dial list.csv --from +15557654321 --dry-run\n"
    "  gateway.py calls dial list.csv --agent reminder --out results.csv\n"
    "  gateway.py calls dial list.csv --json | jq -c 'select(.what == \"dial\")'\n\n" + EXIT_CODES,
)
@click.argument("path", metavar="LIST.CSV", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--from", "caller", callback=dialled, help="Caller ID. Default: outbound.from.")
@click.option("--agent", default="default", show_default=True, help="The agent of lines without their own.")
@click.option("--account", default="", metavar="NAME", help="The Twilio account, as with `call`.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File of the results. Default: LIST.results.csv.")
@click.option("--dry-run", is_flag=True, help="Check the list, and show what would be dialled.")
@click.option("--unknown", is_flag=True, help="Dial the numbers again whose outcome is unknown.")
@gateway_options
def dial_numbers(settings: Settings, caller: str | None, **options: Any) -> None:
    """Dial each number of LIST.CSV as [outbound] permits: its pace, hours and retries.

    The file has a header: `to`, and optionally `agent`, `zone` (the callee's) and `var_NAME` for {{NAME}} in the agent's
    texts. All of it is checked before the first dial. Ctrl-C lets the rest wait, and the same command continues the same file.
    With --json every line is one object: `dial` for each dial that ended, `progress`, and `result` at the end. Exit code 1 if the
    list is invalid or stops, or if the outcome of a dial is unknown.
    """
    from gw.cli.calls.dial_list import Options, dial

    dial(settings, Options(caller=caller or "", **options))


def _one(settings: Settings, call_sid: str) -> CallDetails:
    """Return a call by its SID or the first digits. Raises Failure."""
    sid = whole_sid(settings, call_sid)
    call = settings.ask_or_read("call", lambda store: store.call(sid), CallDetails | None, call_sid=sid)
    if call is None:
        raise Failure(f"no call {sid} is known; gateway.py calls list shows the known calls")
    return call


def _recent(
    settings: Settings, limit: int = RECENT, *, live: bool = False, quiet: bool = False, which: CallFilter | None = None
) -> list[ListedCall]:
    which = which or CallFilter()
    return settings.ask_or_read(
        "calls",
        lambda store: store.calls(limit=limit, open_only=live, which=which),
        list[ListedCall],
        quiet=quiet,
        limit=limit,
        open_only=live,
        **({"which": which} if which != CallFilter() else {}),  # a gateway of an earlier version has no filter
    )


def whole_sid(settings: Settings, call_sid: str) -> str:
    """Complete the first digits of a SID. Raises Failure unless exactly one recent call has them."""
    if len(call_sid) >= SID_CHARS:
        return call_sid
    found = [row.call_sid for row in _recent(settings, quiet=True) if row.call_sid.startswith(call_sid)]
    if len(found) != 1:
        number = "no recent call begins" if not found else f"{len(found)} recent calls begin"
        raise Failure(f"{number} with {call_sid}; list the recent calls with: gateway.py calls list")
    return found[0]
