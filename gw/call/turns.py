"""Turns of caller and agent, and how much of each the caller heard.

An agent's turn is finished when its outcome is known (heard to the end, interrupted, or cut by the call's end) and its text has
come, in either sequence; mostly the text comes first, while the audio is still playing. Pieces of the text may come before the
first audio; they are the text of a turn whose AI is lost, or whose call ends, before the whole text came. The caller's texts come
late and out of sequence; their start times order them. A caller's turn whose text never comes has an empty text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from gw.call.audio.playout import Outcome

#: Turns of one side without an outcome, or without a text: a few items of one response. More means that marks or transcripts are
#: lost; the oldest is returned incomplete.
MAX_PENDING: Final = 32
#: Length of a partial transcript: minutes of speech.
MAX_WORDS_CHARS: Final = 16_000


class Turn(NamedTuple):
    """One turn of one side. `heard_ms`, `length_ms`: of its audio; None for the caller, and while unknown."""

    n: int
    role: str
    text: str
    item_id: str
    start_ms: int
    interrupted: bool
    heard_ms: int | None
    length_ms: int | None = None


class _Pending(msgspec.Struct):
    """An agent's turn without an outcome, or without a text."""

    n: int
    item_id: str
    start_ms: int
    text: str | None = None  # None: has not come
    interrupted: bool = False
    outcome: Outcome | None = None

    def turn(self, words: str = "") -> Turn:
        """Return the turn. `words`: its partial transcript."""
        text = words if self.text is None else self.text
        heard_ms, length_ms = (self.outcome.heard_ms, self.outcome.length_ms) if self.outcome else (None, None)
        return Turn(self.n, "agent", text, self.item_id, self.start_ms, self.interrupted, heard_ms, length_ms)


class Turns:
    """Tracks one call's turns. Methods that return turns return those now finished."""

    __slots__ = ("_agent", "_awaiting_text", "_caller_start_ms", "_n", "_words")

    def __init__(self, first_n: int = 0) -> None:
        """Turns are numbered from `first_n` + 1."""
        self._n = first_n
        self._agent: dict[str, _Pending] = {}  # without an outcome
        self._awaiting_text: dict[str, _Pending] = {}
        self._words: dict[str, str] = {}  # partial transcripts, also of items without audio yet
        self._caller_start_ms: dict[str, int] = {}

    # -- the agent ----------------------------------------------------------------------------------------------------

    def on_agent_audio(self, item_id: str, at_ms: int) -> list[Turn]:
        """Record a chunk of an item's audio. `at_ms`: since the stream's start."""
        if item_id in self._agent or item_id in self._awaiting_text:
            return []
        self._n += 1
        self._agent[item_id] = _Pending(self._n, item_id, at_ms)
        return self._oldest_beyond_bound(self._agent)

    def is_open(self, item_id: str) -> bool:
        """Return whether an item has begun and its outcome is unknown."""
        return item_id in self._agent

    def on_agent_text(self, item_id: str, text: str, at_ms: int) -> list[Turn]:
        """Record the whole transcript of an item."""
        self._words.pop(item_id, None)
        resolved = self._awaiting_text.pop(item_id, None)
        if resolved is not None:
            return [resolved.turn(text)]
        turns = self.on_agent_audio(item_id, at_ms)
        self._agent[item_id].text = text
        return turns

    def on_agent_text_delta(self, item_id: str, words: str) -> None:
        """Record a piece of an item's transcript."""
        self._words[item_id] = (self._words.get(item_id, "") + words)[:MAX_WORDS_CHARS]
        if len(self._words) > 2 * MAX_PENDING:
            del self._words[next(iter(self._words))]

    def on_ai_lost(self) -> list[Turn]:
        """End all transcripts: the received pieces become the texts. No text of the caller comes any more."""
        for pending in self._agent.values():
            if pending.text is None:
                pending.text = self._words.get(pending.item_id, "")
        turns = [*self._without_text(), *self._without_caller_text()]
        self._words.clear()
        return sorted(turns)

    def in_progress(self) -> list[Turn]:
        """Return the agent's turns without an outcome, with their text so far."""
        return [self._turn(pending) for pending in self._agent.values()]

    def on_heard(self, outcomes: Iterable[Outcome]) -> list[Turn]:
        """Record the items that the caller heard to their end; the others stay open."""
        return [turn for outcome in outcomes if outcome.whole for turn in self._resolve(outcome)]

    def on_interrupted(self, outcomes: Iterable[Outcome]) -> list[Turn]:
        """Record an interruption: nothing more of these items will be heard."""
        return [turn for outcome in outcomes for turn in self._resolve(outcome)]

    def _resolve(self, outcome: Outcome) -> list[Turn]:
        pending = self._agent.pop(outcome.item_id, None)
        if pending is None:
            return []
        pending.interrupted, pending.outcome = not outcome.whole, outcome
        if pending.text is not None:
            return [pending.turn()]
        self._awaiting_text[outcome.item_id] = pending
        return self._oldest_beyond_bound(self._awaiting_text)

    def _turn(self, pending: _Pending) -> Turn:
        return pending.turn(self._words.get(pending.item_id, ""))

    def _oldest_beyond_bound(self, kept: dict[str, _Pending]) -> list[Turn]:
        return [self._turn(kept.pop(next(iter(kept))))] if len(kept) > MAX_PENDING else []

    def _without_text(self) -> list[Turn]:
        turns = [self._turn(pending) for pending in self._awaiting_text.values()]
        self._awaiting_text.clear()
        return turns

    # -- the caller ---------------------------------------------------------------------------------------------------

    def on_caller_speech(self, item_id: str, start_ms: int) -> list[Turn]:
        """Record the start of a caller's turn; its text follows under this item."""
        self._caller_start_ms[item_id] = start_ms
        oldest = next(iter(self._caller_start_ms))
        return self.on_caller_text(oldest, "", 0) if len(self._caller_start_ms) > MAX_PENDING else []

    def on_caller_text(self, item_id: str, text: str, at_ms: int) -> list[Turn]:
        """Record the text of a caller's turn."""
        self._n += 1
        start_ms = self._caller_start_ms.pop(item_id, at_ms)
        return [Turn(self._n, "caller", text, item_id, start_ms, False, None)]

    def on_caller_text_failed(self, item_id: str, at_ms: int) -> list[Turn]:
        """Record that a caller's turn could not be transcribed."""
        return self.on_caller_text(item_id, "", at_ms)

    def on_caller_noise(self, item_id: str) -> None:
        """Drop a caller's turn that was noise."""
        self._caller_start_ms.pop(item_id, None)

    def _without_caller_text(self) -> list[Turn]:
        return [turn for item_id in list(self._caller_start_ms) for turn in self.on_caller_text(item_id, "", 0)]

    # -- the end ------------------------------------------------------------------------------------------------------

    def on_end(self, outcomes: Iterable[Outcome]) -> list[Turn]:
        """Finish every open turn at the call's end. `outcomes`: of all items; the others were not heard."""
        heard = {outcome.item_id: outcome for outcome in outcomes}
        turns = [
            turn
            for item_id in list(self._agent)
            for turn in self._resolve(heard.get(item_id) or Outcome(item_id, 0, 0, whole=True))
        ]
        return sorted([*turns, *self._without_text(), *self._without_caller_text()])
