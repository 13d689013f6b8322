"""`calls explain` on a screen, and as a document."""

from __future__ import annotations

from typing import Any, Final

from rich.text import Text

from gw.cli.calls.findings import Moment, findings, timeline, verdict
from gw.control.rows import CallDetails
from gw.terminal import Column, console, dash, duration, ending, facts, local_time, print_rows

COLOURS: Final = {"bad": "red", "odd": "yellow", "good": "green"}


def as_document(call: CallDetails) -> dict[str, Any]:
    """For a script: the verdict, findings and timeline of a call."""
    said = findings(call)
    return {
        "call_sid": call.call_sid,
        "verdict": verdict(call, said),
        "findings": [finding._asdict() for finding in said],
        "timeline": [moment._asdict() for moment in timeline(call)],
    }


def print_story(call: CallDetails) -> None:
    """The verdict, then why, then what happened."""
    said = findings(call)
    out = console()
    when = f"{local_time(call.started_at or call.answered_at)}, {duration(call.length_s)}"
    out.print(facts([("call", call.call_sid), ("when", when), ("ended", ending(call.reason, call.result))]))
    out.print()
    out.print(Text(verdict(call, said), "bold"))
    out.print()
    if said:
        columns = (
            Column("", lambda row: Text(row["weight"], COLOURS[row["weight"]])),
            Column("about", lambda row: row["about"]),
            Column("what", lambda row: row["sentence"]),
        )
        print_rows(columns, (finding._asdict() for finding in said))
        out.print()
    print_moments(timeline(call))


def print_moments(moments: list[Moment]) -> None:
    """A timeline, one line each."""
    columns = (
        Column(">at", lambda row: at(row["at_s"])),
        Column("", lambda row: row["what"]),
        Column("what happened", lambda row: dash(row["sentence"])),
    )
    print_rows(columns, (moment._asdict() for moment in moments))


def at(at_s: float) -> str:
    """A time since the caller was answered; the webhook comes before it."""
    return f"-{duration(-at_s)}" if at_s < 0 else duration(at_s)
