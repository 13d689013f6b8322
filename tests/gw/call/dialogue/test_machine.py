"""gw.call.dialogue.machine: its tables and doors. `tests/gw/verify/conversation` explores orders of inputs."""

from __future__ import annotations

from copy import copy
from dataclasses import fields

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Facts, Phase
from gw.call.dialogue.inputs import Input
from gw.call.dialogue.machine import _HANDLERS, _TIMERS, Dialogue
from gw.call.dialogue.rules import CLOSING_MS, LIFETIME_MS, ROLLOVER_QUIET_MS, Rules, ToolRules
from gw.call.state import Reason
from tests.gw.call.dialogue.talk import Talk


def test_every_input_and_every_timer_has_a_reaction() -> None:
    assert set(_HANDLERS) == set(Input.__args__)
    timers = {field.name for field in fields(Facts) if field.name.endswith(("_at", "_by"))}
    assert timers - set(_TIMERS) == {"ask_at", "held_at"}
    assert set(_TIMERS) <= timers


def test_a_dialogue_begins_with_the_bounds_of_its_call() -> None:
    machine = Dialogue.begin(Rules(open_ms=5000, max_call_ms=60_000, warn_ms=20_000, hold_after_ms=900), 1000)
    assert (machine.open_by, machine.hold_at, machine.warn_at, machine.limit_at) == (6000, 1900, 41_000, 61_000)
    assert machine.final_at == 61_000 + CLOSING_MS + machine.rules.goodbye_ms
    assert (machine.now, machine.lost_ms, machine.window_ms) == (1000, 1000, machine.rules.window_ms)
    assert Dialogue.begin(Rules(max_call_ms=60_000, warn_ms=1), 0).warn_at == 59_999
    for warn_ms in (0, 60_000):
        assert Dialogue.begin(Rules(max_call_ms=60_000, warn_ms=warn_ms), 0).warn_at == NEVER


def test_nothing_follows_the_end() -> None:
    talk = Talk()
    assert talk.machine.deadline_ms < NEVER
    assert talk.on(given.StreamEnded(Reason.PHONE_LOST)) == [do.End(Reason.PHONE_LOST, True)]
    assert talk.on(given.SessionReady()) == []
    assert talk.machine.tick(10**9) == []
    assert talk.machine.deadline_ms == NEVER


def test_a_tick_stops_at_the_end() -> None:
    talk = Talk(Rules(max_call_ms=1000, warn_ms=0))
    out = talk.machine.tick(10**6)
    assert out == [do.End(Reason.DURATION_LIMIT, True)], "no other timer reacts"


def test_the_deadline_is_the_earliest_timer_and_that_of_a_request_which_may_be_made() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    assert talk.machine.deadline_ms == talk.machine.ask_at == 700
    talk.on(given.SpeechStarted("c2"))
    talk.machine.ask_at = 700
    assert talk.machine.deadline_ms > 700, "the caller speaks"


def playing() -> Talk:
    """The caller hears a response."""
    talk = Talk(Rules(interruptions="gateway", tools={"lookup": ToolRules()}))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 1000))
    return talk


def test_one_more_chunk_has_the_effect_of_its_audio() -> None:
    talk = playing()
    other = copy(talk.machine)
    assert talk.machine.plays_on("r1", 3000, 500)
    assert other.on(given.Audio("r1", 3000), 500) == [do.Play()]
    assert (talk.machine.answer_by, talk.machine.heard_by) == (other.answer_by, other.heard_by) == (5500, 5500)
    talk.machine.out = other.out
    assert talk.machine == other


@pytest.mark.parametrize(
    "before",
    [
        given.ResponseDone("r1"),
        given.HeardOut(),
        given.Starved(),
        given.SpeechStarted("c1"),
        given.ToolCall("r1", "t1", "hang_up"),
        given.ResponseStarted("r2"),
    ],
)
def test_a_chunk_that_changes_more_takes_the_long_way(before: Input) -> None:
    talk = playing()
    talk.on(before)
    facts = copy(talk.machine)
    assert not talk.machine.plays_on(talk.machine.response_id, 3000, 500)
    assert not talk.machine.plays_on("r1", 3000, 500)
    assert talk.machine == facts


def test_a_chunk_of_another_response_takes_the_long_way() -> None:
    assert not playing().machine.plays_on("r9", 3000, 500)


def test_a_sign_of_the_ai_ends_the_wait_for_one() -> None:
    talk = Talk()
    talk.greet()
    for event, by_ms in ((given.FramesMissing(), 5000), (given.Alive(), NEVER)):
        talk.machine.silent_by = 5000
        talk.on(event)
        assert talk.machine.silent_by == by_ms, event


def test_what_follows_from_the_facts_follows_a_tick_too() -> None:
    talk = Talk(Rules(idle_ms=1000, idle_prompts=2, hold_after_ms=10**6))
    talk.greet()
    assert talk.machine.idle_at == 1000
    assert talk.wait(1000) == [do.Create(Prompt.ARE_YOU_THERE)]


def test_a_decided_end_comes_once_its_words_are_heard() -> None:
    talk = playing()
    talk.on(given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    assert talk.machine.phase is Phase.CLOSING
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


def test_an_owed_answer_is_requested_and_the_stream_left_once_they_may_be() -> None:
    talk = Talk(Rules(tools={"transfer": ToolRules(leaves=Reason.TRANSFERRED)}))
    talk.greet()
    assert talk.on(given.Key("1"), given.Key("#"))[-1] == do.Create(Prompt.ANSWER)
    assert talk.call("transfer") == [do.WantTool("t1")]
    assert talk.on(given.FramesMissing()) == [do.FillSilence(True)], "it is left once"


def test_a_successor_takes_over_once_it_may() -> None:
    talk = Talk(Rules(idle_prompts=0, idle_ms=10_000_000))
    talk.greet()
    assert talk.wait(LIFETIME_MS - ROLLOVER_QUIET_MS) == [do.OpenSuccessor()]
    talk.on(given.SpeechStarted("c1"))
    assert talk.on(given.SuccessorReady()) == [], "the caller speaks"
    talk.on(given.SpeechStopped("c1"), given.ResponseStarted("r1"), given.Audio("r1"), given.ResponseDone("r1"))
    assert talk.on(given.HeardOut()) == [], "the caller's words are to come"
    assert talk.on(given.CallerText("c1")) == [do.Swap(), do.Restate()]
