"""The dialogue in whole calls: failed answers, interruptions, keys, tools, unreadable events, replaced sessions."""

from __future__ import annotations

from typing import Final

import pytest

import gw.call.dialogue.rules
import gw.config
from gw.call.conversation import CUT
from gw.call.dialogue.commands import Prompt
from gw.call.prompts import text_of
from gw.config import Agent, Turns
from gw.twin import speech
from gw.twin.ai.faults import AT_END, CREATED, EVERY
from gw.twin.sound import PTIME_MS
from gw.twin.twilio.steps import COUGH, Step
from tests.calls.ear import heard_ms, repeated_frames, talked_over
from tests.calls.hearing import WORD, check_uplink, not_run_ms
from tests.calls.held import GOODBYE, LISTENS, WORDS, Case, Held, hold_all, requested, restated, says
from tests.calls.shared import padded
from tests.timing import scaled

Calls = dict[str, Held]

GREETING: Final = Agent().greeting
CONTINUE: Final = text_of(Prompt.CONTINUE)
RETURN: Final = text_of(Prompt.RETURN)
SAY_GOODBYE: Final = text_of(Prompt.GOODBYE)
MEDIA: Final = gw.config.Media(
    ai_answer_s=scaled(4.0), ai_stall_s=scaled(1.5), ai_connect_s=scaled(2.7), ai_reconnect_s=scaled(4.0), holding_sound=False
)
SPEAKS: Final = Step("say", "quiet", 0.4, audio=WORD)
INTERRUPTS: Final = Step("say", "heard", 0.8, audio=WORD)
GATEWAY: Final = {"turns": Turns(interruptions="gateway")}


