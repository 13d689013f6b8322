"""Limits of a call in whole calls: the agent speaks before it ends one, and cuts no caller who speaks."""

from __future__ import annotations

from typing import Final

import pytest

import gw.config
from gw.call.dialogue.commands import Prompt
from gw.call.prompts import text_of, warning_of
from gw.config import Agent, Turns
from gw.twin import speech
from gw.twin.ai.faults import EVERY
from gw.twin.twilio.steps import Step
from tests.calls.hearing import WORD
from tests.calls.held import Case, Held, hold_all, requested, says
from tests.timing import scaled

IDLE_S: Final = 3.0
MEDIA: Final = gw.config.Media(
    idle_limit_s=IDLE_S, max_call_s=9.0, ai_answer_s=scaled(1.0), ai_reconnect_s=scaled(2.0), holding_sound=False
)
GREETING: Final = Agent().greeting
ARE_YOU_THERE: Final = text_of(Prompt.ARE_YOU_THERE)
CLOSING: Final = text_of(Prompt.CLOSING)
NOBODY: Final = (Step("hang_up", wait_s=scaled(25.0)),)
LONG_WORDS: Final = (speech.load("weasels") * 3)[: round((IDLE_S + 0.6) * 8000)]

CASES: Final = {
    "nobody_speaks": Case(says(1.0, 0.6), steps=NOBODY),
    "nobody_answers": Case(
        says(1.0).with_fault("create_unanswered", response=2, times=EVERY),
        says().with_fault("create_unanswered", times=EVERY),
        steps=NOBODY,
    ),
    "speaks_long": Case(
        says(1.0), steps=(Step("say", "quiet", 0.4, audio=LONG_WORDS), Step("hang_up", "quiet", 0.5, patience_s=5.0))
    ),
    "too_long": Case(says(4.0, 4.0), steps=(Step("say", "quiet", 0.4, audio=WORD), *NOBODY)),
    "warned": Case(
        says(4.0, 4.0),
        steps=(Step("say", "quiet", 0.4, audio=WORD), *NOBODY),
        agent={"turns": Turns(warn_before_end_s=6.0)},
    ),
}


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> dict[str, Held]:
    """Hold every call above."""
    return hold_all(tmp_path_factory.mktemp("limits"), shared_store, MEDIA, CASES, head_start_s={})


def test_an_idle_call_ends_with_words_of_the_agent(calls: dict[str, Held]) -> None:
    one = calls["nobody_speaks"]
    assert requested(one.sessions[0]) == [GREETING, ARE_YOU_THERE, ARE_YOU_THERE, CLOSING]
    assert [one.is_whole(response) for response in one.responses] == [True] * 4
    assert (one.row["reason"], one.row["result"], one.call.spoken) == ("idle_limit", "success", [])


def test_where_the_agent_does_not_speak_twilio_does(calls: dict[str, Held]) -> None:
    one = calls["nobody_answers"]
    assert one.call.closed_by == "gateway"
    assert len(one.call.spoken) == 1
    assert one.call.spoken[0]


def test_no_limit_of_silence_cuts_a_caller_who_speaks(calls: dict[str, Held]) -> None:
    one = calls["speaks_long"]
    assert max(said.end_s - said.start_s for said in one.ear.caller) > IDLE_S
    assert requested(one.sessions[0]) == [GREETING]
    assert one.is_whole(one.responses[1])
    assert (one.call.closed_by, one.row["reason"]) == ("caller", "caller_hangup")


@pytest.mark.parametrize("name", ["too_long", "warned"])
def test_the_longest_call_ends_after_the_sentence_with_words(calls: dict[str, Held], name: str) -> None:
    one = calls[name]
    assert requested(one.sessions[0])[-1] == CLOSING
    sentence, closing = one.responses[-2:]
    assert sentence.created_s - one.ear.began_s < MEDIA.max_call_s < closing.created_s - one.ear.began_s
    assert [one.is_whole(sentence), one.is_whole(closing)] == [True, True]
    assert (one.row["reason"], one.row["result"], one.call.spoken) == ("duration_limit", "success", [])


def test_the_agent_is_warned_without_a_response(calls: dict[str, Held]) -> None:
    one = calls["warned"]
    items = [item.text for item in one.sessions[0].items if item.role == "system"]
    assert items == [GREETING, warning_of(6000), CLOSING]
    assert len(one.responses) == 3
