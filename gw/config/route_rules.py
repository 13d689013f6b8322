"""Checks of [[routes]] and [route]: numbers, times, agents, variables. Reads the machine's time zones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from zoneinfo import ZoneInfo

from gw.config import (
    CALL_VARIABLES,
    CONTROL_CHARACTER,
    DIALLED,
    MAX_VARIABLE_CHARS,
    MAX_VARIABLES,
    REFUSE,
    VARIABLE_NAME,
    Config,
)
from gw.config.route_times import parse_hours, parse_weekdays

#: The keys involved, and the sentence.
Broken = tuple[set[str], str]

#: A worker looks at each of them, for every call, in one slice of its event loop: 0.1 ms.
MAX_ROUTES: Final = 500


#: The end of a sentence about an unknown zone.
EXPECTED_ZONE: Final = "expected a time zone of this machine, for example Europe/Berlin (Debian: the package tzdata)"


def is_zone(name: str) -> bool:
    """Return whether this machine has a time zone of this name."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return False
    return True


def variable_problem(name: str, value: str) -> str:
    """Return the fault of a variable, to follow its name in a sentence; else empty."""
    if not re.fullmatch(VARIABLE_NAME, name):
        return "is not a variable's name; expected at most 32 lower-case letters and _"
    if name in CALL_VARIABLES:
        return "is set by the gateway; use another name"
    if len(value) > MAX_VARIABLE_CHARS:
        return f"has {len(value)} characters; at most {MAX_VARIABLE_CHARS} are allowed"
    return "contains a control character, for example a line break; remove it" if CONTROL_CHARACTER.search(value) else ""


def broken_route_rules(config: Config) -> Iterator[Broken]:
    """Yield every broken rule of the routes."""
    if len(config.routes) > MAX_ROUTES:
        yield {"routes"}, f"routes has {len(config.routes)} routes; at most {MAX_ROUTES} are allowed"
    for n, route in enumerate(config.routes, 1):
        path = f"routes[{n}]"
        if route.called and not DIALLED.fullmatch(route.called):
            shown = route.called[:60]
            yield {f"{path}.called"}, f'{path}.called = "{shown}": expected a number such as +15551234567, or sip:user@host'
        for name, parse in (("weekdays", parse_weekdays), ("hours", parse_hours)):
            try:
                parse(getattr(route, name))
            except ValueError as error:
                yield {f"{path}.{name}"}, f"{path}.{name}: {error}"
        if not is_zone(route.zone):
            yield {f"{path}.zone"}, f'{path}.zone = "{route.zone[:60]}": {EXPECTED_ZONE}'
        ways = [name for name in ("agent", "refuse", "dial") if getattr(route, name)]
        if len(ways) > 1:
            yield {f"{path}.{name}" for name in ways}, f"{path} has {' and '.join(ways)}: expected one of agent, refuse and dial"
        if route.agent and route.agent not in config.agents:
            known = ", ".join(sorted(config.agents))
            yield {f"{path}.agent"}, f'{path}.agent = "{route.agent[:60]}" is not configured; use one of: {known}'
        if route.dial and not DIALLED.fullmatch(route.dial):
            shown = route.dial[:60]
            yield {f"{path}.dial"}, f'{path}.dial = "{shown}": expected a number such as +15551234567, or sip:user@host'
        yield from _variables(f"{path}.variables", route.variables)
    lookup = config.route
    if lookup.url and lookup.on_failure != REFUSE and lookup.on_failure not in config.agents:
        known, shown = ", ".join(sorted(config.agents)), lookup.on_failure
        yield {"route.on_failure"}, f'route.on_failure = "{shown}" is not configured; use "{REFUSE}", or one of: {known}'
    if REFUSE in config.agents and lookup.url:
        yield {"agents", f"agents.{REFUSE}"}, f"agents.{REFUSE} has the name of an answer of route.on_failure; use another name"


def _variables(path: str, variables: Mapping[str, str]) -> Iterator[Broken]:
    if len(variables) > MAX_VARIABLES:
        yield {path}, f"{path} has {len(variables)} variables; at most {MAX_VARIABLES} are allowed"
    for name, value in variables.items():
        if problem := variable_problem(name, value):
            shown = name if re.fullmatch(VARIABLE_NAME, name) else repr(name[:40])
            yield {path}, f"{path}.{shown} {problem}"
