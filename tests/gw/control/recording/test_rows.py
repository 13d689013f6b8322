"""A row moves forward only, and the counters follow the row."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gw.config
from gw.control.recording import rows
from gw.control.recording.lifecycle import Outcome
from gw.control.recording.rows import RecordingRows
from gw.control.spool import SpoolError
from gw.control.store import Store, StoreError, StoreUnavailable
from gw.errors import GatewayError
from metrics import declare
from metrics.page import Page
from tests import schema

CALL = "CA" + "1" * 32


class Rig:
    def __init__(self, folder: Path) -> None:
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        schema.upgrade(self.store)
        self.page = Page.create(folder / "control.page")
        self.completed: list[tuple[str, str, int | None]] = []
        self.failures: list[GatewayError] = []  # of the next notes
        self.rows = RecordingRows(self.store, self.page, self.note)
        assert self.store.claim_recording(CALL, "AC1", "host/1-a", time.time())

    def note(self, call_sid: str, recording_sid: str, duration_s: int | None) -> None:
        assert self.row().state != "completed", "before it is written"
        if self.failures:
            raise self.failures.pop()
        self.completed.append((call_sid, recording_sid, duration_s))

    def row(self) -> dict[str, Any]:
        row = self.store.recording(CALL)
        assert row is not None
        return row

    def counted(self) -> dict[str, int]:
        cells = {name: self.page.counter(declare.RECORDINGS, outcome=name) for name in declare.RECORDINGS.labels["outcome"]}
        return {name: int(cell.value) for name, cell in cells.items() if cell.value}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.store.close()
    rig.page.close()


def test_each_state_is_counted_once_for_any_number_of_reports(rig: Rig) -> None:
    for outcome in (
        Outcome("started", "RE1"),
        Outcome("started", "RE1"),
        Outcome("completed", "RE1", 5),
        Outcome("completed", "RE1", 5),
    ):
        assert rig.rows.write(CALL, outcome)
    assert rig.counted() == {"started": 1, "completed": 1}
    assert (rig.row().state, rig.row().duration_s) == ("completed", 5)


@pytest.mark.parametrize("late", [Outcome("absent", "RE1", 0, "16101", "late"), Outcome("absent", "RE1", error_code="absent")])
def test_a_state_that_comes_too_late_leaves_no_trace(rig: Rig, late: Outcome) -> None:
    rig.rows.write(CALL, Outcome("completed", "RE1", 5))
    before = rig.row()
    rig.rows.write(CALL, late)
    assert rig.row() == before
    assert rig.counted() == {"started": 1, "completed": 1}


def test_a_better_end_clears_the_error_before_it(rig: Rig) -> None:
    for worse in (Outcome("failed", error_code="21220", error_text="no"), Outcome("absent", "RE1", error_code="absent")):
        rig.rows.write(CALL, worse)
    rig.rows.write(CALL, Outcome("completed", "RE1", 5))
    row = rig.row()
    assert (row.state, row.error_code, row.reason, row.error_text) == ("completed", None, None, None)


def test_the_note_of_a_second_recording_stays(rig: Rig) -> None:
    rig.rows.write(CALL, Outcome("started", "RE1"))
    rig.rows.write(CALL, Outcome("started", "RE2"))
    for end in (Outcome("absent", "RE1", error_code="16105", error_text="failed"), Outcome("completed", "RE1", 5)):
        rig.rows.write(CALL, end)
        assert (rig.row().state, rig.row().reason, rig.row().error_text) == (end.state, "recorded_twice", "also recorded as RE2")


def test_a_late_start_does_not_undo_the_end_but_fills_the_gaps(rig: Rig) -> None:
    rig.rows.write(CALL, Outcome("completed", "RE1", 5))
    rig.rows.write(CALL, Outcome("started", "RE1"), trigger_ms=120, attempts=1)
    row = rig.row()
    assert (row.state, row.trigger_ms, row.duration_s) == ("completed", 120, 5)
    assert rig.counted() == {"started": 1, "completed": 1}


@pytest.mark.parametrize(
    "before", [None, Outcome("started", "RE1"), Outcome("failed", error_code="timeout"), Outcome("absent", "RE1")]
)
def test_a_completion_is_reported_once_before_it_is_written(rig: Rig, before: Outcome | None) -> None:
    if before is not None:
        rig.rows.write(CALL, before)
    assert rig.completed == []
    for duration_s in (5, 6):
        rig.rows.write(CALL, Outcome("completed", "RE1", duration_s))
    assert (rig.completed, rig.row().state) == ([(CALL, "RE1", 5)], "completed")


def test_a_completion_without_details_names_the_recording_of_the_row(rig: Rig) -> None:
    rig.rows.write("CA" + "9" * 32, Outcome("completed", "RE9", 5))
    rig.rows.write(CALL, Outcome("started", "RE1"))
    rig.rows.write(CALL, Outcome("completed", "RE2", 5))
    assert rig.completed == [], "no row, and another recording"
    rig.rows.write(CALL, Outcome("completed", "RE1"))
    assert rig.completed == [(CALL, "RE1", None)]


def test_a_completion_that_cannot_be_reported_is_not_written(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.rows.write(CALL, Outcome("started", "RE1"))
    rig.failures = [SpoolError("the disk is full"), SpoolError("the disk is full")]
    assert not rig.rows.write(CALL, Outcome("completed", "RE1", 5))
    assert "waits for the reconcile pass: the disk is full" in caplog.text
    with pytest.raises(SpoolError):
        rig.rows.write_once(CALL, Outcome("completed", "RE1", 5))
    assert rig.row().state == "started"
    assert rig.rows.write(CALL, Outcome("completed", "RE1", 5))
    assert (rig.completed, rig.row().state) == ([(CALL, "RE1", 5)], "completed")


def test_the_first_start_time_is_kept(rig: Rig) -> None:
    rig.rows.write(CALL, Outcome("started", "RE1"))
    first = rig.row().started_at
    rig.rows.write(CALL, Outcome("completed", "RE1"))
    assert rig.row().started_at == first


def test_a_failed_recording_may_turn_out_to_exist(rig: Rig) -> None:
    rig.rows.write(CALL, Outcome("failed", error_code="timeout", error_text="no answer"))
    rig.rows.write(CALL, Outcome("completed", "RE1", 5))
    assert rig.row().state == "completed"
    assert rig.counted() == {"failed": 1, "started": 1, "completed": 1}


def test_another_recording_of_the_call_changes_nothing(rig: Rig) -> None:
    rig.rows.write(CALL, Outcome("started", "RE1"))
    assert not rig.rows.write(CALL, Outcome("completed", "RE2", 9))
    assert (rig.row().state, rig.row().recording_sid) == ("started", "RE1")


def test_a_failure_without_a_recording_does_not_change_one(rig: Rig) -> None:
    rig.rows.write(CALL, Outcome("started", "RE1"))
    assert not rig.rows.write(CALL, Outcome("failed", error_code="timeout", error_text="no answer"))
    assert rig.row().state == "started"
    assert rig.rows.write(CALL, Outcome("absent", "RE1", error_code="gone"))
    assert (rig.row().state, rig.row().reason) == ("absent", "gone")


def test_a_report_that_comes_late_changes_nothing(rig: Rig) -> None:
    rig.rows.write(CALL, Outcome("completed", "RE1", 9))
    before = rig.row()
    rig.rows.write(CALL, Outcome("absent", "RE1", error_code="16101"))
    assert rig.row() == before


def test_twilios_number_and_our_code_have_separate_columns(rig: Rig) -> None:
    rig.rows.write(CALL, Outcome("failed", error_code="21220", error_text="not eligible"))
    assert (rig.row().error_code, rig.row().error_text) == (21220, "not eligible")
    rig.rows.write(CALL, Outcome("absent", "RE1", error_code="absent"))
    assert rig.row().reason == "absent"


@pytest.mark.parametrize(("reason", "counted"), [("no_credentials", "skipped"), ("call_over", "call_over")])
def test_a_row_without_a_failure_is_not_counted_as_one(rig: Rig, reason: str, counted: str) -> None:
    rig.rows.write(CALL, Outcome("failed", error_code=reason, error_text="none"))
    assert rig.counted() == {counted: 1}


def test_without_a_row_nothing_is_written(rig: Rig) -> None:
    assert not rig.rows.write("CA" + "9" * 32, Outcome("completed", "RE1"))
    assert rig.counted() == {}


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreError("refused")])
def test_an_outcome_that_cannot_be_written_is_logged(
    rig: Rig, error: StoreError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise error

    monkeypatch.setattr(rows, "WRITE_S", 0.0)
    monkeypatch.setattr(rig.store, "update_recording", fail)
    assert not rig.rows.write(CALL, Outcome("started", "RE1"))
    assert rig.counted() == {}
    assert [entry.levelname for entry in caplog.records] == ["ERROR"]
