"""gw.call.dialogue.keys: keys as a turn, and digits for a tool."""

from __future__ import annotations

from copy import copy

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import keys
from gw.call.dialogue.commands import Command, Prompt
from gw.call.dialogue.facts import Phase
from gw.call.dialogue.rules import COLLECT_MS, CONCEAL_MS, Rules, ToolRules
from gw.call.digits import Asked
from gw.call.state import Reason
from tests.gw.call.dialogue.talk import Talk

ASKED = Asked(least=4, most=4, pause_ms=5000)
SECRET = ASKED._replace(is_sensitive=True)


class Typing(Talk):
    """A dialogue whose agent asks for digits in a response with words."""

    def __init__(self, **changes: object) -> None:
        collect = ToolRules(timeout_ms=COLLECT_MS, filler="none", collects=True)
        super().__init__(Rules(tools={"collect_digits": collect, "lookup": ToolRules()}, **changes))  # type: ignore[arg-type]
        self.greet()

    def ask(self, asked: Asked | None = ASKED, *, heard: bool = True) -> list[Command]:
        out = self.on(
            given.ResponseStarted("r1"),
            given.Audio("r1", 2000),
            given.ToolCall("r1", "t1", "collect_digits", asked is not None, asked),
            given.ResponseDone("r1"),
        )
        return out + (self.on(given.HeardOut()) if heard else [])

    def type(self, keys: str) -> list[Command]:
        return [command for key in keys for command in self.on(given.Key(key))]


def taken(digits: str, shortfall: str = "", *, sensitive: bool = False, keeps: bool = False) -> Command:
    return do.TakeDigits("t1", digits, shortfall, sensitive, keeps)  # type: ignore[arg-type]


def test_keys_become_one_turn() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.Key("1"), given.Key("2")) == []
    assert talk.wait(3000) == [do.SendKeys("12"), do.Create(Prompt.ANSWER)]


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


# -- digits -------------------------------------------------------------------------------------------------------------


def test_digits_are_the_output_and_are_answered() -> None:
    talk = Typing()
    assert talk.ask() == [do.Play(), do.Collect("t1")]
    assert talk.type("123") == []
    assert talk.type("4") == [taken("1234"), do.ToolOutput("t1", "settled"), do.Create(Prompt.ANSWER)]
    assert talk.machine.collection is None


def test_the_terminator_ends_it_and_is_not_part() -> None:
    talk = Typing()
    talk.ask(Asked(least=2))
    assert talk.type("12#") == [taken("12"), do.ToolOutput("t1", "settled"), do.Create(Prompt.ANSWER)]
    talk = Typing()
    talk.ask(Asked(least=2))
    assert talk.type("1#")[0] == taken("1", "too_few")
    talk = Typing()
    talk.ask(Asked(finish_on="*", most=3))
    assert talk.type("1#2")[0] == taken("1#2"), "another key counts"


def test_a_pause_ends_it() -> None:
    talk = Typing()
    talk.ask()
    talk.wait(4000)
    assert talk.type("12") == []
    assert talk.wait(4999) == []
    assert talk.wait(1)[0] == taken("12", "timeout")


def test_the_pause_begins_when_the_agent_has_asked() -> None:
    talk = Typing()
    talk.ask(heard=False)
    talk.wait(1900)
    talk.on(given.HeardOut())
    assert talk.wait(4999) == []
    assert talk.wait(1)[0] == taken("", "timeout")


def test_keys_that_wait_are_the_first_digits() -> None:
    talk = Typing()
    talk.type("12")
    talk.ask()
    assert talk.type("34")[0] == taken("1234")
    assert not any(isinstance(command, do.SendKeys) for command in talk.wait(5000)), "no key is left for a turn"


def test_a_caller_who_types_is_owed_nothing() -> None:
    talk = Typing(hold_after_ms=900, idle_ms=1500)
    talk.ask(ASKED._replace(pause_ms=60_000))
    assert talk.wait(20_000) == []
    assert not talk.machine.is_owing


