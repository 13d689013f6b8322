"""`status`: the state of the running gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from gw.cli.context import EXIT_CODES, Settings, counted, gateway_options

if TYPE_CHECKING:
    from rich.text import Text

    from gw.control.rows import ListedGateway
    from gw.control.store import Store

#: Frames of a stack that are shown; --json has all.
SHOWN_FRAMES: Final = 4


@click.command(short_help="Show the state of the running gateway.", epilog=EXIT_CODES)
@click.option("--holds", is_flag=True, help="Show holds of a worker's hub over 1 ms, with their stacks, instead.")
@click.option("--fleet", is_flag=True, help="Show all gateways of the store instead.")
@gateway_options
def status(settings: Settings, holds: bool, fleet: bool, as_json: bool) -> None:
    """Show the state of the running gateway: readiness, workers, calls, store, recordings.

    Exit code 1 if the gateway is not ready for new calls, with or without --json; 3 if no gateway answers on the admin socket.

    \b
    For people:            gateway.py status
    For a script:          gateway.py status --json
    Long holds of a hub:   gateway.py status --holds
    Other machines too:    gateway.py status --fleet
    """
    from gw.terminal import print_json

    if holds:
        _show_holds(settings.ask("holds"), as_json)
        return
    if fleet:
        _show_fleet(settings, as_json)
        return
    document = settings.ask("status")
    if as_json:
        print_json(document)
    else:
        _show(document)
    if not document["readiness"]["ready"]:
        raise click.exceptions.Exit(1)


def _show(document: dict[str, Any]) -> None:
    """Print facts about the gateway, and its workers."""
    from gw.terminal import Column, console, facts, milliseconds, print_rows

    out = console()
    out.print(facts(_facts(document)))
    if document["workers"]:
        out.print()
        columns = (
            Column(">worker", lambda row: str(row["index"])),
            Column("state", worker_state),
            Column(">calls", lambda row: str(row["calls"])),
            Column(">pid", lambda row: str(row["pid"])),
            Column(">lateness p99, ms", lambda row: milliseconds(row["lateness_p99_s"])),
            Column(">hub held max, last minute, ms", lambda row: milliseconds(row["hold_max_s"])),
            Column(">unacked events", lambda row: str(row["unacked"]), needs=90),
        )
        print_rows(columns, document["workers"])


def _show_fleet(settings: Settings, as_json: bool) -> None:
    """Print the gateways of the store, by machine."""
    from gw.control.rows import ListedGateway
    from gw.terminal import Column, dash, duration, print_listing

    def read(store: Store) -> list[ListedGateway]:
        from gw.control.fleet import gone_after_s, listed

        return listed(*store.gateways(), gone_after_s(settings.config.media.max_call_s))

    found: list[ListedGateway] = settings.ask_or_read("fleet", read, list[ListedGateway], quiet=as_json)
    columns = (
        Column("machine", lambda row: row.machine),
        Column("gateway", lambda row: row.gateway),
        Column("version", lambda row: row.version, needs=100),
        Column("state", lambda row: _fleet_state(row.state)),
        Column("ready", lambda row: ("yes" if row.ready else "no") if row.state == "live" else "-"),
        Column("drained", lambda row: "yes" if row.drained else dash("")),
        Column(">calls", lambda row: f"{row.calls} of {row.capacity}"),
        Column(">heartbeat", lambda row: f"{duration(row.heartbeat_age_s)} ago"),
    )
    print_listing(columns, found, empty="No gateway has used this store yet.", as_json=as_json)


def _fleet_state(state: str) -> Text:
    from rich.text import Text

    return Text(state, {"live": "green", "silent": "yellow", "gone": "red"}.get(state, ""))


def _show_holds(found: list[dict[str, Any]], as_json: bool) -> None:
    """Print the long holds, newest first: sampled 10 % of the time, the worst of each second."""
    from gw.terminal import Column, local_time, milliseconds, print_listing

    columns = (
        Column("when", lambda hold: local_time(hold["at"])),
        Column(">worker", lambda hold: str(hold["worker"])),
        Column(">pid", lambda hold: str(hold["pid"]), needs=100),
        Column("kind", lambda hold: hold["kind"]),
        Column(">held, ms", lambda hold: milliseconds(hold["wall_s"])),
        Column(">CPU, ms", lambda hold: milliseconds(hold["cpu_s"])),
        Column("where, innermost first", _where),
    )
    print_listing(columns, found, empty="No hold of a worker's hub over 1 ms was sampled.", as_json=as_json)


def _where(hold: dict[str, Any]) -> str:
    frames = [f"{frame['file']}:{frame['line']} {frame['function']}" for frame in hold["stack"][:SHOWN_FRAMES]]
    return "\n".join(frames) or "not sampled"


def _facts(document: dict[str, Any]) -> Iterator[tuple[str, str | Text]]:
    from rich.text import Text

    from gw.terminal import duration, local_time, usd

    readiness, store = document["readiness"], document["store"]
    yield "gateway", f"{document['version']} on {document['host']}, pid {document['pid']}"
    if name := document.get("gateway"):  # an older gateway has none
        yield "id", name
    yield "uptime", f"{duration(document['uptime_s'])} since the start or last reload, {local_time(document['started_at'])}"
    yield "ready", Text("yes", "green") if readiness["ready"] else Text("no", "red")
    for reason in readiness["reasons"]:
        yield "", Text(reason, "yellow")
    yield "webhooks", "signatures are checked" if document["signed"] else Text("unsigned, loopback only", "yellow")
    yield "calls", str(document["calls"])
    budget = document.get("budget", {})  # an older gateway has none
    if budget.get("limit_usd"):
        yield "budget", f"{usd(budget['spent_usd'])} of {usd(budget['limit_usd'])} spent on {budget['day']}, UTC"
    is_usable = store["reachable"] and store.get("schema", "unknown") in ("ready", "unknown")  # an older gateway has none
    yield "store", f"{store['kind']}, revision {store['revision']}" if is_usable else Text(store["problem"], "red")
    waiting, set_aside = document["backlog"], document["poison"]
    yield "spool", counted(waiting, "event waits for the store", "events wait for the store") if waiting else "empty"
    if set_aside:
        refused = counted(set_aside, "event was", "events were")
        yield "", Text(f"{refused} refused by the store; see gateway.py db poison list", "red")
    if document["cut_values"]:
        cut = counted(document["cut_values"], "value was", "values were")
        yield "", Text(f"{cut} shortened to fit the store", "yellow")
    if document["claims"]:
        claims = counted(document["claims"], "recording is", "recordings are")
        yield "", Text(f"{claims} claimed in the spool while the store is down", "yellow")
    if (jobs := document.get("jobs")) and jobs["open"]:  # an older gateway has none
        yield (
            "jobs",
            f"{counted(jobs['open'], 'request', 'requests')} to your endpoints without a result, "
            f"the oldest for {duration(jobs['oldest_s'])}",
        )
    twilio = document["twilio"]
    for name, account in {"twilio": twilio, **twilio.get("accounts", {})}.items():  # an older gateway has one account
        if account["circuit"] not in ("closed", "none"):
            yield name, Text(f"down, recordings wait: {account['problem']}", "red")
    done = ", ".join(f"{count} {outcome}" for outcome, count in document["recordings"].items() if count)
    yield "recordings", done or ("none yet" if document["signed"] else "off, without Twilio credentials")


def worker_state(row: dict[str, Any]) -> Text:
    from rich.text import Text

    if not row["connected"]:
        return Text("lost", "red")
    return Text("draining", "yellow") if row["draining"] else Text("up", "green")
