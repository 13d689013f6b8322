"""Routes of this worker: which one a call takes, and its agent with the variables filled in.

Zones are read once, at the start: the database of zones is on disk. A stream's parameters name the route by a digest of its
content, so that a worker whose configuration has changed since the webhook uses another route's values for no call.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from gw.call.routes import choose, parse_routes
from gw.call.variables import fill_agent, named, plain
from gw.config import Agent, Config, Route

log = logging.getLogger(__name__)

_UTC: Final = "UTC"
#: Characters of a digest: more than enough to distinguish the routes of one configuration.
_ID_CHARS: Final = 12
#: Values of a call that takes no route.
NO_ROUTE: Final = Route()


class Routing:
    """The configured routes."""

    def __init__(self, config: Config) -> None:
        self._rules = parse_routes(config.routes)
        self._zones = {name: ZoneInfo(name) for name in {_UTC, *(route.zone for route in config.routes)}}
        self._by_id = {id_of(route): route for route in config.routes}
        self._named = {name: named(agent) for name, agent in config.agents.items()}
        self._logged: set[tuple[str, str]] = set()

    def choose(self, called: str, at: float) -> Route | None:
        """Return the route of a call to this number; None without one. `at`: epoch seconds."""

        @cache
        def local(zone: str) -> tuple[int, int]:
            there = datetime.fromtimestamp(at, self._zones[zone])
            return there.weekday(), there.hour * 60 + there.minute

        return choose(self._rules, called, local)

    def of_stream(self, parameters: Mapping[str, str], call_sid: str) -> Route:
        """Return the route in a stream's parameters. NO_ROUTE: without one, or if it has changed since."""
        route_id = parameters.get("route", "")
        if route_id and route_id not in self._by_id:
            log.warning("the call's route was changed by a reload: its variables are empty", extra={"call_sid": call_sid})
        return self._by_id.get(route_id, NO_ROUTE)

    def agent_of(
        self, name: str, agent: Agent, route: Route, parameters: Mapping[str, str], at: float, greeting: str | None = None
    ) -> Agent:
        """Return the agent of one call. `parameters`: the stream's. `at`: when the voice webhook was answered, epoch seconds.

        `greeting`: the route's, in place of the agent's own.
        """
        wanted = self._named.get(name) or frozenset()
        if greeting is not None:
            agent = msgspec.structs.replace(agent, greeting=greeting)
            wanted = named(agent)
        if not wanted:
            return agent
        there = datetime.fromtimestamp(at, self._zones[route.zone])
        values = {
            **route.variables,
            "caller": plain(parameters.get("caller", "")),
            "called": plain(parameters.get("called", "")),
            "direction": plain(parameters.get("direction", "inbound")),
            "now": f"{there:%Y-%m-%d %H:%M} {route.zone}",
        }
        for variable in sorted(wanted - values.keys()):
            if (name, variable) not in self._logged:
                self._logged.add((name, variable))
                log.warning("agent %s names {{%s}}, which neither a route nor the call sets: it is empty", name, variable)
        return fill_agent(agent, values)


def id_of(route: Route) -> str:
    """Return the digest of a route's content."""
    return sha256(msgspec.json.encode(route, order="deterministic")).hexdigest()[:_ID_CHARS]
