"""Laws of a conversation: each must hold whatever the faults were. Pure.

A law returns one sentence for each time it was broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from gw.call.dialogue.rules import CANCEL_MS, SILENT_MS
from gw.config import Agent
from gw.twin.ai.ledger import AiLedger
from gw.twin.sound import PTIME_MS
from gw.twin.twilio.caller import TwinCall
from tests.calls.conversations.scripts import LASTING, Conversation
from tests.calls.ear import Ear, Span, cut_goodbyes, dead_air, heard_ms, repeated_frames, talked_over

#: Longest silence of an owed answer; then at least the holding sound is heard.
DEAD_AIR_S: Final = 1.0
#: Further silence after a fault of the network: a lost stream is opened again, and a caller's pause is noticed later.
_REOPEN_S: Final = 1.5
_REFILL_S: Final = 0.4
#: An AI that falls silent instead of ending a cancelled response gets this time for a sign of life.
_FELL_SILENT_S: Final = (CANCEL_MS + SILENT_MS) / 1000
#: Keys are complete after this pause, or with "#".
_KEYS_S: Final = 3.0
#: Network and detection of both twins on an idle machine.
_SLACK_S: Final = 0.25
#: Most that a truncation may differ from what was heard: a frame, and the way from gateway to phone.
_HEARD_MS: Final = PTIME_MS + 5
#: Faults after which a session hears nothing, so speech of the caller has no effect.
_DEAF: Final = frozenset({"stall", "freeze", "deaf"})
_LOST: Final = ("reset", "half_open")


@dataclass(frozen=True)
class Result:
    """A conversation that was held. `sessions`: its AI sessions in sequence; `slack_s`: the machine did not run that long."""

    made: Conversation
    call: TwinCall
    sessions: tuple[AiLedger, ...]
    ear: Ear
    reason: str  # of its end, in the store; empty: no row
    slack_s: float = 0.0

    @property
    def losses_s(self) -> list[float]:
        """Times at which the media socket was lost."""
        return [at_s for at_s, step in self.call.done if step.kind in _LOST]


def _ends(held: Result) -> Iterator[str]:
    """The call ends, for the reason that its end had."""
    call = held.call
    if call.closed_by == "limit" or not held.reason:
        yield f"no end: closed by {call.closed_by!r}, stored reason {held.reason!r}"
    elif call.closed_by == "caller" and held.reason not in _reasons_of_a_caller(held):
        yield f"the caller hung up, stored is {held.reason}"


def _reasons_of_a_caller(held: Result) -> set[str]:
    """Return the reasons of a hang-up. Without `stop`, and beside a lost socket, a hang-up looks like a loss."""
    is_plain = not held.losses_s and held.made.plan.sends_stop
    return {"caller_hangup"} if is_plain else {"caller_hangup", "phone_lost", "phone_silent"}


def _clean(held: Result) -> Iterator[str]:
    """Neither twin has a complaint about the gateway's messages."""
    if held.call.error:
        yield f"the phone: {held.call.error}"
    yield from (f"Twilio {one.code}: {one.detail[:80]}" for one in held.call.warnings[:3])
    for session in held.sessions:
        yield from (f"the AI: {one[:80]}" for one in session.violations[:3])


def _owed_s(held: Result) -> list[float]:
    """Times at which an answer became owed: the start, the end of each turn, and of keys. None once the agent says goodbye."""
    silence_s = Agent().turns.silence_ms / 1000
    owed = [held.call.streams_s[0]] if held.call.streams_s else []
    for said in held.ear.caller:
        over_s = said.end_s + silence_s
        if not any(said.start_s < other.start_s < over_s for other in held.ear.caller):  # a pause of the caller's
            owed.append(over_s)
    for at_s, step in held.call.done:
        if step.kind == "press":
            owed.append(at_s + (0.0 if step.keys.endswith("#") else _KEYS_S))
    goodbyes = set(_goodbyes(held))
    begun_s = [span.start_s for span in held.ear.agent if span.item in goodbyes]
    taken_back = any(said.start_s > min(begun_s) for said in held.ear.caller) if begun_s else False
    last_s = held.ear.ended_s if not begun_s or taken_back else min(begun_s)
    return sorted(at_s for at_s in owed if at_s < last_s)


def _dead_air(held: Result) -> Iterator[str]:
    """An owed answer is heard soon, or something that holds its place."""
    owed = _owed_s(held)
    for at_s, silent_s in zip(owed, dead_air(held.ear, owed), strict=True):
        allowed_s = DEAD_AIR_S + _SLACK_S + held.slack_s
        for done_s, step in held.call.done:
            if at_s - 2.0 - step.lasts_s <= done_s <= at_s + silent_s:
                allowed_s += step.lasts_s + _REOPEN_S if step.kind in _LOST else 0.0
                allowed_s += _REFILL_S if step.kind in ("lose_frames", "delay_frames") else 0.0
        if any(cancel.response_id and held.ear.began_s < cancel.at_s <= at_s for one in held.sessions for cancel in one.cancels):
            allowed_s += _FELL_SILENT_S if "stall" in held.made.faults else 0.0
        if silent_s > allowed_s:
            yield f"{silent_s:.2f} s of dead air from {at_s - held.ear.began_s:.2f} s on, allowed are {allowed_s:.2f} s"


