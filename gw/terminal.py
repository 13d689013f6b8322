"""Output on the terminal: one JSON document for programs, plain tables for people.

Colour only on a terminal; a pipe gets full width, so that `grep` finds whole values. Times are local, numbers are right-aligned,
absence is a dash. Words of a caller or an AI are shown verbatim, never as markup or terminal commands.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

#: Wider than any row: a pipe has no edge.
_PIPE_COLUMNS: Final = 240
#: Characters a terminal acts on, except line feed and tab.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def console(*, stderr: bool = False) -> Console:
    """Return a console on the present stdout or stderr."""
    out = sys.stderr if stderr else sys.stdout
    return Console(file=out, highlight=False, width=None if out.isatty() else _PIPE_COLUMNS)


def progress(text: str, *, shown: bool) -> Progress:
    """Return a progress bar on stderr: the text, a count of a total, the time, and a task's description."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console(stderr=True), disable=not shown, transient=True)


def print_json(document: Any) -> None:
    """Print one indented document."""
    click.echo(json.dumps(msgspec.to_builtins(document), indent=2, ensure_ascii=False))


class Column(NamedTuple):
    """A column: title (leading `>`: right-aligned, never wraps), value, and the terminal width it needs."""

    title: str
    value: Callable[[Any], str | Text]
    needs: int = 0


def print_rows(columns: Sequence[Column], rows: Iterable[Any]) -> None:
    """Print a table of rows."""
    console().print(table(columns, rows))


def print_listing(columns: Sequence[Column], rows: Sequence[Any], *, empty: str, as_json: bool) -> None:
    """Print rows as a document or a table; without rows, print the sentence `empty`."""
    if as_json:
        print_json(rows)
    elif rows:
        print_rows(columns, rows)
    else:
        click.echo(empty)


def table(columns: Sequence[Column], rows: Iterable[Any]) -> Table:
    """Return a table without a frame. A narrow terminal omits whole columns, so that a SID is never cut."""
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
    """Return a table of name and value, one pair a line."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, verbatim(value))
    return made


def verbatim(value: str | Text) -> Text:
    """Return a value without markup, its control characters replaced."""
    text = Text(value) if isinstance(value, str) else value
    if _CONTROL.search(text.plain):
        text.plain = _CONTROL.sub("\ufffd", text.plain)  # one for one, so that styled ranges keep their places
    return text


def local_time(epoch_s: float | None, now_s: float | None = None) -> str:
    """Format a time: time of day today, day and time this year, else the date."""
    if not epoch_s:
        return "-"
    then, today = time.localtime(epoch_s), time.localtime(now_s)
    same_day, same_year = then[:3] == today[:3], then[0] == today[0]
    return time.strftime("%H:%M:%S" if same_day else "%d %b %H:%M" if same_year else "%Y-%m-%d", then)


def ending(reason: str | None, result: str | None) -> Text:
    """Format the end of a call, coloured by whose fault; `live` before the end."""
    if reason is None:
        return Text("live", "green")
    return Text(reason, {"success": "", "peer_error": "yellow"}.get(result or "", "red"))


def duration(seconds: float | None) -> str:
    """Format a duration: `4.2 s`, `3:07`, `1:02:03`."""
    if seconds is None or seconds < 0:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def milliseconds(value_s: float | None) -> str:
    """Format seconds as ms, three significant digits; None or negative: a dash."""
    return ms(None if value_s is None or value_s < 0 else value_s * 1000)


def ms(value: float | None) -> str:
    """Format ms, three significant digits; None: a dash."""
    return "-" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def figure_table(*columns: str) -> Table:
    """Return an empty table of figures; leading `>` in a title: right-aligned. No column wraps."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return made


def usd(amount: float | None) -> str:
    """Format a cost in USD, to a hundredth of a cent."""
    return "-" if amount is None else f"${amount:,.4f}"


def dash(value: object) -> str:
    """Return the value as text; absent: a dash."""
    return "-" if value in (None, "", -1) else str(value)
