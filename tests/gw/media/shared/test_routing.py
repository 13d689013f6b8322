"""gw.media.shared.routing: local times, digests, and the agent of one call."""

from __future__ import annotations

import pytest

from gw.config import Agent, Config, Route
from gw.media.shared.routing import NO_ROUTE, Routing, id_of

#: 2026-11-28 13:05:30 UTC, a Saturday; 14:05 in Berlin.
AT = 1_795_871_130.0
#: The summer time of Berlin ends on 2026-10-25 at 01:00 UTC.
SUMMER_END = 1_792_890_000.0
BERLIN = Route(called="+1", hours="14:00-15:00", weekdays="sat", zone="Europe/Berlin", agent="clerk", variables={"who": "Ann"})
CLERK = Agent(instructions="{{who}} {{missing}}|{{caller}}|{{called}}|{{direction}}|{{now}}", greeting="Hi {{who}}")
AGENTS = {"default": Agent(), "clerk": CLERK}
FACTS = {"caller": "+15550001\n", "called": "+1", "direction": "inbound"}


def routing(*routes: Route) -> Routing:
    return Routing(Config(agents=AGENTS, routes=routes))


def test_a_route_holds_by_the_time_of_its_zone() -> None:
    made = routing(BERLIN)
    assert made.choose("+1", AT) is BERLIN
    assert made.choose("+1", AT + 3600) is None
    assert made.choose("+2", AT) is None


def test_an_hour_that_comes_twice_is_the_same_hour() -> None:
    night = Route(hours="02:00-03:00", zone="Europe/Berlin")
    made = routing(night)
    held = [made.choose("", SUMMER_END + 1800 * n) is night for n in range(-4, 4)]
    assert held == [False, False, True, True, True, True, False, False]


def test_a_streams_route_is_found_by_its_digest(caplog: pytest.LogCaptureFixture) -> None:
    made = routing(BERLIN)
    assert made.of_stream({"route": id_of(BERLIN)}, "CA1") is BERLIN
    assert made.of_stream({}, "CA1") is NO_ROUTE
    assert caplog.records == []
    changed = Route(called="+1", agent="clerk", variables={"who": "Eve"})
    assert id_of(changed) != id_of(BERLIN)
    assert made.of_stream({"route": id_of(changed)}, "CA1") is NO_ROUTE
    assert len(caplog.records) == 1


def test_an_agent_is_filled_and_a_variable_that_is_not_set_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    made = routing(BERLIN)
    for _ in range(2):
        agent = made.agent_of("clerk", CLERK, BERLIN, FACTS, AT)
        assert agent.instructions == "Ann |+15550001|+1|inbound|2026-11-28 14:05 Europe/Berlin"
        assert agent.greeting == "Hi Ann"
    assert [record.getMessage() for record in caplog.records] == [
        "agent clerk names {{missing}}, which neither a route nor the call sets: it is empty"
    ]


def test_without_a_route_a_call_has_its_own_facts_in_utc() -> None:
    agent = routing().agent_of("clerk", CLERK, NO_ROUTE, {}, AT)
    assert agent.instructions == " |||inbound|2026-11-28 13:05 UTC"


def test_an_agent_without_variables_is_the_configured_one() -> None:
    assert routing(BERLIN).agent_of("default", AGENTS["default"], BERLIN, FACTS, AT) is AGENTS["default"]
