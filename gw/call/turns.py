"""Who said what, and how much of it was heard.

A turn of the agent is whole when its fate is known (heard to the end, interrupted, or cut by the call's end) and its text has
come. Either may be first: mostly the text, as it comes while the audio is still being played. The caller's words come late and
out of order; their start orders them. When the AI is lost in the middle of a turn, the words that came are its text.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gw.call.playout import Truncation

#: Agent turns waiting for their fate, or for their text: a few items of one response. More means marks or transcripts are lost;
#: the oldest goes out as it is.
MAX_PENDING: Final = 32
#: A turn's words while they come: minutes of speech.
MAX_WORDS_CHARS: Final = 16_000


class Turn(NamedTuple):
    """One side's words. `heard_ms` is None for the caller."""

    n: int
    role: str
    text: str
    item_id: str
    start_ms: int
    interrupted: bool
    heard_ms: int | None


class _Fate(NamedTuple):
    """How a turn ended whose text has not come."""

    pending: _Pending
    interrupted: bool
    heard_ms: int


class _Pending:
    __slots__ = ("item_id", "n", "start_ms", "text", "words")

    def __init__(self, n: int, item_id: str, start_ms: int) -> None:
        self.n = n
        self.item_id = item_id
        self.start_ms = start_ms
        self.text = ""
        self.words = ""  # of the text, as it comes


class Turns:
    """One call's turns. Every method returns the turns that are now whole."""

    __slots__ = ("_agent", "_caller_start_ms", "_n", "_settled")

    def __init__(self, first_n: int = 0) -> None:
        """`first_n`: what the numbers count on from."""
        self._n = first_n
        self._agent: dict[str, _Pending] = {}
        self._settled: dict[str, _Fate] = {}
        self._caller_start_ms: dict[str, int] = {}

    def on_agent_audio(self, item_id: str, at_ms: int) -> list[Turn]:
        """The first or a later chunk of an item came. `at_ms`: since the stream's start."""
        if item_id in self._agent or item_id in self._settled:
            return []
        self._n += 1
        self._agent[item_id] = _Pending(self._n, item_id, at_ms)
        if len(self._agent) > MAX_PENDING:
            return [_whole(self._agent.pop(next(iter(self._agent))), interrupted=False, heard_ms=None)]
        return []

    def on_agent_text(self, item_id: str, text: str, at_ms: int) -> list[Turn]:
        """The transcript of an item is whole."""
        if item_id in self._settled:
            pending, interrupted, heard_ms = self._settled.pop(item_id)
            pending.text = text
            return [_whole(pending, interrupted=interrupted, heard_ms=heard_ms)]
        turns = self.on_agent_audio(item_id, at_ms)
        self._agent[item_id].text = text
        return turns

    def on_agent_text_delta(self, item_id: str, words: str) -> None:
        """A piece of an item's transcript."""
        pending = self._agent.get(item_id)
        if pending is None and item_id in self._settled:
            pending = self._settled[item_id].pending
        if pending is not None and len(pending.words) < MAX_WORDS_CHARS:
            pending.words += words

    def on_ai_lost(self) -> list[Turn]:
        """No more of any text will come: the words that came are what was said."""
        for pending in self._agent.values():
            pending.text = pending.text or pending.words
        turns = []
        for pending, interrupted, heard_ms in self._settled.values():
            pending.text = pending.words
            turns.append(_whole(pending, interrupted=interrupted, heard_ms=heard_ms))
        self._settled.clear()
        return turns

    def in_progress(self) -> list[Turn]:
        """The agent's turns whose fate is open, as far as they are known."""
        return [
            Turn(one.n, "agent", one.text or one.words, one.item_id, one.start_ms, False, None) for one in self._agent.values()
        ]

    def unresolved_items(self) -> list[str]:
        """Items of the agent whose fate is open."""
        return list(self._agent)

    def on_heard(self, item_id: str, heard_ms: int) -> list[Turn]:
        """The caller heard an item to its end."""
        return self._settle(item_id, interrupted=False, heard_ms=heard_ms)

    def on_interrupted(self, truncations: list[Truncation]) -> list[Turn]:
        """The caller interrupted these items."""
        turns: list[Turn] = []
        for item_id, heard_ms in truncations:
            turns += self._settle(item_id, interrupted=True, heard_ms=heard_ms)
        return turns

    def _settle(self, item_id: str, *, interrupted: bool, heard_ms: int) -> list[Turn]:
        pending = self._agent.pop(item_id, None)
        if pending is None:
            return []
        if pending.text:
            return [_whole(pending, interrupted=interrupted, heard_ms=heard_ms)]
        self._settled[item_id] = _Fate(pending, interrupted, heard_ms)
        if len(self._settled) <= MAX_PENDING:
            return []
        older, interrupted, heard_ms = self._settled.pop(next(iter(self._settled)))
        return [_whole(older, interrupted=interrupted, heard_ms=heard_ms)]

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
        turns = [_whole(pending, interrupted=cut, heard_ms=heard) for pending, cut, heard in self._settled.values()]
        for item_id, pending in self._agent.items():
            turns.append(_whole(pending, interrupted=item_id in unheard, heard_ms=heard_ms.get(item_id, 0)))
        self._agent.clear()
        self._settled.clear()
        return sorted(turns)


def _whole(pending: _Pending, *, interrupted: bool, heard_ms: int | None) -> Turn:
    return Turn(pending.n, "agent", pending.text, pending.item_id, pending.start_ms, interrupted, heard_ms)
