"""`db`: the store's schema, old calls, backups, and refused events. Works on the store, with or without a gateway."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from gw.cli.context import (
    ADMIN_TIMEOUT_S,
    EXIT_CODES,
    EXIT_CODES_HERE,
    Failure,
    Settings,
    common_options,
    counted,
    gateway_options,
    parse_age_s,
    print_answer,
)


@click.group(short_help="Manage the store: schema, old calls, backups, refused events.", epilog=EXIT_CODES)
def db() -> None:
    """Manage the store: its schema, old calls, backups, and events that it refused.

    The gateway upgrades its store when it starts. Upgrade it here beforehand, or as a user with the right to change tables.

    \b
    Show the revision:            gateway.py db current
    Upgrade the schema:           gateway.py db upgrade
    Remove old calls:             gateway.py db purge --older-than 30d
    Copy the store:               gateway.py db backup calls.db
    List refused events:          gateway.py db poison list
    Retry them after a fix:       gateway.py db poison retry
    """


@db.command(epilog=f"\b\nExample:  gateway.py db upgrade --config submilli.toml\n\n{EXIT_CODES_HERE}")
@common_options
def upgrade(settings: Settings, as_json: bool) -> None:
    """Upgrade the schema to this version's revision. Idempotent."""
    with settings.store() as store:
        before, _ = store.current()
        store.upgrade()
        after, needed = store.current()
    upgraded = f"The schema was upgraded from {before or 'nothing'} to {after}."
    sentence = f"The schema is already at {after}." if before == after else upgraded
    print_answer({"before": before, "after": after, "needed": needed}, sentence, as_json=as_json)


@db.command(epilog=f"\b\nExample:  gateway.py db current && gateway.py serve\n\n{EXIT_CODES_HERE}")
@common_options
def current(settings: Settings, as_json: bool) -> None:
    """Show the schema's revision and this version's. Exit code 1 if this version cannot use the schema."""
    from gw.control.store import StoreError

    with settings.store() as store:
        has, needed = store.current()
        try:
            store.check()
            state, ok = "up to date" if has == needed else f"newer than {needed}, and usable by this version", True
        except StoreError as error:
            state, ok = str(error), False
    print_answer({"current": has, "needed": needed, "ok": ok}, f"{has or 'no schema'}, {state}", as_json=as_json)
    if not ok:
        raise click.exceptions.Exit(1)


def older_than(_: click.Context, __: click.Parameter, value: str) -> float:
    """Parse a length of time into seconds. Raises click.BadParameter."""
    if age_s := parse_age_s(value):
        return age_s
    raise click.BadParameter(f"{value!r} is not a length of time; use 12h or 30d")


