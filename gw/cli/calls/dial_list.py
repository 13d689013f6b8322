"""`calls dial`: dials a list of numbers, shows how far it is, and writes the results.

The gateway dials; this command sends the list, asks each half second, and lets the rest wait when it ends. The list's identity is
the file's name and content, so the same command continues it: after Ctrl-C, a kill, or a restart of the gateway.
"""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
import msgspec

from gw.cli.context import Failure, Settings, Unreachable
from gw.control.admin.client import Refused
from gw.control.rows import DialRow

if TYPE_CHECKING:
    from gw.control.outbound.list_file import Line

#: Interval between questions.
POLL_S: Final = 0.5
#: A gateway that does not answer is asked again for this long; a restart of control takes a second.
AWAY_S: Final = 60.0
#: Bound on one request.
REQUEST_S: Final = 15.0
#: Size of a piece of the list, below the bound on a line of the socket.
PIECE_BYTES: Final = 40_000
PIECE_LINES: Final = 500
#: Errors that are printed.
SHOWN_ERRORS: Final = 50
#: States of a line that will change while the list runs.
OPEN: Final = ("waiting", "claimed", "placed")
_COLUMNS: Final = ("line", "to", "agent", "result", "answered_by", "dials", "call_sid", "ended_at", "detail")


class Options(NamedTuple):
    """The options of the command. `caller`: empty for outbound.from."""

    path: Path
    caller: str
    agent: str
    account: str
    out: Path | None
    dry_run: bool
    unknown: bool
    as_json: bool


def dial(settings: Settings, options: Options) -> None:
    """Check a list, and dial it or show what would be dialled. Raises Failure, click.UsageError."""
    from gw.control.outbound.list_file import id_of, parse

    rules, path = settings.config.outbound, options.path
    data = path.read_bytes()
    parsed = parse(data, agents=settings.config.agents, agent=options.agent, zone=rules.zone)
    if parsed.errors:
        more = len(parsed.errors) - SHOWN_ERRORS
        shown = [*parsed.errors[:SHOWN_ERRORS], *([f"and {more} more errors"] if more > 0 else [])]
        raise Failure(f"{path} cannot be dialled, and nothing was:\n  " + "\n  ".join(shown))
    caller = options.caller or rules.from_
    if not caller:
        raise click.UsageError("there is no caller ID: pass --from, or set outbound.from")
    list_id = id_of(path.name, data)
    if options.dry_run:
        _show_plan(settings, list_id, parsed.lines, caller, as_json=options.as_json)
        return
    run = _Run(settings, list_id, path, options.out or path.with_suffix(".results.csv"), as_json=options.as_json)
    run.send(parsed.lines, caller, options.account)
    run.follow(unknown=options.unknown)


def _show_plan(settings: Settings, list_id: str, lines: list[Line], caller: str, *, as_json: bool) -> None:
    """Print what a list would do."""
    from zoneinfo import ZoneInfo

    from gw.config.route_times import parse_hours
    from gw.control.outbound.plan import opens_at
    from gw.terminal import print_json

    rules, now = settings.config.outbound, time.time()
    spans = parse_hours(rules.hours)
    zones = {zone: opens_at(spans, ZoneInfo(zone), now) for zone in {line.zone for line in lines}}
    plan = {
        "list": list_id,
        "numbers": len(lines),
        "from": caller,
        "agents": dict(Counter(line.agent for line in lines)),
        "now": sum(zones[line.zone] <= now for line in lines),
        "later": {zone: at for zone, at in zones.items() if at > now},
        "calls_per_s": rules.calls_per_s,
        "concurrent": rules.concurrent,
        "most_dials_per_number": 1 + rules.retries,
        "least_s": round(len(lines) / rules.calls_per_s),
    }
    if as_json:
        print_json(plan)
        return
    agents = ", ".join(f"{count} by {name}" for name, count in plan["agents"].items())  # type: ignore[attr-defined]
    click.echo(f"List {list_id}: {len(lines)} numbers, from {caller}; {agents}.")
    click.echo(f'{plan["now"]} may be dialled now (outbound.hours = "{rules.hours}", in the zone of the callee).')
    for zone, at in sorted(zones.items()):
        if at > now:
            waiting = sum(line.zone == zone for line in lines)
            click.echo(f"{waiting} in {zone} from {time.strftime('%Y-%m-%d %H:%M', time.localtime(at))}, local time, on.")
    click.echo(f"At {rules.calls_per_s:g} a second this takes at least {plan['least_s']} s. Nothing was dialled.")


