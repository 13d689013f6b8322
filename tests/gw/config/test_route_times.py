"""gw.config.route_times: weekdays and hours, with ranges that wrap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.config.route_times import parse_hours, parse_weekdays

NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("", {0, 1, 2, 3, 4, 5, 6}),
        ("mon", {0}),
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("fri-mon", {4, 5, 6, 0}),
        ("sat, sun", {5, 6}),
        ("mon,wed-thu,sun-mon", {0, 2, 3, 6}),
        ("tue-tue", {1}),
    ],
)
def test_weekdays(text: str, days: set[int]) -> None:
    assert parse_weekdays(text) == days


@pytest.mark.parametrize("text", ["monday", "Mon", "mon-", "-fri", "mon--fri", "mon,", "mon fri", "mon-fri-sun", "1-5"])
def test_other_weekdays_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="for example mon-fri"):
        parse_weekdays(text)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("", ((0, 1440),)),
        ("09:00-17:00", ((540, 1020),)),
        ("22:00-06:00", ((1320, 360),)),
        ("00:00-24:00", ((0, 1440),)),
        ("09:00-12:30, 13:00-17:00", ((540, 750), (780, 1020))),
    ],
)
def test_hours(text: str, spans: tuple[tuple[int, int], ...]) -> None:
    assert parse_hours(text) == spans


@pytest.mark.parametrize(
    "text", ["9-17", "9:00-17:00", "09:00", "09:60-10:00", "24:00-06:00", "09:00-24:01", "08:00-08:00", "x", ","]
)
def test_other_hours_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="for example 09:00-17:00"):
        parse_hours(text)


@given(st.text(max_size=30) | st.lists(st.sampled_from([*NAMES, "-", ",", " ", "09:00", "25:00"]), max_size=8).map("".join))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (parse_weekdays, parse_hours):
        try:
            assert parse(text)
        except ValueError as error:
            assert "for example" in str(error)
