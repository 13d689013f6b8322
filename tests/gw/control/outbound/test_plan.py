"""gw.control.outbound.plan: results, retries, hours of the callee."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from gw.config import Outbound
from gw.config.route_times import parse_hours
from gw.control.outbound.plan import DialName, after_end, opens_at, parse_name, result_of
from gw.control.rows import DialRow
from tests.gw.control.outbound.rows import line

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("status", "answered_by", "result"),
    [
        ("completed", "", "answered"),
        ("completed", "human", "answered"),
        ("completed", "unknown", "answered"),
        ("completed", "machine_end_beep", "machine"),
        ("completed", "fax", "fax"),
        ("busy", "", "busy"),
        ("no-answer", "human", "no-answer"),
        ("failed", "", "failed"),
        ("canceled", "", "canceled"),
    ],
)
def test_results(status: str, answered_by: str, result: str) -> None:
    assert result_of(status, answered_by) == result


def after(row: DialRow, result: str, **rules: object) -> tuple[str, float]:
    given = Outbound(**{"retries": 2, "retry_after_s": 60.0, **rules})  # type: ignore[arg-type]
    made = after_end(row, result, "", "CA1", given, 1000.0)  # type: ignore[arg-type]
    assert (made.result, made.call_sid, made.ended_at) == (result, "CA1", 1000.0)
    return made.state, made.next_at


def test_only_some_results_are_dialled_again_and_only_so_often() -> None:
    assert after(line(attempts=1), "answered") == ("done", 1000.0)
    assert after(line(attempts=1), "busy") == ("waiting", 1060.0)
    assert after(line(attempts=2), "busy") == ("waiting", 1060.0)
    assert after(line(attempts=3), "busy") == ("done", 1000.0)
    assert after(line(attempts=3, lost=1), "busy") == ("waiting", 1060.0), "a request that Twilio did not get is no dial"
    assert after(line(attempts=1), "machine") == ("done", 1000.0)
    assert after(line(attempts=1), "machine", retry_on=("machine",)) == ("waiting", 1060.0)


@pytest.mark.parametrize(
    ("hours", "there", "opens"),
    [
        ("09:00-17:00", "2026-11-28T09:00", "2026-11-28T09:00"),
        ("09:00-17:00", "2026-11-28T08:59", "2026-11-28T09:00"),
        ("09:00-17:00", "2026-11-28T17:00", "2026-11-29T09:00"),
        ("09:00-12:00, 14:00-17:00", "2026-11-28T12:30", "2026-11-28T14:00"),
        ("22:00-02:00", "2026-11-28T01:59", "2026-11-28T01:59"),
        ("22:00-02:00", "2026-11-28T02:00", "2026-11-28T22:00"),
        ("", "2026-11-28T03:00", "2026-11-28T03:00"),
        ("02:30-03:00", "2026-03-29T01:00", "2026-03-29T02:30"),  # that hour does not exist there
    ],
)
def test_hours_are_the_callees(hours: str, there: str, opens: str) -> None:
    now, expected = (datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp() for text in (there, opens))
    assert opens_at(parse_hours(hours), BERLIN, now) == expected


def test_a_dials_name_is_read_back() -> None:
    name = DialName("0123456789ab", 7, 2)
    assert parse_name(str(name)) == name
    for text in ("", "call-0123456789ab", "0123456789ab-7", "0123456789ab-7-2x", "0123456789AB-7-2"):
        assert parse_name(text) is None
