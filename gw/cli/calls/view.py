"""`calls show`: everything about one call on one screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.text import Text

from gw.call.cost.usage import KINDS
from gw.cli.calls.findings import recording_off
from gw.cli.calls.waits import KIND, parts, total_ms, waits_of
from gw.control.rows import CallDetails, QualityRow, RecordingRow, TurnRow, paused_by
from gw.terminal import Column, console, dash, duration, ending, facts, local_time, milliseconds, print_rows, usd


def print_call(call: CallDetails) -> None:
    """Print a call's facts, turns, quality, usage and events."""
    out = console()
    out.print(facts(_facts(call)))
    if call.turns:
        out.print()
        print_rows(_turns(call), call.turns)
    if call.quality:
        out.print()
        out.print(facts(_quality(call.quality)))
    if call.used:
        out.print()
        print_rows(_USED, call.used)
    if call.events:
        out.print()
        _print_events(call)


def _facts(call: CallDetails) -> Iterator[tuple[str, str | Text]]:
    yield "call", call.call_sid
    yield "stream", dash(call.stream_sid)
    yield "account", dash(call.account_sid)
    yield "from, to", f"{dash(call.from_number)}, {dash(call.to_number)} ({dash(call.direction)})"
    yield "agent", dash(call.agent)
    yield "started", local_time(call.started_at)
    yield "length", duration(call.length_s)
    yield "ended", ending(call.reason, call.result)
    if call.detail:
        yield "detail", call.detail
    if call.used:
        yield "cost", usd(call.cost_usd) if call.cost_usd is not None else "unknown: the agent's model has no [prices]"
    yield "worker", f"{dash(call.worker)} on {dash(call.host)}"
    recording = call.recording
    if recording is None:
        off = recording_off(call)
        yield "recording", f"off: {off}" if off else "none"
        return
    after = "" if recording.trigger_ms is None else f", {recording.trigger_ms} ms after the first audio"
    paused = f", paused for {' and '.join(by)}" if (by := paused_by(call.events)) and recording.state == "started" else ""
    yield "recording", f"{recording.state} {dash(recording.recording_sid)}{after}{paused}"
    if why := recording_error(recording):
        yield "", why
    if recording.url:
        yield "", recording.url


def recording_error(row: RecordingRow) -> str:
    """Return the error of a recording: reason, Twilio's error code and text; empty without one."""
    return ": ".join(str(part) for part in (row.reason, row.error_code, row.error_text) if part)


def _said(turn: TurnRow) -> Text:
    text = Text(turn.text or "(not transcribed)")
    if turn.interrupted:
        text.append(" (interrupted)", "yellow")
    return text


def _turns(call: CallDetails) -> tuple[Column, ...]:
    """Return the columns of the turns. `waited`: from the caller's last sound to the answer, and for what."""
    waits = waits_of(call)

    def waited(turn: TurnRow) -> str:
        wait = waits.get(turn.item_id or "")
        return f"{total_ms(wait) / 1000:.2f} s" if wait else ""

    def waited_for(turn: TurnRow) -> str:
        wait = waits.get(turn.item_id or "")
        return parts(wait) if wait else ""

    columns = (
        Column(">at", lambda turn: duration(turn.start_ms / 1000)),
        Column("speaker", lambda turn: turn.role),
        Column("said", _said),
        Column(">heard", lambda turn: "" if turn.heard_ms is None else duration(turn.heard_ms / 1000)),
    )
    return (*columns, Column(">waited", waited), Column("for", waited_for, needs=120)) if waits else columns


def _tokens(kind: str) -> Column:
    return Column(f">{kind.replace('_', ' ')}", lambda row: str(getattr(row, kind)))


_USED: Final = (
    Column("tokens of", lambda row: row.model),
    Column("day, UTC", lambda row: row.day, needs=104),
    *(_tokens(kind) for kind in KINDS),
    Column(">cost", lambda row: usd(row.cost_usd)),
)


def _quality(quality: QualityRow) -> Iterator[tuple[str, str | Text]]:
    expected, sent = quality.frames_expected, quality.frames_sent
    yield "frames sent", f"{dash(sent)} of {dash(expected)} expected"
    first_ms = dash(quality.first_audio_ms)
    yield "wait, first word", first_ms if first_ms == "-" else f"{first_ms} ms"
    for name in ("send", "lateness"):
        numbers = (milliseconds(getattr(quality, f"{name}_{part}_s")) for part in ("p50", "p99", "p999", "max"))
        yield f"{name}, ms", "p50 {}  p99 {}  p99.9 {}  max {}".format(*numbers)
    underrun = quality.underrun_ms
    yield "underrun", Text(f"{dash(underrun)} ms", "red" if underrun else "")
    yield "barge-ins", dash(quality.bargeins)
    yield "dropped", _by_reason(quality.dropped_frames)
    yield "dropped, to AI", _by_reason(quality.uplink_dropped_frames)
    yield "hub held, max", f"{milliseconds(quality.hub_hold_max_s)} ms"


def _by_reason(counts: dict[str, int] | None) -> str:
    found = ((count, _DROPPED.get(reason, reason)) for reason, count in (counts or {}).items() if count)
    return ", ".join(f"{count} {'frame' if count == 1 else 'frames'} ({why})" for count, why in found) or "none"


#: Why the agent's frames were not sent. Other reasons are shown unchanged.
_DROPPED: Final = {"bargein": "interrupted", "overrun": "the AI was too far ahead", "call_ended": "not played at the end"}


def _print_events(call: CallDetails) -> None:
    """Print all events, without values that are empty or shown above."""
    began, items = call.began_at, {turn.item_id for turn in call.turns}
    known = {getattr(call, name) for name in ("call_sid", "stream_sid", "account_sid", "from_number", "to_number")}

    def fresh(value: object) -> bool:
        return value not in ("", None) and value not in known

    columns = (
        Column(">at", lambda event: duration(max(0.0, event.at - began)) if began else local_time(event.at)),
        Column("event", lambda event: event.kind),
        Column("data", lambda event: Text("  ".join(f"{name}={value}" for name, value in event.data.items() if fresh(value)))),
    )
    print_rows(columns, (event for event in call.events if event.kind != KIND or event.data.get("item") not in items))
