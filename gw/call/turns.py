"""Turns of caller and agent, and how much of each the caller heard.

An agent's turn is finished when its outcome is known (heard to the end, interrupted, or cut by the call's end) and its text has
come, in either sequence; mostly the text comes first, while the audio is still playing. The caller's texts come late and out of
sequence; their start times order them. If the AI is lost during a turn, the received pieces of the transcript become its text.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from gw.call.playout import Truncation

#: Agent turns without an outcome, or without a text: a few items of one response. More means that marks or transcripts are lost;
#: the oldest is returned incomplete.
MAX_PENDING: Final = 32
#: Length of a partial transcript: minutes of speech.
MAX_WORDS_CHARS: Final = 16_000


class Turn(NamedTuple):
    """One turn of one side. `heard_ms`: None for the caller."""

    n: int
    role: str
    text: str
    item_id: str
    start_ms: int
    interrupted: bool
    heard_ms: int | None


class _Pending(msgspec.Struct):
    """An agent's turn without an outcome, or without a text."""

    n: int
    item_id: str
    start_ms: int
    text: str = ""
    words: str = ""  # partial transcript
    interrupted: bool = False
    heard_ms: int | None = None

    def turn(self) -> Turn:
        return Turn(self.n, "agent", self.text, self.item_id, self.start_ms, self.interrupted, self.heard_ms)


class Turns:
    """Tracks one call's turns. Methods that return turns return those now finished."""

    __slots__ = ("_agent", "_awaiting_text", "_caller_start_ms", "_n")

    def __init__(self, first_n: int = 0) -> None:
        """Turns are numbered from `first_n` + 1."""
        self._n = first_n
        self._agent: dict[str, _Pending] = {}  # without an outcome
        self._awaiting_text: dict[str, _Pending] = {}
        self._caller_start_ms: dict[str, int] = {}

    def on_agent_audio(self, item_id: str, at_ms: int) -> list[Turn]:
        """Record a chunk of an item's audio. `at_ms`: since the stream's start."""
        if item_id in self._agent or item_id in self._awaiting_text:
            return []
        self._n += 1
        self._agent[item_id] = _Pending(self._n, item_id, at_ms)
        return _oldest_beyond_bound(self._agent)

    def on_agent_text(self, item_id: str, text: str, at_ms: int) -> list[Turn]:
        """Record the whole transcript of an item."""
        heard = self._awaiting_text.pop(item_id, None)
        if heard is not None:
            heard.text = text
            return [heard.turn()]
        turns = self.on_agent_audio(item_id, at_ms)
        self._agent[item_id].text = text
        return turns

    def on_agent_text_delta(self, item_id: str, words: str) -> None:
        """Record a piece of an item's transcript."""
        pending = self._agent.get(item_id) or self._awaiting_text.get(item_id)
        if pending is not None and len(pending.words) < MAX_WORDS_CHARS:
            pending.words += words

    def on_ai_lost(self) -> list[Turn]:
        """End all transcripts: the received pieces become the texts."""
        for pending in (*self._agent.values(), *self._awaiting_text.values()):
            pending.text = pending.text or pending.words
        turns = [pending.turn() for pending in self._awaiting_text.values()]
        self._awaiting_text.clear()
        return turns

    def in_progress(self) -> list[Turn]:
        """Return the agent's turns without an outcome, with their text so far."""
        return [pending.turn()._replace(text=pending.text or pending.words) for pending in self._agent.values()]

    def unresolved_items(self) -> list[str]:
        """Return the agent's items without an outcome."""
        return list(self._agent)

    def on_heard(self, item_id: str, heard_ms: int) -> list[Turn]:
        """Record that the caller heard an item to its end."""
        return self._resolve(item_id, interrupted=False, heard_ms=heard_ms)

    def on_interrupted(self, truncations: list[Truncation]) -> list[Turn]:
        """Record that the caller interrupted these items."""
        turns: list[Turn] = []
        for item_id, heard_ms in truncations:
            turns += self._resolve(item_id, interrupted=True, heard_ms=heard_ms)
        return turns

    def _resolve(self, item_id: str, *, interrupted: bool, heard_ms: int) -> list[Turn]:
        pending = self._agent.pop(item_id, None)
        if pending is None:
            return []
        pending.interrupted, pending.heard_ms = interrupted, heard_ms
        if pending.text:
            return [pending.turn()]
        self._awaiting_text[item_id] = pending
        return _oldest_beyond_bound(self._awaiting_text)

    def on_caller_speech(self, item_id: str, start_ms: int) -> None:
        """Record the start of a caller's turn; its text follows under this item."""
        self._caller_start_ms[item_id] = start_ms
        if len(self._caller_start_ms) > MAX_PENDING:
            del self._caller_start_ms[next(iter(self._caller_start_ms))]

    def on_caller_text(self, item_id: str, text: str, at_ms: int) -> list[Turn]:
        """Record the text of a caller's turn."""
        self._n += 1
        start_ms = self._caller_start_ms.pop(item_id, at_ms)
        return [Turn(self._n, "caller", text, item_id, start_ms, False, None)]

    def on_end(self, heard_ms: dict[str, int], unheard: set[str]) -> list[Turn]:
        """Finish every open turn at the call's end. `heard_ms`: by item; `unheard`: items not heard to their end."""
        for item_id, pending in self._agent.items():
            pending.interrupted, pending.heard_ms = item_id in unheard, heard_ms.get(item_id, 0)
        turns = [pending.turn() for pending in (*self._awaiting_text.values(), *self._agent.values())]
        self._agent.clear()
        self._awaiting_text.clear()
        return sorted(turns)


def _oldest_beyond_bound(pending: dict[str, _Pending]) -> list[Turn]:
    return [pending.pop(next(iter(pending))).turn()] if len(pending) > MAX_PENDING else []