class _Run:
    """One run of the command over a list."""

    def __init__(self, settings: Settings, list_id: str, path: Path, out: Path, *, as_json: bool) -> None:
        self._settings = settings
        self._list_id = list_id
        self._path = path
        self._out = out
        self._as_json = as_json
        self._total = 0
        self._since = 0.0
        self._seen: set[tuple[int, int]] = set()  # lines and dials that were printed

    def send(self, lines: list[Line], caller: str, account: str) -> None:
        """Hand the list to the gateway, unless it has the list."""
        self._total = len(lines)
        opened = self._ask(
            "list_open",
            name=self._path.name[:255],
            caller=caller,
            total=len(lines),
            account=account,
        )
        begun = sum(opened["counts"].values())
        if not opened["has_all"]:
            for piece in _pieces(lines):
                self._ask("list_add", lines=piece)
        if not self._as_json:
            state = f"continues, {_summary(opened['counts'])}" if begun else "begins"
            click.echo(f"List {self._list_id} ({self._path.name}, by its name and content): {len(lines)} numbers; it {state}.")
        if begun:
            self._since = time.time()

    def follow(self, *, unknown: bool) -> None:
        """Let the list run until it is done, and show its progress. Ctrl-C lets the rest wait."""
        from gw.cli.context import Interrupted, interruptible

        answer: Mapping[str, Any] = {"counts": {}}
        try:
            with interruptible():
                answer = self._ask("list_run", begin=True, unknown=unknown)
                answer = self._until_done(answer)
        except Interrupted:
            answer = self._ask("list_stop")
            self._end(answer["counts"], why="stopped")
            if not self._as_json:
                again = click.get_current_context().command_path
                click.echo(f"The rest waits. To continue: {again} {self._path}, with the same options.")
            raise SystemExit(1) from None
        counts = answer["counts"]
        self._end(counts, why=answer["stopped"] or "")
        if answer["stopped"]:
            raise Failure(f"the list stops: {answer['stopped']}; correct the cause, and run the same command again")
        if counts.get("unknown"):
            raise Failure(
                f"the outcome of {counts['unknown']} dials is unknown: their requests were interrupted, and Twilio lists no such "
                "call; run the command again with --unknown to dial these numbers again"
            )

    def _until_done(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        printed_s = 0.0
        with _Bar(self._total, shown=not self._as_json) as bar:
            while True:
                self._print_ended()
                counts = answer["counts"]
                bar.show(counts, answer)
                if self._as_json and time.monotonic() - printed_s >= 1.0:
                    printed_s = time.monotonic()
                    self._line(what="progress", counts=counts, next_at=answer["next_at"], problem=answer["problem"])
                if not any(counts.get(state) for state in OPEN) or answer["stopped"]:
                    return answer
                time.sleep(POLL_S)
                answer = self._ask("list_run")
                if not answer["runs"] and not answer["stopped"]:  # control was restarted
                    answer = self._ask("list_run", begin=True)

    def _print_ended(self) -> None:
        """Print the dials that ended since the last look, with --json."""
        if not self._as_json:
            return
        while True:
            rows = msgspec.convert(self._ask("list_lines", since=self._since), type=list[DialRow])
            fresh = [row for row in rows if (row.n, row.attempts) not in self._seen]
            for row in fresh:
                self._seen.add((row.n, row.attempts))
                self._line(what="dial", **_result(row), state=row.state)
            if rows:
                self._since = rows[-1].ended_at or self._since
            if not fresh:
                return

    def _end(self, counts: Mapping[str, int], *, why: str) -> None:
        """Write the results, and print a summary."""
        with self._out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            for row in self._rows():
                writer.writerow({name: _cell(value) for name, value in _result(row).items()})
        if self._as_json:
            self._line(what="result", counts=counts, file=str(self._out), stopped=why)
        else:
            click.echo(f"{_summary(counts)}. Results: {self._out}")

    def _rows(self) -> Iterator[DialRow]:
        after = 0
        while rows := msgspec.convert(self._ask("list_lines", after=after), type=list[DialRow]):
            yield from rows
            after = rows[-1].n

    def _ask(self, command: str, **arguments: Any) -> Any:
        """Send a request, and again for AWAY_S while the gateway or its store is away. Raises Unreachable, Failure."""
        until_s = time.monotonic() + AWAY_S
        while True:
            try:
                return self._settings.ask(command, timeout_s=REQUEST_S, **{"list_id": self._list_id, **arguments})
            except Unreachable:
                if time.monotonic() >= until_s:
                    raise
            except Refused as error:
                if error.code not in ("unavailable", "timeout") or time.monotonic() >= until_s:
                    raise Failure(str(error)) from None
            time.sleep(POLL_S)

    def _line(self, **document: Any) -> None:
        click.echo(json.dumps(document, ensure_ascii=False))


def _pieces(lines: list[Line]) -> Iterator[list[dict[str, Any]]]:
    """Yield the list in pieces that fit into a request."""
    piece: list[dict[str, Any]] = []
    size = 0
    for line in lines:
        one = line._asdict()
        length = len(json.dumps(one))
        if piece and (size + length > PIECE_BYTES or len(piece) >= PIECE_LINES):
            yield piece
            piece, size = [], 0
        piece.append(one)
        size += length
    if piece:
        yield piece


def _result(row: DialRow) -> dict[str, Any]:
    """Return a line of the results. A line that is not done has its state as result."""
    ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row.ended_at)) if row.ended_at else None
    return {
        "line": row.n,
        "to": row.to_number,
        "agent": row.agent,
        "result": row.result if row.state == "done" or (row.result and row.state == "waiting") else row.state,
        "answered_by": row.answered_by,
        "dials": row.attempts - row.lost - (row.state == "unknown"),
        "call_sid": row.call_sid,
        "ended_at": ended,
        "detail": row.detail,
    }


def _cell(value: object) -> object:
    """Return a value as a cell that a spreadsheet does not take for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "@", "-") else text


def _summary(counts: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda one: -one[1])) or "nothing dialled yet"
    )


class _Bar:
    """A progress bar on stderr."""

    def __init__(self, total: int, *, shown: bool) -> None:
        from gw.terminal import progress

        self._progress = progress("dialling", shown=shown)
        self._task = self._progress.add_task("", total=total)
        self._total = total

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, counts: Mapping[str, int], answer: Mapping[str, Any]) -> None:
        """Show how far the list is. `answer`: of `list_run`."""
        open_ = sum(counts.get(state, 0) for state in OPEN)
        words = _summary(counts)
        if (at := answer["next_at"]) is not None and at > time.time() + 5 and not (counts.get("claimed") or counts.get("placed")):
            words += f"; the next dial at {time.strftime('%H:%M:%S', time.localtime(at))}"
        if answer["problem"]:
            words += f"; {answer['problem']}"
        self._progress.update(self._task, completed=self._total - open_, description=words)
