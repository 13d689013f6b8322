"""Routes: the first rule that a call meets decides who answers it.

A rule's conditions are the number that was called, the weekday and the time of day, both in the rule's zone. They are separate:
`fri` with `22:00-06:00` is Friday before 06:00 and from 22:00 on. Zones are the edge's: it passes the local time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from gw.config import Route
from gw.config.route_times import parse_hours, parse_weekdays


class Rule(NamedTuple):
    """A route with its conditions parsed. `spans`: minutes of the day, the end exclusive; a span whose end is not later wraps."""

    route: Route
    weekdays: frozenset[int]  # 0: Monday
    spans: tuple[tuple[int, int], ...]


def parse_routes(routes: Iterable[Route]) -> tuple[Rule, ...]:
    """Parse routes that were checked. Raises ValueError."""
    return tuple(Rule(route, parse_weekdays(route.weekdays), parse_hours(route.hours)) for route in routes)


def choose(rules: Sequence[Rule], called: str, local: Callable[[str], tuple[int, int]]) -> Route | None:
    """Return the first route whose conditions a call meets; None without one.

    `local`: returns weekday and minute of the day in a zone, by its name.
    """
    for rule in rules:
        if rule.route.called not in ("", called):
            continue
        weekday, minute = local(rule.route.zone)
        if weekday in rule.weekdays and any(_is_within(minute, *span) for span in rule.spans):
            return rule.route
    return None


def _is_within(minute: int, start: int, end: int) -> bool:
    return start <= minute < end if start < end else minute >= start or minute < end
