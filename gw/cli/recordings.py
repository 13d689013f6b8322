"""`recordings`: what became of each recording."""

from __future__ import annotations

import click

from gw.cli.context import Settings, config_option, json_option, pass_settings

#: As a row goes through them; a test compares them with the store's.
STATES = ("wanted", "claimed", "started", "completed", "absent", "failed")


@click.group()
def recordings() -> None:
    """List recordings and their states.

    \b
    The newest twenty:    gateway.py recordings list
    Those that failed:    gateway.py recordings list --state failed
    """


@recordings.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many, newest first.")
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@config_option
@json_option
@pass_settings
def list_recordings(settings: Settings, limit: int, state: str | None, as_json: bool) -> None:
    """List recordings, newest first: state, how soon after the first audio, length, SIDs, and why one failed."""
    from gw.cli.output import Column, dash, duration, local_time, print_json, print_rows

    rows = settings.ask_or_read("recordings", lambda store: store.recordings(limit=limit, state=state), limit=limit, state=state)
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("No recordings yet." if state is None else f"No recording is {state}.")
        return
    columns = (
        Column("first audio", lambda row: local_time(row["first_audio_at"])),
        Column("state", lambda row: row["state"]),
        Column(">trigger ms", lambda row: dash(row["trigger_ms"]), needs=92),
        Column(">length", lambda row: duration(row["duration_s"])),
        Column(">call", lambda row: row["call_sid"]),
        Column(">recording", lambda row: dash(row["recording_sid"]), needs=130),
        Column("error", lambda row: row["error_text"] or "", needs=104),
    )
    print_rows(columns, rows)
