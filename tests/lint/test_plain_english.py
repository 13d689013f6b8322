"""tests.lint.plain_english: what is read, and each rule."""

from pathlib import Path

import pytest

from tests.lint import plain_english
from tests.lint.plain_english import MOST_WORDS, Finding


def findings(source: str, path: str = "gw/part.py") -> list[Finding]:
    phrases = plain_english.load_phrases()
    return [found for text in plain_english.texts_of(Path(path), source) for found in plain_english.check(path, text, phrases)]


def places(source: str, path: str = "gw/part.py") -> list[tuple[int, str]]:
    return [(found.line, found.rule) for found in findings(source, path)]


def test_a_docstring_opens_with_no_question_word() -> None:
    assert places('"""What is measured."""') == [(1, "opening")]
    assert places('"""Metric families."""\n\ndef _part() -> None:\n    """\n    Whether a call lives."""\n') == []
    assert places('"""Metric families."""\n\ndef _part() -> None:\n    """Whether a call lives."""\n') == [(4, "opening")]


def test_a_comment_on_a_constant_and_a_help_text_open_with_no_question_word() -> None:
    assert places("#: How often a call has resumed.\nRESUMES = 3\n") == [(1, "opening")]
    assert places("# How often a call has resumed.\n") == []
    assert places('option("--limit", help="How many calls.")') == [(1, "opening")]
    assert places('option("--limit", "How many calls.")') == []


@pytest.mark.parametrize("words, expected", [(MOST_WORDS, []), (MOST_WORDS + 1, [(2, "length")])])
def test_a_first_sentence_is_short(words: int, expected: list[tuple[int, str]]) -> None:
    sentence = " ".join(["word"] * words)
    assert places(f'def part() -> None:\n    """{sentence}. {sentence}."""') == expected
    assert places(f'def _part() -> None:\n    """{sentence}. {sentence}."""') == []


def test_a_phrase_is_found_across_a_line_break() -> None:
    assert findings('"""Metric families.\n\nThe loop goes\non until the end."""') == [
        Finding("gw/part.py", 3, "phrase", "goes on", '"continues"')
    ]


def test_comments_are_read_as_blocks() -> None:
    assert places("# A block that goes\n# on.\n") == [(1, "phrase")]
    assert places("a = 1  # somebody\nb = 2  # nobody\n") == [(1, "phrase"), (2, "phrase")]
    assert places('a = "# nobody"\n') == [(1, "phrase")]


def test_messages_are_read_and_other_strings_are_not() -> None:
    assert places('echo("nobody is there")') == [(1, "phrase")]
    assert places('echo(f"nobody is {there}")') == [(1, "phrase")]
    assert places('"""Tests."""\necho("nobody is there")', "tests/test_part.py") == []
    assert places('execute("SELECT 1 WHERE nobody = 1")') == []
    assert places('word = "nobody"') == []


def test_names_of_tests_are_read() -> None:
    assert places("def test_nobody_waits(): pass", "tests/test_part.py") == [(1, "phrase")]


def test_quoted_text_and_exempt_lines_are_skipped() -> None:
    assert places('# `nobody` and "somebody" are words\n') == []
    assert places('echo("nobody is there")  # prose: quotation') == []
    assert places("# nobody  (prose: quotation)\n") == []


def test_documents_are_read_without_code() -> None:
    text = "The gateway\ngoes on.\n\n```\nnobody\n```\n> nobody\n\n`nobody` and [a page](nobody.md)\n"
    assert places(text, "README.md") == [(2, "phrase")]


def test_alerts_and_comments_of_other_files_are_read() -> None:
    assert places("# nobody\nalert:\n  summary: 'nobody is there'\n  expr: nobody\n", "deploy/alerts.yml") == [
        (1, "phrase"),
        (3, "phrase"),
    ]


def test_every_phrase_has_an_advice_and_finds_nothing_in_plain_text() -> None:
    phrases = plain_english.load_phrases()
    assert list(phrases.find("The worker sends the event again until control acknowledges it.")) == []
    assert next(plain_english.Phrases("# comment\n\\bfoo\\b\tbar").find("a Foo"))[1] == "bar"


def test_the_exit_status_states_the_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain_english.main(["tests/lint/plain_english.py"]) == 0
    assert "nothing found" in capsys.readouterr().out
