"""`recordings`: lists, retries, pauses and reconciles recordings."""

from __future__ import annotations

import click
import msgspec

from gw.cli.calls import sid_argument, whole_sid
from gw.cli.context import ASK_S, EXIT_CODES, Settings, counted, gateway_options, print_answer
from gw.control.rows import RecordingRow

#: The states of a row, in sequence; a test compares them with the store.
STATES = ("wanted", "claimed", "started", "completed", "absent", "failed")


@click.group(short_help="List, retry, pause and reconcile recordings.", epilog=EXIT_CODES)
def recordings() -> None:
    """List recordings and their states, retry one, pause one, reconcile them with Twilio.

    \b
    The newest twenty:         gateway.py recordings list
    Failed recordings:         gateway.py recordings list --state failed
    Retry one:                 gateway.py recordings retry CA0123
    Pause a live call's:       gateway.py recordings pause CA0123
    Let it continue:           gateway.py recordings resume CA0123
    Reconcile with Twilio:     gateway.py recordings reconcile
    """


@recordings.command(
    "list",
    short_help="List recordings, newest first.",
    epilog=f"\b\nExample:  gateway.py recordings list --state failed --json\n\n{EXIT_CODES}",
)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Number of recordings, newest first."
)
@click.option("--state", type=click.Choice(STATES), help="Only recordings in this state.")
@gateway_options
def list_recordings(settings: Settings, limit: int, state: str | None, as_json: bool) -> None:
    """List recordings, newest first: state, delay after the first audio, length, SIDs, and the error."""
    from gw.cli.calls.view import recording_error
    from gw.terminal import Column, dash, duration, local_time, print_listing

    rows = settings.ask_or_read(
        "recordings", lambda store: store.recordings(limit=limit, state=state), list[RecordingRow], limit=limit, state=state
    )
    columns = (
        Column("first audio", lambda row: local_time(row.first_audio_at)),
        Column("state", lambda row: row.state),
        Column(">trigger ms", lambda row: dash(row.trigger_ms), needs=92),
        Column(">length", lambda row: duration(row.duration_s)),
        Column(">call", lambda row: row.call_sid),
        Column(">recording", lambda row: dash(row.recording_sid), needs=130),
        Column("error", recording_error, needs=104),
    )
    empty = "No recordings yet." if state is None else f"No recording is {state}."
    print_listing(columns, rows, empty=empty, as_json=as_json)


@recordings.command(epilog=f"\b\nExample:  gateway.py recordings retry CA0123\n\n{EXIT_CODES}")
@sid_argument
@gateway_options
def retry(settings: Settings, call_sid: str, as_json: bool) -> None:
    """Retry a call's recording that failed or waits. Needs the running gateway.

    The gateway first lists the call's recordings at Twilio; it starts another only for a call that is live here. The first
    digits of a SID suffice if only one recent call has them. Exit code 1 if the call is not recorded afterwards.
    """
    from gw.terminal import print_json

    settings.ask("status")  # fail with exit code 3 before the store is searched
    answer = settings.act("recordings_retry", timeout_s=ASK_S, call_sid=whole_sid(settings, call_sid))
    row = msgspec.convert(answer["recording"], type=RecordingRow)
    good = row.state in ("started", "completed")
    if as_json:
        print_json(answer)
    elif good:
        click.echo(f"The call's recording is {row.state}: {row.recording_sid}.")
    elif not answer["done"]:
        click.echo(f"The recording is {row.state}, and retries continue; see gateway.py recordings list.", err=True)
    else:
        from gw.cli.calls.view import recording_error

        click.echo(f"The recording is {row.state}: {recording_error(row)}", err=True)
    if not good:
        raise click.exceptions.Exit(1)


@recordings.command(epilog=f"\b\nExample:  gateway.py recordings pause CA0123\n\n{EXIT_CODES}")
@sid_argument
@gateway_options
def pause(settings: Settings, call_sid: str, as_json: bool) -> None:
    """Pause the recording of a live call: it has silence until `resume`.

    Digits that the caller types meanwhile do not end the pause. Needs the running gateway and Twilio credentials. Exit code 1 if
    the call has no recording, or Twilio fails.
    """
    answer = settings.act("recordings_pause", timeout_s=ASK_S, call_sid=whole_sid(settings, call_sid))
    print_answer(answer, f"The recording of {answer['call_sid']} is paused.", as_json=as_json)


@recordings.command(epilog=f"\b\nExample:  gateway.py recordings resume CA0123\n\n{EXIT_CODES}")
@sid_argument
@gateway_options
def resume(settings: Settings, call_sid: str, as_json: bool) -> None:
    """Let a paused recording of a live call continue.

    While the caller types sensitive digits, it continues after them. Needs the running gateway and Twilio credentials. Exit code
    1 if no recording of the call is paused, or Twilio fails.
    """
    answer = settings.act("recordings_resume", timeout_s=ASK_S, call_sid=whole_sid(settings, call_sid))
    when = "continues once the caller has typed" if answer["digits"] else "continues"
    print_answer(answer, f"The recording of {answer['call_sid']} {when}.", as_json=as_json)


@recordings.command(epilog=f"\b\nExample:  gateway.py recordings reconcile\n\n{EXIT_CODES}")
@gateway_options
def reconcile(settings: Settings, as_json: bool) -> None:
    """Compare unfinished recordings with Twilio now. The gateway does so every ten seconds, each recording less often."""
    done = settings.act("recordings_reconcile", timeout_s=ASK_S)
    sentence = (
        f"{counted(done['unsettled'], 'recording', 'recordings')} pending: checked {done['asked']} with Twilio, "
        f"resolved {done['settled']}, retried {done['taken_up']}, waiting {done['left']}."
    )
    print_answer(done, sentence, as_json=as_json)
