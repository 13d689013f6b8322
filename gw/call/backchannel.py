"""Backchannels: decides whether a caller's words interrupt the agent, or only show attention.

Words are compared without case, punctuation and repetition: "Mm-hmm, mm-hmm." is "mm-hmm", "okaaay" is "okay". Strategy: a text
is a backchannel if entries of the list cover all its words, one entry after the other.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

#: Longer texts are meaningful, whatever their words: bounds the comparison.
MAX_CHARS: Final = 200

_WORD: Final = re.compile(r"[^\W_]+")
_SAME: Final = re.compile(r"(.)\1+")


def is_meaningful(text: str, backchannels: frozenset[str]) -> bool:
    """Return True if `text` has words beyond the backchannels.

    `backchannels`: words or short phrases. A text without words is not meaningful.
    """
    if len(text) > MAX_CHARS:
        return True
    words = _words(text)
    entries = _entries(backchannels)
    covered = {0}  # numbers of words from the start that entries cover
    for n, word in enumerate(words):
        if n in covered:
            covered.update(n + len(entry) for entry in entries if words[n : n + len(entry)] == entry)
            if any(len(entry) == 1 and _repeats(word, entry[0]) for entry in entries):
                covered.add(n + 1)
    return len(words) not in covered


@lru_cache(maxsize=64)  # one list an agent
def _entries(backchannels: frozenset[str]) -> frozenset[tuple[str, ...]]:
    return frozenset(map(_words, backchannels))


def _words(text: str) -> tuple[str, ...]:
    """Return the words of a text in a form that can be compared: "Uh-huuuh!" gives uh, huh."""
    letters = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "").replace("'", "")
    return tuple(_SAME.sub(r"\1", word) for word in _WORD.findall(letters))


def _repeats(word: str, entry: str) -> bool:
    """Return True for a word that is an entry several times, as in languages without spaces."""
    return word == entry * (len(word) // len(entry))
