"""Formats a log record as a line: JSON for machines, colour for people.

Masked and bounded. The thread that formats holds the interpreter, so a traceback omits the standard library's search for the
failing expression in each source line: 15 us instead of 400 us for thirty frames. `reason` is from a closed list. Pure, except
that a traceback reads source lines.
"""

from __future__ import annotations

import linecache
import logging
import re
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, get_args

import msgspec

from gw.call.state import Reason
from gw.protocol.http import FAULTS, GivenUp

#: Names that `extra=` may add to a line. Other attributes of a record are not written.
EXTRAS: Final = ("call_sid", "stream_sid", "worker", "reason", "code", "detail", "uid")
#: All reasons besides those of a call's end, explained in `deploy/reasons.md`. A test compares them with the code. A reason on
#: neither list is written as `other`.
GATEWAY_REASONS: Final = frozenset(
    (
        # refused webhooks and upgrades
        *("bad_signature", "bad_request", "not_found", "busy", "shutdown", "stream_error"),
        # requests that break HTTP or are given up, and strangers' other effects
        *(*FAULTS, *get_args(GivenUp), "bad_method", "bad_upgrade", "bad_form", "no_signature", "foreign_host", "foreign_origin"),
        *("accept_failed", "printed"),
        # routes and lists of numbers
        *("route_failed", "list_left"),
        # between worker and control
        *("bus_error", "bus_overflow", "bus_silent", "bus_version"),
        # the spool and the store
        *("spool_failed", "store_refused", "store_unavailable", "store_away"),
        # recordings and answers of Twilio's REST API; with `twilio_error`, `code` has Twilio's error number
        *("call_ended", "call_over", "recorded_twice", "no_credentials", "not_in_progress", "gone", "unauthorized"),
        *("server", "timeout", "unreachable", "rejected", "twilio_error"),
    )
)
REASONS: Final = GATEWAY_REASONS | {str(reason) for reason in Reason}
OTHER_REASON: Final = "other"
#: Characters of a call's SID on a terminal: enough to distinguish recent calls.
SHORT_SID_CHARS: Final = 10
#: Characters of one field; a longer one is cut with a note, so that every line is bounded.
FIELD_LIMIT: Final = 8192
#: Limits of a traceback: outermost frames, innermost frames, exceptions in a chain.
_OUTER_FRAMES, _INNER_FRAMES, _CHAIN_LIMIT = 5, 25, 5

