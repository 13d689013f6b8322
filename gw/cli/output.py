"""How answers look: one JSON document for programs, quiet tables for people.

Colour only on a terminal; a pipe gets full width, so that nothing is cut where `grep` looks for it. Times are local, numbers
stand right, absence is a dash.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Wider than any row of ours: a pipe has no edge.
_PIPE_COLUMNS: Final = 240


def console(*, stderr: bool = False) -> Console:
    """A console on what stdout is right now."""
    out = sys.stderr if stderr else sys.stdout
    return Console(file=out, highlight=False, width=None if out.isatty() else _PIPE_COLUMNS)


def print_json(document: Any) -> None:
    """One document, readable, then a newline."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def table(*columns: str, title: str = "") -> Table:
    """A table without frame. A column named with a leading `>` stands right and never wraps, as numbers do."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=right)
    return made


def facts(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Name and value, one a line."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, value)
    return made


def local_time(epoch_s: float | None, now_s: float | None = None) -> str:
    """A time of day today, with the date before it on another day."""
    if not epoch_s:
        return "-"
    then, today = time.localtime(epoch_s), time.localtime(now_s)
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", then)


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
    if value_s is None or value_s < 0:
        return "-"
    value_ms = value_s * 1000
    return f"{value_ms:.3f}" if value_ms < 10 else f"{value_ms:.1f}"


def dash(value: object) -> str:
    """The value, or a dash where there is none."""
    return "-" if value in (None, "", -1) else str(value)
