"""Routes in whole calls: who answers, what the persona receives, what is recorded; all on one gateway."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

import gw.config
from gw.config import Agent, Overflow, Route
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.steps import Step
from gw.twin.twilio.stream import CallPlan
from tests.calls.conftest import World
from tests.calls.held import says
from tests.calls.shared import Outcome, run_world
from tests.timing import scaled

CALLER: Final = "+15550007777"
PERSONA: Final = "You help {{who}} for {{company}}{{not_set}}. Caller {{caller}}, called {{called}}, {{direction}}, {{now}}."
VARIABLES: Final = {"who": "Ann {{company}}", "company": 'Acme "&" <Söhne>'}
ROUTES: Final = (
    Route(called="+15550000001", agent="clerk", zone="Europe/Berlin", variables=VARIABLES, record=False),
    Route(called="+15550000002", refuse="busy"),
    Route(called="+15550000003", refuse="We are closed."),
    Route(called="+15550000004", dial="+15559990000"),
    Route(called="+15550000005", weekdays="mon", hours="00:00-00:01", agent="clerk"),
    Route(called="+15550000005", agent="warm", variables={"who": "Eve"}),
)
LISTENS: Final = (Step("hang_up", "quiet", 0.6, patience_s=5.0),)
BREAKS: Final = (Step("reset", "heard", 0.3, lasts_s=0.3), Step("hang_up", "quiet", 1.0, patience_s=8.0))

#: Called number, steps, and more of the plan.
CASES: Final[dict[str, tuple[str, tuple[Step, ...], dict[str, Any]]]] = {
    "clerk": ("+15550000001", LISTENS, {}),
    "busy": ("+15550000002", (), {}),
    "closed": ("+15550000003", (), {}),
    "elsewhere": ("+15550000004", (), {}),
    "warm": ("+15550000005", LISTENS, {}),
    "no_route": ("+15550000009", LISTENS, {}),
    "named": ("+15550000002", LISTENS, {"agent": "plain"}),
    "unknown": ("+15550000001", (), {"agent": "salse"}),
    "resumed": ("+15550000001", BREAKS, {}),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Outcome:

    def script(index: int, path: str) -> AiScript:
        return says(1.2)

    def agents(ai: AiTwin) -> dict[str, Agent]:
        def agent(name: str, **more: Any) -> Agent:
            return Agent(provider="openai", base_url=f"{ai.url}/{name}", **{"greeting": "Greet {{who}}.", **more})

        return {
            "default": agent("default", instructions="Be brief.", greeting="Greet."),
            "plain": agent("plain", instructions="Plain."),
            "clerk": agent("clerk", instructions=PERSONA),
            "warm": agent("warm", instructions="{{who}}, {{caller}}", warm=True),
        }

    def body(world: World, outcome: Outcome) -> None:
        for name, (called, steps, more) in CASES.items():
            plan = {"hang_up": False, "max_s": scaled(20.0), "from_number": CALLER, "to_number": called, **more}
            outcome.calls[name] = world.twilio.place(CallPlan(steps=steps, **plan))
        assert world.twilio.wait(scaled(40.0))
        for name in ("clerk", "warm", "no_route", "named", "unknown", "resumed"):
            world.gateway.ended(outcome.calls[name].call_sid)
        outcome.keep(world)
        outcome.seen["sessions"] = world.ai.sessions
        outcome.seen["warm"] = world.gateway.metrics()['gw_warm_legs_total{outcome="used"}']

    return run_world(tmp_path_factory.mktemp("routes"), shared_store, script, body, agents=agents, routes=ROUTES)


def _instructions(outcome: Outcome, agent: str) -> list[str]:
    """The instructions of each session of an agent."""
    sessions = [one for one in outcome.seen["sessions"] if one.path.endswith(f"/{agent}")]
    return [update["instructions"] for session in sessions for update in session.updates]


def test_the_persona_receives_what_it_names_and_nothing_more(outcome: Outcome) -> None:
    received = _instructions(outcome, "clerk")
    assert len(received) == 3, "one call, and one of two streams"
    pattern = re.escape('You help Ann {{company}} for Acme "&" <Söhne>. Caller +15550007777, called +15550000001, inbound, NOW.')
    now = r"20\d\d-\d\d-\d\d \d\d:\d\d Europe/Berlin"
    assert all(re.fullmatch(pattern.replace("NOW", now), text) for text in received), received
    (plain,) = _instructions(outcome, "plain")
    assert plain == "Plain."
    everything = repr([session.events for session in outcome.seen["sessions"] if session.path.endswith(("/plain", "/default"))])
    assert CALLER not in everything


def test_the_greeting_is_filled_too(outcome: Outcome) -> None:
    (session,) = [one for one in outcome.seen["sessions"] if one.path.endswith("/warm")]
    assert [item.text for item in session.items] == ["Greet Eve."]
    assert _instructions(outcome, "warm") == [f"Eve, {CALLER}"]
    assert outcome.seen["warm"] == 1, "the leg that was opened at the webhook had the same instructions"


def test_who_answers(outcome: Outcome) -> None:
    agents = {name: row["agent"] for name, row in outcome.rows.items() if row}
    assert agents == {
        "clerk": "clerk",
        "warm": "warm",
        "no_route": "default",
        "named": "plain",
        "unknown": "salse",
        "resumed": "clerk",
    }


def test_a_route_without_recording(outcome: Outcome) -> None:
    recorded = {name: row["recording"] is not None for name, row in outcome.rows.items() if row}
    assert recorded == {
        "clerk": False, "warm": True, "no_route": True, "named": True, "unknown": False, "resumed": False
    }  # fmt: skip


def test_calls_that_no_agent_answers(outcome: Outcome) -> None:
    calls = outcome.calls
    assert (calls["busy"].status, calls["busy"].spoken) == ("busy", ["busy"])
    assert calls["closed"].spoken == ["We are closed."]
    assert calls["elsewhere"].dialled == ["+15559990000"]
    assert [calls[name].error for name in CASES] == [""] * len(CASES)


def test_an_unknown_agent_is_answered_with_words_an_error_line_and_a_row(outcome: Outcome) -> None:
    call, row = outcome.calls["unknown"], outcome.rows["unknown"]
    assert row is not None
    assert call.spoken == [Overflow().text]
    assert (row["reason"], row["result"], row["from_number"]) == ("unknown_agent", "peer_error", CALLER)
    lines = [line for line in outcome.log.lines if line.call_sid == call.call_sid and line.reason == "unknown_agent"]
    assert ["'salse'" in line.text for line in lines] == [True]


def test_a_variable_that_is_not_set_is_logged_once(outcome: Outcome) -> None:
    assert [line.text for line in outcome.log.lines if "{{not_set}}" in line.text] == [
        "agent clerk names {{not_set}}, which neither a route nor the call sets: it is empty"
    ]


def test_a_call_that_resumes_keeps_its_route(outcome: Outcome) -> None:
    row = outcome.rows["resumed"]
    assert row is not None
    assert [event["kind"] for event in row["events"]].count("resumed") == 1
    assert row["reason"] == "caller_hangup"
