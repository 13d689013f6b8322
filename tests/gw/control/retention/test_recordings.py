"""gw.control.retention.recordings: each recording is downloaded, then deleted at Twilio, whatever fails between."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import gevent
import pytest

from gw.control.retention import media, recordings
from gw.control.retention.recordings import Recordings
from metrics import declare
from tests.gw.control.retention.rig import ACCOUNT, OTHER, Rig
from tests.gw.control.stamped import call_sid
from tests.timing import scaled


def always() -> bool:
    return True


def count(rig: Rig, outcome: str) -> float:
    return rig.page.counter(declare.RECORDINGS_FETCHED, outcome=outcome).value


def test_a_recording_is_downloaded_then_deleted(rig: Rig) -> None:
    made = rig.recorded(days_old=10)
    rig.recorded(2, days_old=2)
    rig.recordings(twilio_days=7).pass_over(always)
    row = rig.row()
    assert row.file is not None
    assert Path(row.file).read_bytes() == made.audio(2)
    assert (row.fetched_by, row.sha256) == ("vm1", hashlib.sha256(made.audio(2)).hexdigest())
    assert row.state == "completed"
    assert row.deleted_at is not None
    assert rig.row(2).fetched_at is not None
    assert rig.row(2).deleted_at is None, "younger than recording.keep_days"
    assert list(rig.twin.recordings) == [rig.row(2).recording_sid]
    assert (count(rig, "fetched"), rig.page.counter(declare.RECORDINGS_DELETED).value) == (2, 1)


def test_a_recording_without_its_file_is_not_deleted(rig: Rig) -> None:
    rig.recorded(days_old=10)
    rig.twin.fail("cut", operation="media")
    rig.recordings(twilio_days=7).pass_over(always)
    assert rig.asked("DELETE") == 0
    assert count(rig, "failed") == 1


def test_without_a_folder_old_recordings_are_deleted(rig: Rig) -> None:
    rig.recorded(1, days_old=10, at_twilio=False)  # deleted by someone else: done as well
    rig.recorded(2, days_old=10)
    rig.recordings(twilio_days=7, fetches=False).pass_over(always)
    assert rig.twin.recordings == {}
    assert all(rig.row(k).deleted_at is not None for k in (1, 2))
    assert rig.row().fetched_at is None


def test_a_fault_of_twilio_ends_the_pass(rig: Rig) -> None:
    for k in (1, 2, 3):
        rig.recorded(k)
    rig.twin.fail("503", operation="media", times=9)
    parts = rig.recordings()
    parts.pass_over(always)
    assert rig.asked("GET") == 1
    rig.twin.heal()
    parts.pass_over(always)
    assert [rig.row(k).fetched_at is not None for k in (1, 2, 3)] == [False, True, True], "the first one waits for its retry"


def test_a_fault_of_one_recording_does_not(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.recorded(1, channels=1)
    rig.store.update_recording(call_sid(1), channels=2)  # refused: 16113
    rig.recorded(2)
    parts = rig.recordings()
    parts.pass_over(always)
    assert [rig.row(k).fetched_at is not None for k in (1, 2)] == [False, True]
    monkeypatch.setattr(recordings, "MAX_REMEMBERED", 1)
    parts.pass_over(always)
    assert rig.asked("GET") == 2, "it waits for its retry"


def test_recordings_that_wait_hold_back_no_later_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole page of them did, for six hours at a time: downloads and deletions of everything after it stopped."""
    monkeypatch.setattr(recordings, "BATCH", 2)
    for k in (1, 2, 3, 4):
        rig.recorded(k, channels=1)
        rig.store.update_recording(call_sid(k), channels=2)  # refused
    rig.recorded(5, days_old=10)
    parts = rig.recordings(twilio_days=7)
    for _ in range(3):
        parts.pass_over(always)
    assert rig.asked("GET") == 5
    assert [rig.row(k).fetched_at is not None for k in range(1, 6)] == [False] * 4 + [True]
    assert rig.row(5).deleted_at is not None