#: A greeting that fails before its first word.
WORDLESS: Final = ("failed", "incomplete", "filtered", "status_gone", "status_null", "empty", "text_only", "create_refused")
FAILS_ONCE: Final = {f"{name}_once": Case(says().with_fault(name, deltas=CREATED)) for name in WORDLESS}
FAILS_ALWAYS: Final = {f"{name}_always": Case(says().with_fault(name, deltas=CREATED, times=EVERY)) for name in WORDLESS}
#: A greeting that breaks off.
BREAKS_OFF: Final = {f"{name}_midway": Case(says().with_fault(name, deltas=6)) for name in ("failed", "incomplete", "filtered")}
#: Another attempt would fail alike.
LASTING: Final = {
    name: Case(says().with_fault(name, deltas=CREATED)) for name in ("failed_quota", "create_refused_quota", "close_4000")
}
#: The AI needs a rest, and its session is sound.
LIMITED: Final = {name: Case(says(limit_s=1.5).with_fault(name, deltas=CREATED)) for name in ("failed_limit", "create_limited")}
#: Single events that cannot be read, in the greeting.
UNREADABLE: Final = (
    "one_bad_event", "one_bad_base64", "no_call_id", "long_id", "long_event", "half_a_surrogate", "error_is_text",
    "error_is_null", "error_without_code", "session_without_formats", "unknown_event",
)  # fmt: skip
#: The same, about the caller's turn.
ODD_STARTS: Final = ("start_float", "start_negative", "start_without_item")
HARMLESS: Final = {
    **{name: Case(says().with_fault(name)) for name in UNREADABLE},
    # read at a bounded rate: over a second without audio, and longer on a busy machine
    "long_event": Case(says().with_fault("long_event"), steps=(Step("hang_up", "quiet", 6.0),)),
    **{name: Case(says().with_fault(name), steps=(SPEAKS, LISTENS)) for name in ODD_STARTS},
}
#: Tool calls of the greeting's response: each gets one output, then the answer.
TOOLS: Final = {
    name: Case(says().with_fault(name))
    for name in ("call", "call_no_status", "call_null_status", "call_twice", "call_unknown_tool")
}
#: The media socket is lost while the agent speaks.
LOST_STREAMS: Final = {
    "reset_socket": Case(says(3.0), steps=(Step("reset", "heard", 0.6, lasts_s=0.2), LISTENS)),
    "half_open_socket": Case(says(3.0), steps=(Step("half_open", "heard", 0.6, lasts_s=1.5), LISTENS)),
}
OTHERS: Final = {
    "plain": Case(steps=(SPEAKS, LISTENS)),
    "own_answer_fails": Case(says().with_fault("failed", response=2, deltas=CREATED), steps=(SPEAKS, LISTENS)),
    "thinks_aloud": Case(says(thinks_s=scaled(2.5)).with_fault("thinks_aloud")),
    "clock_behind": Case(says(lifetime_s=-3600.0)),
    "breaks_twice": Case(says(3.0).with_fault("reset", deltas=6)),
    # the goodbye
    "taken_back": Case(says(2.5, hang_up_after=1), steps=(INTERRUPTS, LISTENS)),
    "mute_hang_up": Case(says().with_fault("hang_up", deltas=CREATED)),
    "mute_twice": Case(says().with_fault("hang_up", deltas=CREATED, times=EVERY)),
    # the floor
    "talks_over": Case(says().with_fault("talks_over"), steps=(SPEAKS, LISTENS)),
    "late_after_cut": Case(says(4.0, speed=1.5).with_fault("late_deltas"), steps=(INTERRUPTS, LISTENS)),
    "late_after_truncate": Case(says(4.0, speed=1.5).with_fault("deltas_of_truncated"), steps=(INTERRUPTS, LISTENS)),
    "late_after_the_turn": Case(says(4.0, speed=1.2, trailing_s=2.0), steps=(INTERRUPTS, LISTENS)),
    "no_response_id": Case(says(4.0, speed=1.2, trailing_s=2.0).with_fault("no_response_id"), steps=(INTERRUPTS, LISTENS)),
    "no_ids": Case(says(4.0).with_fault("no_ids")),
    "frames_stop": Case(
        steps=(Step("say", "quiet", 0.4, audio=speech.load("weasels")), Step("lose_frames", lasts_s=4.0), LISTENS),
    ),
    "frames_stop_while_away": Case(
        says(2.0).with_fault("reset", deltas=6),
        says(ready_delay_s=1.7),
        steps=(
            Step("say", "heard", 0.1, audio=speech.load("weasels")[:8000]),
            Step("lose_frames", lasts_s=8.0),
            Step("say", wait_s=1.2),  # until the greeting's begin is heard
            LISTENS,
        ),
    ),
    "keys": Case(steps=(Step("press", "quiet", 0.4, keys="7 3 9 1 4 6 8 2 #"), LISTENS)),
    # replaced sessions
    "rolls_over": Case(says(4.0, lifetime_s=6.0), says(4.0, lifetime_s=3600.0)),
    "heard_in_part": Case(
        says(4.0, speed=100.0).with_fault("close", deltas=AT_END), steps=(Step("say", "heard", 1.5, audio=WORD), LISTENS)
    ),
    "speaks_at_once": Case(says(2.0).with_fault("reset", deltas=6), says(hears_after_s=0.08)),
    "words_first": Case(says(4.0).with_fault("words_first").with_fault("reset", deltas=8)),
    # turns
    "late_echoes": Case(says(1.0, 4.0), steps=(SPEAKS, INTERRUPTS, LISTENS), plan={"echo_after_s": 0.6}),
    "hangs_up_midway": Case(says(4.0, speed=1.5), steps=(Step("hang_up", "heard", 1.0),)),
    "not_transcribed": Case(says().with_fault("transcription_failed"), steps=(SPEAKS, LISTENS)),
    "never_transcribed": Case(says().with_fault("transcription_never"), steps=(SPEAKS, LISTENS)),
    # interruptions that the gateway judges
    "cough": Case(says(4.0, caller_words=("",)), steps=(Step("say", "heard", 0.8, audio=COUGH), LISTENS), agent=GATEWAY),
    "silent_when_cut": Case(
        says(4.0).with_fault("stall", deltas=8),
        says(),
        steps=(Step("say", "heard", 0.2, audio=speech.load("weasels")), LISTENS),
        agent=GATEWAY,
    ),
    "cough_without_transcript": Case(
        says(4.0).with_fault("transcription_never"), steps=(Step("say", "heard", 0.8, audio=COUGH), LISTENS), agent=GATEWAY
    ),
    "short_word": Case(says(4.0, caller_words=("No.",)), steps=(Step("say", "heard", 0.8, audio=COUGH), LISTENS), agent=GATEWAY),
    "wait": Case(says(4.0, caller_words=("Wait.",)), steps=(INTERRUPTS, LISTENS), agent=GATEWAY),
}
CASES: Final = {
    **FAILS_ONCE, **FAILS_ALWAYS, **BREAKS_OFF, **LASTING, **LIMITED, **HARMLESS, **TOOLS, **LOST_STREAMS, **OTHERS,
}  # fmt: skip


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> dict[str, Held]:
    """Hold every call above. Sessions of a few seconds are plausible in them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gw.call.dialogue.rules, "MIN_LIFETIME_MS", 1000)
        return hold_all(tmp_path_factory.mktemp("dialogue"), shared_store, MEDIA, CASES, head_start_s={"long_event": 1.0})


# -- every call -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_neither_twin_has_a_complaint(calls: Calls, name: str) -> None:
    """No message is wrong, no instructions of a response replace the persona, and no frame is heard twice."""
    one = calls[name]
    assert (one.call.error, one.call.warnings, repeated_frames(one.ear)) == ("", [], 0)
    assert [session.violations for session in one.sessions] == [[] for _ in one.sessions]
    assert one.call.closed_by in ("caller", "gateway")


@pytest.mark.parametrize(
    "name", [*FAILS_ONCE, *BREAKS_OFF, *LIMITED, *HARMLESS, *TOOLS, "plain", "own_answer_fails", "clock_behind"]
)
def test_one_session_is_enough(calls: Calls, name: str) -> None:
    one = calls[name]
    assert len(one.sessions) == 1
    assert (one.row["reason"], one.row["result"]) == ("caller_hangup", "success"), one.row["detail"]
    if name != "long_id":  # its two bytes shift the frames behind them
        assert one.is_whole(one.responses[-1])
    assert len(one.call.heard_audio) // 160 >= sum(len(response.audio) // 160 for response in one.responses)


def test_a_session_whose_events_cannot_be_read_is_replaced(calls: Calls) -> None:
    one = calls["no_ids"]
    assert len(one.sessions) == 2
    assert one.is_whole(one.responses[-1])


def test_a_greeting_is_a_system_item(calls: Calls) -> None:
    one = calls["plain"]
    assert requested(one.sessions[0]) == [GREETING]
    assert [one.is_whole(response) for response in one.responses] == [True, True]


# -- failed answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAILS_ONCE)
def test_an_answer_that_failed_is_requested_again(calls: Calls, name: str) -> None:
    one = calls[name]
    creates = one.sessions[0].creates
    assert len(creates) == 2
    assert creates[1].at_s - creates[0].at_s >= 0.29
    assert len(one.events("answer_failed")) == 1
    assert requested(one.sessions[0]) == [GREETING, GREETING]


@pytest.mark.parametrize("name", FAILS_ALWAYS)
def test_after_three_attempts_the_fallback_speaks(calls: Calls, name: str) -> None:
    one = calls[name]
    assert one.call.spoken == [GOODBYE]
    assert (one.row["reason"], one.row["result"]) == ("fallback_goodbye", "peer_error")
    assert [len(session.creates) for session in one.sessions] == [3]


@pytest.mark.parametrize("name", BREAKS_OFF)
def test_an_answer_that_broke_off_is_continued(calls: Calls, name: str) -> None:
    one = calls[name]
    assert requested(one.sessions[0]) == [GREETING, CONTINUE]
    assert one.is_whole(one.responses[0])


@pytest.mark.parametrize("name", LASTING)
def test_a_lasting_error_is_not_tried_again(calls: Calls, name: str) -> None:
    one = calls[name]
    assert one.call.spoken == [GOODBYE]
    assert (one.row["reason"], one.row["result"]) == ("fallback_goodbye", "peer_error")
    assert [len(session.creates) for session in one.sessions] == [1]


@pytest.mark.parametrize("name", LIMITED)
def test_no_request_is_sent_before_a_rate_limit_ends(calls: Calls, name: str) -> None:
    session = calls[name].sessions[0]
    assert (session.early_creates, len(session.creates)) == (0, 2)


def test_the_ais_own_answer_is_requested_if_it_fails(calls: Calls) -> None:
    one = calls["own_answer_fails"]
    assert [response.asked for response in one.responses] == [True, False, True]
    assert requested(one.sessions[0]) == [GREETING, ""]


def test_a_session_lives_as_long_as_anything_comes_from_it(calls: Calls) -> None:
    one = calls["thinks_aloud"]
    assert len(one.sessions) == 1
    assert one.is_whole(one.responses[0])


# -- tools ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_call_is_answered_once(calls: Calls, name: str) -> None:
    one = calls[name]
    (session,) = one.sessions
    assert [output["call_id"] for output in session.tool_outputs] == [session.calls[0].call_id]
    assert len(session.creates) == 2


# -- the goodbye ----------------------------------------------------------------------------------------------------------


def test_a_goodbye_is_taken_back_by_a_caller_who_speaks(calls: Calls) -> None:
    one = calls["taken_back"]
    assert len(one.events("goodbye_taken_back")) == 1
    assert (one.call.closed_by, one.row["reason"]) == ("caller", "caller_hangup")
    assert not one.is_whole(one.responses[0])
    assert one.is_whole(one.responses[1])


def test_an_agent_that_hangs_up_without_a_word_is_asked_for_a_goodbye(calls: Calls) -> None:
    one = calls["mute_hang_up"]
    assert requested(one.sessions[0]) == [GREETING, SAY_GOODBYE]
    assert one.is_whole(one.responses[1])
    assert (one.call.closed_by, one.row["reason"], one.call.spoken) == ("gateway", "ai_hangup", [])


def test_it_is_asked_once_then_twilio_says_goodbye(calls: Calls) -> None:
    one = calls["mute_twice"]
    assert requested(one.sessions[0]) == [GREETING, SAY_GOODBYE]
    assert (one.call.closed_by, one.row["reason"]) == ("gateway", "ai_hangup")
    assert one.call.spoken == [Agent().closing]


# -- the floor ------------------------------------------------------------------------------------------------------------


def test_a_response_that_begins_while_the_caller_speaks_is_cancelled(calls: Calls) -> None:
    one = calls["talks_over"]
    _, over, answer = one.responses
    assert heard_ms(one.ear, over.item_id) == 0
    assert [cancel.response_id for cancel in one.sessions[0].cancels] == [over.response_id]
    assert one.is_whole(answer)


@pytest.mark.parametrize("name", ["late_after_cut", "late_after_truncate", "late_after_the_turn", "no_response_id"])
def test_late_audio_of_an_interrupted_response_is_not_heard(calls: Calls, name: str) -> None:
    one = calls[name]
    cut, answer = one.responses
    (clear,) = one.call.clears
    assert cut.late or any(delta.at_s > clear.at_s for delta in cut.deltas), "nothing was late"
    assert {span.item for span in one.ear.agent if span.end_s > clear.at_s + PTIME_MS / 1000} == {answer.item_id}
    assert one.is_whole(answer)
    assert talked_over(one.ear, one.ear.caller) <= one.slack_s * 50


def test_a_turn_ends_where_the_callers_frames_stop(calls: Calls) -> None:
    one = calls["frames_stop"]
    lost_s = next(at_s for at_s, step in one.call.done if step.kind == "lose_frames")
    answer = one.responses[1]
    assert answer.created_s - lost_s < 1.0 + one.slack_s
    assert one.is_whole(answer)


def test_speech_that_waited_for_a_session_reaches_it_whole_though_the_frames_stop(calls: Calls) -> None:
    one = calls["frames_stop_while_away"]
    _, second = one.sessions
    assert second.ready_s is not None
    assert len(second.turns_ms) == 1
    answer = next(response for response in second.responses if not response.asked)
    assert answer.created_s - second.ready_s < 2.0 + one.slack_s
    assert one.is_whole(answer)


def test_keys_are_answered_and_not_stored(calls: Calls) -> None:
    one = calls["keys"]
    assert [item.text for item in one.sessions[0].items if item.role == "user"] == ["Keys: 73914682"]
    assert requested(one.sessions[0]) == [GREETING, ""]
    assert one.is_whole(one.responses[1])
    assert len(one.events("keys")) == 9
    assert not any("73914682" in str(value) for value in one.row["events"] + one.row["turns"])
    assert not any("73914682" in line.text for line in one.log)


# -- streams and sessions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOST_STREAMS)
def test_a_lost_stream_is_resumed(calls: Calls, name: str) -> None:
    one = calls[name]
    assert (len(one.call.streams_s), len(one.sessions)) == (2, 2)
    assert requested(one.sessions[1]) == [RETURN]
    assert one.is_whole(one.responses[-1])
    assert (one.call.closed_by, one.row["reason"], one.row["result"], one.call.spoken) == (
        "caller",
        "caller_hangup",
        "success",
        [],
    )


def test_a_sentence_is_continued_by_the_next_session(calls: Calls) -> None:
    one = calls["breaks_twice"]
    assert [requested(session) for session in one.sessions] == [[GREETING], [CONTINUE]]
    assert [one.is_whole(response) for response in one.responses] == [True, True]


def test_a_session_is_replaced_in_the_quiet(calls: Calls) -> None:
    """No half sentence is lost, none of the caller's audio is lost or sent twice, and nothing is requested again."""
    one = calls["rolls_over"]
    first, second = one.sessions
    assert (first.closed_by, first.errors) == ("peer", [])
    check_uplink(one.call, first, second)
    assert one.is_whole(one.responses[0])
    assert first.closed_s is not None
    assert first.closed_s >= one.last_heard_s(one.responses[0])
    assert restated(second) == [("assistant", WORDS)]
    assert requested(second) == []
    assert one.events("ai_leg_replaced") == [{"reason": "expiring"}]


