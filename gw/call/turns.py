"""Who said what, and how much of it was heard.

A turn of the agent is whole when its fate is known: heard to the end, interrupted, or cut by the call's end. Its text comes while
it is still being played, so it waits here. The caller's words come late and out of order; their start orders them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gw.call.playout import Truncation

#: Agent turns waiting for their fate: a few items of one response. More means marks are lost; the oldest goes out as it is.
MAX_PENDING: Final = 32


class Turn(NamedTuple):
    """One side's words. `heard_ms` is None for the caller."""

    n: int
    role: str
    text: str
    item_id: str
    start_ms: int
    interrupted: bool
    heard_ms: int | None


class _Pending:
    __slots__ = ("item_id", "n", "start_ms", "text")

    def __init__(self, n: int, item_id: str, start_ms: int) -> None:
        self.n = n
        self.item_id = item_id
        self.start_ms = start_ms
        self.text = ""


class Turns:
    """One call's turns. Every method returns the turns that are now whole."""

    __slots__ = ("_agent", "_caller_start_ms", "_interrupted", "_n")

    def __init__(self) -> None:
        self._n = 0
        self._agent: dict[str, _Pending] = {}
        self._interrupted: dict[str, tuple[_Pending, int]] = {}  # their text has not come
        self._caller_start_ms: dict[str, int] = {}

    def on_agent_audio(self, item_id: str, at_ms: int) -> list[Turn]:
        """The first or a later chunk of an item came. `at_ms`: since the stream's start."""
        if item_id in self._agent or item_id in self._interrupted:
            return []
        self._n += 1
        self._agent[item_id] = _Pending(self._n, item_id, at_ms)
        if len(self._agent) > MAX_PENDING:
            return [_whole(self._agent.pop(next(iter(self._agent))), interrupted=False, heard_ms=None)]
        return []

    def on_agent_text(self, item_id: str, text: str, at_ms: int) -> list[Turn]:
        """The transcript of an item is whole."""
        if item_id in self._interrupted:
            pending, heard_ms = self._interrupted.pop(item_id)
            pending.text = text
            return [_whole(pending, interrupted=True, heard_ms=heard_ms)]
        turns = self.on_agent_audio(item_id, at_ms)
        self._agent[item_id].text = text
        return turns

    def waiting(self) -> list[str]:
        """Items of the agent whose fate is open."""
        return list(self._agent)

    def on_heard(self, item_id: str, heard_ms: int) -> list[Turn]:
        """The caller heard an item to its end."""
        pending = self._agent.pop(item_id, None)
        return [_whole(pending, interrupted=False, heard_ms=heard_ms)] if pending else []

    def on_interrupted(self, truncations: list[Truncation]) -> list[Turn]:
        """The caller interrupted these items. Their text may still be on its way."""
        turns = []
        for item_id, heard_ms in truncations:
            pending = self._agent.pop(item_id, None)
            if pending is None:
                continue
            if pending.text:
                turns.append(_whole(pending, interrupted=True, heard_ms=heard_ms))
            else:
                self._interrupted[item_id] = (pending, heard_ms)
                if len(self._interrupted) > MAX_PENDING:
                    older, older_ms = self._interrupted.pop(next(iter(self._interrupted)))
                    turns.append(_whole(older, interrupted=True, heard_ms=older_ms))
        return turns

    def on_caller_speech(self, item_id: str, start_ms: int) -> None:
        """The caller began to talk; the words follow under this item."""
        self._caller_start_ms[item_id] = start_ms
        if len(self._caller_start_ms) > MAX_PENDING:
            del self._caller_start_ms[next(iter(self._caller_start_ms))]

    def on_caller_text(self, item_id: str, text: str, at_ms: int) -> list[Turn]:
        """The caller's words."""
        self._n += 1
        start_ms = self._caller_start_ms.pop(item_id, at_ms)
        return [Turn(self._n, "caller", text, item_id, start_ms, False, None)]

    def on_end(self, heard_ms: dict[str, int], unheard: set[str]) -> list[Turn]:
        """The call is over: every open turn ends as it stands. `heard_ms` by item; `unheard`: items not heard to their end."""
        turns = [_whole(pending, interrupted=True, heard_ms=heard) for pending, heard in self._interrupted.values()]
        for item_id, pending in self._agent.items():
            turns.append(_whole(pending, interrupted=item_id in unheard, heard_ms=heard_ms.get(item_id, 0)))
        self._agent.clear()
        self._interrupted.clear()
        return sorted(turns)


def _whole(pending: _Pending, *, interrupted: bool, heard_ms: int | None) -> Turn:
    return Turn(pending.n, "agent", pending.text, pending.item_id, pending.start_ms, interrupted, heard_ms)
