"""gw.config.route_rules: what is wrong with a route is named by its key."""

from __future__ import annotations

import pytest

from gw.config import Agent, Config, Route, RouteLookup, Secrets
from gw.config.route_rules import broken_route_rules
from gw.config.rules import broken_rules

AGENTS = {"default": Agent(), "support": Agent()}
GOOD = Route(
    called="+15551112222",
    weekdays="mon-fri",
    hours="22:00-06:00",
    zone="Europe/Berlin",
    agent="support",
    variables={"company_name": "Acme, Inc. {{x}}", "a" * 32: "x" * 500},
    record=False,
)


def found(route: Route) -> list[tuple[set[str], str]]:
    return list(broken_route_rules(Config(agents=AGENTS, routes=(GOOD, route))))


@pytest.mark.parametrize(
    "route",
    [
        Route(),
        GOOD,
        Route(called="sip:desk@example.com", refuse="busy"),
        Route(dial="+15551234567"),
        Route(refuse="We are closed."),
    ],
)
def test_valid_routes(route: Route) -> None:
    assert found(route) == []


@pytest.mark.parametrize(
    ("route", "key", "sentence"),
    [
        (Route(called="5551112222"), "called", "expected a number such as +15551234567"),
        (Route(weekdays="mo-fr"), "weekdays", '"mo-fr" is neither a weekday'),
        (Route(hours="9-17"), "hours", '"9-17" is not a range of hours'),
        (Route(zone="Berlin"), "zone", "expected a time zone"),
        (Route(zone="../etc/passwd"), "zone", "expected a time zone"),
        (Route(zone="Europe"), "zone", "expected a time zone"),
        (Route(agent="salse"), "agent", "use one of: default, support"),
        (Route(dial="desk"), "dial", "expected a number such as +15551234567"),
        (Route(agent="support", refuse="busy"), "refuse", "expected one of agent, refuse and dial"),
        (Route(variables={"Name": "x"}), "variables", "not a variable's name"),
        (Route(variables={"a" * 33: "x"}), "variables", "not a variable's name"),
        (Route(variables={"caller": "x"}), "variables", "is set by the gateway"),
        (Route(variables={"name": "x" * 501}), "variables", "has 501 characters; at most 500"),
        (Route(variables={"name": "a\nb"}), "variables", "contains a control character"),
        (Route(variables={"name": "a\x00"}), "variables", "contains a control character"),
        (Route(variables={"v" + "_" * n: "" for n in range(33)}), "variables", "has 33 variables; at most 32"),
    ],
)
def test_a_broken_rule_names_its_key(route: Route, key: str, sentence: str) -> None:
    keys, text = found(route)[0]
    assert f"routes[2].{key}" in keys
    assert text.startswith("routes[2]")
    assert sentence in text


def test_routes_are_bounded() -> None:
    assert list(broken_route_rules(Config(routes=(Route(),) * 500))) == []
    (broken,) = broken_route_rules(Config(routes=(Route(),) * 501))
    assert broken == ({"routes"}, "routes has 501 routes; at most 500 are allowed")


def test_the_rules_of_routes_are_among_all() -> None:
    broken = list(broken_rules(Config(routes=(Route(zone="x"),)), needed=frozenset()))
    assert [keys for keys, _ in broken] == [{"routes[1].zone"}]


@pytest.mark.parametrize(
    ("lookup", "agents", "key", "sentence"),
    [
        (
            RouteLookup(url="https://x.example/", on_failure="salse"),
            AGENTS,
            "route.on_failure",
            'use "refuse", or one of: default',
        ),
        (RouteLookup(url="https://x.example/"), {**AGENTS, "refuse": Agent()}, "agents.refuse", "use another name"),
        (RouteLookup(url="ftp://x.example/"), AGENTS, "route.url", 'route.url = "ftp://x.example/": expected https://host/path'),
        (RouteLookup(url="https://me:pass@x.example/"), AGENTS, "route.url", "no user and no password"),
        (RouteLookup(url="http://x.example/"), AGENTS, "route.url", "expected https://, or http:// to an address in"),
        (RouteLookup(url="https://x.example/"), AGENTS, "route.url", "set SUBMILLI_HOOK_SECRET in the environment"),
    ],
)
def test_a_broken_rule_of_the_lookup_names_its_key(
    lookup: RouteLookup, agents: dict[str, Agent], key: str, sentence: str
) -> None:
    needed = frozenset({"hook_secret"}) if "SECRET" in sentence else frozenset[str]()
    [(keys, text)] = list(broken_rules(Config(agents=agents, route=lookup), needed=needed))
    assert key in keys
    assert sentence in text


def test_a_valid_lookup() -> None:
    for on_failure in ("default", "refuse"):
        config = Config(route=RouteLookup(url="https://x.example/y", on_failure=on_failure), secrets=Secrets(hook_secret="s"))
        assert list(broken_rules(config, needed=frozenset({"hook_secret"}))) == []