def test_the_next_session_has_what_was_heard(calls: Calls) -> None:
    """It is sent the sentence that the caller still hears; after the interruption it has the words that were heard."""
    one = calls["heard_in_part"]
    first, second = one.sessions
    sent = [text for role, text in restated(second) if role == "assistant"]
    assert sent[0] == WORDS
    assert [deletion.accepted for deletion in second.deletions] == [True]
    assert sent[1].endswith(CUT)
    words = sent[1].removesuffix(CUT)
    assert WORDS.startswith(words)
    share = heard_ms(one.ear, first.responses[0].item_id) / first.responses[0].sent_ms
    assert abs(len(words) / len(WORDS) - share) < 0.2
    assert one.is_whole(one.responses[-1])


def test_a_caller_who_speaks_right_after_a_replacement_is_heard_out(calls: Calls) -> None:
    one = calls["speaks_at_once"]
    _, second = one.sessions
    turn = next(debt for debt in second.debts if debt.cause == "speech")
    assert all(response.created_s >= turn.at_s for response in second.responses)
    assert one.is_whole(second.responses[-1])


def test_words_that_came_before_the_audio_are_restated(calls: Calls) -> None:
    one = calls["words_first"]
    assert restated(one.sessions[1]) == [("assistant", "Well, " + WORDS)]


