"""Parses a list of numbers: CSV with a header. Reports all errors, each with its line.

Columns: `to`, a number in E.164 or a SIP address; optional are `agent`, `zone`, and `var_NAME` for each variable of the agents'
texts. An empty cell has the default. A line is named by its place in the file, so that an editor finds it.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection
from typing import Final, NamedTuple
from urllib.parse import urlencode

from gw.config import DIALLED, MAX_VARIABLES
from gw.config.route_rules import is_zone, variable_problem

#: Lines of a list: a day at the highest pace would take more.
MAX_LINES: Final = 100_000
#: Size of a file with so many lines.
MAX_BYTES: Final = 64 << 20
#: The variables of a call are part of its webhook's URL. Longer URLs are refused by some proxies.
MAX_QUERY_CHARS: Final = 2000
_VARIABLE: Final = "var_"
_ID_CHARS: Final = 12


class Line(NamedTuple):
    """One number to dial."""

    n: int  # line of the file, from 1
    to: str
    agent: str
    zone: str
    variables: dict[str, str]


class Parsed(NamedTuple):
    """A list, and a sentence for each error."""

    lines: list[Line]
    errors: list[str]


def id_of(name: str, data: bytes) -> str:
    """Return the identity of a list: a digest of the file's name and content."""
    return hashlib.sha256(name.encode() + b"\0" + data).hexdigest()[:_ID_CHARS]


def parse(data: bytes, *, agents: Collection[str], agent: str, zone: str) -> Parsed:
    """Parse a file. `agent`, `zone`: of lines without their own."""
    if len(data) > MAX_BYTES:
        return Parsed([], [f"the file has {len(data)} bytes; at most {MAX_BYTES} are allowed"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Parsed([], [f"the file is not UTF-8, at byte {error.start}; save it as UTF-8"])
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    errors: list[str] = []
    lines: list[Line] = []
    seen: dict[str, int] = {}
    zones: dict[str, bool] = {}
    try:
        header = [name.strip() for name in next(reader, [])]
        errors += _header_errors(header)
        if errors:
            return Parsed([], errors)
        begins = reader.line_num + 1
        for cells in reader:
            n, begins = begins, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(lines) >= MAX_LINES:
                return Parsed([], [f"the file has more than {MAX_LINES} numbers; divide it"])
            if len(cells) != len(header):
                errors.append(f"line {n} has {len(cells)} cells; expected {len(header)}, as in the header")
                continue
            row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
            line = Line(n, row["to"], row.get("agent") or agent, row.get("zone") or zone, _variables(row))
            errors += [f"line {n}: {problem}" for problem in _problems(line, agents, seen, zones)]
            lines.append(line)
    except csv.Error as error:
        errors.append(f"line {reader.line_num} is not CSV: {error}")
    if not lines and not errors:
        errors.append("the file has no numbers")
    return Parsed(lines, errors)


def _header_errors(header: list[str]) -> list[str]:
    errors = (
        [] if "to" in header else ["line 1 has no column `to`; the first line names the columns, for example: to,agent,var_name"]
    )
    for name in dict.fromkeys(header):
        if header.count(name) > 1:
            errors.append(f"line 1 has the column {name!r} twice")
        if name.startswith(_VARIABLE):
            if problem := variable_problem(name.removeprefix(_VARIABLE), ""):
                errors.append(f"line 1: the variable of the column {name!r} {problem}")
        elif name not in ("to", "agent", "zone"):
            errors.append(f"line 1: the column {name!r} is unknown; the columns are to, agent, zone and var_NAME")
    if sum(name.startswith(_VARIABLE) for name in header) > MAX_VARIABLES:
        errors.append(f"line 1 has more than {MAX_VARIABLES} variables")
    return errors


def _variables(row: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix(_VARIABLE): value for name, value in row.items() if name.startswith(_VARIABLE) and value}


def _problems(line: Line, agents: Collection[str], seen: dict[str, int], zones: dict[str, bool]) -> list[str]:
    """Return the ends of sentences about a line. `seen`, `zones`: numbers and zones of earlier lines."""
    found = []
    if not DIALLED.fullmatch(line.to) or len(line.to) > 255:
        found.append(f"{line.to[:60]!r} is neither a number in E.164, such as +15551234567, nor sip:user@host")
    elif (first := seen.setdefault(line.to, line.n)) != line.n:
        found.append(f"{line.to} is the number of line {first} too; remove one")
    if line.agent not in agents:
        found.append(f"no agent {line.agent[:60]!r}; use one of: {', '.join(sorted(agents))}")
    if line.zone not in zones:
        zones[line.zone] = is_zone(line.zone)
    if not zones[line.zone]:
        found.append(f"{line.zone[:60]!r} is not a time zone of this machine, for example Europe/Berlin")
    return found + variables_problems(line.variables)


def variables_problems(variables: dict[str, str]) -> list[str]:
    """Return the sentences about the variables of a call."""
    ends = {name: variable_problem(name, value) for name, value in variables.items()}
    found = [f"the variable {name[:40]!r} {problem}" for name, problem in ends.items() if problem]
    if len(variables) > MAX_VARIABLES:
        found.append(f"there are {len(variables)} variables; at most {MAX_VARIABLES} are allowed")
    length = len(urlencode(variables))
    if length > MAX_QUERY_CHARS:
        found.append(f"the variables have {length} characters in a URL; at most {MAX_QUERY_CHARS} are allowed")
    return found
