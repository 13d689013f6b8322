"""`calls watch`: polls the gateway each second and prints what is new about one call or all calls.

Every request is bounded, and a gateway that is being reloaded is retried. A terminal shows sentences; with --json each line is
one object. Nothing is printed twice.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

import click
import msgspec
from rich.text import Text

from gw.cli.calls.explain import COLOURS, at
from gw.cli.calls.findings import Moment, findings, timeline, verdict
from gw.cli.context import Failure, Settings, Unreachable
from gw.control.rows import CallDetails, CallRow, ListedCall
from gw.terminal import console, dash, duration, ending, local_time, verbatim

#: Interval between polls.
POLL_S: Final = 1.0
#: Retry a gateway that does not answer; a reload replaces control in about a second.
AWAY_S: Final = 15.0
#: Calls polled when all are followed.
LIMIT: Final = 500


def watch_one(settings: Settings, call_sid: str, *, as_json: bool, ring_s: float = 0.0) -> None:
    """Follow a call until its end and quality report. Raises Failure for a call unknown after `ring_s`."""
    printed: set[Moment] = set()
    ended_for = 0
    until_s = time.monotonic() + ring_s
    while True:
        call = msgspec.convert(_ask(settings, "call", call_sid=call_sid), type=CallDetails | None)
        if call is None and time.monotonic() < until_s:
            time.sleep(POLL_S)
            continue
        if call is None and ring_s:
            raise Failure(f"{call_sid} was not answered within {ring_s:.0f} s")
        if call is None:
            raise Failure(f"no call {call_sid} is known; gateway.py calls list shows the known calls")
        for moment in timeline(call):
            if moment not in printed:
                printed.add(moment)
                _print_moment(moment, as_json=as_json)
        if call.ended_at is not None:
            ended_for += 1
            if call.quality is not None or ended_for > 1:
                _print_findings(call, as_json=as_json)
                return
        time.sleep(POLL_S)


def watch_all(settings: Settings, *, as_json: bool) -> None:
    """Print each call that begins or ends, without end, starting with the live ones."""
    live: dict[str, ListedCall] = {}
    while True:
        rows = msgspec.convert(_ask(settings, "calls", limit=LIMIT, open_only=True), type=list[ListedCall])
        now = {row.call_sid: row for row in rows}
        for call_sid in [sid for sid in reversed(now) if sid not in live]:
            _print_call("begins", now[call_sid], as_json=as_json)
        for call_sid in [sid for sid in live if sid not in now]:
            call = msgspec.convert(_ask(settings, "call", call_sid=call_sid), type=CallDetails | None)
            if call is not None and call.ended_at is not None:  # otherwise it has just resumed
                _print_call("ended", call, as_json=as_json)
        live = now
        time.sleep(POLL_S)


def _ask(settings: Settings, command: str, **arguments: Any) -> Any:
    """Send a request, and retry it for AWAY_S. Raises Unreachable."""
    deadline_s = time.monotonic() + AWAY_S
    while True:
        try:
            return settings.ask(command, **arguments)
        except Unreachable:
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(POLL_S)


def _print_moment(moment: Moment, *, as_json: bool) -> None:
    if as_json:
        _line(moment._asdict())
        return
    _print(Text.assemble((f"{at(moment.at_s):>8}  ", "dim"), (f"{moment.what:12}", "bold"), dash(moment.sentence)))


def _print_findings(call: CallDetails, *, as_json: bool) -> None:
    found = findings(call)
    if as_json:
        _line({"verdict": verdict(call, found), "findings": [finding._asdict() for finding in found]})
        return
    _print(Text(verdict(call, found), "bold"))
    for finding in found:
        if finding.weight != "good":
            _print(Text.assemble((f"{finding.weight:>8}  ", COLOURS[finding.weight]), finding.sentence))


def _print_call(what: str, call: CallRow, *, as_json: bool) -> None:
    if as_json:
        names = ("call_sid", "from_number", "to_number", "agent", "started_at", "ended_at", "reason", "worker", "host")
        _line({"what": what, **{name: getattr(call, name) for name in names}})
        return
    when = call.ended_at if what == "ended" else call.started_at
    line = Text.assemble((f"{local_time(when)}  ", "dim"), f"{call.call_sid}  {what:7} from {dash(call.from_number)}")
    if what == "ended":
        line.append(f" after {duration(call.length_s)}: ")
        line.append_text(ending(call.reason, call.result))
    _print(line)


def _line(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, ensure_ascii=False))


def _print(text: Text) -> None:
    console().print(verbatim(text), soft_wrap=True)
