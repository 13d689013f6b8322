"""gw.call.dialogue.playback: what the caller hears, recorded words, the protected greeting."""

from __future__ import annotations

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Floor
from gw.call.dialogue.rules import Rules
from gw.call.state import Reason
from tests.gw.call.dialogue.talk import Talk


def test_a_protected_greeting_is_heard_and_the_caller_answered_afterwards() -> None:
    talk = Talk(Rules(protect_greeting_ms=2000, interruptions="gateway"))
    talk.on(given.SessionReady(), given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ResponseDone("r1"))
    assert talk.on(given.SpeechStarted("c1")) == []
    assert talk.on(given.SpeechStopped("c1")) == [do.Create(Prompt.ANSWER)]
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 4000), given.ResponseDone("r2"))
    talk.wait(2000)
    assert talk.on(given.SpeechStarted("c2")) == [do.HoldAudio()]


def test_a_recorded_greeting_is_heard_while_the_session_opens_and_the_agent_does_not_greet_again() -> None:
    talk = Talk(Rules(hold_after_ms=900))
    assert talk.on(given.Recorded(2000)) == [do.Play()]
    assert talk.wait(1900) == [], "no holding sound"
    assert talk.on(given.SessionReady()) == [do.Restate()]
    assert talk.on(given.SpeechStarted("c1")) == [do.Interrupt()]
    talk.on(given.SpeechStopped("c1"))
    assert do.Create(Prompt.ANSWER) in talk.wait(1000)


def test_a_recorded_greeting_is_protected() -> None:
    talk = Talk(Rules(protect_greeting_ms=1500))
    talk.on(given.Recorded(3000), given.SessionReady())
    assert talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1")) == []
    talk.wait(1500)
    assert do.Interrupt() in talk.on(given.SpeechStarted("c2"))


def test_audio_that_a_stall_delayed_is_heard_before_the_end() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.now_ms += 6000
    talk.on(given.Delayed(2000))
    assert talk.wait(2000) == []
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


def test_the_bound_on_hearing_audio_moves_by_the_time_it_was_held() -> None:
    talk = Talk(Rules(interruptions="gateway", cut_after_ms=3000, resume_after_ms=5000))
    talk.on(given.SessionReady(), given.ResponseStarted("r1"), given.Audio("r1", 1000), given.ResponseDone("r1"))
    for item in ("c1", "c2"):
        assert talk.on(given.SpeechStarted(item)) == [do.HoldAudio()]
        talk.wait(2000)
        assert talk.on(given.SpeechStopped(item)) == [do.ReleaseAudio()]
        assert talk.wait(300) == [do.DeleteItem(item)]
    talk.wait(2300)
    assert talk.machine.plays
    talk.wait(200)
    assert not talk.machine.plays


def test_a_notice_is_not_interrupted_and_the_agent_greets_behind_it() -> None:
    talk = Talk()
    assert talk.on(given.Recorded(2000, notice_ms=2000, greets=False)) == [do.Play()]
    assert talk.on(given.SessionReady()) == [do.Restate(), do.Create(Prompt.GREETING)]
    assert talk.on(given.SpeechStarted("c1")) == []
    assert talk.machine.plays
    talk.on(given.SpeechStopped("c1"), given.NoticeHeard())
    talk.on(given.ResponseStarted("r0"), given.Audio("r0", 1000))
    assert do.Interrupt() in talk.on(given.SpeechStarted("c2"))


def test_a_greeting_that_begins_early_does_not_shorten_the_protection_of_the_notice() -> None:
    talk = Talk(Rules(protect_greeting_ms=1500))
    talk.on(given.Recorded(4000, notice_ms=4000, greets=False), given.SessionReady())
    talk.on(given.ResponseStarted("r0"), given.Audio("r0", 5000))
    talk.wait(2000)
    assert talk.on(given.SpeechStarted("c1")) == []


def test_a_notice_that_ends_in_a_judged_interruption_protects_nothing() -> None:
    talk = Talk(Rules(protect_greeting_ms=1500, interruptions="gateway"))
    talk.on(given.SessionReady(), given.Recorded(5000, notice_ms=1000))
    talk.wait(3500)  # the notice is late
    assert talk.on(given.SpeechStarted("c1")) == [do.HoldAudio()]
    talk.on(given.NoticeHeard(), given.SpeechStopped("c1"))
    assert do.HoldAudio() in talk.on(given.SpeechStarted("c2"))