def _last_words(held: Result) -> Iterator[str]:
    """Unless the caller hangs up, the call ends with words."""
    if held.call.closed_by != "gateway" or held.call.spoken:
        return
    if not any(heard_ms(held.ear, item) for item in _goodbyes(held)):
        yield f"ended as {held.reason} without a word"


def _talk_over(held: Result) -> Iterator[str]:
    """The agent is silent while the caller speaks, where the AI could hear it."""
    if held.made.interruptions == "none" or _DEAF & {*held.made.faults}:
        return
    ear = replace(held.ear, agent=tuple(span for span in held.ear.agent if span.item))
    for said in held.ear.caller:
        frames = talked_over(ear, [said]) - round(held.slack_s * 50)
        if _is_heard(held, said) and frames > 0:
            yield f"{frames} frames of the agent over the caller at {said.start_s - held.ear.began_s:.2f} s"


def _is_heard(held: Result, said: Span) -> bool:
    """Return whether a session took audio during all of that speech."""
    return any(
        session.ready_s is not None and session.ready_s < said.start_s and (session.closed_s or said.end_s) >= said.end_s
        for session in held.sessions
    )


def _goodbyes(held: Result) -> dict[str, int]:
    """Return the items of responses that hang up, and their length in ms."""
    found = {}
    for session in held.sessions:
        hanging_up = {call.response_id for call in session.calls if call.name == held.made.first.hang_up_tool}
        for one in session.responses:
            if one.response_id in hanging_up and one.status == "completed" and one.audio:
                found[one.item_id] = one.sent_ms
    return found


def _goodbye(held: Result) -> Iterator[str]:
    """A goodbye is heard whole, unless the caller speaks or leaves."""
    if held.call.closed_by == "gateway" and not held.losses_s:
        yield from (f"the goodbye {item} was cut" for item in cut_goodbyes(held.ear, _goodbyes(held)))


def _stays(held: Result) -> Iterator[str]:
    """A lost media socket loses no caller. One who was being said goodbye to, or has no AI any more, hears words from Twilio."""
    is_over = bool({*held.made.faults} & {*LASTING})
    goodbyes = _goodbyes(held)
    bid_s = min((span.start_s for span in held.ear.agent if span.item in goodbyes), default=held.ear.ended_s)
    for n, lost_s in enumerate(held.losses_s, 1):
        if (lost_s > bid_s or is_over) and held.ear.words:
            continue
        if held.call.closed_by != "caller" and len(held.call.streams_s) <= n:
            yield f"the caller was lost with the socket at {lost_s - held.ear.began_s:.2f} s"


def _truncates(held: Result) -> Iterator[str]:
    """Truncations match the audio that was heard."""
    allowed_ms = _HEARD_MS + held.slack_s * 1000
    for item_id, end_ms, off_ms in truncations(held):
        if abs(off_ms) > allowed_ms:
            yield f"{item_id} was truncated at {end_ms} ms, {off_ms:+d} ms from what was heard"


def truncations(held: Result) -> Iterator[tuple[str, int, int]]:
    """Yield each truncated item, its end, and the distance from what was heard, in ms."""
    for session in held.sessions:
        for one in session.truncates:
            if one.accepted:
                yield one.item_id, one.audio_end_ms, one.audio_end_ms - heard_ms(held.ear, one.item_id)


def _frames(held: Result) -> Iterator[str]:
    """No frame of an item is heard twice."""
    if repeated := repeated_frames(held.ear):
        yield f"{repeated} frames were repeated"


def _sessions(held: Result) -> Iterator[str]:
    """There is one AI session, and at most one more for each fault."""
    allowed = 1 + len(held.made.faults)
    if "every_time" not in held.made.faults and len(held.sessions) > allowed:
        yield f"{len(held.sessions)} sessions, allowed are {allowed}"


Law = Callable[[Result], Iterator[str]]
LAWS: Final[Mapping[str, Law]] = MappingProxyType(
    {
        "every call ends": _ends,
        "messages are correct": _clean,
        "no dead air": _dead_air,
        "the end has words": _last_words,
        "no talk-over": _talk_over,
        "goodbyes are whole": _goodbye,
        "a lost socket loses nobody": _stays,
        "truncations match the ear": _truncates,
        "no frame twice": _frames,
        "sessions are few": _sessions,
    }
)


def broken(held: Result) -> list[tuple[str, str]]:
    """Return each broken law, with a sentence."""
    return [(name, text) for name, law in LAWS.items() for text in law(held)]
