"""The dialogue machine in short conversations. `tests/gw/verify/conversation` explores the others."""

from __future__ import annotations

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Command, Prompt
from gw.call.dialogue.facts import NEVER, Phase
from gw.call.dialogue.inputs import Input, Trouble
from gw.call.dialogue.machine import Dialogue
from gw.call.dialogue.rules import LIFETIME_MS, MAX_UNREADABLE, ROLLOVER_QUIET_MS, TEXT_MS, TOOL_MARGIN_MS, Rules, ToolRules
from gw.call.state import Reason


class Talk:
    """A dialogue and its clock."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.machine = Dialogue.begin(rules or Rules(tools={"lookup": ToolRules()}), 0)
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

    def call(self, *tools: str) -> list[Command]:
        """Let the AI call tools in a response without words: t1, t2 and so on."""
        calls = [given.ToolCall("r1", f"t{n}", name) for n, name in enumerate(tools, 1)]
        return self.on(given.ResponseStarted("r1"), *calls, given.ResponseDone("r1"))


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


def test_a_tool_of_an_earlier_stream_is_wanted_again_and_its_result_answered() -> None:
    talk = Talk(Rules(resumes=True, tools={"lookup": ToolRules()}))
    assert talk.on(given.ToolResumed("t1", "lookup", 5000)) == [do.WantTool("t1")]
    assert talk.on(given.ToolResumed("t1", "lookup", 5000), given.ToolResumed("t2", "unknown", 5000)) == []
    assert talk.on(given.SessionReady()) == [do.Restate(), do.Create(Prompt.RETURN)]
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 100), given.ResponseDone("r1"))
    assert talk.on(given.ToolSettled("t1")) == [do.ToolOutput("t1", "settled"), do.Create(Prompt.ANSWER)]


def test_a_result_of_an_earlier_stream_that_is_there_before_the_session_is_the_first_answer() -> None:
    talk = Talk(Rules(resumes=True, tools={"lookup": ToolRules()}))
    talk.on(given.ToolResumed("t1", "lookup", -7), given.ToolSettled("t1"))
    assert talk.on(given.SessionReady())[:2] == [do.Restate(), do.ToolOutput("t1", "settled")]
    assert talk.machine.debt is Prompt.ANSWER or do.Create(Prompt.ANSWER) in talk.wait(1000)


def test_a_tool_of_an_earlier_stream_that_is_never_settled_has_an_unknown_outcome() -> None:
    talk = Talk(Rules(resumes=True, tools={"lookup": ToolRules()}))
    talk.on(given.ToolResumed("t1", "lookup", 1000), given.SessionReady())
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 100), given.ResponseDone("r1"))
    assert do.ToolOutput("t1", "unknown_outcome") in talk.wait(1000 + TOOL_MARGIN_MS)


def test_the_answer_to_a_tool_follows_its_result() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.ResponseStarted("r1"))
    assert talk.on(given.ToolCall("r1", "t1", "lookup"), given.ResponseDone("r1")) == [do.WantTool("t1")]
    assert talk.on(given.ToolSettled("t1")) == [do.ToolOutput("t1", "settled"), do.Create(Prompt.ANSWER)]
    assert talk.on(given.ToolSettled("t1")) == []


def test_the_answer_waits_for_every_call_of_its_response_and_for_its_end() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.ResponseStarted("r1"))
    assert talk.on(given.ToolCall("r1", "t1", "lookup"), given.ToolSettled("t1")) == [
        do.WantTool("t1"),
        do.ToolOutput("t1", "settled"),
    ]
    assert talk.on(given.ToolCall("r1", "t2", "lookup"), given.ToolCall("r1", "t3", "lookup")) == [
        do.WantTool("t2"),
        do.WantTool("t3"),
    ]
    assert talk.on(given.ToolSettled("t3"), given.ResponseDone("r1")) == [do.ToolOutput("t3", "settled")]
    assert talk.wait(500) == []
    assert talk.on(given.ToolSettled("t2")) == [do.ToolOutput("t2", "settled"), do.Create(Prompt.ANSWER)]


def test_a_result_that_came_during_speech_is_in_the_answer_the_ai_begins_itself() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    assert talk.on(given.SpeechStarted("c1"), given.ToolSettled("t1")) == [do.ToolOutput("t1", "settled")]
    assert talk.on(given.SpeechStopped("c1")) == []
    assert talk.wait(299) == []
    own = Talk()
    own.greet()
    own.call("lookup")
    own.on(given.SpeechStarted("c1"), given.ToolSettled("t1"), given.SpeechStopped("c1"))
    own.speak("r2")
    assert own.wait(2000) == []
    assert talk.wait(1) == [do.Create(Prompt.ANSWER)]


def test_a_result_that_follows_speech_waits_for_the_answer_the_ai_begins_itself() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    talk.wait(100)
    assert talk.on(given.ToolSettled("t1"), given.ResponseStarted("r2")) == [do.ToolOutput("t1", "settled")]
    assert talk.on(given.Audio("r2", 500), given.ResponseDone("r2")) == [do.Play()]
    assert talk.wait(300) == [do.Create(Prompt.ANSWER)]


def test_a_tool_in_the_background_is_answered_immediately_and_its_result_follows() -> None:
    talk = Talk(Rules(tools={"book": ToolRules(waits=False)}))
    talk.greet()
    out = talk.call("book")
    assert out == [do.WantTool("t1"), do.ToolOutput("t1", "started"), do.Create(Prompt.ANSWER)]
    talk.speak("r2")
    assert talk.wait(10_000) == []
    assert talk.on(given.ToolSettled("t1")) == [do.ToolResult("t1", "settled"), do.Create(Prompt.ANSWER)]
    assert talk.on(given.ToolSettled("t1")) == []


def test_a_result_in_the_background_is_kept_for_the_next_session() -> None:
    talk = Talk(Rules(tools={"book": ToolRules(waits=False)}))
    talk.greet()
    talk.call("book")
    talk.speak("r2")
    talk.on(given.SessionLost(Reason.AI_LOST))
    assert talk.on(given.ToolSettled("t1")) == []
    assert talk.on(given.SessionReady()) == [do.Restate(), do.ToolResult("t1", "settled")]
    assert talk.wait(400) == [do.Create(Prompt.ANSWER)]


def test_a_tool_that_is_never_settled_has_an_unknown_outcome() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(timeout_ms=8000, filler="none")}))
    talk.greet()
    talk.call("lookup")
    assert talk.wait(8000 + TOOL_MARGIN_MS - 1) == []
    assert talk.wait(1) == [do.ToolOutput("t1", "unknown_outcome"), do.Create(Prompt.ANSWER)]
    assert talk.on(given.ToolSettled("t1")) == []


def test_each_tool_has_its_own_bound() -> None:
    talk = Talk(Rules(tools={"quick": ToolRules(timeout_ms=1000, filler="none"), "slow": ToolRules(filler="none")}))
    talk.greet()
    talk.call("slow", "quick")
    assert talk.wait(1000 + TOOL_MARGIN_MS) == [do.ToolOutput("t2", "unknown_outcome")]
    assert talk.wait(7000) == [do.ToolOutput("t1", "unknown_outcome"), do.Create(Prompt.ANSWER)]


def test_eight_calls_are_open_at_most_and_a_hundred_in_all() -> None:
    talk = Talk()
    talk.greet()
    out = talk.call(*["lookup"] * 9)
    assert out == [*(do.WantTool(f"t{n}") for n in range(1, 9)), do.ToolOutput("t9", "busy")]
    for n in range(1, 9):
        talk.on(given.ToolSettled(f"t{n}"))
    talk.speak("r2")
    for n in range(10, 101):
        assert talk.on(given.ToolCall("r3", f"t{n}", "lookup")) == [do.WantTool(f"t{n}")]
        talk.on(given.ToolSettled(f"t{n}"))
    assert talk.on(given.ToolCall("r3", "t101", "lookup")) == [do.ToolOutput("t101", "busy")]
    assert talk.on(given.ToolCall("r3", "t1", "lookup")) == [do.Note("tool_repeated")]


def test_arguments_over_their_bound_are_not_sent() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"))
    called = given.ToolCall("r1", "t1", "lookup", is_readable=False)
    assert talk.on(called, given.ResponseDone("r1")) == [do.ToolOutput("t1", "invalid_arguments"), do.Create(Prompt.ANSWER)]


def test_an_agent_without_the_tool_cannot_hang_up() -> None:
    talk = Talk(Rules(hang_up_tool=""))
    talk.greet()
    assert talk.call("hang_up") == [do.ToolOutput("t1", "unknown_tool"), do.Create(Prompt.ANSWER)]
    assert talk.machine.phase is Phase.TALK


def test_a_call_that_comes_again_while_it_is_open_causes_no_answer() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.ResponseStarted("r2"), given.Audio("r2", 500))
    assert talk.on(given.ToolCall("r2", "t1", "lookup"), given.ResponseDone("r2")) == [do.Note("tool_repeated")]
    assert talk.on(given.HeardOut(), given.ToolSettled("t1")) == [do.ToolOutput("t1", "settled"), do.Create(Prompt.ANSWER)]


@pytest.mark.parametrize("cancels", [True, False])
def test_an_interruption_gives_up_the_tools_that_ask_for_it(*, cancels: bool) -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(cancels=cancels)}))
    talk.greet()
    talk.call("lookup")
    out = talk.on(given.SpeechStarted("c1"))
    assert out == ([do.ToolOutput("t1", "cancelled"), do.CancelTool("t1")] if cancels else [])
    assert talk.on(given.ToolSettled("t1")) == ([] if cancels else [do.ToolOutput("t1", "settled")])


def test_where_the_gateway_judges_a_cough_gives_no_tool_up() -> None:
    talk = Talk(Rules(interruptions="gateway", tools={"lookup": ToolRules(cancels=True)}))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.ToolCall("r1", "t1", "lookup"), given.ResponseDone("r1"))
    assert talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1")) == [do.HoldAudio(), do.ReleaseAudio()]
    talk.wait(300)
    talk.on(given.SpeechStarted("c2"))
    cut = [do.Interrupt("cut"), do.ReleaseAudio(), do.ToolOutput("t1", "cancelled"), do.CancelTool("t1")]
    assert talk.wait(900) == cut


def test_the_sound_for_a_slow_tool_counts_from_the_later_of_the_call_and_the_end_of_what_is_heard() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    assert talk.wait(1199) == []
    assert talk.wait(1) == [do.HoldSound(True)]
    heard = Talk()
    heard.greet()
    heard.on(given.ResponseStarted("r1"), given.Audio("r1", 700), given.ToolCall("r1", "t1", "lookup"), given.ResponseDone("r1"))
    heard.wait(700)
    assert heard.on(given.HeardOut()) == []
    assert heard.wait(1199) == []
    assert heard.wait(1) == [do.HoldSound(True)]


def test_an_answer_to_a_tool_has_the_sound_when_the_tool_would_have_had_it() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    talk.wait(1000)
    assert talk.on(given.ToolSettled("t1")) == [do.ToolOutput("t1", "settled"), do.Create(Prompt.ANSWER)]
    assert talk.wait(200) == [do.HoldSound(True)]


def test_a_sentence_bridges_a_slow_tool_once_and_then_the_sound() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(filler="say")}))
    talk.greet()
    talk.call("lookup")
    assert talk.wait(1200) == [do.Create(Prompt.FILLER, "lookup")]
    talk.speak("r2")
    assert talk.wait(1200) == [do.HoldSound(True)]
    out = talk.on(given.ToolSettled("t1"))
    assert out == [do.ToolOutput("t1", "settled"), do.Create(Prompt.ANSWER)]


def test_the_answer_to_a_tool_waits_for_the_sentence_that_bridges_it() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(filler="say")}))
    talk.greet()
    talk.call("lookup")
    talk.wait(1200)
    assert talk.on(given.ToolSettled("t1"), given.ResponseStarted("r2")) == [do.ToolOutput("t1", "settled")]
    assert talk.on(given.Audio("r2", 500), given.ResponseDone("r2")) == [do.Play(), do.Create(Prompt.ANSWER)]


@pytest.mark.parametrize("trouble", [Trouble.NONE, Trouble.PASSING, Trouble.RATE_LIMIT])
def test_a_sentence_that_fails_is_replaced_by_the_sound(trouble: Trouble) -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(filler="say")}))
    talk.greet()
    talk.call("lookup")
    talk.wait(1200)
    assert talk.on(given.ResponseStarted("r2"), given.ResponseDone("r2", False, trouble)) == []
    assert talk.wait(0) == [do.HoldSound(True)]
    assert talk.wait(2000) == []


def test_a_sentence_that_a_rate_limit_forbids_is_replaced_by_the_sound() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(filler="say")}))
    talk.on(given.SessionReady(), given.CreateRefused(Trouble.RATE_LIMIT, 9000))
    talk.call("lookup")
    assert talk.wait(1200) == [do.HoldSound(True)]


def test_results_that_came_before_their_response_ended_are_answered_by_the_next_session() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "lookup"), given.ToolSettled("t1"))
    talk.on(given.SessionLost(Reason.AI_LOST))
    assert talk.on(given.SessionReady()) == [do.Restate()]
    assert talk.wait(400) == [do.Create(Prompt.ANSWER)]


def test_a_hang_up_leaves_no_call_open() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 900), given.ToolCall("r1", "t1", "lookup"))
    out = talk.on(given.ToolCall("r1", "t2", "hang_up"), given.ToolCall("r1", "t3", "lookup"))
    assert out == [do.ToolOutput("t2", "ok"), do.ToolOutput("t1", "cancelled"), do.ToolOutput("t3", "cancelled")]


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


def test_a_notice_is_not_interrupted_and_the_agent_greets_behind_it() -> None:
    talk = Talk()
    assert talk.on(given.Recorded(2000, notice_ms=2000, greets=False)) == [do.Play()]
    assert talk.on(given.SessionReady()) == [do.Restate(), do.Create(Prompt.GREETING)]
    assert talk.on(given.SpeechStarted("c1")) == []
    assert talk.machine.plays
    talk.on(given.SpeechStopped("c1"), given.NoticeHeard())
    talk.on(given.ResponseStarted("r0"), given.Audio("r0", 1000))
    assert do.Interrupt() in talk.on(given.SpeechStarted("c2"))


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
