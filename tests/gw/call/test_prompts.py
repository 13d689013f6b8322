"""gw.call.prompts: a separate instruction for each purpose, none for a plain answer."""

from __future__ import annotations

from gw.call.dialogue.commands import Prompt
from gw.call.prompts import text_of, warning_of


def test_an_answer_needs_no_announcement() -> None:
    assert text_of(Prompt.ANSWER, "Greet.") == ""


def test_the_greeting_is_the_agents_own() -> None:
    assert text_of(Prompt.GREETING, "Greet the caller as Acme.") == "Greet the caller as Acme."
    assert text_of(Prompt.GREETING, "") == ""


def test_every_other_purpose_has_an_instruction_that_is_not_read_out() -> None:
    texts = {prompt: text_of(prompt, "Greet.") for prompt in Prompt if prompt not in (Prompt.ANSWER, Prompt.GREETING)}
    assert len(set(texts.values())) == len(texts)
    for text in (*texts.values(), warning_of(60_000)):
        assert "Do not read it out" in text
        assert "language of the conversation" in text


def test_the_warning_names_the_time_that_is_left() -> None:
    assert " in 60 seconds." in warning_of(60_000)
    assert " in 8 seconds." in warning_of(7_600)
