"""Calls whose stream does not begin: Twilio cannot connect. Each has a row, and another stream is tried once."""

from __future__ import annotations

from typing import Any, Final

import pytest

import gw.config
from gw.config import Agent, Route
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.stream import CallPlan
from tests.calls.conftest import World
from tests.calls.held import says
from tests.calls.shared import Outcome, run_world
from tests.calls.test_routes import LISTENS
from tests.timing import scaled

ROUTES: Final = (
    Route(called="+15550000001", agent="clerk", variables={"who": "Ann"}),
    Route(called="+15550000002", agent="other", variables={"who": "Bob"}),
)
CASES: Final[dict[str, dict[str, Any]]] = {
    "once": {"unopened": 1, "steps": LISTENS, "to_number": "+15550000001"},
    "named": {"unopened": 1, "steps": LISTENS, "agent": "other"},
    "always": {"unopened": 9, "to_number": "+15550000002"},
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Outcome:
    def script(index: int, path: str) -> AiScript:
        return says(1.2)

    def agents(ai: AiTwin) -> dict[str, Agent]:
        texts = {"instructions": "Help {{who}}.", "greeting": "Greet.", "goodbye": "Call again."}
        return {name: Agent(provider="openai", base_url=f"{ai.url}/{name}", **texts) for name in ("default", "clerk", "other")}

    def body(world: World, outcome: Outcome) -> None:
        for name, more in CASES.items():
            outcome.calls[name] = world.twilio.place(CallPlan(hang_up=False, max_s=scaled(20.0), **more))
        assert world.twilio.wait(scaled(40.0))
        for name in CASES:
            world.gateway.ended(outcome.calls[name].call_sid)
        outcome.keep(world)
        outcome.seen["sessions"] = {one.path.rpartition("/")[2]: one for one in world.ai.sessions}

    return run_world(tmp_path_factory.mktemp("no_stream"), shared_store, script, body, agents=agents, routes=ROUTES)


def _row(outcome: Outcome, name: str) -> dict[str, Any]:
    row = outcome.rows[name]
    assert row is not None
    return row


@pytest.mark.parametrize(("name", "agent"), [("once", "clerk"), ("named", "other")])
def test_the_second_stream_is_a_call_as_any_other(outcome: Outcome, name: str, agent: str) -> None:
    row = _row(outcome, name)
    assert (row["agent"], row["reason"], row["stream_sid"]) == (agent, "caller_hangup", outcome.calls[name].stream_sid)
    resumed = [event["data"] for event in row["events"] if event["kind"] == "resumed"]
    assert resumed == [{"n": 1, "after": "no_stream"}]
    assert row["recording"]["state"] in ("started", "completed")
    assert row["quality"]["frames_sent"] > 20
    session = outcome.seen["sessions"][agent]
    assert [item.text for item in session.items] == ["Greet."], "the caller has heard nothing yet"
    assert outcome.calls[name].spoken == []


def test_its_persona_has_the_route_s_variables(outcome: Outcome) -> None:
    (update,) = outcome.seen["sessions"]["clerk"].updates
    assert update["instructions"] == "Help Ann."


@pytest.mark.parametrize(("name", "who"), [("once", ["Ann"]), ("named", []), ("always", ["Bob"])])
def test_its_row_has_them_once(outcome: Outcome, name: str, who: list[str]) -> None:
    found = [event["data"] for event in _row(outcome, name)["events"] if event["kind"] == "variables"]
    assert found == [{"who": value} for value in who]


def test_a_call_without_any_stream_has_a_row_and_its_caller_hears_words(outcome: Outcome) -> None:
    row, call = _row(outcome, "always"), outcome.calls["always"]
    assert call.spoken == ["Call again."]
    assert [notice.code for notice in call.notices] == [31901, 31901], "tried once more"
    outcome.check_no_stream("always")
    assert (row["agent"], row["from_number"]) == ("other", call.from_number)
    assert row["recording"] is None
    errors = {event["data"]["StreamError"] for event in row["events"] if event["kind"] == "webhook_stream"}
    assert errors == {"no connection"}


def test_each_such_stream_is_counted_and_logged_once(outcome: Outcome) -> None:
    assert outcome.ended["no_stream"] == len(CASES)
    lines = [line for line in outcome.log.lines if line.reason == "no_stream" and line.logger.startswith("gw.media")]
    assert sorted(line.call_sid for line in lines) == sorted(call.call_sid for call in outcome.calls.values())
    outcome.check_nothing_left()