@db.command(
    short_help="Remove calls that ended long ago.",
    epilog="\b\nExamples:\n  gateway.py db purge --older-than 30d --dry-run\n"
    f"  gateway.py db purge --older-than 30d --yes\n\n{EXIT_CODES_HERE}",
)
@click.option("--older-than", "age_s", required=True, callback=older_than, help="Age since the call's end: 12h, 30d.")
@click.option("--dry-run", is_flag=True, help="Count the calls, and remove nothing.")
@click.option(
    "--share",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    help="Percent of the time in which the store is used; 100 is fastest, for a store that serves no calls.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
def purge(settings: Settings, age_s: float, dry_run: bool, share: int, yes: bool, as_json: bool) -> None:
    """Remove calls that ended long ago, with everything stored about them, in small transactions.

    The gateway does so itself for calls older than store.keep_days. Calls stay whose recording is not finished, or waits for its
    download or for its deletion at Twilio. Recordings and downloaded files are not deleted. Ctrl-C stops after a transaction.
    """
    import gevent

    from gw.control.retention.purge import policy_of, sweep

    before = time.time() - age_s
    if not dry_run and not yes:
        click.confirm(f"Remove every call that ended before {time.ctime(before)}?", abort=True, err=True)
    calls = events = 0
    with settings.store() as store:
        store.check()
        try:
            for page in sweep(store, before, policy_of(settings.config), dry_run=dry_run):
                calls, events = calls + page.calls, events + page.events
                if not as_json:
                    click.echo(f"\r{calls} calls", nl=False, err=True)
                if not dry_run:
                    gevent.sleep(page.pause_s(share / 100))
        except KeyboardInterrupt:
            raise Failure(f"interrupted after {counted(calls, 'call', 'calls')}; the next purge continues") from None
        finally:
            if not as_json:
                click.echo("\r", nl=False, err=True)
    counts = counted(calls, "call", "calls")
    others = counted(events, "other event", "other events")
    sentence = f"{counts} would be removed." if dry_run else f"Removed {counts} and {others}."
    print_answer({"calls": calls, "events": events, "dry_run": dry_run}, sentence, as_json=as_json)


@db.command(epilog=f"\b\nExample:  gateway.py db backup /backup/calls-$(date +%F).db\n\n{EXIT_CODES_HERE}")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@common_options
def backup(settings: Settings, target: Path, as_json: bool) -> None:
    """Copy an SQLite store to a new file, also while the gateway runs. For MySQL, print the command that does.

    deploy/DATA.md describes how to restore it.
    """
    from gw.config.store_url import MysqlUrl, parse_store_url
    from gw.control.store.backup import copy, mysql_command

    url = parse_store_url(settings.config.store.url)
    if isinstance(url, MysqlUrl):
        command = mysql_command(url, target)
        print_answer({"command": command}, command, as_json=as_json)
        return
    size = copy(Path(url.path), target)
    print_answer({"file": str(target), "bytes": size}, f"{target} has the store, {size} bytes.", as_json=as_json)


@db.group(
    short_help="List, retry, export and drop events that the store refused.",
    epilog="\b\nExamples:\n  gateway.py db poison list\n  gateway.py db poison retry\n\n" + EXIT_CODES,
)
def poison() -> None:
    """Manage events that the store refused, kept in the spool with the reason. Needs the running gateway."""


@poison.command("list", epilog=f"\b\nExample:  gateway.py db poison list --json | jq '.[].why'\n\n{EXIT_CODES}")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Number of events, oldest first.")
@gateway_options
def list_poison(settings: Settings, limit: int, as_json: bool) -> None:
    """List refused events with the reasons."""
    from gw.terminal import Column, local_time, print_listing

    rows = settings.ask("poison_list", limit=limit)
    columns = (
        Column(">id", lambda row: str(row["id"])),
        Column("since", lambda row: local_time(row["at"])),
        Column("from", lambda row: f"{row['instance']} number {row['n']}", needs=120),
        Column(">bytes", lambda row: str(row["bytes"])),
        Column("why", lambda row: row["why"]),
    )
    print_listing(columns, rows, empty="The store has refused no event.", as_json=as_json)


@poison.command("retry", epilog=f"\b\nExamples:\n  gateway.py db poison retry\n  gateway.py db poison retry 7 9\n\n{EXIT_CODES}")
@click.argument("ids", nargs=-1, type=int)
@gateway_options
def retry_poison(settings: Settings, ids: tuple[int, ...], as_json: bool) -> None:
    """Send refused events to the store again: the given IDS, or all. Events refused again stay in the list."""
    done = settings.ask("poison_retry", ids=list(ids))
    sent = counted(done["queued"], "event is", "events are")
    sentence = f"{sent} sent to the store again; {counted(done['set_aside'], 'stays', 'stay')} in the list."
    print_answer(done, sentence, as_json=as_json)


@poison.command(
    "export",
    short_help="Write refused events, with their contents.",
    epilog=f"\b\nExample:  gateway.py db poison export --out refused.jsonl\n\n{EXIT_CODES}",
)
@click.argument("ids", nargs=-1, type=int)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A new file, mode 0600. Without: standard output.")
@gateway_options
def export_poison(settings: Settings, ids: tuple[int, ...], out: Path | None, as_json: bool) -> None:
    """Write refused events with their contents, one JSON document a line: the given IDS, or all.

    They stay in the list.
    """
    import msgspec

    rows: list[dict[str, Any]] = []
    after = 0
    while page := settings.ask("poison_export", after=after):
        rows += [row for row in page if not ids or row["id"] in ids]
        after = page[-1]["id"]
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    if out is None:
        click.echo(lines.decode(), nl=False)
        return
    try:
        with os.fdopen(os.open(out, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(lines)
            os.fsync(file.fileno())
    except OSError as error:
        raise Failure(f"{out} cannot be written: {error.strerror}") from None
    answer = {"file": str(out), "ids": [row["id"] for row in rows]}
    print_answer(answer, f"{out} has {counted(len(rows), 'event', 'events')}.", as_json=as_json)


@poison.command(
    "drop", epilog=f"\b\nExamples:\n  gateway.py db poison drop 7 9\n  gateway.py db poison drop --all --yes\n\n{EXIT_CODES}"
)
@click.argument("ids", nargs=-1, type=int)
@click.option("--all", "whole", is_flag=True, help="Every refused event.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@gateway_options
def drop_poison(settings: Settings, ids: tuple[int, ...], whole: bool, yes: bool, as_json: bool) -> None:
    """Delete refused events: the given IDS, or --all. Export them first if they may be needed."""
    if bool(ids) == whole:
        raise click.UsageError("name events by their ids, or use --all")
    if not yes:
        click.confirm(
            f"Delete {'all refused events' if whole else counted(len(ids), 'refused event', 'refused events')} permanently?",
            abort=True,
            err=True,
        )
    done = settings.act("poison_drop", timeout_s=ADMIN_TIMEOUT_S, ids=list(ids))
    deleted = counted(done["dropped"], "event was", "events were")
    sentence = f"{deleted} deleted; {counted(done['set_aside'], 'stays', 'stay')} in the list."
    print_answer(done, sentence, as_json=as_json)