def test_a_second_collection_waits_its_turn() -> None:
    talk = Typing()
    talk.ask()
    assert talk.on(
        given.ResponseStarted("r2"), given.ToolCall("r2", "t2", "collect_digits", True, ASKED), given.ResponseDone("r2")
    )[:1] == [do.ToolOutput("t2", "busy")]
    assert talk.type("1234")[0] == taken("1234")


def test_bad_arguments_are_answered() -> None:
    assert do.ToolOutput("t1", "invalid_arguments") in Typing().ask(None)


# -- sensitive digits -----------------------------------------------------------------------------------------------------


def test_sensitive_digits_count_once_the_recording_is_paused() -> None:
    talk = Typing()
    assert talk.ask(SECRET) == [do.Play(), do.Collect("t1"), do.Conceal(True)]
    assert talk.on(given.Concealed()) == []
    assert talk.type("123") == []
    assert talk.type("4") == [taken("1234", sensitive=True, keeps=True)], "control has to keep them first"
    assert talk.type("9") == [], "more keys reach nobody"
    assert talk.on(given.ToolSettled("t1")) == [
        *(do.Conceal(False), do.ToolOutput("t1", "settled"), do.Create(Prompt.ANSWER)),
    ]


def test_digits_before_the_pause_of_the_recording_are_dropped() -> None:
    talk = Typing()
    talk.ask(SECRET)
    assert talk.type("12") == []
    assert talk.on(given.Concealed()) == []
    talk.type("34")
    out = talk.wait(5000)
    assert out[:2] == [taken("34", "too_early", sensitive=True), do.Conceal(False)]


def test_without_a_recording_they_count() -> None:
    talk = Typing()
    talk.ask(SECRET)
    talk.type("12")
    assert talk.on(given.Concealed(was_heard=False)) == []
    assert talk.type("34") == [taken("1234", sensitive=True, keeps=True)]
    talk = Typing()
    talk.ask(SECRET)
    talk.type("1234#")
    assert talk.on(given.Concealed(was_heard=False)) == [taken("1234", sensitive=True, keeps=True)]


def test_a_recording_that_cannot_be_paused_fails_the_tool() -> None:
    for event in (given.NotConcealed(), None):
        talk = Typing()
        talk.ask(SECRET)
        out = talk.on(event) if event is not None else talk.wait(CONCEAL_MS)
        assert out == [do.Conceal(False), do.ToolOutput("t1", "not_paused"), do.Create(Prompt.ANSWER)]
        assert talk.on(given.Concealed()) == [], "a late pause has no effect"


def test_control_that_does_not_keep_them_fails_the_tool() -> None:
    talk = Typing()
    talk.ask(SECRET)
    talk.on(given.Concealed())
    talk.type("1234")
    assert talk.wait(CONCEAL_MS) == [do.Conceal(False), do.ToolOutput("t1", "unknown_outcome"), do.Create(Prompt.ANSWER)]


def test_no_digit_needs_no_keeping() -> None:
    talk = Typing()
    talk.ask(SECRET)
    talk.on(given.Concealed())
    assert talk.wait(5000)[:2] == [taken("", "timeout", sensitive=True), do.Conceal(False)]


def test_an_end_reveals_the_caller() -> None:
    talk = Typing()
    talk.ask(SECRET)
    assert talk.on(given.StreamEnded(Reason.PHONE_LOST))[:1] == [do.Conceal(False)]
    talk = Typing()
    talk.ask(SECRET)
    assert do.Conceal(False) in talk.on(given.BudgetSpent())
    assert (talk.machine.phase, talk.machine.collection) == (Phase.CLOSING, None)


def test_a_lost_session_ends_no_collection() -> None:
    talk = Typing()
    talk.ask(SECRET)
    talk.on(given.Concealed(), given.SessionLost(Reason.AI_LOST))
    talk.type("1234")
    assert talk.on(given.ToolSettled("t1")) == [do.Conceal(False)]
    assert do.ToolOutput("t1", "settled") in talk.on(given.SessionReady())


# -- what comes late ------------------------------------------------------------------------------------------------------


def test_each_key_is_a_turn_where_keys_are_not_collected() -> None:
    talk = Talk(Rules(collect_keys=False))
    talk.greet()
    assert talk.on(given.Key("#")) == [do.SendKeys("#"), do.Create(Prompt.ANSWER)]


