"""gw.control.rows: the fields of each row are the columns of its table."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from sqlalchemy import Table

from gw.control.rows import CallDetails, CallRow, EventRow, GatewayRow, ListedCall, QualityRow, RecordingRow, TurnRow, UsageRow
from gw.control.store import tables
from tests.program import ROOT

CALL = {"call_sid": "CA1", "started_at": 10.0, "answered_at": 12.0, "ended_at": 15.5}


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (GatewayRow, tables.gateways),
        (CallRow, tables.calls),
        (TurnRow, tables.turns),
        (RecordingRow, tables.recordings),
        (QualityRow, tables.call_quality),
        (UsageRow, tables.call_usage),
        (EventRow, tables.events),
    ],
)
def test_a_row_has_the_columns_of_its_table(kind: type[msgspec.Struct], table: Table) -> None:
    left_out = {"id", "call_sid"} if kind is QualityRow else {"id"}
    assert sorted(kind.__struct_fields__) == sorted(column.name for column in table.c if column.name not in left_out)


@pytest.mark.parametrize(("kind", "more"), [(ListedCall, 4), (CallDetails, 7)])
def test_a_call_begins_with_its_row(kind: type[msgspec.Struct], more: int) -> None:
    assert kind.__struct_fields__[:-more] == CallRow.__struct_fields__


def test_a_row_survives_json() -> None:
    recording = {"call_sid": "CA1", "state": "started", "attempts": 1}
    call = msgspec.convert({**CALL, "recording": recording}, type=CallDetails)
    assert msgspec.json.decode(msgspec.json.encode(call), type=CallDetails) == call
    assert msgspec.to_builtins(call)["recording"]["owner"] is None


@pytest.mark.parametrize(
    ("change", "began_at", "length_s"),
    [
        ({}, 12.0, 3.5),
        ({"answered_at": None}, 10.0, 5.5),
        ({"ended_at": None}, 12.0, None),
        ({"answered_at": None, "started_at": None}, None, None),
    ],
)
def test_a_call_begins_when_it_is_answered(change: dict[str, None], began_at: float | None, length_s: float | None) -> None:
    call = msgspec.convert({**CALL, **change}, type=CallRow)
    assert (call.began_at, call.length_s) == (began_at, length_s)


def test_rows_are_decoded_without_a_database_library() -> None:
    code = "import sys, gw.control.rows; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
