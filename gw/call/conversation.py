"""The conversation so far, as another AI session is told it: who said what, in order.

What of it a session needs is bounded in turns and in characters; the latest stay. What the caller did not hear was not said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from gw.call.turns import Turn

#: A conversation's last minutes: an hour has some six hundred turns, and a model is told of the rest by what follows from it.
MAX_SAID: Final = 100
MAX_CHARS: Final = 20_000
#: Put behind what the caller did not let the agent finish.
CUT: Final = " (interrupted by the caller)"


class Said(NamedTuple):
    """One turn's words. `role`: caller or agent."""

    role: str
    text: str


class Past:
    """One call's turns, the last ones."""

    __slots__ = ("_before", "_turns")

    def __init__(self) -> None:
        self._before: list[Said] = []
        self._turns: deque[Turn] = deque(maxlen=MAX_SAID)

    def begin_with(self, said: Iterable[Said]) -> None:
        """What was said before this stream began."""
        self._before = list(said)

    def add(self, turns: Iterable[Turn]) -> None:
        """These turns are whole."""
        self._turns.extend(turns)

    @property
    def turns(self) -> list[Turn]:
        """The turns of this stream that are kept."""
        return list(self._turns)

    @property
    def is_empty(self) -> bool:
        """Nothing was said yet."""
        return not self._before and not self._turns

    def told(self, under_way: Iterable[Turn] = ()) -> list[Said]:
        """All of it in the order it was spoken; `under_way`: the agent's turns that are still being heard."""
        ordered = sorted([*self._turns, *under_way], key=lambda turn: (turn.start_ms, turn.n))
        return bounded([*self._before, *(said for turn in ordered if (said := _said(turn)) is not None)])


def bounded(said: list[Said]) -> list[Said]:
    """The latest of it that is within the bounds, in the same order."""
    kept: list[Said] = []
    chars = 0
    for one in reversed(said[-MAX_SAID:]):
        chars += len(one.text)
        if chars > MAX_CHARS:
            break
        kept.append(one)
    return kept[::-1]


def _said(turn: Turn) -> Said | None:
    if not turn.text or (turn.interrupted and not turn.heard_ms):
        return None
    return Said(turn.role, turn.text + CUT if turn.interrupted else turn.text)