# -- turns ----------------------------------------------------------------------------------------------------------------


def test_each_turn_keeps_its_fate(calls: Calls) -> None:
    """A turn heard whole stays whole if an interruption comes before its mark's echo."""
    one = calls["late_echoes"]
    greeting, cut, answer = one.turns("agent")
    assert (greeting["interrupted"], greeting["heard_ms"]) == (False, one.responses[0].sent_ms)
    assert (cut["interrupted"], cut["heard_ms"]) == (True, one.sessions[0].truncates[0].audio_end_ms)
    assert (answer["interrupted"], answer["heard_ms"]) == (False, one.responses[2].sent_ms)
    assert [turn["text"] for turn in (greeting, cut, answer)] == [WORDS] * 3


def test_the_end_keeps_the_words_so_far(calls: Calls) -> None:
    one = calls["hangs_up_midway"]
    (turn,) = one.turns("agent")
    assert turn["text"] == WORDS
    assert 0 < turn["heard_ms"] < 4000


@pytest.mark.parametrize("name", ["not_transcribed", "never_transcribed"])
def test_a_turn_without_words_is_kept(calls: Calls, name: str) -> None:
    one = calls[name]
    assert [turn["text"] for turn in one.turns("caller")] == [""]
    assert one.is_whole(one.responses[-1])
    assert len(one.events("transcription_failed")) == (name == "not_transcribed")


