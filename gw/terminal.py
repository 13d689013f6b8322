"""How answers look: one JSON document for programs, quiet tables for people.

Colour only on a terminal; a pipe gets full width, so that nothing is cut where `grep` looks for it. Times are local, numbers
stand right, absence is a dash. What a caller or an AI said is shown as it is: neither markup nor a command to the terminal.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Wider than any row of ours: a pipe has no edge.
_PIPE_COLUMNS: Final = 240
#: What a terminal would act on; a line's end and a tab are harmless.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def console(*, stderr: bool = False) -> Console:
    """A console on what stdout is right now."""
    out = sys.stderr if stderr else sys.stdout
    return Console(file=out, highlight=False, width=None if out.isatty() else _PIPE_COLUMNS)


def print_json(document: Any) -> None:
    """One document, readable, then a newline."""
    click.echo(json.dumps(msgspec.to_builtins(document), indent=2, ensure_ascii=False))


class Column(NamedTuple):
    """A column: title (a leading `>`: stands right, never wraps), value, and how wide a terminal must be to show it."""

    title: str
    value: Callable[[Any], str | Text]
    needs: int = 0


def print_rows(columns: Sequence[Column], rows: Iterable[Any]) -> None:
    """Print a table of them."""
    console().print(table(columns, rows))


def table(columns: Sequence[Column], rows: Iterable[Any]) -> Table:
    """A table without frame. On a narrow terminal whole columns are left out, so that a SID is never cut."""
    out = console()
    shown = [column for column in columns if column.needs <= out.width]
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in shown:
        right = column.title.startswith(">")
        made.add_column(column.title.lstrip(">"), justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        made.add_row(*(verbatim(column.value(row)) for column in shown))
    return made


def facts(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Name and value, one a line."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, verbatim(value))
    return made


def verbatim(value: str | Text) -> Text:
    """A value as it is: square brackets are no markup here, and control characters do not reach the terminal."""
    text = Text(value) if isinstance(value, str) else value
    if _CONTROL.search(text.plain):
        text.plain = _CONTROL.sub("\ufffd", text.plain)  # one for one, so that its colours stay where they are
    return text


def local_time(epoch_s: float | None, now_s: float | None = None) -> str:
    """A time of day today, day and time this year, the whole date before that."""
    if not epoch_s:
        return "-"
    then, today = time.localtime(epoch_s), time.localtime(now_s)
    same_day, same_year = then[:3] == today[:3], then[0] == today[0]
    return time.strftime("%H:%M:%S" if same_day else "%d %b %H:%M" if same_year else "%Y-%m-%d", then)


def ending(reason: str | None, result: str | None) -> Text:
    """How a call ended, in the colour of whose doing it was; `live` while it goes on."""
    if reason is None:
        return Text("live", "green")
    return Text(reason, {"success": "", "peer_error": "yellow"}.get(result or "", "red"))


def duration(seconds: float | None) -> str:
    """`4.2 s`, `3:07`, `1:02:03`."""
    if seconds is None or seconds < 0:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def milliseconds(value_s: float | None) -> str:
    """A measured duration in ms; three digits that mean something, a dash where nothing was measured."""
    return ms(None if value_s is None or value_s < 0 else value_s * 1000)


def ms(value: float | None) -> str:
    """A duration in ms, three digits that mean something."""
    return "-" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def figure_table(*columns: str) -> Table:
    """An empty table of measured figures; a title with a leading `>` stands right. Nothing wraps."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return made


def dash(value: object) -> str:
    """The value, or a dash where there is none."""
    return "-" if value in (None, "", -1) else str(value)