def test_keys_are_a_turn_once_they_are_many() -> None:
    talk = Talk(Rules(max_keys=3))
    talk.greet()
    assert talk.on(given.Key("1"), given.Key("2"), given.Key("3")) == [do.SendKeys("123"), do.Create(Prompt.ANSWER)]
    assert talk.on(given.Key("#")) == [], "no key is no turn"
    talk.on(given.Key("4"), given.Key("#"))
    assert talk.machine.sent_keys == "234", "the last ones, if a session needs them again"


def test_keys_without_a_session_wait_for_one() -> None:
    talk = Talk()
    assert talk.on(given.Key("1"), given.Key("#"), given.Key("2"), given.Key("#")) == []
    assert talk.on(given.SessionReady())[:2] == [do.Restate(), do.SendKeys("12")]


def test_keys_in_the_goodbye_are_dropped() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ToolCall("r1", "t1", "hang_up"))
    assert talk.on(given.Key("1"), given.Key("#")) == []
    assert talk.machine.keys == ""


def test_reports_about_the_recording_have_no_effect_without_digits_that_wait_for_them() -> None:
    talk = Typing()
    assert talk.on(given.Concealed(), given.NotConcealed()) == []
    talk.ask()
    assert talk.on(given.Concealed(), given.NotConcealed()) == []
    assert talk.type("1234")[0] == taken("1234")
    facts = copy(talk.machine)
    keys.on_digits_at(talk.machine)
    assert talk.machine == facts


def test_digits_end_with_the_bound_of_their_tool() -> None:
    talk = Typing()
    talk.ask(ASKED._replace(pause_ms=COLLECT_MS), heard=False)
    for _ in range(COLLECT_MS // 2000):
        talk.wait(1000)
        talk.on(given.Audio("r1", 2000))
    assert talk.machine.collection is not None, "the agent speaks on"
    assert taken("", "timeout") in talk.wait(1000 + COLLECT_MS // 2)


def test_a_collection_whose_tool_is_gone_settles_nothing() -> None:
    talk = Typing()
    talk.ask()
    talk.machine.open_tools = ()
    assert talk.type("1234") == [taken("1234")]


def test_digits_are_the_output_of_their_own_call() -> None:
    talk = Typing()
    calls = (given.ToolCall("r1", "t0", "lookup"), given.ToolCall("r1", "t1", "collect_digits", True, ASKED))
    assert talk.on(given.ResponseStarted("r1"), *calls, given.ResponseDone("r1")) == [do.WantTool("t0"), do.Collect("t1")]
    assert talk.type("1234") == [taken("1234"), do.ToolOutput("t1", "settled")]
    assert [tool.call_id for tool in talk.machine.open_tools] == ["t0"]


def test_a_key_is_a_sign_of_the_caller() -> None:
    talk = Typing()
    talk.machine.prompts = 2
    talk.type("1")
    assert talk.machine.prompts == 0


def test_keys_that_wait_may_end_the_collection() -> None:
    for waiting, digits, asked in (("12345", "1234", ASKED), ("1*2", "1", Asked(finish_on="*"))):
        talk = Typing()
        talk.type(waiting)
        assert talk.ask(asked)[2] == taken(digits)
        assert (talk.machine.collection, talk.machine.keys) == (None, "")


def test_a_terminator_behind_sensitive_digits_is_not_kept_with_them() -> None:
    talk = Typing()
    talk.ask(SECRET._replace(least=2, most=6))
    talk.on(given.Concealed())
    assert talk.machine.digits_at == 5000
    talk.type("12#")
    assert talk.machine.collection is not None
    assert (talk.machine.collection.digits, talk.machine.collection.is_taken) == ("12", True)


def test_digits_typed_early_are_bounded() -> None:
    talk = Typing()
    talk.ask(SECRET)
    talk.type("123456")
    assert talk.machine.collection is not None
    assert talk.machine.collection.digits == "1234"


def test_no_pause_ends_it_while_the_caller_speaks_instead() -> None:
    talk = Typing()
    talk.ask()
    talk.on(given.SpeechStarted("c1"))
    talk.wait(5000)
    assert talk.machine.digits_at == 5000 + 5000
