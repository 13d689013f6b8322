"""gw.call.dialogue.tools: calls, their results and bounds."""

from __future__ import annotations

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import tools
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Phase
from gw.call.dialogue.rules import AFTER_TOOL_MS, TOOL_MARGIN_MS, Rules, ToolRules
from gw.call.digits import Asked
from gw.call.state import Reason
from tests.gw.call.dialogue.talk import Talk


def test_a_tool_of_an_earlier_stream_is_wanted_again_and_its_result_answered() -> None:
    talk = Talk(Rules(resumes=True, tools={"lookup": ToolRules()}))
    assert talk.on(given.ToolResumed("t1", "lookup", 5000)) == [do.WantTool("t1")]
    assert talk.on(given.ToolResumed("t1", "lookup", 5000), given.ToolResumed("t2", "unknown", 5000)) == []
    assert talk.machine.tools == 1
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


def test_the_earliest_deadline_of_the_open_calls_counts() -> None:
    bounds_ms = {"a": 1000, "b": 2000, "c": 3000}
    talk = Talk(Rules(tools={name: ToolRules(timeout_ms=ms) for name, ms in bounds_ms.items()}))
    talk.greet()
    talk.call("a", "b", "c")
    for settled, due_ms in (("t1", 2000), ("t2", 3000)):
        talk.on(given.ToolSettled(settled))
        assert talk.machine.tools_by == due_ms + TOOL_MARGIN_MS
    talk.on(given.ToolSettled("t3"))
    assert talk.machine.tools_by == NEVER


def test_a_result_that_no_response_of_the_ai_follows_is_answered_after_a_moment() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    talk.wait(100)
    assert talk.on(given.ToolSettled("t1")) == [do.ToolOutput("t1", "settled")]
    assert talk.wait(AFTER_TOOL_MS - 1) == []
    assert talk.wait(1) == [do.Create(Prompt.ANSWER)]


def test_the_next_wait_may_have_a_sentence_again() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(filler="say")}))
    talk.greet()
    talk.call("lookup")
    talk.wait(1200)
    assert talk.machine.filling == "lookup"
    talk.on(given.ToolSettled("t1"))
    assert talk.machine.filling == ""


# -- leaving the stream ---------------------------------------------------------------------------------------------------

LEAVES = Rules(
    tools={
        "transfer": ToolRules(timeout_ms=6000, cancels=True, leaves=Reason.TRANSFERRED),
        "lookup": ToolRules(),
        "book": ToolRules(waits=False, timeout_ms=60_000),
    }
)


def leaving(*tools: str) -> Talk:
    """The agent transfers the call in a sentence that the caller hears."""
    talk = Talk(LEAVES)
    talk.greet()
    calls = [given.ToolCall("r1", f"t{n}", name) for n, name in enumerate(tools or ("transfer",), 1)]
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), *calls)
    return talk


def test_the_stream_is_left_once_all_words_are_heard() -> None:
    talk = leaving()
    assert not tools.may_leave(talk.machine), "the response is not over"
    assert talk.on(given.ResponseDone("r1")) == []
    assert talk.on(given.HeardOut()) == [do.WantTool("t1")]
    assert talk.machine.left_for is Reason.TRANSFERRED
    assert talk.on(given.StreamEnded(Reason.CALLER_HANGUP)) == [do.End(Reason.TRANSFERRED, False)]


def test_the_stream_is_not_left_while_something_is_typed_said_or_owed() -> None:
    for event in (given.Key("1"), given.ResponseStarted("r2"), given.Audio("r1", 900)):
        talk = leaving()
        talk.on(given.ResponseDone("r1"), given.HeardOut(), event)
        talk.machine.left_for = None
        assert not tools.may_leave(talk.machine), event
    talk = leaving()
    talk.on(given.ResponseDone("r1"), given.HeardOut())
    talk.machine.left_for = None
    talk.machine.debt = Prompt.ANSWER
    assert not tools.may_leave(talk.machine)


def test_the_stream_is_not_left_while_another_tool_is_awaited() -> None:
    talk = leaving("transfer", "lookup")
    assert talk.on(given.ResponseDone("r1"), given.HeardOut()) == []
    talk.on(given.ToolSettled("t2"))
    talk.speak("r2")
    assert talk.machine.left_for is Reason.TRANSFERRED


def test_a_transfer_that_fails_is_answered() -> None:
    talk = leaving()
    talk.on(given.ResponseDone("r1"), given.HeardOut())
    out = talk.wait(6000 + TOOL_MARGIN_MS)
    assert do.ToolOutput("t1", "unknown_outcome") in out
    assert (talk.machine.leaving, talk.machine.left_for) == ("", None)


def test_a_second_transfer_is_refused() -> None:
    talk = leaving("transfer", "lookup")
    assert talk.on(given.ToolCall("r1", "t3", "transfer")) == [do.ToolOutput("t3", "busy")]


def test_the_caller_s_voice_cancels_a_transfer_until_it_is_under_way() -> None:
    talk = leaving()
    assert talk.on(given.SpeechStarted("c1")) == [do.Interrupt(), do.ToolOutput("t1", "cancelled"), do.CancelTool("t1")]
    talk = leaving()
    talk.on(given.ResponseDone("r1"), given.HeardOut())
    assert talk.on(given.SpeechStarted("c1")) == []


