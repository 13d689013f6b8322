"""`recordings`: what became of each recording."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from gw.cli.calls import sid_argument
from gw.cli.context import EXIT_CODES, Failure, Settings, config_option, json_option, pass_settings
from gw.control.rows import RecordingRow

#: How long the gateway may take for a command that asks Twilio.
ASK_S = 14.0
#: As a row goes through them; a test compares them with the store's.
STATES = ("wanted", "claimed", "started", "completed", "absent", "failed")


@click.group(epilog=EXIT_CODES)
def recordings() -> None:
    """List recordings and their states, try one again, settle what waits.

    \b
    The newest twenty:    gateway.py recordings list
    Those that failed:    gateway.py recordings list --state failed
    Try one once more:    gateway.py recordings retry CA0123...
    Ask Twilio now:       gateway.py recordings reconcile
    """


@recordings.command("list", epilog=f"\b\nExample:  gateway.py recordings list --state failed --json\n\n{EXIT_CODES}")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many, newest first.")
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@config_option
@json_option
@pass_settings
def list_recordings(settings: Settings, limit: int, state: str | None, as_json: bool) -> None:
    """List recordings, newest first: state, how soon after the first audio, length, SIDs, and why one failed."""
    from gw.cli.calls.view import recording_error
    from gw.terminal import Column, dash, duration, local_time, print_json, print_rows

    rows = settings.ask_or_read(
        "recordings", lambda store: store.recordings(limit=limit, state=state), list[RecordingRow], limit=limit, state=state
    )
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("No recordings yet." if state is None else f"No recording is {state}.")
        return
    columns = (
        Column("first audio", lambda row: local_time(row.first_audio_at)),
        Column("state", lambda row: row.state),
        Column(">trigger ms", lambda row: dash(row.trigger_ms), needs=92),
        Column(">length", lambda row: duration(row.duration_s)),
        Column(">call", lambda row: row.call_sid),
        Column(">recording", lambda row: dash(row.recording_sid), needs=130),
        Column("error", recording_error, needs=104),
    )
    print_rows(columns, rows)


@recordings.command(epilog=f"\b\nExample:  gateway.py recordings retry CA0123456789abcdef0123456789abcdef\n\n{EXIT_CODES}")
@sid_argument
@config_option
@json_option
@pass_settings
def retry(settings: Settings, call_sid: str, as_json: bool) -> None:
    """Try a call's recording once more: one that failed, or one that waits. Needs the running gateway.

    Twilio is asked first which recordings the call has; another is begun only for a call that is alive here. Exit code 1 when the
    call is not recorded afterwards.
    """
    from gw.terminal import print_json

    answer = _ask(settings, "recordings_retry", call_sid=call_sid)
    row = msgspec.convert(answer["recording"], type=RecordingRow)
    good = row.state in ("started", "completed")
    if as_json:
        print_json(answer)
    elif good:
        click.echo(f"The call's recording is {row.state}: {row.recording_sid}.")
    elif not answer["done"]:
        click.echo(f"The recording is {row.state}, and still tried: see gateway.py recordings list.", err=True)
    else:
        from gw.cli.calls.view import recording_error

        click.echo(f"The recording is {row.state}: {recording_error(row)}", err=True)
    if not good:
        raise click.exceptions.Exit(1)


@recordings.command(epilog=f"\b\nExample:  gateway.py recordings reconcile\n\n{EXIT_CODES}")
@config_option
@json_option
@pass_settings
def reconcile(settings: Settings, as_json: bool) -> None:
    """Settle what waits against Twilio's list, now. The gateway does so by itself every ten seconds, row by row less often."""
    from gw.terminal import print_json

    done = _ask(settings, "recordings_reconcile")
    if as_json:
        print_json(done)
    else:
        click.echo(
            f"{done['unsettled']} recordings have no last word. Twilio was asked about {done['asked']}, {done['settled']} of them"
            f" are settled; {done['taken_up']} are tried again, {done['left']} wait for their calls or their turn."
        )


def _ask(settings: Settings, command: str, **arguments: Any) -> Any:
    from gw.control.admin.client import Refused

    try:
        return settings.ask(command, timeout_s=ASK_S, **arguments)
    except Refused as error:
        raise Failure(str(error)) from None
