"""Laws of calls that leave their stream and return under kills. Pure judgements over a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gw.media.call import RESTORE_S
from tests.faults.away.plan import NUMBERS, Leaving

Span = tuple[float, float]


class Killed(NamedTuple):
    """A kill. `away_s`: until the next process was ready; `waited_s`: of that, the time in which the machine did not run it."""

    at_s: float
    role: str
    waited_s: float = 0.0
    away_s: float = 0.0


#: Longest silence beyond ringing, in seconds.
SILENCE_S: Final = 3.0
#: A kill this long before a silence may cause it.
NEAR_S: Final = 5.0
#: A call that was on a stream this long after its first audio must have been recorded: a restart of control, and a retry.
RECORDED_S: Final = 13.0
#: Time in which a request of Twilio's, or the report of a call's start, dies with its worker.
DIES_S: Final = 1.0
STARTS_S: Final = 0.5
#: A control that is ready this long before the end of a returned call's wait for its conversation can answer.
ANSWERS_S: Final = 0.5


class Dial(NamedTuple):
    """A dial by Twilio. `outcome`: as the agent must learn it."""

    to: str
    outcome: str


class Wish(NamedTuple):
    """A leave that the AI asked for, and what it learnt: one output in each session that has the call."""

    leaving: Leaving
    outputs: Sequence[str]


class Takeover(NamedTuple):
    """A session that speaks after another one: the words heard before, and those it was given or has said."""

    heard: Sequence[str]
    held: Sequence[str]


@dataclass(frozen=True)
class CallLine:
    """One call, as Twilio, its caller and its AI have it. Seconds of the run."""

    number: int
    call_sid: str
    span: Span  # from the stream's start until the caller was connected or hung up
    ended: str  # hung_up, connected, gave_up; else what happened instead
    streams_s: Sequence[float] = ()  # the streams' starts
    filled: Sequence[Span] = ()  # speech of either side, ringing, digits
    wishes: Sequence[Wish] = ()
    dials: Sequence[Dial] = ()
    tones: str = ""
    recorded: int = 1
    takeovers: Sequence[Takeover] = ()
    complaints: Sequence[str] = ()  # of the twins
    is_open: bool = False  # in the store
    request_failed: bool = False  # Twilio's last one had no answer
    problems: Sequence[str] = ()  # events of the call, to explain a violation


@dataclass
class Record:
    """A whole run."""

    calls: list[CallLine] = field(default_factory=list)
    kills: list[Killed] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def gaps(span: Span, filled: Iterable[Span]) -> list[Span]:
    """Return the parts of a span that nothing fills."""
    found, at_s = [], span[0]
    for from_s, to_s in sorted(filled):
        if from_s > at_s:
            found.append((at_s, min(from_s, span[1])))
        at_s = max(at_s, to_s)
    found.append((at_s, span[1]))
    return [(from_s, to_s) for from_s, to_s in found if to_s > from_s]


def _recorded(record: Record) -> list[str]:
    found = []
    for call in record.calls:
        lasted_s = call.span[1] - call.span[0]
        if call.recorded > 1 or (call.recorded == 0 and lasted_s >= RECORDED_S):
            found.append(f"{call.call_sid}: {call.recorded} recordings in {lasted_s:.0f} s")
    return found


def _silent(record: Record) -> list[str]:
    """Return silences that are too long, without the time in which the machine did not run a process that replaces another."""
    found = []
    for call in record.calls:
        for from_s, to_s in gaps(call.span, call.filled):
            kills = [one for one in record.kills if from_s - NEAR_S <= one.at_s <= to_s]
            if to_s - from_s > SILENCE_S + sum(one.waited_s for one in kills):
                near = [f"{one.role} {one.at_s - from_s:+.1f} s (waited {one.waited_s:.1f} s)" for one in kills]
                found.append(
                    f"{call.call_sid}: {to_s - from_s:.1f} s of silence from {from_s:.1f} s, kills: {', '.join(near) or 'none'}"
                )
    return found


def _doubled(record: Record) -> list[str]:
    found = []
    for call in record.calls:
        for to, times in Counter(dial.to for dial in call.dials).items():
            if times > 1:
                found.append(f"{call.call_sid}: {to} was dialled {times} times")
        wished = Counter(wish.leaving.digits for wish in call.wishes if wish.leaving.digits)
        found += [
            f"{call.call_sid}: {digits} was sent {call.tones.count(digits)} times"
            for digits in wished
            if call.tones.count(digits) > 1
        ]
    return found


def _waited_in_vain(call: CallLine, record: Record) -> bool:
    """Return whether a returned call waited for a control that was away for longer than it may wait: it continues without."""
    return any(
        kill.role == "control" and kill.at_s <= at_s + DIES_S and at_s + RESTORE_S <= kill.at_s + kill.away_s + ANSWERS_S
        for kill in record.kills
        for at_s in call.streams_s[1:]
    )


def _unknown(record: Record) -> list[str]:
    """Return leaves whose outcome the agent did not learn, learnt wrongly, or learnt twice."""
    found = []
    for call in record.calls:
        dialled = {dial.to: dial.outcome for dial in call.dials}
        for leaving, outputs in call.wishes:
            outcome = dialled.get(NUMBERS[leaving.party], "") if leaving.party else "sent" if leaving.digits in call.tones else ""
            if outcome in ("", "completed", "canceled"):
                continue
            if set(outputs) != {outcome} and (outputs or not _waited_in_vain(call, record)):
                name = leaving.party or leaving.digits
                found.append(f"{call.call_sid}: {name} ended with {outcome}, the agent learnt {list(outputs) or 'nothing'}")
    return found


def _forgotten(record: Record) -> list[str]:
    """Return sessions that lack words heard before them, or have them twice or out of sequence."""
    found = []
    for call in record.calls:
        for n, (heard, held) in enumerate(call.takeovers):
            kept = [words for words in held if words in heard]
            if kept != list(heard) and (kept or not _waited_in_vain(call, record)):
                found.append(f"{call.call_sid}: takeover {n + 1} has {kept} of {list(heard)}")
    return found


def _ended(record: Record) -> list[str]:
    """Return calls that neither the caller nor a connection ended.

    Twilio ends a call whose webhook gets no answer. A call is unknown if its worker died before the report of its start.
    """
    found = []
    for call in record.calls:
        killed_s = [one.at_s for one in record.kills if one.role == "worker"]
        if any(0.0 <= at_s - call.span[0] < STARTS_S for at_s in killed_s):
            continue
        if call.request_failed and any(abs(at_s - call.span[1]) < DIES_S for at_s in killed_s):
            continue
        if call.ended not in ("hung_up", "connected"):
            found.append(f"{call.call_sid}: {call.ended}; {'; '.join(call.problems)}")
        if call.is_open:
            found.append(f"{call.call_sid}: no end in the store")
    return found


LAWS: Final[dict[str, Callable[[Record], list[str]]]] = {
    "one recording each": _recorded,
    f"no silence over {SILENCE_S:g} s beyond ringing": _silent,
    "nothing dialled or sent twice": _doubled,
    "the agent learns each outcome": _unknown,
    "every conversation continues with what was said": _forgotten,
    "a call ends by its caller, or connected": _ended,
    "neither twin complains": lambda record: [f"{call.call_sid}: {one}" for call in record.calls for one in call.complaints],
    "the bench worked": lambda record: record.errors,
}


def judge(record: Record) -> dict[str, list[str]]:
    """Return the violations of each law, by its name."""
    return {name: law(record) for name, law in LAWS.items()}
