"""The dialogue machine in short conversations. `tests/gw/verify/conversation` explores the others."""

from __future__ import annotations

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Command, Prompt
from gw.call.dialogue.inputs import Input, Trouble
from gw.call.dialogue.machine import NEVER, Dialogue, Phase
from gw.call.dialogue.rules import LIFETIME_MS, MAX_UNREADABLE, ROLLOVER_QUIET_MS, TEXT_MS, Rules
from gw.call.state import Reason


class Talk:
    """A dialogue and its clock."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.machine = Dialogue.begin(rules or Rules(tools=frozenset({"lookup"})), 0)
        self.now_ms = 0

    def on(self, *events: Input) -> list[Command]:
        """Take inputs at the present time."""
        return [command for event in events for command in self.machine.on(event, self.now_ms)]

    def wait(self, ms: int) -> list[Command]:
        """Let time pass, with every tick that comes."""
        until_ms, out = self.now_ms + ms, []
        while self.machine.deadline_ms <= until_ms:
            self.now_ms = self.machine.deadline_ms
            out += self.machine.tick(self.now_ms)
        self.now_ms = until_ms
        return out

    def greet(self) -> None:
        """Let the agent greet the caller, and the caller hear it."""
        assert self.on(given.SessionReady()) == [do.Restate(), do.Create(Prompt.GREETING)]
        self.speak("r0")

    def speak(self, response_id: str) -> None:
        """Let the AI speak a whole response, and the caller hear it."""
        self.on(given.ResponseStarted(response_id), given.Audio(response_id), given.ResponseDone(response_id), given.HeardOut())


def test_the_agent_answers_without_a_request() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.ResponseStarted("r1")) == []
    assert talk.on(given.Audio("r1", 4000)) == [do.Play()]
    assert talk.wait(4000) == []


def test_an_answer_that_does_not_come_is_requested() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    assert talk.wait(800) == [do.Create(Prompt.ANSWER)]


@pytest.mark.parametrize(
    ("ending", "cause"),
    [
        (given.ResponseDone("r1"), Reason.AI_NO_ANSWER),
        (given.ResponseDone("r1", False, Trouble.PASSING), Reason.AI_NO_ANSWER),
        (given.ResponseDone("r1", False, Trouble.RATE_LIMIT), Reason.AI_RATE_LIMITED),
    ],
)
def test_an_empty_or_failed_answer_is_requested_twice_more_then_the_fallback_speaks(
    ending: given.ResponseDone, cause: Reason
) -> None:
    talk = Talk(Rules(hold_after_ms=60_000))
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    for n, pause_ms in enumerate((300, 1000), 1):
        ended = ending._replace(response_id=f"r{n}")
        assert talk.on(given.ResponseStarted(f"r{n}"), ended) == [do.Note("answer_failed")]
        assert talk.wait(1000 if ending.trouble is Trouble.RATE_LIMIT else pause_ms) == [do.Create(Prompt.ANSWER)]
    out = talk.on(given.ResponseStarted("r3"), ending._replace(response_id="r3"))
    assert out == [do.Note("fallback", cause), do.End(Reason.FALLBACK_GOODBYE, True)]
    assert talk.machine.deadline_ms == NEVER


def test_an_interruption_discards_and_late_audio_is_dropped() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1"))
    assert talk.on(given.SpeechStarted("c1")) == [do.Interrupt()]
    assert talk.on(given.Audio("r1"), given.ResponseDone("r1", False)) == []


def test_a_cough_costs_no_word_where_the_gateway_judges() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000))
    assert talk.on(given.SpeechStarted("c1")) == [do.HoldAudio()]
    assert talk.wait(300) == []
    assert talk.on(given.SpeechStopped("c1")) == [do.ReleaseAudio()]
    assert talk.wait(300) == [do.DeleteItem("c1")]


def test_a_short_answer_at_the_end_of_the_agents_words_is_a_turn_where_the_gateway_judges() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 300), given.ResponseDone("r1"))
    assert talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1")) == [do.HoldAudio(), do.ReleaseAudio()]
    assert talk.on(given.HeardOut()) == [do.Create(Prompt.ANSWER)]


def test_words_of_a_short_sound_cut_although_the_agent_speaks_again() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.SpeechStarted("c1"))
    assert talk.on(given.SpeechStopped("c1")) == [do.ReleaseAudio()]
    assert talk.wait(200) == []
    assert talk.on(given.CallerText("c1")) == [do.Cancel(), do.Interrupt("cut_words")]
    assert talk.on(given.ResponseDone("r1", False)) == [do.Create(Prompt.ANSWER)]


def test_a_goodbye_ends_once_the_sound_into_it_was_noise() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 500), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    assert talk.on(given.HeardOut()) == []
    assert talk.wait(300) == [do.DeleteItem("c1"), do.End(Reason.AI_HANGUP, False)]


def test_the_longest_call_ends_although_the_caller_speaks_into_its_end() -> None:
    talk = Talk(Rules(interruptions="gateway", max_call_ms=20_000, warn_ms=0, cut_after_ms=900))
    talk.greet()
    talk.wait(19_500)
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.SpeechStarted("c1"))
    assert talk.wait(1000) == [do.Cancel(), do.Interrupt("cut"), do.ReleaseAudio()]
    talk.on(given.ResponseDone("r1", False))
    assert talk.on(given.SpeechStopped("c1")) == [do.Create(Prompt.CLOSING)]
    talk.speak("r2")
    assert talk.machine.closing is Reason.DURATION_LIMIT
    assert talk.machine.phase is Phase.ENDED


def test_a_spent_budget_is_announced_and_ends_the_call_after_its_sentence() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.BudgetNear()) == [do.WarnOfEnd("budget")]
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000))
    assert talk.on(given.BudgetSpent()) == [], "the sentence is heard first"
    talk.on(given.ResponseDone("r1"))
    assert talk.on(given.HeardOut()) == [do.Create(Prompt.CLOSING)]
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 1000), given.ResponseDone("r2"))
    assert talk.on(given.HeardOut()) == [do.End(Reason.BUDGET, False)]


def test_where_the_agent_does_not_close_a_spent_budget_twilio_speaks() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.BudgetSpent()) == [do.Create(Prompt.CLOSING)]
    assert talk.wait(10_000) == [do.End(Reason.BUDGET, True)]


def test_a_goodbye_is_not_taken_back_beyond_the_budget() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 8000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.on(given.BudgetSpent())
    assert talk.on(given.SpeechStarted("c1")) == []
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


def test_a_goodbye_is_not_taken_back_beyond_the_longest_call() -> None:
    talk = Talk(Rules(max_call_ms=20_000, warn_ms=0))
    talk.greet()
    talk.wait(14_000)
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 8000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.wait(6500)
    assert talk.on(given.SpeechStarted("c1")) == []
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


def test_a_word_cuts_where_the_gateway_judges() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000))
    talk.on(given.SpeechStarted("c1"))
    assert talk.wait(900) == [do.Cancel(), do.Interrupt("cut"), do.ReleaseAudio()]
    talk.on(given.ResponseDone("r1", False))
    assert talk.on(given.SpeechStopped("c1")) == [do.Create(Prompt.ANSWER)]


def test_a_goodbye_is_heard_and_can_be_taken_back() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 2000))
    assert talk.on(given.ToolCall("r1", "t1", "hang_up")) == [do.ToolOutput("t1", "ok")]
    assert talk.on(given.SpeechStarted("c1")) == [do.Note("goodbye_taken_back"), do.Interrupt()]
    talk.on(given.ResponseDone("r1", False), given.SpeechStopped("c1"))
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 2000), given.ToolCall("r2", "t2", "hang_up"), given.ResponseDone("r2"))
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


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


def test_a_caller_who_heard_the_recorded_greeting_waits_for_the_session_with_the_holding_sound() -> None:
    talk = Talk(Rules(hold_after_ms=900))
    talk.on(given.Recorded(1000))
    talk.wait(1000)
    talk.on(given.HeardOut())
    assert do.HoldSound(True) in talk.wait(900)


def test_a_recorded_greeting_is_protected() -> None:
    talk = Talk(Rules(protect_greeting_ms=1500))
    talk.on(given.Recorded(3000), given.SessionReady())
    assert talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1")) == []
    talk.wait(1500)
    assert do.Interrupt() in talk.on(given.SpeechStarted("c2"))


def test_the_answer_to_a_tool_follows_its_result() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.ResponseStarted("r1"))
    assert talk.on(given.ToolCall("r1", "t1", "lookup"), given.ResponseDone("r1")) == [do.WantTool("t1")]
    assert talk.on(given.ToolSettled("t1")) == [do.ToolOutput("t1", "settled")]
    assert talk.wait(300) == [do.Create(Prompt.ANSWER)]
    assert talk.on(given.ToolSettled("t1")) == []


def test_a_response_that_falls_silent_is_bridged_by_the_holding_sound() -> None:
    talk = Talk(Rules(hold_after_ms=900))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 500))
    talk.wait(500)
    assert talk.on(given.Starved()) == []
    assert talk.wait(900) == [do.HoldSound(True)]
    assert talk.on(given.Audio("r1", 500)) == [do.Play(), do.HoldSound(False)]
    assert talk.on(given.Starved(), given.ResponseDone("r1"), given.HeardOut()) == []
    assert talk.wait(5000) == []


def test_a_turn_whose_start_was_not_reported_is_answered() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStopped("c1"))
    assert talk.wait(700) == [do.Create(Prompt.ANSWER)]
    judged = Talk(Rules(interruptions="gateway"))
    judged.greet()
    judged.on(given.ResponseStarted("r1"), given.Audio("r1", 5000))
    assert judged.on(given.SpeechStopped("c1")) == [do.HoldAudio(), do.ReleaseAudio()]
    assert judged.on(given.CallerText("c1")) == [do.Cancel(), do.Interrupt("cut_words")]


def test_an_agent_that_calls_tools_without_end_does_not_run_far_ahead_of_the_ear() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 12_000), given.ToolCall("r1", "t1", "unknown"))
    assert talk.on(given.ResponseDone("r1")) == []
    assert talk.wait(6999) == []
    assert talk.wait(1) == [do.Create(Prompt.ANSWER)]


def test_keys_become_one_turn() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.Key("1"), given.Key("2")) == []
    assert talk.wait(3000) == [do.SendKeys("12"), do.Create(Prompt.ANSWER)]


def test_a_session_lost_in_a_sentence_is_replaced_and_continues() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 500))
    assert talk.on(given.SessionLost(Reason.AI_LOST)) == [do.Note("ai_leg_lost", Reason.AI_LOST), do.OpenSession(200)]
    assert talk.on(given.SessionReady()) == [do.Restate()]
    assert talk.wait(500) == [do.Create(Prompt.CONTINUE)]


def test_a_session_that_is_ready_takes_the_place_of_one_that_dies() -> None:
    talk = Talk(Rules(idle_prompts=0, idle_ms=10_000_000))
    talk.greet()
    assert talk.wait(LIFETIME_MS - ROLLOVER_QUIET_MS) == [do.OpenSuccessor()]
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000))
    assert talk.on(given.SuccessorReady()) == []
    assert talk.on(given.SessionLost(Reason.AI_CLOSED)) == [do.Note("ai_leg_lost", Reason.AI_CLOSED), do.Swap(), do.Restate()]
    assert talk.wait(400) == [do.Create(Prompt.CONTINUE)]


@pytest.mark.parametrize("comes", [True, False])
def test_a_rollover_waits_for_the_words_of_the_caller(*, comes: bool) -> None:
    talk = Talk(Rules(idle_prompts=0, idle_ms=10_000_000))
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    talk.speak("r1")
    talk.wait(LIFETIME_MS - ROLLOVER_QUIET_MS)
    assert talk.on(given.SuccessorReady()) == []
    out = talk.on(given.CallerText("c1")) if comes else talk.wait(TEXT_MS)
    assert out == [do.Swap(), do.Restate()]


def test_audio_that_a_stall_delayed_is_heard_before_the_end() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.now_ms += 6000
    talk.on(given.Delayed(2000))
    assert talk.wait(2000) == []
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


def test_a_rate_limit_keeps_the_session_and_waits() -> None:
    talk = Talk(Rules(hold_after_ms=60_000))
    talk.on(given.SessionReady())
    assert talk.on(given.CreateRefused(Trouble.RATE_LIMIT, 4000)) == [do.Note("answer_failed")]
    assert talk.wait(3999) == []
    assert talk.wait(1) == [do.Create(Prompt.GREETING)]


def test_an_idle_call_is_asked_and_then_ends_with_words() -> None:
    talk = Talk()
    talk.greet()
    for n in (1, 2):
        assert talk.wait(15_000) == [do.Create(Prompt.ARE_YOU_THERE)]
        talk.speak(f"r{n}")
    assert talk.wait(15_000) == [do.Create(Prompt.CLOSING)]
    talk.on(given.ResponseStarted("r3"), given.Audio("r3", 1000), given.ResponseDone("r3"))
    assert talk.on(given.HeardOut()) == [do.End(Reason.IDLE_LIMIT, False)]


def test_the_longest_call_is_announced() -> None:
    talk = Talk(Rules(max_call_ms=20_000, warn_ms=8000, idle_ms=60_000))
    talk.greet()
    assert talk.wait(12_000) == [do.WarnOfEnd()]
    assert talk.wait(8000) == [do.Create(Prompt.CLOSING)]
    assert talk.wait(10_000) == [do.End(Reason.DURATION_LIMIT, True)]


def test_nothing_follows_the_end() -> None:
    talk = Talk()
    assert talk.on(given.StreamEnded(Reason.PHONE_LOST)) == [do.End(Reason.PHONE_LOST, True)]
    assert talk.on(given.SessionReady()) == []
    assert talk.machine.tick(10**9) == []


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


def test_an_agent_that_finishes_does_not_begin_in_mid_sentence() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.SpeechStarted("c1"))
    assert talk.on(given.Audio("r1")) == [do.Cancel()]
    talk.on(given.SpeechStopped("c1"))
    assert talk.on(given.Audio("r1"), given.ResponseDone("r1", completed=False)) == []
    assert talk.wait(700) == [do.Create(Prompt.ANSWER)]


@pytest.mark.parametrize("rules", [Rules(interruptions="none"), Rules(interruptions="gateway", protect_greeting_ms=2000)])
def test_the_rest_of_a_sentence_does_not_answer_what_the_caller_said_into_it(rules: Rules) -> None:
    talk = Talk(rules)
    talk.on(given.SessionReady(), given.ResponseStarted("r1"), given.Audio("r1", 3000))
    assert talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1")) == []
    assert talk.wait(1000) == []
    assert talk.on(given.Audio("r1", 2500)) == [do.Play()]
    assert talk.on(given.ResponseDone("r1")) == [do.Create(Prompt.ANSWER)]
    talk.speak("r2")
    assert talk.wait(5000) == []


def test_the_ai_s_own_response_answers_what_the_caller_said_into_a_sentence() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.on(given.SessionReady(), given.ResponseStarted("r1"), given.Audio("r1", 3000))
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.Audio("r1", 3000), given.ResponseDone("r1"))
    talk.speak("r2")
    assert talk.wait(5000) == []


def test_events_that_cost_a_session_do_not_count_against_the_next() -> None:
    talk = Talk()
    talk.greet()
    talk.on(*[given.Unreadable()] * MAX_UNREADABLE)
    assert not talk.machine.is_ready
    assert talk.on(given.Unreadable()) == [do.Note("ai_unreadable")]
    assert talk.on(given.SessionReady())[:1] == [do.Restate()]


def test_keys_that_were_not_answered_are_sent_to_the_next_session_too() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.Key("1"), given.Key("#")) == [do.SendKeys("1"), do.Create(Prompt.ANSWER)]
    talk.on(given.SessionLost(Reason.AI_LOST))
    assert talk.on(given.SessionReady()) == [do.Restate(), do.SendKeys("1")]
    assert talk.wait(400) == [do.Create(Prompt.ANSWER)]
    talk.speak("r1")
    talk.on(given.SessionLost(Reason.AI_LOST))
    assert talk.on(given.SessionReady()) == [do.Restate()]


def test_the_rate_limit_of_an_idle_prompt_is_kept_too() -> None:
    talk = Talk(Rules(idle_ms=2000))
    talk.greet()
    assert talk.wait(2000) == [do.Create(Prompt.ARE_YOU_THERE)]
    talk.on(given.ResponseStarted("r1"), given.ResponseDone("r1", False, Trouble.RATE_LIMIT, 6000))
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    assert talk.wait(5900) == [do.HoldSound(True)]
    assert talk.wait(200) == [do.Create(Prompt.ANSWER)]


def test_an_agent_that_hangs_up_while_the_caller_speaks_is_back_in_the_conversation() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.SpeechStarted("c1"))
    out = talk.on(given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    assert out == [do.ToolOutput("t1", "ok"), do.Note("goodbye_taken_back")]
    talk.on(given.SpeechStopped("c1"))
    assert talk.wait(700) == [do.Create(Prompt.ANSWER)]
