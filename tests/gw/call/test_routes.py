"""gw.call.routes: the first route that a call meets."""

from __future__ import annotations

import pytest

from gw.call.routes import choose, parse_routes
from gw.config import Route

NIGHT = Route(hours="22:00-06:00", refuse="busy")
WORK = Route(called="+1", weekdays="mon-fri", hours="09:00-17:00", agent="work")
WEEKEND = Route(called="+1", weekdays="sat-mon", agent="weekend")
REST = Route(called="+1", agent="rest")
RULES = parse_routes((NIGHT, WORK, WEEKEND, REST))


@pytest.mark.parametrize(
    ("called", "weekday", "clock", "route"),
    [
        ("+1", 0, "09:00", WORK),
        ("+1", 4, "16:59", WORK),
        ("+1", 4, "17:00", REST),  # the end is exclusive
        ("+1", 0, "08:59", WEEKEND),
        ("+1", 6, "12:00", WEEKEND),
        ("+1", 1, "18:00", REST),
        ("+1", 2, "22:00", NIGHT),
        ("+2", 2, "23:59", NIGHT),
        ("+2", 2, "00:00", NIGHT),
        ("+1", 2, "05:59", NIGHT),
        ("+1", 2, "06:00", REST),
        ("+2", 2, "06:00", None),
        ("", 2, "12:00", None),
    ],
)
def test_the_first_route_that_holds(called: str, weekday: int, clock: str, route: Route | None) -> None:
    hours, minutes = clock.split(":")
    assert choose(RULES, called, lambda zone: (weekday, int(hours) * 60 + int(minutes))) is route


def test_each_route_has_its_own_zone() -> None:
    local = {"UTC": (0, 0), "Asia/Tokyo": (0, 540)}
    rules = parse_routes([Route(hours="09:00-10:00", zone=zone, agent=zone) for zone in local])
    found = choose(rules, "+1", local.__getitem__)
    assert found is not None
    assert found.agent == "Asia/Tokyo"


def test_without_routes_no_route_holds() -> None:
    assert choose((), "+1", lambda zone: (0, 0)) is None
