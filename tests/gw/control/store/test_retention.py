"""gw.control.store.retention on both databases: what a purge removes, what stays, leases."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from sqlalchemy import delete

from gw import bus
from gw.call.cost.usage import Used
from gw.control.rows import RowState
from gw.control.store import Store, retention
from gw.control.store.retention import Policy, may_remove
from tests.conftest import StoreMaker
from tests.gw.control.stamped import T0, call_sid, ended, stamp, started, turn
from tests.timing import scaled

#: Later than every sample call.
LATER = T0 + 10_000
ALL = Policy()


def sids(store: Store) -> list[str]:
    return sorted(call.call_sid for call in store.calls(limit=1000))


def whole(k: int, *, at: float = T0 + 60) -> list[bus.Event]:
    sid = call_sid(k)
    used = [Used(day="2026-11-28", model="gpt-realtime-2.1", audio_in=k, cost_usd=0.5)]
    usage = bus.Usage(sid, "MZ1", T0 + 9, "default", "", used)
    return [started(k), turn(k), bus.CallEvent(sid, "dtmf", T0 + 5, {"digit": "5"}), usage, ended(k, at=at)]


def recorded(store: Store, k: int, state: RowState) -> None:
    store.apply(stamp(bus.StartRecording(call_sid(k), "AC1", T0), instance=f"r{k}"))
    if state != "wanted":
        store.claim_recording(call_sid(k), "AC1", "me/1", T0)
        store.update_recording(call_sid(k), state=state, recording_sid=f"RE{k}", started_at=T0 + k)


def test_a_purge_removes_old_calls_with_all_their_rows(store: Store) -> None:
    store.apply(stamp(*whole(1), *whole(2, at=LATER + 1), started(3)))
    recorded(store, 1, "absent")
    assert store.purge_calls(LATER, 10, ALL, dry_run=True).removed == 1
    assert sids(store) == [call_sid(1), call_sid(2), call_sid(3)]
    page = store.purge_calls(LATER, 10, ALL)
    assert (page.removed, page.after) == (1, None)
    assert sids(store) == [call_sid(2), call_sid(3)], "a live call and a young one stay"
    assert store.recording(call_sid(1)) is None
    assert set(store.forget(call_sid(1)).rows.values()) == {0}, "nothing is left of it"
    left = store.forget(call_sid(2))
    assert left.recording is None
    assert left.rows == {"turns": 1, "call_quality": 1, "call_usage": 1, "recordings": 0, "events": 1, "calls": 1}


@pytest.mark.parametrize("state", ["wanted", "claimed", "started"])
def test_a_call_with_an_unsettled_recording_stays(store: Store, state: RowState) -> None:
    store.apply(stamp(*whole(1)))
    recorded(store, 1, state)
    assert store.purge_calls(LATER, 10, ALL).removed == 0
    assert sids(store) == [call_sid(1)]


def test_pages_continue_behind_calls_that_stay(store: Store) -> None:
    for k in range(1, 8):
        store.apply(stamp(*whole(k), instance=f"i{k}"))
    for k in (1, 2, 5):
        recorded(store, k, "started")
    removed, after, pages = 0, None, 0
    while True:
        page = store.purge_calls(LATER, 2, ALL, after)
        removed, after, pages = removed + page.removed, page.after, pages + 1
        if after is None:
            break
    assert (removed, pages) == (4, 4)
    assert sids(store) == [call_sid(1), call_sid(2), call_sid(5)]


@pytest.mark.parametrize(
    ("state", "fetched", "deleted", "policy", "may"),
    [
        (None, False, False, Policy(True, True), True),
        ("failed", False, False, Policy(True, True), True),
        ("absent", False, False, Policy(True, True), True),
        ("started", True, True, Policy(), False),  # the reconcile pass settles it first
        ("started", False, False, Policy(), False),
        ("completed", False, False, Policy(), True),
        ("completed", False, False, Policy(fetches=True), False),
        ("completed", True, False, Policy(fetches=True), True),
        ("completed", True, False, Policy(fetches=True, deletes=True), False),
        ("completed", False, True, Policy(fetches=True, deletes=True), True),
    ],
)
def test_a_recording_precedes_its_call(state: RowState, fetched: bool, deleted: bool, policy: Policy, may: bool) -> None:
    assert may_remove(state, policy, fetched=fetched, deleted=deleted) is may


def test_old_events_of_no_call_are_removed(store: Store) -> None:
    orphans = [bus.Webhook("status", T0 + k, {"CallSid": call_sid(9)}) for k in range(5)]
    store.apply(stamp(*whole(1), *orphans, bus.Webhook("status", LATER + 1, {"CallSid": call_sid(9)})))
    removed, after = 0, None
    while True:
        page = store.purge_events(LATER, 2, after)
        removed, after = removed + page.removed, page.after
        if after is None:
            break
    assert removed == 5
    found = store.call(call_sid(1))
    assert found is not None
    assert len(found.events) == 1
    assert store.forget(call_sid(9)).rows["events"] == 1


def test_recordings_are_listed_until_they_are_fetched_and_deleted(store: Store) -> None:
    for k in (1, 2, 3):
        recorded(store, k, "completed")
    recorded(store, 4, "started")
    assert [row.call_sid for row in store.recordings_to_fetch("AC1", 2)] == [call_sid(1), call_sid(2)]
    assert store.recordings_to_delete("AC1", LATER, 10, fetched=True) == []
    store.update_recording(call_sid(1), fetched_at=T0, fetched_by="vm1", file="/x.wav", sha256="0" * 64)
    row = store.recording(call_sid(1))
    assert row is not None
    assert (row.fetched_at, row.fetched_by, row.file, row.sha256) == (T0, "vm1", "/x.wav", "0" * 64)
    assert [row.call_sid for row in store.recordings_to_fetch("AC1", 10)] == [call_sid(2), call_sid(3)]
    assert [row.call_sid for row in store.recordings_to_delete("AC1", T0 + 3, 10, fetched=False)] == [call_sid(1), call_sid(2)]
    assert [row.call_sid for row in store.recordings_to_delete("AC1", LATER, 10, fetched=True)] == [call_sid(1)]
    store.update_recording(call_sid(1), deleted_at=T0)
    assert store.recordings_to_delete("AC1", LATER, 10, fetched=True) == []
    assert [row.call_sid for row in store.recordings_to_fetch("AC1", 10, call_sid(2))] == [call_sid(3)]
    assert [row.call_sid for row in store.recordings_to_delete("AC1", LATER, 10, call_sid(2), fetched=False)] == [call_sid(3)]
    assert store.recordings_to_fetch("AC1", 10, call_sid(8)) == [], "a call that was removed"
    assert store.recordings_to_fetch("AC2", 10) == store.recordings_to_delete("AC2", LATER, 10, fetched=False) == []


def test_a_removed_recording_is_returned_with_its_last_update(
    store: Store, open_store: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that completes during `calls forget` is in the returned row, or finds no row. Else no row names its file."""
    other, reading = open_store(), []
    recorded(store, 1, "completed")

    def slow(table: Any) -> Any:
        if not reading:  # after the read, before the removal
            reading.append(True)
            gevent.sleep(scaled(0.2))
        return delete(table)

    monkeypatch.setattr(retention, "delete", slow)
    forgetting = gevent.spawn(store.forget, call_sid(1))
    with gevent.Timeout(scaled(10)):
        while not reading:
            gevent.sleep(0.001)
    noted = other.update_recording(call_sid(1), fetched_at=T0, file="/x.wav")
    row = forgetting.get().recording
    assert (row.call_sid, row.state, row.file) == (call_sid(1), "completed", "/x.wav" if noted else None)


def test_a_lease_has_one_owner(open_store: StoreMaker) -> None:
    store, other = open_store(), open_store()
    store.upgrade()
    takes = [gevent.spawn(one.take_lease, "x", name, T0, T0 + 60) for one, name in ((store, "a"), (other, "b"))]
    gevent.joinall(takes, raise_error=True)
    assert sorted(take.value for take in takes) == [False, True]
    [(owner, idle)] = [("a", "b")] if takes[0].value else [("b", "a")]
    assert store.take_lease("x", owner, T0 + 1, T0 + 61), "its owner renews it"
    assert not store.take_lease("x", idle, T0 + 60, T0 + 120)
    assert store.take_lease("x", idle, T0 + 62, T0 + 120), "an owner that is silent loses it"
    store.release_lease("x", owner)
    assert not store.take_lease("x", owner, T0 + 63, T0 + 123), "only its owner releases it"
    store.release_lease("x", idle)
    assert store.take_lease("x", owner, T0 + 63, T0 + 123)