def test_a_refused_deletion_counts_once(rig: Rig) -> None:
    """It counted twice against the account: two such faults opened the circuit like four."""
    rig.recorded(days_old=10)
    rig.twin.fail("503", operation="delete", times=9)
    parts = rig.recordings(twilio_days=7, fetches=False)
    parts.pass_over(always)
    account = parts._accounts.of("")
    assert account is not None
    assert (rig.asked("DELETE"), account.breaker._failures) == (1, 1)


def test_an_open_circuit_sends_nothing(rig: Rig) -> None:
    rig.recorded()
    parts = rig.recordings()
    account = parts._accounts.of("")
    assert account is not None
    for _ in range(20):
        account.breaker.on_error("unreachable", "down", 1e12)
    parts.pass_over(always)
    assert rig.asked("GET") == 0


def test_each_account_has_its_own_recordings(rig: Rig) -> None:
    rig.has_other = True
    for k, account in ((1, ACCOUNT), (2, OTHER), (3, OTHER)):
        rig.recorded(k, days_old=10, account=account)
    rig.recordings(twilio_days=7).pass_over(always)
    for k in (1, 2, 3):
        assert rig.row(k).fetched_at is not None
        assert rig.row(k).deleted_at is not None
    assert rig.twin.recordings == rig.other.recordings == {}


@pytest.mark.parametrize("why", ["refused", "not configured"])
def test_an_account_that_fails_delays_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    monkeypatch.setattr(recordings, "BATCH", 1)
    rig.has_other = why == "refused"
    rig.other.auth_tokens[0] = "a token that the gateway does not have"
    rig.recorded(1, account=OTHER)
    rig.recorded(2)
    rig.recordings().pass_over(always)
    assert [rig.row(k).fetched_at is not None for k in (1, 2)] == [False, True]


def test_a_pass_ends_when_asked_to(rig: Rig) -> None:
    for k in (1, 2, 3):
        rig.recorded(k)
    turns = iter((True, True, False))
    rig.recordings(twilio_days=7).pass_over(lambda: next(turns))
    assert [rig.row(k).fetched_at is not None for k in (1, 2, 3)] == [True, True, False]


def test_a_recording_that_twilio_lost(rig: Rig) -> None:
    """Its audio may be late for an hour. After that it is noted, so that it does not keep its call for ever."""
    rig.recorded(1, days_old=1, at_twilio=False)
    rig.recorded(2, days_old=0.001, at_twilio=False)
    rig.recordings().pass_over(always)
    assert [rig.row(k).deleted_at is not None for k in (1, 2)] == [True, False]
    assert (count(rig, "gone"), count(rig, "failed")) == (1, 1)


def test_a_part_that_is_removed_delays_no_other_recording(rig: Rig) -> None:
    for k in (1, 2):
        rig.recorded(k)
    rig.twin.delay_s = 0.3
    parts = rig.recordings()
    passing = gevent.spawn(parts.pass_over, always)
    with gevent.Timeout(scaled(10)):
        while not rig.twin.requests:
            gevent.sleep(0.01)
    [part] = rig.files.rglob("*.part")
    part.unlink()
    passing.get()
    assert [rig.row(k).fetched_at is not None for k in (1, 2)] == [False, True]
    parts._tries.clear()
    parts.pass_over(always)
    assert rig.row(1).fetched_at is not None, "it begins anew"


def test_old_parts_that_cannot_be_deleted_are_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    part = rig.files / "2026-01-01" / ".CA1-RE1.wav.part"
    part.mkdir(parents=True)  # cannot be unlinked, also by root
    os.utime(part, (0, 0))
    rig.recordings().discard_parts()
    assert "old parts in" in caplog.text


def test_a_full_disk_pauses_downloads(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.recorded(1)
    rig.recorded(2)
    monkeypatch.setattr(media, "RESERVE_BYTES", 1 << 60)
    parts: Recordings = rig.recordings()
    parts.pass_over(always)
    parts.pass_over(always)
    assert rig.asked("GET") == 1
    assert count(rig, "failed") == 1
    monkeypatch.undo()
    parts._hold_until_s = 0.0
    parts.pass_over(always)
    assert all(rig.row(k).fetched_at is not None for k in (1, 2))
