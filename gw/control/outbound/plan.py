"""Decisions about dials: the name of one, its result, whether another follows, and the hours of a callee. Pure.

waiting ---> claimed ---> placed ---> done
   ^            |            |
   |            +--> unknown |   Twilio's answer was lost, and Twilio lists no such call
   +------------+------------+   its request was not sent; or another dial follows
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gw.config import Outbound
from gw.control.rows import DialRow

#: Outcomes of a dial. answered: by a person, as far as is known. rejected: Twilio refused the request.
Result = Literal["answered", "machine", "fax", "busy", "no-answer", "failed", "canceled", "rejected"]
#: CallStatus values of a call that is over. Source: Twilio, Voice status callbacks.
FINAL: Final = frozenset({"completed", "busy", "no-answer", "failed", "canceled"})
#: Results that count towards `stop_at_failures`.
FAILURES: Final[frozenset[str]] = frozenset({"failed", "rejected"})
_NAME: Final = re.compile(r"([0-9a-f]{12})-([0-9]{1,7})-([0-9]{1,3})")


class DialName(NamedTuple):
    """One dial: the number `attempt` of a line. Part of the URLs that Twilio requests about it."""

    list_id: str
    n: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.list_id}-{self.n}-{self.attempt}"


def parse_name(text: str) -> DialName | None:
    """Parse the name of a dial; None for anything else."""
    found = _NAME.fullmatch(text)
    return DialName(found[1], int(found[2]), int(found[3])) if found else None


def result_of(status: str, answered_by: str) -> Result:
    """Return the result of a dial. `status`: Twilio's, final. `answered_by`: its verdict, empty without one."""
    match status:
        case "busy" | "no-answer" | "failed" | "canceled":
            return status
        case _ if answered_by.startswith("machine"):
            return "machine"
        case _:
            return "fax" if answered_by == "fax" else "answered"


def after_end(row: DialRow, result: Result, detail: str, call_sid: str, rules: Outbound, now: float) -> DialRow:
    """Return a line after the end of its latest dial: done, or waiting for another one."""
    is_last = result not in rules.retry_on or row.attempts - row.lost > rules.retries
    return msgspec.structs.replace(
        row,
        state="done" if is_last else "waiting",
        next_at=now if is_last else now + rules.retry_after_s,
        call_sid=call_sid or row.call_sid,
        result=result,
        detail=detail or None,
        ended_at=now,
    )


def opens_at(spans: Sequence[tuple[int, int]], zone: ZoneInfo, now: float) -> float:
    """Return the time from which a callee may be dialled: now, or when the hours next begin.

    `spans`: minutes of the day in the callee's zone, the end exclusive; a span whose end is not later wraps.
    """
    there = datetime.fromtimestamp(now, zone)
    minute = there.hour * 60 + there.minute
    if any(start <= minute < end if start < end else minute >= start or minute < end for start, end in spans):
        return now
    midnight = there.replace(hour=0, minute=0, second=0, microsecond=0)
    begins = (
        (midnight + timedelta(days=day)).replace(hour=start // 60, minute=start % 60).timestamp()
        for day in range(3)
        for start, _ in spans
    )
    return min(at for at in begins if at > now)
