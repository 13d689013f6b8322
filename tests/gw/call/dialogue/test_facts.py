"""gw.call.dialogue.facts: what follows from the facts alone."""

from __future__ import annotations

from dataclasses import fields

from gw.call.dialogue import inputs as given
from gw.call.dialogue.facts import MAX_IDS, NEVER, Facts, Floor, Phase, Response, Successor, kept
from gw.call.dialogue.rules import Rules, ToolRules
from gw.call.digits import Asked
from gw.call.state import Reason
from tests.gw.call.dialogue.talk import Talk


def test_the_last_identifiers_are_kept() -> None:
    ids: tuple[str, ...] = ()
    for n in range(MAX_IDS + 5):
        ids = kept(ids, str(n))
    assert (ids[0], ids[-1], len(ids)) == ("5", str(MAX_IDS + 4), MAX_IDS)
    assert kept(ids, "7") is ids
    assert kept(("a", "b"), "c", 2) == ("b", "c")


def test_a_dialogue_begins_with_nothing_under_way_and_no_timer_set() -> None:
    assert (NEVER, MAX_IDS) == (2**60, 100)
    first = {"phase": Phase.TALK, "successor": Successor.NONE, "floor": Floor.OPEN, "response": Response.NONE}
    facts = Facts(Rules())
    for name in {field.name for field in fields(Facts)} - {"rules", *first}:
        value = getattr(facts, name)
        assert value == NEVER if name.endswith(("_at", "_by")) or name in ("ready_ms", "quiet_ms") else not value, name
    assert {name: getattr(facts, name) for name in first} == first


def test_a_caller_waits_for_the_ai_until_its_response_is_heard() -> None:
    talk = Talk()
    assert talk.machine.waits_for == "ai", "no session is ready"
    talk.on(given.SessionReady(), given.ResponseStarted("r0"))
    assert talk.machine.waits_for == "ai"
    talk.on(given.Audio("r0"))
    assert (talk.machine.is_heard, talk.machine.waits_for) == (True, "gateway"), "the response is not over"
    talk.on(given.Starved())
    assert (talk.machine.is_heard, talk.machine.waits_for) == (False, "ai")
    talk.on(given.ResponseDone("r0"), given.HeardOut())
    assert (talk.machine.is_owing, talk.machine.waits_for) == (False, None)
    talk.on(given.StreamEnded(Reason.PHONE_LOST))
    assert (talk.machine.phase, talk.machine.waits_for) == (Phase.ENDED, None)


def test_a_caller_waits_for_a_tool_unless_it_runs_in_the_background_or_collects_digits() -> None:
    tools = {"lookup": ToolRules(), "book": ToolRules(waits=False), "digits": ToolRules(collects=True)}
    for name, party in (("lookup", "tool"), ("book", None), ("digits", None)):
        talk = Talk(Rules(tools=tools))
        talk.greet()
        talk.on(given.ResponseStarted("r1"), given.Audio("r1"), given.ToolCall("r1", "t1", name, asked=Asked()))
        talk.on(given.ResponseDone("r1"), given.HeardOut())
        if name == "book":
            talk.speak("r2")  # the answer to its start
        assert talk.machine.waits_for == party, name


def test_a_response_that_called_a_tool_awaits_the_tool() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "lookup"))
    talk.machine.debt = None
    assert talk.machine.waits_for == "tool"
    talk.machine.has_new_tool = False
    assert talk.machine.awaits_agent(), "an earlier response called it"
    assert talk.machine.waits_for == "ai"
    talk.machine.has_new_tool = True
    assert talk.machine.awaits_tool("r1")
    assert not talk.machine.awaits_tool("r2")
    assert not talk.machine.awaits_agent()


def test_a_caller_whose_interruption_is_judged_waits_for_the_gateway() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    assert (talk.machine.floor, talk.machine.waits_for) == (Floor.JUDGED, "gateway")


def test_a_moment_is_quiet_where_nothing_is_under_way() -> None:
    talk = Talk()
    talk.greet()
    assert talk.machine.is_quiet()
    for event in (given.SpeechStarted("c1"), given.Key("1"), given.ResponseStarted("r1"), given.SessionLost(Reason.AI_LOST)):
        other = Talk()
        other.greet()
        other.on(event)
        assert not other.machine.is_quiet(), event
    talk.call("lookup")
    assert not talk.machine.is_quiet()
    talk.on(given.ToolSettled("t1"))
    talk.machine.has_new_tool, talk.machine.response = True, Response.ACTIVE
    assert talk.machine.awaits_agent(), "its call is settled"


def test_the_report_of_hearing_has_no_longer_bound_than_a_goodbye() -> None:
    assert Talk().machine.heard_ms == 2000
    assert Talk(Rules(goodbye_ms=500)).machine.heard_ms == 500
