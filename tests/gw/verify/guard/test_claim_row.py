"""Rows of the model: each operation is the store's, and runs once."""

from __future__ import annotations

from gw.control.recording.lifecycle import Outcome
from gw.verify.guard import claim_row as ops
from gw.verify.guard.claim_row import ABSENT, RowStore


def test_an_operation_has_the_stores_result(rows: RowStore) -> None:
    claimed = rows.apply(ABSENT, ops.ClaimRow("A/1"))
    assert (claimed.done, claimed.moved) == (True, True)
    row = rows.row(claimed.form)
    assert row is not None
    assert (row.state, row.owner) == ("claimed", "A/1")
    assert not rows.apply(claimed.form, ops.ClaimRow("B/1")).done
    assert rows.apply(claimed.form, ops.ReclaimRow("B/1", "A/1")).done
    assert not rows.apply(claimed.form, ops.ReclaimRow("B/1", "A/2")).done
    assert rows.apply(ABSENT, ops.WriteOutcome(Outcome("started", "RE1"))) == (ABSENT, False, False)


def test_two_ways_to_one_row_are_one_form(rows: RowStore) -> None:
    first = rows.apply(rows.apply(ABSENT, ops.WriteWish()).form, ops.ClaimRow("A/1")).form
    second = rows.apply(rows.apply(ABSENT, ops.ClaimRow("A/1")).form, ops.WriteWish()).form
    assert first == second


def test_an_operation_runs_once(rows: RowStore) -> None:
    rows.apply(ABSENT, ops.ClaimRow("A/9"))
    tried = rows.tried
    rows.apply(ABSENT, ops.ClaimRow("A/9"))
    assert rows.tried == tried
