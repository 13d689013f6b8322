"""`db`: the store's schema and refused events. Works directly on the store, with or without a gateway."""

from __future__ import annotations

import click

from gw.cli.context import EXIT_CODES, EXIT_CODES_HERE, Settings, common_options, print_answer


@click.group(short_help="Manage the store: its schema, and events it refused.", epilog=EXIT_CODES)
def db() -> None:
    """Show and upgrade the store's schema; list and retry events that the store refused.

    The gateway upgrades its store when it starts. Upgrade it here beforehand, or as a user with the right to change tables.

    \b
    Show the revision:            gateway.py db current
    Upgrade the schema:           gateway.py db upgrade
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


@db.group(
    short_help="List and retry events that the store refused.",
    epilog="\b\nExamples:\n  gateway.py db poison list\n  gateway.py db poison retry\n\n" + EXIT_CODES,
)
def poison() -> None:
    """Manage events that the store refused, kept in the spool with the reason. Needs the running gateway."""


@poison.command("list", epilog=f"\b\nExample:  gateway.py db poison list --json | jq '.[].why'\n\n{EXIT_CODES}")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Number of events, oldest first.")
@common_options
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
@common_options
def retry_poison(settings: Settings, ids: tuple[int, ...], as_json: bool) -> None:
    """Send refused events to the store again: the given IDS, or all. Events refused again stay in the list."""
    done = settings.ask("poison_retry", ids=list(ids))
    sentence = f"{done['queued']} events are sent to the store again, {done['set_aside']} stay in the list."
    print_answer(done, sentence, as_json=as_json)
