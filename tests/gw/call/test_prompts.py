"""gw.call.prompts: a separate instruction for each purpose, none for a plain answer."""

from __future__ import annotations

from gw.call.dialogue.commands import Prompt
from gw.call.prompts import budget_warning, may_use_tools, text_of, warning_of
from gw.config import Greeting


def test_an_answer_needs_no_announcement() -> None:
    assert text_of(Prompt.ANSWER, Greeting(prompt="Greet.")) == ""


def test_the_greeting_is_the_agents_own() -> None:
    assert text_of(Prompt.GREETING, Greeting(prompt="Greet the caller as Acme.")) == "Greet the caller as Acme."
    assert text_of(Prompt.GREETING) == ""


def test_given_words_are_said_exactly_and_without_tools() -> None:
    says = Greeting(say="Hello, this is Acme.")
    assert text_of(Prompt.GREETING, says).startswith("Note from the telephone system, not from the caller. Say exactly")
    assert text_of(Prompt.GREETING, says).endswith(": Hello, this is Acme.")
    assert [may_use_tools(Prompt.GREETING, words) for words in (says, Greeting(prompt="Greet."))] == [False, True]
    assert may_use_tools(Prompt.ANSWER, says)


def test_the_words_of_a_recording_that_is_missing_are_said() -> None:
    recorded = Greeting(file="hello.wav", text="Hello, this is Acme.")
    assert text_of(Prompt.GREETING, recorded) == text_of(Prompt.GREETING, Greeting(say="Hello, this is Acme."))
    assert not may_use_tools(Prompt.GREETING, recorded)


def test_every_other_purpose_has_an_instruction_that_is_not_read_out() -> None:
    texts = {
        prompt: text_of(prompt, Greeting(prompt="Greet.")) for prompt in Prompt if prompt not in (Prompt.ANSWER, Prompt.GREETING)
    }
    assert len(set(texts.values())) == len(texts)
    for text in (*texts.values(), warning_of(60_000), budget_warning()):
        assert "Do not read it out" in text
        assert "language of the conversation" in text


def test_the_warning_names_the_time_that_is_left() -> None:
    assert " in 60 seconds." in warning_of(60_000)
    assert " in 8 seconds." in warning_of(7_600)
