"""`calls explain`, printed and as a document."""

from __future__ import annotations

from typing import Any, Final

from rich.text import Text

from gw.cli.calls.findings import findings, timeline, verdict
from gw.cli.calls.reason_words import ENDINGS
from gw.control.rows import CallDetails
from gw.terminal import Column, console, dash, duration, ending, facts, local_time, print_rows

COLOURS: Final = {"bad": "red", "odd": "yellow", "good": "green"}


def as_document(call: CallDetails) -> dict[str, Any]:
    """Return the verdict, findings and timeline of a call."""
    found = findings(call)
    return {
        "call_sid": call.call_sid,
        "account_sid": call.account_sid,
        "verdict": verdict(call, found),
        "findings": [finding._asdict() for finding in found],
        "timeline": [moment._asdict() for moment in timeline(call)],
    }


def print_story(call: CallDetails) -> None:
    """Print the verdict, the findings and the timeline."""
    found = findings(call)
    out = console()
    when = local_time(call.started_at or call.answered_at)
    if call.length_s is not None:
        when += f", lasted {duration(call.length_s)}"
    ended = ending(call.reason, call.result)
    if words := ENDINGS.get(call.reason or ""):
        ended.append(f": {words}")
    out.print(facts([("call", call.call_sid), ("account", dash(call.account_sid)), ("when", when), ("ended", ended)]))
    out.print()
    out.print(Text(verdict(call, found), "bold"))
    out.print()
    if found:
        columns = (
            Column("", lambda row: Text(row["weight"], COLOURS[row["weight"]])),
            Column("about", lambda row: row["about"]),
            Column("what", lambda row: row["sentence"]),
        )
        print_rows(columns, (finding._asdict() for finding in found))
        out.print()
    columns = (
        Column(">at", lambda row: at(row["at_s"])),
        Column("", lambda row: row["what"]),
        Column("what happened", lambda row: dash(row["sentence"])),
    )
    print_rows(columns, (moment._asdict() for moment in timeline(call)))


def at(at_s: float) -> str:
    """Format a time since the answer; negative before, for the webhook."""
    return f"-{duration(-at_s)}" if at_s < 0 else duration(at_s)