# -- interruptions that the gateway judges --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cough", "cough_without_transcript"])
def test_a_cough_costs_a_pause_and_no_word(calls: Calls, name: str) -> None:
    one = calls[name]
    (greeting,) = one.responses
    assert one.call.heard_audio == padded(greeting.audio)
    assert one.call.clears == []
    assert len(one.sessions[0].deletions) == 1
    spans = [span for span in one.ear.agent if span.item == greeting.item_id]
    silent_s = spans[-1].end_s - spans[0].start_s - heard_ms(one.ear, greeting.item_id) / 1000
    assert 0.1 < silent_s <= 0.7 + not_run_ms(one.call) / 1000


def test_an_ai_that_falls_silent_with_the_answer_it_was_to_cancel_is_replaced(calls: Calls) -> None:
    one = calls["silent_when_cut"]
    assert len(one.sessions) == 2
    assert [done["ms"] < 1000 * (one.call.ended_s - one.call.started_s) for done in one.events("dead_air")] in ([], [True])
    assert one.is_whole(one.responses[-1])
    assert (one.row["reason"], one.row["result"]) == ("caller_hangup", "success")


def test_a_short_word_stops_the_agent_although_it_speaks_again(calls: Calls) -> None:
    one = calls["short_word"]
    greeting, answer = one.responses
    assert len(one.call.clears) == 1
    assert not one.is_whole(greeting)
    assert one.is_whole(answer)
    assert one.sessions[0].deletions == []


def test_speech_stops_the_agent(calls: Calls) -> None:
    one = calls["wait"]
    greeting, answer = one.responses
    said = one.ear.caller[0]
    stopped_s = one.last_heard_s(greeting) - said.start_s
    assert 0 < stopped_s <= (Turns().min_speech_ms + 40) / 1000 + not_run_ms(one.call) / 1000
    assert len(one.call.clears) == 1
    assert one.is_whole(answer)
