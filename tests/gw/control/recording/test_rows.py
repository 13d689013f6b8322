"""A row follows what is known best, and the counters follow the row."""

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
from gw.control.store import Store, StoreError, StoreUnavailable
from metrics import declare
from metrics.page import Page

CALL = "CA" + "1" * 32


class House:
    def __init__(self, folder: Path) -> None:
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        self.store.upgrade()
        self.page = Page.create(folder / "control.page")
        self.rows = RecordingRows(self.store, self.page)
        assert self.store.claim_recording(CALL, "AC1", "host/1-a", time.time())

    def row(self) -> dict[str, Any]:
        row = self.store.recording(CALL)
        assert row is not None
        return row

    def counted(self) -> dict[str, int]:
        cells = {name: self.page.counter(declare.RECORDINGS, outcome=name) for name in declare.RECORDINGS.labels["outcome"]}
        return {name: int(cell.value) for name, cell in cells.items() if cell.value}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.store.close()
    house.page.close()


def test_each_state_is_counted_once_however_often_it_is_told(house: House) -> None:
    for outcome in (
        Outcome("started", "RE1"),
        Outcome("started", "RE1"),
        Outcome("completed", "RE1", 5),
        Outcome("completed", "RE1", 5),
    ):
        assert house.rows.write(CALL, outcome)
    assert house.counted() == {"started": 1, "completed": 1}
    assert (house.row().state, house.row().duration_s) == ("completed", 5)


def test_a_late_start_does_not_undo_the_end_but_fills_the_gaps(house: House) -> None:
    house.rows.write(CALL, Outcome("completed", "RE1", 5))
    house.rows.write(CALL, Outcome("started", "RE1"), trigger_ms=120, attempts=1)
    row = house.row()
    assert (row.state, row.trigger_ms, row.duration_s) == ("completed", 120, 5)
    assert house.counted() == {"started": 1, "completed": 1}


def test_the_first_start_time_stands(house: House) -> None:
    house.rows.write(CALL, Outcome("started", "RE1"))
    first = house.row().started_at
    house.rows.write(CALL, Outcome("completed", "RE1"))
    assert house.row().started_at == first


def test_a_recording_thought_failed_may_turn_out_to_exist(house: House) -> None:
    house.rows.write(CALL, Outcome("failed", error_code="timeout", error_text="no answer"))
    house.rows.write(CALL, Outcome("completed", "RE1", 5))
    assert house.row().state == "completed"
    assert house.counted() == {"failed": 1, "started": 1, "completed": 1}


def test_another_recording_of_the_call_changes_nothing(house: House) -> None:
    house.rows.write(CALL, Outcome("started", "RE1"))
    assert not house.rows.write(CALL, Outcome("completed", "RE2", 9))
    assert (house.row().state, house.row().recording_sid) == ("started", "RE1")


def test_an_effort_that_learnt_of_no_recording_fails_none(house: House) -> None:
    house.rows.write(CALL, Outcome("started", "RE1"))
    assert not house.rows.write(CALL, Outcome("failed", error_code="timeout", error_text="no answer"))
    assert house.row().state == "started"
    assert house.rows.write(CALL, Outcome("absent", "RE1", error_code="gone"))
    assert (house.row().state, house.row().reason) == ("absent", "gone")


def test_twilios_number_and_our_word_have_their_places(house: House) -> None:
    house.rows.write(CALL, Outcome("failed", error_code="21220", error_text="not eligible"))
    assert (house.row().error_code, house.row().error_text) == (21220, "not eligible")
    house.rows.write(CALL, Outcome("absent", "RE1", error_code="absent"))
    assert house.row().reason == "absent"


def test_skipped_is_not_failed(house: House) -> None:
    house.rows.write(CALL, Outcome("failed", error_code="no_credentials", error_text="none"))
    assert house.counted() == {"skipped": 1}


def test_no_row_is_no_recording(house: House) -> None:
    assert not house.rows.write("CA" + "9" * 32, Outcome("completed", "RE1"))
    assert house.counted() == {}


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreError("refused")])
def test_what_cannot_be_written_is_said(
    house: House, error: StoreError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise error

    monkeypatch.setattr(rows, "WRITE_S", 0.0)
    monkeypatch.setattr(house.store, "update_recording", fail)
    assert not house.rows.write(CALL, Outcome("started", "RE1"))
    assert house.counted() == {}
    assert [entry.levelname for entry in caplog.records] == ["ERROR"]
