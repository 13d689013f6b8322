"""gw.call.backchannel: words that interrupt, and words that only show attention."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.call.backchannel import MAX_CHARS, is_meaningful

LIST = frozenset({"mhm", "mm-hmm", "okay", "ja", "genau", "I see", "uh huh", "d'accord", "はい", "うん", "हाँ", "ё"})


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "...", "?!", "_", "\N{THUMBS UP SIGN}"),
        *("mhm", "Mhm.", "MHM!", "mhm, mhm", "  okay  ", "okay mhm okay", "Okaaay...", "mmmhmmm"),
        *("Mm-hmm.", "mm hmm", "I see.", "i see, okay", "uh-huh", "Uh-huh, uh-huh."),
        *("ja", "Ja, ja", "jaja", "Genau!", "d\N{RIGHT SINGLE QUOTATION MARK}accord"),
        *("はい", "はい、はい。", "うんうん", "हाँ", "Е\N{COMBINING DIAERESIS}"),
    ],
)
def test_signs_of_attention_are_not_meaningful(text: str) -> None:
    assert not is_meaningful(text, LIST)


@pytest.mark.parametrize(
    "text",
    [
        *("stop", "okay stop", "Stop, okay", "mhm but wait", "no", "okays", "mh", "jaj", "7", "okay 7"),
        *("I", "see", "see I", "uh", "huh uh", "はい、でも", "नहीं", "Stra\N{LATIN SMALL LETTER SHARP S}e"),
    ],
)
def test_other_words_are_meaningful(text: str) -> None:
    assert is_meaningful(text, LIST)


def test_a_phrase_may_share_its_first_word_with_an_entry() -> None:
    entries = frozenset({"right", "right on", "on it"})
    assert not is_meaningful("Right on it.", entries), "right, then on it"
    assert is_meaningful("on right", entries)


def test_without_a_list_all_words_are_meaningful() -> None:
    assert is_meaningful("mhm", frozenset())
    assert not is_meaningful("", frozenset())
    assert is_meaningful("okay", frozenset({"", "-"})), "an entry without words covers none"


def test_a_long_text_is_meaningful_without_a_comparison() -> None:
    assert is_meaningful("mhm " * MAX_CHARS, LIST)


@given(st.lists(st.sampled_from(sorted(LIST)), max_size=20), st.sampled_from([" ", ", ", "... ", "\n"]))
def test_any_sequence_of_entries_is_not_meaningful(entries: list[str], between: str) -> None:
    text = between.join(entries)
    assert is_meaningful(text.upper(), LIST) == (len(text) > MAX_CHARS)


@given(st.text(max_size=MAX_CHARS))
def test_any_text_is_judged(text: str) -> None:
    """A text is meaningful without a list exactly if it has a letter or a digit, and never beyond itself."""
    has_words = any(char.isalnum() for char in unicodedata.normalize("NFKC", text).casefold())
    assert is_meaningful(text, frozenset()) == has_words
    assert not is_meaningful(text, frozenset({text}))
