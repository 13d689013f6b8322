"""What a session that takes over is asked for, at each point of a conversation."""

from __future__ import annotations

from gw.call.pending_reply import CONTINUE, REPEAT, Exchange, Owed


def test_nobody_waits_for_anything() -> None:
    exchange = Exchange()
    assert exchange.owed() is None
    exchange.on_asked("Greet.")
    exchange.on_started()
    exchange.on_audio()
    exchange.on_done(complete=True)
    assert exchange.owed() is None


def test_a_greeting_that_never_began_is_asked_for_again() -> None:
    exchange = Exchange()
    exchange.on_asked("Greet.")
    assert exchange.owed() == Owed("Greet.")
    exchange.on_started()
    assert exchange.owed() == Owed("Greet.")


def test_a_sentence_that_broke_off_goes_on() -> None:
    exchange = Exchange()
    exchange.on_asked("Greet.")
    exchange.on_started()
    exchange.on_audio()
    assert exchange.owed() == Owed(CONTINUE)


def test_a_caller_whose_words_are_known_is_answered() -> None:
    exchange = Exchange()
    exchange.on_caller_started("c1")
    exchange.on_caller_stopped()
    exchange.on_caller_text("c1")
    assert exchange.owed() == Owed("")
    exchange.on_started()
    assert exchange.owed() == Owed("")
    exchange.on_audio()
    exchange.on_done(complete=True)
    assert exchange.owed() is None


def test_a_caller_whose_words_are_lost_is_asked_to_repeat_unless_heard_again() -> None:
    exchange = Exchange()
    exchange.on_caller_started("c1")
    assert exchange.caller_speaks
    assert exchange.owed() == Owed(REPEAT, unless_caller_speaks=True)
    exchange.on_caller_stopped()
    exchange.on_caller_text("an older turn")
    assert not exchange.caller_speaks
    assert exchange.owed() == Owed(REPEAT, unless_caller_speaks=True)


def test_an_answer_that_was_cut_leaves_the_caller_waiting() -> None:
    exchange = Exchange()
    exchange.on_caller_started("c1")
    exchange.on_caller_stopped()
    exchange.on_caller_text("c1")
    exchange.on_started()
    exchange.on_done(complete=False)
    assert exchange.owed() == Owed("")


def test_a_response_of_the_ais_own_is_asked_for_as_the_conversation_stands() -> None:
    exchange = Exchange()
    exchange.on_started()
    assert exchange.owed() == Owed("")


def test_a_caller_who_interrupts_is_owed_nothing_of_the_old_answer() -> None:
    exchange = Exchange()
    exchange.on_started()
    exchange.on_audio()
    exchange.on_caller_started("c1")
    assert exchange.owed() == Owed(REPEAT, unless_caller_speaks=True)


def test_what_was_asked_of_a_new_session_is_owed_no_more() -> None:
    exchange = Exchange()
    exchange.on_caller_started("c1")
    exchange.on_caller_stopped()
    exchange.on_taken_over()
    assert exchange.owed() is None