#: A number in E.164, 7 to 15 digits, with usual separators or URL-encoded.
_NUMBER: Final = re.compile(r"(\+|%2[Bb])(\d(?:[ ().-]{0,2}\d){6,14})(?!\d)")
#: The process name of a worker.
_WORKER: Final = re.compile(r"worker-(\d+)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_COLOURS: Final = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


def mask_numbers(text: str) -> str:
    """Mask telephone numbers except the first and last four digits: +15551234567 becomes +1555***4567."""
    return _NUMBER.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", match[2])
    return f"{match[1]}{digits[: min(4, len(digits) - 7)]}***{digits[-4:]}"


def _field(value: object, numbers: bool) -> str | int | float | bool | None:
    """Return a value masked unless `numbers`, bounded, and valid UTF-8."""
    if not isinstance(value, str):
        return value if value is None or isinstance(value, bool | int | float) else _field(str(value), numbers)
    beyond = len(value) - FIELD_LIMIT
    # mask a number that spans the cut
    text = value[: FIELD_LIMIT + 32]
    text = text if numbers else mask_numbers(text)
    if beyond > 0:
        text = f"{text[:FIELD_LIMIT]}... ({beyond} characters more)"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _fields(record: logging.LogRecord, process: str, numbers: bool) -> dict[str, Any]:
    """Return the fields besides time, level and process. Lines of a worker have its index as `worker`."""
    fields: dict[str, Any] = {"logger": record.name, "message": _field(record.getMessage(), numbers)}
    own = _WORKER.fullmatch(process)
    for name in EXTRAS:
        value = record.__dict__.get(name)
        if value is None and name == "worker" and own is not None:
            value = int(own[1])
        if value is None:
            continue
        if name == "reason" and str(value) not in REASONS:
            value = OTHER_REASON
        fields[name] = _field(value, numbers)
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields["error"] = _field(_named(error), numbers)
        fields["traceback"] = _field("\n".join(_traceback(error)), numbers)
    return fields


def format_json(record: logging.LogRecord, process: str, *, numbers: bool = False) -> bytes:
    """Format a record as one line of JSON."""
    seconds, milliseconds = divmod(int(record.created * 1000), 1000)
    line = {
        "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03}Z",
        "level": record.levelname.lower(),
        "process": process,
        **_fields(record, process, numbers),
    }
    return msgspec.json.encode(line) + b"\n"


def format_journal(record: logging.LogRecord, process: str, *, numbers: bool = False) -> bytes:
    """Format as JSON with journald's level prefix. Source: sd-daemon(3), syslog(3)."""
    return b"<%d>" % _priority(record.levelno) + format_json(record, process, numbers=numbers)


def _priority(level: int) -> int:
    """Return the syslog priority: 2 critical, 3 error, 4 warning, 6 informational, 7 debug."""
    for above, priority in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if level >= above:
            return priority
    return 7


def format_human(record: logging.LogRecord, process: str, *, numbers: bool = False) -> bytes:
    """Format a record as one short coloured line in local time; a traceback follows, indented.

    A call is named by the first digits of its SID, which every command accepts. Fields that repeat others are left out.
    """
    fields = _fields(record, process, numbers)
    if _WORKER.fullmatch(process):
        fields.pop("worker", None)  # the process name has the worker's index
    if "call_sid" in fields:
        fields.pop("stream_sid", None)
    if str(fields.get("reason")) in fields["message"]:
        del fields["reason"]
    shown = [
        _visible(str(fields[name])[:SHORT_SID_CHARS]) if name == "call_sid" else f"{name}={_visible(str(fields[name]))}"
        for name in EXTRAS
        if name in fields
    ]
    clock = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.created * 1000) % 1000:03}"
    colour = _COLOURS.get(record.levelname, "0")
    line = f"\x1b[2m{clock}\x1b[0m \x1b[{colour}m{record.levelname.lower():7}\x1b[0m {process} {_visible(str(fields['message']))}"
    if shown:
        line += f" \x1b[2m{' '.join(shown)}\x1b[0m"
    for row in str(fields.get("traceback", "")).splitlines():
        line += f"\n    {_visible(row)}"
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _visible(text: str) -> str:
    """Escape control characters, so that a peer's text cannot control the terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _named(error: BaseException) -> str:
    """Return an exception's type and text. `str` may run foreign code; the writer reports its exceptions."""
    kind, text = type(error), str(error)
    name = kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    return f"{name}: {text}" if text else name


def _traceback(error: BaseException) -> list[str]:
    """Return the lines of the chain of exceptions that ends with `error`, oldest first."""
    parts: list[list[str]] = []
    following, link = error, ""
    for _ in range(_CHAIN_LIMIT):
        parts.append([*_frames(following.__traceback__), _named(following), *([link] if link else [])])
        if following.__cause__ is not None:
            following, link = following.__cause__, "which caused:"
        elif following.__context__ is not None and not following.__suppress_context__:
            following, link = following.__context__, "and while it was handled:"
        else:
            break
    return [row for part in reversed(parts) for row in part]


def _frames(trace: TracebackType | None) -> Iterator[str]:
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append((code.co_filename, trace.tb_lineno, code.co_qualname))
        trace = trace.tb_next
    if places:
        yield "Traceback (most recent call last):"
    left_out = len(places) - _OUTER_FRAMES - _INNER_FRAMES
    for number, (file, line, name) in enumerate(places):
        if left_out > 0 and _OUTER_FRAMES <= number < _OUTER_FRAMES + left_out:
            if number == _OUTER_FRAMES:
                yield f"  ... {left_out} frames ..."
            continue
        yield f'  File "{file}", line {line}, in {name}'
        source = linecache.getline(file, line).strip()
        if source:
            yield f"    {source}"