# -- calls that end by themselves -----------------------------------------------------------------------------------------


def test_a_call_that_waits_for_the_ai_to_continue_yields_to_a_response_and_to_another_call() -> None:
    rules = Rules(tools={"approval": ToolRules(yields=True, filler="none"), "lookup": ToolRules()})
    talk = Talk(rules)
    talk.greet()
    talk.call("approval")
    assert talk.on(given.ResponseStarted("r2")) == [do.ToolOutput("t1", "yielded")]
    talk = Talk(rules)
    talk.greet()
    assert talk.call("approval", "lookup") == [do.WantTool("t1"), do.ToolOutput("t1", "yielded"), do.WantTool("t2")]


def test_a_started_tool_of_an_earlier_stream_has_its_first_output() -> None:
    talk = Talk(Rules(resumes=True, tools={"book": ToolRules(waits=False)}))
    assert talk.on(given.ToolResumed("t1", "book", 5000)) == [do.WantTool("t1")]
    talk.on(given.SessionReady())
    assert talk.on(given.ToolSettled("t1"))[:1] == [do.ToolResult("t1", "settled")]


@pytest.mark.parametrize("is_sensitive", [True, False])
def test_a_call_that_collects_digits_is_closed_with_its_collection(*, is_sensitive: bool) -> None:
    talk = Talk(Rules(tools={"digits": ToolRules(timeout_ms=20_000, collects=True)}))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "digits", asked=Asked(is_sensitive=is_sensitive)))
    assert talk.machine.tools_by == 20_000 + TOOL_MARGIN_MS
    out = talk.on(given.ToolSettled("t1"))
    assert out == [*([do.Conceal(False)] if is_sensitive else []), do.ToolOutput("t1", "settled")]
    assert (talk.machine.collection, talk.machine.digits_at) == (None, NEVER)


# -- what a call belongs to, and its time ---------------------------------------------------------------------------------


def test_a_call_is_known_while_its_result_waits_for_a_session() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    talk.on(given.SessionLost(Reason.AI_LOST), given.ToolSettled("t1"))
    assert tools.is_known(talk.machine, "t1")
    assert not tools.is_known(talk.machine, "t2")


@pytest.mark.parametrize("name", ["lookup", "transfer"])
def test_a_call_belongs_to_the_response_that_made_it(name: str) -> None:
    talk = Talk(LEAVES)
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r9", "t1", name))
    assert talk.machine.open_tools[-1].response_id == "r9"


@pytest.mark.parametrize(("left_ms", "more_ms"), [(5000, 5000), (-7, 0), (99_999, 8000)])
def test_a_tool_of_an_earlier_stream_has_the_rest_of_its_time(left_ms: int, more_ms: int) -> None:
    talk = Talk(Rules(resumes=True, tools={"lookup": ToolRules(), "book": ToolRules(waits=False)}))
    talk.now_ms = 1000
    talk.on(given.ToolResumed("t1", "lookup", left_ms), given.ToolResumed("t2", "book", 8000))
    assert talk.machine.tools_by == 1000 + more_ms + TOOL_MARGIN_MS
    assert [tool.response_id for tool in talk.machine.open_tools] == ["earlier"] * 2
    assert talk.machine.answered == ("t2",)
    talk.on(*(given.ToolResumed(f"t{n}", "lookup", 5000) for n in range(3, 12)))
    assert len(talk.machine.open_tools) == 8


def test_a_call_that_yields_is_open_no_longer() -> None:
    talk = Talk(Rules(tools={"approval": ToolRules(yields=True, filler="none")}))
    talk.greet()
    talk.call("approval")
    talk.on(given.ResponseStarted("r2"))
    assert talk.machine.open_tools == ()


def test_a_result_is_owed_an_answer_although_another_response_is_under_way() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    talk.on(given.ResponseStarted("r2"), given.Audio("r2"), given.ToolSettled("t1"))
    assert talk.machine.debt is Prompt.ANSWER


@pytest.mark.parametrize(("debt", "expected"), [(Prompt.ANSWER, 700), (Prompt.REPEAT, 600)])
def test_a_result_delays_no_answer_that_is_due_before(debt: Prompt, expected: int) -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    talk.on(given.SpeechStarted("c1"))
    talk.machine.debt, talk.machine.ask_at, talk.now_ms = debt, 700, 600
    talk.on(given.ToolSettled("t1"))
    assert talk.machine.ask_at == expected


def test_the_end_of_the_stream_is_awaited_from_when_it_may_come() -> None:
    talk = leaving("transfer", "book")
    talk.now_ms = 1000
    talk.on(given.ResponseDone("r1"))
    talk.speak("r2")
    assert talk.machine.tools_by == 1000 + 6000 + TOOL_MARGIN_MS
    assert [tool.call_id for tool in talk.machine.open_tools] == ["t1", "t2"]
    talk.machine.phase = Phase.CLOSING
    assert not tools.may_leave(talk.machine)
