"""gw.call.pending_reply: the request to a replacement session at each point of a conversation."""

from __future__ import annotations

from gw.call.pending_reply import CONTINUE, REPEAT, RETURN, PendingReply, ReplyRequest


def test_without_an_open_turn_a_new_session_listens() -> None:
    reply = PendingReply()
    assert reply.request() is None
    reply.on_requested("Greet.")
    reply.on_started()
    reply.on_audio()
    reply.on_done(complete=True)
    assert reply.request() is None


def test_a_greeting_without_audio_is_requested_again() -> None:
    reply = PendingReply()
    reply.on_requested("Greet.")
    assert reply.request() == ReplyRequest("Greet.")
    reply.on_started()
    assert reply.request() == ReplyRequest("Greet.")


def test_a_broken_off_sentence_is_continued() -> None:
    reply = PendingReply()
    reply.on_requested("Greet.")
    reply.on_started()
    reply.on_audio()
    assert reply.request() == ReplyRequest(CONTINUE)


def test_a_caller_whose_text_came_is_answered() -> None:
    reply = PendingReply()
    reply.on_caller_started("c1")
    reply.on_caller_stopped()
    reply.on_caller_text("c1")
    assert reply.request() == ReplyRequest("")
    reply.on_started()
    assert reply.request() == ReplyRequest("")
    reply.on_audio()
    reply.on_done(complete=True)
    assert reply.request() is None


def test_a_caller_whose_text_is_lost_is_asked_to_repeat_unless_heard_again() -> None:
    reply = PendingReply()
    reply.on_caller_started("c1")
    assert reply.caller_speaks
    assert reply.request() == ReplyRequest(REPEAT, unless_caller_speaks=True)
    reply.on_caller_stopped()
    reply.on_caller_text("an older turn")
    assert not reply.caller_speaks
    assert reply.request() == ReplyRequest(REPEAT, unless_caller_speaks=True)


def test_an_answer_that_was_cut_leaves_the_caller_waiting() -> None:
    reply = PendingReply()
    reply.on_caller_started("c1")
    reply.on_caller_stopped()
    reply.on_caller_text("c1")
    reply.on_started()
    reply.on_done(complete=False)
    assert reply.request() == ReplyRequest("")


def test_an_unrequested_response_is_requested_without_instructions() -> None:
    reply = PendingReply()
    reply.on_started()
    assert reply.request() == ReplyRequest("")


def test_an_interruption_drops_the_old_answer() -> None:
    reply = PendingReply()
    reply.on_started()
    reply.on_audio()
    reply.on_caller_started("c1")
    assert reply.request() == ReplyRequest(REPEAT, unless_caller_speaks=True)


def test_a_takeover_drops_the_request() -> None:
    reply = PendingReply()
    reply.on_caller_started("c1")
    reply.on_caller_stopped()
    reply.on_takeover()
    assert reply.request() is None


def test_a_new_turn_of_the_caller_needs_its_own_text() -> None:
    reply = PendingReply()
    for item_id in ("c1", "c2"):
        reply.on_caller_started(item_id)
        reply.on_caller_stopped()
        assert reply.request() == ReplyRequest(REPEAT, unless_caller_speaks=True)
        reply.on_caller_text(item_id)
        reply.on_caller_text("an older turn")
        assert reply.request() == ReplyRequest("")


def test_audio_of_an_earlier_response_does_not_count_for_the_next() -> None:
    reply = PendingReply()
    reply.on_started()
    reply.on_audio()
    reply.on_done(complete=True)
    reply.on_requested("Greet.")
    reply.on_started()
    assert reply.request() == ReplyRequest("Greet.")
    reply.on_audio()
    assert reply.request() == ReplyRequest(CONTINUE)
    reply.on_takeover()
    reply.on_audio()
    assert reply.request() == ReplyRequest(CONTINUE), "audio without a started event counts as a response"
    reply.on_done(complete=False)
    assert reply.request() is None


def test_a_response_during_the_callers_speech_answers_nothing() -> None:
    reply = PendingReply()
    reply.on_caller_started("c1")
    reply.on_done(complete=True)
    assert reply.request() == ReplyRequest(REPEAT, unless_caller_speaks=True)


def test_an_interruption_drops_a_request_without_audio() -> None:
    reply = PendingReply()
    reply.on_requested("Greet.")
    reply.on_started()
    reply.on_caller_started("c1")
    reply.on_caller_stopped()
    reply.on_caller_text("c1")
    reply.on_done(complete=True)
    assert reply.request() is None


def test_the_instructions_are_distinct() -> None:
    assert "Continue" in CONTINUE and "repeat" in REPEAT and "back" in RETURN
