"""What a session that takes over is asked for, at each point of a conversation."""

from __future__ import annotations

from gw.call.pending_reply import CONTINUE, REPEAT, PendingReply, ReplyRequest


def test_nobody_waits_for_anything() -> None:
    reply = PendingReply()
    assert reply.request() is None
    reply.on_requested("Greet.")
    reply.on_started()
    reply.on_audio()
    reply.on_done(complete=True)
    assert reply.request() is None


def test_a_greeting_that_never_began_is_asked_for_again() -> None:
    reply = PendingReply()
    reply.on_requested("Greet.")
    assert reply.request() == ReplyRequest("Greet.")
    reply.on_started()
    assert reply.request() == ReplyRequest("Greet.")


def test_a_sentence_that_broke_off_goes_on() -> None:
    reply = PendingReply()
    reply.on_requested("Greet.")
    reply.on_started()
    reply.on_audio()
    assert reply.request() == ReplyRequest(CONTINUE)


def test_a_caller_whose_words_are_known_is_answered() -> None:
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


def test_a_caller_whose_words_are_lost_is_asked_to_repeat_unless_heard_again() -> None:
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


def test_a_response_of_the_ais_own_is_asked_for_as_the_conversation_stands() -> None:
    reply = PendingReply()
    reply.on_started()
    assert reply.request() == ReplyRequest("")


def test_a_caller_who_interrupts_is_owed_nothing_of_the_old_answer() -> None:
    reply = PendingReply()
    reply.on_started()
    reply.on_audio()
    reply.on_caller_started("c1")
    assert reply.request() == ReplyRequest(REPEAT, unless_caller_speaks=True)


def test_what_was_asked_of_a_new_session_is_owed_no_more() -> None:
    reply = PendingReply()
    reply.on_caller_started("c1")
    reply.on_caller_stopped()
    reply.on_takeover()
    assert reply.request() is None
