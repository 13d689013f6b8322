"""A call's conversation so far, as a replacement AI session receives it.

Bounded in utterances and characters; the latest stay. An agent's turn of which the caller heard nothing is left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from gw.call.turns import Turn

#: An hour of conversation has some 600 turns; a model that takes over needs the last minutes.
MAX_UTTERANCES: Final = 100
MAX_CHARS: Final = 20_000
#: Appended to an agent's turn that the caller interrupted.
CUT: Final = " (interrupted by the caller)"


class Utterance(NamedTuple):
    """The text of one turn. `role`: caller or agent."""

    role: str
    text: str


class Conversation:
    """One call's latest turns, and the utterances before this stream."""

    __slots__ = ("_before", "_turns")

    def __init__(self) -> None:
        self._before: list[Utterance] = []
        self._turns: deque[Turn] = deque(maxlen=MAX_UTTERANCES)

    def resume_from(self, utterances: Iterable[Utterance]) -> None:
        """Set the utterances from before this stream."""
        self._before = list(utterances)

    def add(self, turns: Iterable[Turn]) -> None:
        """Append finished turns."""
        self._turns.extend(turns)

    @property
    def turns(self) -> list[Turn]:
        """The kept turns of this stream, in order of arrival."""
        return list(self._turns)

    def utterances(self, in_progress: Iterable[Turn] = ()) -> list[Utterance]:
        """The latest utterances within the bounds, in the order spoken. `in_progress`: agent turns still being heard."""
        ordered = sorted([*self._turns, *in_progress], key=lambda turn: (turn.start_ms, turn.n))
        return _latest([*self._before, *(said for turn in ordered if (said := _utterance(turn)) is not None)])


def _latest(utterances: list[Utterance]) -> list[Utterance]:
    kept: list[Utterance] = []
    chars = 0
    for utterance in reversed(utterances[-MAX_UTTERANCES:]):
        chars += len(utterance.text)
        if chars > MAX_CHARS:
            break
        kept.append(utterance)
    return kept[::-1]


def _utterance(turn: Turn) -> Utterance | None:
    if not turn.text or (turn.interrupted and not turn.heard_ms):
        return None
    return Utterance(turn.role, turn.text + CUT if turn.interrupted else turn.text)
