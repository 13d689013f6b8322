"""A call's conversation so far, as a replacement AI session receives it.

Bounded in utterances and characters; the latest stay. The AI receives what the caller heard: an interrupted turn is cut to its
heard share, by time and at the end of a word, and a turn of which nothing was heard is left out. A turn still being heard is sent
whole; if the caller interrupts it after all, its item is deleted and created anew with the words heard.
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
#: Estimated time to speak a character: 150 words a minute. For turns read from the store, which lacks the length of their audio.
CHAR_MS: Final = 65
#: From here on scripts have no spaces between words: CJK radicals, kana, ideographs.
_UNSPACED: Final = "\u2e80"
#: The item before the first one (OpenAI Realtime, `conversation.item.create`: `previous_item_id`).
ROOT: Final = "root"


class Utterance(NamedTuple):
    """The text of one turn. `role`: caller or agent. `item_id`: ours, at most 32 characters, for the session that receives it."""

    role: str
    text: str
    item_id: str = ""


class Correction(NamedTuple):
    """The replacement of an utterance that a session received before it was heard.

    `delete`: our item, empty without one. `utterance`: to create after the item `after`; None if nothing was heard.
    """

    delete: str
    after: str
    utterance: Utterance | None


class Conversation:
    """One call's latest turns, and the utterances before this stream."""

    __slots__ = ("_before", "_open", "_told", "_turns")

    def __init__(self) -> None:
        self._before: list[Utterance] = []
        self._turns: deque[Turn] = deque(maxlen=MAX_UTTERANCES)
        self._told: dict[str, Utterance | None] = {}  # by our first item, in sequence: what the session has now
        self._open: set[str] = set()  # first items of turns still being heard

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
        return _latest([*self._before, *(said for turn in self._ordered(in_progress) if (said := _utterance(turn)) is not None)])

    def restate(self, in_progress: Iterable[Turn]) -> list[Utterance]:
        """Return the same for a new session, and keep which of them `corrections` may correct."""
        in_progress = list(in_progress)
        utterances = self.utterances(in_progress)
        told = {utterance.item_id: utterance for utterance in utterances}
        ids = [*(said.item_id for said in self._before), *map(_item_id, self._ordered(in_progress))]
        self._told = {item_id: told.get(item_id) for item_id in ids}
        self._open = {_item_id(turn) for turn in in_progress}
        return utterances

    def starts_ms(self, in_progress: Iterable[Turn]) -> dict[str, int]:
        """Return the start of each turn of this stream, by its utterance's identifier."""
        return {_item_id(turn): turn.start_ms for turn in [*self._turns, *in_progress]}

    def corrections(self, turns: Iterable[Turn]) -> list[Correction]:
        """Return what finished turns change in the present session. Empty for turns that were heard as sent."""
        return [correction for turn in turns if (correction := self._correction(turn)) is not None]

    def _correction(self, turn: Turn) -> Correction | None:
        first = _item_id(turn)
        if first not in self._open:
            return None
        self._open.remove(first)
        told, heard = self._told[first], _utterance(turn)
        if told == heard:
            return None
        after = ROOT
        for item_id, utterance in self._told.items():
            if item_id == first:
                break
            after = utterance.item_id if utterance is not None else after
        self._told[first] = heard and heard._replace(item_id=f"{first}c")
        return Correction(told.item_id if told else "", after, self._told[first])

    def _ordered(self, in_progress: Iterable[Turn]) -> list[Turn]:
        return sorted([*self._turns, *in_progress], key=lambda turn: (turn.start_ms, turn.n))


def _latest(utterances: list[Utterance]) -> list[Utterance]:
    kept: list[Utterance] = []
    chars = 0
    for utterance in reversed(utterances[-MAX_UTTERANCES:]):
        chars += len(utterance.text)
        if chars > MAX_CHARS:
            break
        kept.append(utterance)
    return kept[::-1]


def _item_id(turn: Turn) -> str:
    return f"t{turn.n}"


def _utterance(turn: Turn) -> Utterance | None:
    words = _heard_words(turn)
    if not words:
        return None
    return Utterance(turn.role, words + CUT if turn.interrupted else words, _item_id(turn))


def _heard_words(turn: Turn) -> str:
    """Return the share of a turn's words that was heard, by time."""
    text, heard_ms, length_ms = turn.text, turn.heard_ms, turn.length_ms
    if heard_ms is None:
        return text
    if length_ms is None:
        length_ms = len(text) * CHAR_MS if turn.interrupted else heard_ms
    if not heard_ms or heard_ms >= length_ms:
        return text if heard_ms else ""
    end = len(text) * heard_ms // length_ms
    while end > 0 and text[end] < _UNSPACED and not text[end].isspace():
        end -= 1
    return text[:end].rstrip()
