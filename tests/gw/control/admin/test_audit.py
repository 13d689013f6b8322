"""gw.control.admin.audit: an act is a log line and an event, bounded and without whole numbers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from gw import bus
from gw.control.admin.audit import MAX_CHARS, Audit, summary
from gw.control.admin.server import Act
from gw.control.spool import Spool


def test_an_act_is_one_log_line_and_one_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool, notified = Spool(tmp_path / "spool.db"), []
    audit = Audit(spool, lambda: notified.append(True))
    caplog.set_level(logging.INFO)
    audit.record(Act("transfer", "CA1", {"call_sid": "CA1", "to": "+15551234567"}, 1000, "done"))
    audit.record(Act("undrain", "", {}, 0, "busy"))
    assert [record.getMessage() for record in caplog.records] == [
        "operator: transfer call_sid=CA1 to=+1555***4567: done",
        "operator: undrain: busy",
    ]
    assert [(record.__dict__["uid"], record.__dict__["call_sid"]) for record in caplog.records] == [(1000, "CA1"), (0, None)]
    events = [bus.decode_event(entry.body) for entry in spool.batch(10)]
    assert all(isinstance(event, bus.CallEvent) and event.kind == "operator" for event in events)
    assert [(event.call_sid, event.data) for event in events if isinstance(event, bus.CallEvent)] == [
        ("CA1", {"command": "transfer", "arguments": "call_sid=CA1 to=+1555***4567", "uid": 1000, "outcome": "done"}),
        ("", {"command": "undrain", "arguments": "", "uid": 0, "outcome": "busy"}),
    ]
    assert len(notified) == 2
    spool.close()


def test_a_spool_that_fails_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path / "spool.db")
    spool.close()
    Audit(spool, lambda: pytest.fail("nothing was stored")).record(Act("drain", "", {"on": True}, 0, "done"))
    assert "an operator's act is not stored" in caplog.text


def test_the_record_of_a_request_is_bounded() -> None:
    assert len(summary({"name": "x" * 1000})) == MAX_CHARS
    assert len(summary({"ids": list(range(1000))})) == MAX_CHARS


@pytest.mark.parametrize(
    ("ids", "text"), [([7, 8], "ids=[7, 8]"), (["evt_1", "+15551234567"], "ids=['evt_1', '+1555***4567']"), ([], "ids=[]")]
)
def test_the_record_names_the_events_of_an_act(ids: list[Any], text: str) -> None:
    """An audit has to show the dropped ones."""
    assert summary({"ids": ids}) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"lines": [{"n": 2, "to": "sip:anna@example.com", "variables": {"name": "Anna Smith"}}] * 500}, "lines=[entries: 500]"),
        ({"variables": {"name": "Anna Smith"}, "amd": True}, "variables=[entries: 1] amd=True"),
        ({"summary": "Anna Smith asks for a refund.", "warm": True}, "summary=[characters: 29] warm=True"),
        ({"to": "sip:anna.smith@example.com"}, "to=sip:***@example.com"),
        ({"to": "sips:+15551234567@example.com"}, "to=sips:***@example.com"),
    ],
)
def test_the_record_of_a_request_has_no_personal_data(fields: dict[str, Any], text: str) -> None:
    """`calls forget` does not reach it: the act is of no call, or in the log."""
    assert summary(fields) == text
