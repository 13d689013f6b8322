"""Laws of tools and events after kills, as judgements over a record. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

#: A call placed this close to a kill may have met a worker that did not answer.
NEAR_S: Final = 5.0


@dataclass(frozen=True)
class Delivered:
    """One request of the gateway to the endpoint of events."""

    id: str
    type: str
    call_sid: str
    tool: str  # id of the call of a tool, in tool.called
    content: bytes


@dataclass(frozen=True)
class CallLine:
    """One call, as its caller, its AI and the store have it."""

    call_sid: str
    placed_s: float
    closed_by: str
    reason: str  # in the store; empty without a row
    is_open: bool  # in the store
    error: str = ""  # of a call that Twilio could not connect
    tools: Sequence[str] = ()  # ids of the tool calls that the store has, in sequence
    unanswered: Sequence[str] = ()  # calls of the last session without exactly one output


@dataclass
class Record:
    """A whole run. `requests` and `executions`: by Idempotency-Key, at the endpoints of tools."""

    calls: list[CallLine] = field(default_factory=list)
    kills: list[tuple[float, str]] = field(default_factory=list)  # when, and what
    requests: Counter[str] = field(default_factory=Counter)
    executions: Counter[str] = field(default_factory=Counter)
    once: set[str] = field(default_factory=set)  # keys of a tool that is not idempotent
    delivered: list[Delivered] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # requests that an endpoint must refuse
    waiting: int = 0  # jobs without a result at the end


def _executed_twice(record: Record) -> list[str]:
    return [f"{key}: executed {times} times" for key, times in record.executions.items() if times > 1]


def _sent_twice(record: Record) -> list[str]:
    return [f"{key}: sent {record.requests[key]} times" for key in sorted(record.once) if record.requests[key] > 1]


def _waiting(record: Record) -> list[str]:
    found = [f"{record.waiting} jobs have no result"] if record.waiting else []
    for call in record.calls:
        if call.closed_by == "limit" or not (call.closed_by or call.error):
            found.append(f"{call.call_sid}: the caller was left waiting, {call.reason or 'no row'}")
        if call.is_open:
            found.append(f"{call.call_sid}: no end in the store")
        found += [f"{call.call_sid}: {one} has no output, or two" for one in call.unanswered]
    return found


def _ended_well(record: Record) -> list[str]:
    """Return calls whose end no kill explains."""
    return [
        f"{call.call_sid}: ended by {call.closed_by or call.error} with {call.reason or 'no row'}, no kill near"
        for call in record.calls
        if call.reason != "ai_hangup" and not any(abs(at_s - call.placed_s) < NEAR_S for at_s, _ in record.kills)
    ]


def _delivered(record: Record) -> list[str]:
    """Return events that are missing, doubled under another id, changed or out of sequence."""
    found: list[str] = []
    contents: dict[str, bytes] = {}
    firsts: dict[str, list[Delivered]] = {}
    for one in record.delivered:
        if one.id not in contents:
            contents[one.id] = one.content
            firsts.setdefault(one.call_sid, []).append(one)
        elif contents[one.id] != one.content:
            found.append(f"{one.id}: repeated with another body")
    for call in record.calls:
        if not call.reason:
            continue
        events = firsts.get(call.call_sid, [])
        expected = ["call.started", *(["tool.called"] * len(call.tools)), "call.ended"]
        if [one.type for one in events] != expected:
            found.append(f"{call.call_sid}: {[one.type for one in events]}, expected {expected}")
        elif [one.tool for one in events[1:-1]] != list(call.tools):
            found.append(f"{call.call_sid}: tool.called out of sequence")
    return found


LAWS: Final[dict[str, Callable[[Record], list[str]]]] = {
    "no tool executed twice": _executed_twice,
    "no request of a tool that is not idempotent sent twice": _sent_twice,
    "no call left waiting": _waiting,
    "only a kill disturbs a call": _ended_well,
    "every event delivered, in sequence": _delivered,
    "every request signed and complete": lambda record: record.faults,
}


def judge(record: Record) -> dict[str, list[str]]:
    """Return the violations of each law, by its name."""
    return {name: law(record) for name, law in LAWS.items()}
