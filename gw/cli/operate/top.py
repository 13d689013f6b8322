"""`top`: the state of the running gateway, updated every second.

Reads `status`, the live calls and the worst holds over the admin socket. The lateness of the last minutes is a line of blocks,
with the promised millisecond in the middle of the scale. A gateway that does not answer is shown as such and queried again.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from gw.cli.context import EXIT_CODES, Settings, Unreachable, counted, gateway_options
from gw.cli.operate.status import worker_state

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Row = dict[str, Any]

#: Samples in the line of lateness.
HISTORY: Final = 60
#: Calls requested, more than a screen shows.
LIMIT: Final = 200
#: Bound on the request for them, which queries the store.
CALLS_S: Final = 2.0
#: Calls and holds shown without a screen.
SHOWN_CALLS, SHOWN_HOLDS = 15, 3
#: Lines of a screen besides calls, workers and holds: facts, titles, blanks.
_OTHER_LINES: Final = 14
#: Below this height, holds are omitted in favour of calls.
_LINES_FOR_HOLDS: Final = 18
#: Columns of the line of lateness besides the blocks.
_BESIDE_LINE: Final = 25
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
#: The ends of the scale as powers of ten, in seconds: 0.01 ms is the lowest block, 100 ms the highest.
_LOWEST, _HIGHEST = -5.0, -1.0


@click.command(
    short_help="Watch the running gateway live.",
    epilog="\b\nExamples:\n"
    "  gateway.py top\n"
    "  gateway.py top --once\n"
    "  gateway.py top --once --json | jq .lateness_p99_s\n\n" + EXIT_CODES,
)
@click.option("--once", is_flag=True, help="Print once and exit; the default unless the output is a terminal.")
@click.option("--interval", type=click.FloatRange(0.2, 60.0), default=1.0, show_default=True, help="Seconds between updates.")
@gateway_options
def top(settings: Settings, once: bool, interval: float, as_json: bool) -> None:
    """Watch the running gateway until Ctrl-C: calls, lateness of frames, holds of the workers.

    The line of blocks is the lateness p99 of the worst worker, one block per update: the lowest is 0.01 ms, the highest 100 ms;
    yellow from 1 ms, red from 20 ms (one frame). With --json, one document per line, or one document with --once. Exit code 3 if
    no gateway answers at the start.
    """
    import json

    from gw.terminal import console, print_json

    history: deque[float | None] = deque(maxlen=HISTORY)
    seen = sample(settings)
    out = console()
    if once or (not as_json and not out.is_terminal):
        history.append(seen["lateness_p99_s"])
        if as_json:
            print_json(seen)
        else:
            out.print(screen(seen, history, calls=SHOWN_CALLS))
        return
    try:
        if as_json:
            while True:
                click.echo(json.dumps(seen, ensure_ascii=False))
                time.sleep(interval)
                seen = sample(settings)
        _live(settings, seen, history, interval)
    except KeyboardInterrupt:
        return


def sample(settings: Settings) -> Row:
    """Return the gateway's status, live calls and worst recent holds. Raises Unreachable.

    The live calls come from the store; while it gives no answer they are empty, and the rest, from memory, is complete.
    """
    from gw.control.admin.client import Refused

    status = settings.ask("status")
    calls: list[Row] = []
    if status["store"]["reachable"]:
        try:
            calls = settings.ask("calls", timeout_s=CALLS_S, limit=LIMIT, open_only=True)
        except (Refused, Unreachable) as error:
            status["store"] = {**status["store"], "reachable": False, "problem": str(error)}
    holds: list[Row] = settings.ask("holds")
    lateness = [worker["lateness_p99_s"] for worker in status["workers"] if worker["lateness_p99_s"] >= 0.0]
    return {
        "at": time.time(),
        "lateness_p99_s": max(lateness, default=None),
        "status": status,
        "calls": calls,
        "holds": sorted(holds, key=lambda hold: -hold["wall_s"])[:SHOWN_HOLDS],
    }


def sparkline(history: Iterable[float | None]) -> Text:
    """Return a block per sample; a sample without frames is a dot."""
    from rich.text import Text

    line = Text()
    for lateness_s in history:
        if lateness_s is None:
            line.append("·", "dim")
            continue
        share = (math.log10(max(lateness_s, 1e-9)) - _LOWEST) / (_HIGHEST - _LOWEST)
        block = _BLOCKS[max(0, min(len(_BLOCKS) - 1, int(share * len(_BLOCKS))))]
        line.append(block, "red" if lateness_s >= 0.020 else "yellow" if lateness_s >= 0.001 else "green")
    return line


def screen(seen: Row, history: deque[float | None], *, calls: int, away: str = "") -> RenderableType:
    """Return the whole screen, with at most `calls` calls."""
    from rich.console import Group
    from rich.text import Text

    from gw.terminal import Column, console, dash, duration, facts, milliseconds, table, usd

    status, now_s = seen["status"], seen["at"]
    machine, readiness = status["machine"], status["readiness"]
    reasons = "; ".join(readiness["reasons"])
    ready = Text("away", "red") if away else Text("ready", "green") if readiness["ready"] else Text("not ready", "red")
    running = f"{status['version']} on {status['host']}, up {duration(status['uptime_s'])} since start or reload, "
    late_s = seen["lateness_p99_s"]
    lateness = Text("no frame sent lately  " if late_s is None else f"p99 {milliseconds(late_s)} ms  ")
    lateness.append_text(sparkline(list(history)[-max(1, console().width - _BESIDE_LINE) :]))
    events = counted(status["backlog"], "event", "events")
    claims = counted(status["claims"], "recording", "recordings")
    rows: list[tuple[str, str | Text]] = [
        ("gateway", Text.assemble(running, ready)),
        ("calls", f"{status['calls']} of {machine['capacity']}, {machine['reserved']} reserved"),
        ("lateness", lateness),
        ("waiting", f"{events} in the spool, {claims} claimed there"),
    ]
    budget = status.get("budget", {})  # an older gateway has none
    if budget.get("limit_usd"):
        rows.append(("budget", f"{usd(budget['spent_usd'])} of {usd(budget['limit_usd'])} spent on {budget['day']}, UTC"))
    if not status["store"]["reachable"]:
        rows.append(("store", Text(f"{status['store']['problem']}; the live calls are not listed", "red")))
    if away or reasons:
        rows.append(("", Text(away or reasons, "red" if away else "yellow")))
    processes = {process["name"]: process for process in machine["processes"]}
    workers = (
        Column(">worker", lambda row: str(row["index"])),
        Column("state", lambda row: _state(row, processes.get(f"worker {row['index']}"))),
        Column(">calls", lambda row: str(row["calls"])),
        Column(">pid", lambda row: str(row["pid"]), needs=80),
        Column(">lateness p99, ms", lambda row: milliseconds(row["lateness_p99_s"])),
        Column(">hub held max, ms", lambda row: milliseconds(row["hold_max_s"]), needs=66),
        Column(">unacked", lambda row: str(row["unacked"]), needs=76),
    )
    parts: list[RenderableType] = [facts(rows), "", table(workers, status["workers"])]
    if seen["holds"]:
        held = (
            Column(">worst holds, ms", lambda row: milliseconds(row["wall_s"])),
            Column("kind", lambda row: row["kind"]),
            Column(">worker", lambda row: str(row["worker"]), needs=72),
            Column(">ago", lambda row: duration(now_s - row["at"])),
            Column("where", _where),
        )
        parts += ["", table(held, seen["holds"])]
    if seen["calls"]:
        live = (
            Column(">live", lambda row: duration(now_s - (row["answered_at"] or row["started_at"] or now_s))),
            Column("from", lambda row: dash(row["from_number"]), needs=72),
            Column("agent", lambda row: dash(row["agent"]), needs=100),
            Column(">worker", lambda row: dash(row["worker"])),
            Column(">cost", lambda row: usd(row.get("cost_usd")), needs=88),
            Column("recording", lambda row: dash(row["recording_state"]), needs=64),
            Column(">call", lambda row: row["call_sid"]),
        )
        parts += ["", table(live, seen["calls"][:calls])]
        left_out = len(seen["calls"]) - calls
        if left_out > 0:
            parts.append(Text(f"and {left_out}{' or more' if len(seen['calls']) == LIMIT else ''} more", "dim"))
    return Group(*parts)


def _live(settings: Settings, seen: Row, history: deque[float | None], interval_s: float) -> None:
    from rich.live import Live

    from gw.terminal import console

    out = console()
    away = ""
    with Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            history.append(None if away else seen["lateness_p99_s"])
            if out.height < _LINES_FOR_HOLDS:
                seen = {**seen, "holds": []}
            others = _OTHER_LINES + len(seen["status"]["workers"]) + len(seen["holds"])
            live.update(screen(seen, history, calls=max(1, out.height - others), away=away), refresh=True)
            time.sleep(interval_s)
            try:
                seen, away = sample(settings), ""
            except Unreachable as error:
                away = error.message


def _state(row: Row, process: Row | None) -> Text:
    from rich.text import Text

    late = row["connected"] and process is not None and process["late"]
    return Text("late", "red") if late else worker_state(row)


def _where(hold: Row) -> str:
    return "{file}:{line} {function}".format(**hold["stack"][0]) if hold["stack"] else "not sampled"