def test_a_recorded_greeting_behind_a_notice_has_its_own_protection() -> None:
    talk = Talk(Rules(protect_greeting_ms=1500))
    talk.on(given.Recorded(3000, notice_ms=1000))
    talk.wait(1000)
    talk.on(given.NoticeHeard())
    talk.wait(1400)
    assert talk.on(given.SpeechStarted("c1")) == []
    talk.on(given.SpeechStopped("c1"))
    talk.wait(200)
    assert do.Interrupt() in talk.on(given.SpeechStarted("c2"))


def test_audio_that_a_judged_interruption_holds_is_heard_later() -> None:
    talk = Talk(Rules(interruptions="gateway", resume_after_ms=2000))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 1000), given.SpeechStarted("c1"))
    assert talk.machine.heard_by == 1000 + 2000 + 2000
    talk.on(given.Audio("r1", 4000))
    assert talk.machine.heard_by == 4000 + 2000 + 2000
    talk.now_ms = 500
    talk.on(given.SpeechStarted("c1"))
    assert talk.machine.heard_by == 8500, "held again, by so much longer"


def test_a_pause_that_outlasts_the_audio_ends_with_it() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 1000), given.SpeechStarted("c1"))
    assert do.ReleaseAudio() in talk.on(given.HeardOut())
    assert talk.machine.floor is Floor.OPEN


def test_a_stall_without_audio_changes_nothing() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.Delayed(5000), given.Starved())
    assert (talk.machine.heard_by, talk.machine.starved) == (NEVER, False)


def test_closing_words_that_are_not_reported_as_heard_are_twilio_s() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 1000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    assert talk.machine.close_by > talk.machine.heard_by == 3000
    assert talk.wait(3000) == [do.End(Reason.AI_HANGUP, True)]


def test_words_whose_hearing_is_not_reported_are_over_after_their_bound() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 1000), given.ResponseDone("r1"))
    talk.wait(2999)
    assert talk.machine.plays
    talk.wait(1)
    assert not talk.machine.plays


def test_nothing_is_discarded_where_nothing_plays() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.SpeechStarted("c1")) == []


def test_a_response_is_not_protected_as_the_greeting_is() -> None:
    talk = Talk(Rules(protect_greeting_ms=1500))
    talk.greet()
    talk.wait(1500)
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000))
    assert talk.on(given.SpeechStarted("c1")) == [do.Interrupt()]


def test_behind_a_notice_that_was_heard_before_the_session_is_ready_nothing_is_protected() -> None:
    talk = Talk(Rules(protect_greeting_ms=1500))
    talk.on(given.Recorded(2000, notice_ms=2000, greets=False))
    assert talk.machine.protect_by == 2000 + 2000
    talk.on(given.NoticeHeard())
    assert talk.machine.protect_by == NEVER


def test_audio_that_is_discarded_is_held_no_longer() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.ResponseDone("r1"), given.SpeechStarted("c1"))
    assert talk.wait(900) == [do.Interrupt("cut"), do.ReleaseAudio()]
    assert (talk.machine.floor, talk.machine.plays) == (Floor.OPEN, False)


def test_words_that_decide_discard_what_was_released() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    assert do.Interrupt("cut_words") in talk.on(given.CallerText("c1"))


def test_audio_that_comes_while_it_is_held_is_held_from_then_on() -> None:
    talk = Talk(Rules(interruptions="gateway", resume_after_ms=2000))
    talk.greet()
    talk.now_ms = 100
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 1000), given.SpeechStarted("c1"))
    talk.now_ms = 300
    talk.on(given.Audio("r1", 4000))
    assert (talk.machine.held_at, talk.machine.heard_by) == (300, 300 + 4000 + 2000 + 2000)
    talk.now_ms = 400
    talk.on(given.SpeechStarted("c1"))
    assert (talk.machine.held_at, talk.machine.heard_by) == (400, 8400)
    talk.on(given.SpeechStopped("c1"))
    assert (talk.machine.held_at, talk.machine.heard_by) == (NEVER, 6400)


def test_last_words_move_the_bound_on_the_end_and_others_do_not() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 1000))
    assert talk.machine.close_by == NEVER
    talk.on(given.ToolCall("r1", "t1", "hang_up"), given.Audio("r1", 5000))
    assert talk.machine.close_by == 5000 + 2000 + talk.machine.rules.goodbye_ms


def test_what_plays_can_fall_silent_until_it_is_heard() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 1000), given.Starved())
    assert talk.machine.starved
    talk.on(given.HeardOut())
    assert not talk.machine.starved
