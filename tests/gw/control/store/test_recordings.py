"""Recording rows on both databases: one claimant per call, and states that only move forward."""

from __future__ import annotations

import gevent
import pytest
from sqlalchemy import Connection, event

from gw import bus
from gw.control.store import HeldClaim, Store, claimant_of, reads
from tests.conftest import StoreMaker
from tests.gw.control.stamped import ACCOUNT, T0, call_sid, stamp
from tests.timing import scaled

SID = call_sid(1)


def test_a_claim_succeeds_once(store: Store) -> None:
    assert store.claim_recording(SID, ACCOUNT, "h1:a", T0)
    assert not store.claim_recording(SID, ACCOUNT, "h1:a", T0 + 1)
    assert not store.claim_recording(SID, ACCOUNT, "h2:b", T0 + 2)
    row = store.recording(SID)
    assert row is not None
    assert (row.state, row.owner, row.claimed_at, row.attempts) == ("claimed", "h1:a", T0, 0)


def test_a_wish_is_claimed_once(store: Store) -> None:
    wanted = stamp(bus.StartRecording(SID, ACCOUNT, T0))
    store.apply(wanted)
    assert [row.state for _, row in store.unstarted_recordings("wanted")] == ["wanted"]
    assert store.claim_recording(SID, ACCOUNT, "o", T0 + 1)
    assert not store.claim_recording(SID, ACCOUNT, "p", T0 + 2)
    store.apply(wanted)
    assert [(r.state, r.owner, r.first_audio_at) for r in store.recordings()] == [("claimed", "o", T0)]


def test_one_of_many_concurrent_claims_succeeds(store: Store, open_store: StoreMaker) -> None:
    stores = [store, open_store()]
    store.apply(stamp(bus.StartRecording(call_sid(3), ACCOUNT, T0)))
    for k in range(1, 4):
        claims = [gevent.spawn(stores[g % 2].claim_recording, call_sid(k), ACCOUNT, f"o{g}", T0) for g in range(20)]
        gevent.joinall(claims, timeout=scaled(30), raise_error=True)
        winners = [g for g, claim in enumerate(claims) if claim.value is True]
        assert [claim.value for claim in claims].count(False) == 19
        row = store.recording(call_sid(k))
        assert row is not None
        assert [row.owner] == [f"o{g}" for g in winners]


def test_one_claim_succeeds_beside_the_forwarder(store: Store, open_store: StoreMaker) -> None:
    stores = [store, open_store()]
    for k in range(1, 11):
        jobs = [gevent.spawn(stores[0].apply, stamp(bus.StartRecording(call_sid(k), ACCOUNT, T0)))]
        jobs += [gevent.spawn(stores[g % 2].claim_recording, call_sid(k), ACCOUNT, f"o{g}", T0) for g in range(4)]
        gevent.joinall(jobs, timeout=scaled(30), raise_error=True)
        assert [job.value for job in jobs].count(True) == 1


def test_a_recording_moves_forward_only(store: Store) -> None:
    assert not store.update_recording(SID, state="started")
    store.claim_recording(SID, ACCOUNT, "o", T0)
    assert store.update_recording(
        SID, state="started", recording_sid="RE1", started_at=T0 + 1, trigger_ms=120, attempts=2, channels=2
    )
    assert store.update_recording(SID, state="completed", duration_s=42, url="https://api.example/" + "x" * 2000)
    assert store.update_recording(SID, state="started", error_code=21220, error_text="late", reason="late", duration_s=1)
    row = store.recording(SID)
    assert row is not None
    assert (row.state, row.duration_s, row.error_code, row.error_text, row.reason) == ("completed", 42, None, None, None)
    assert (row.recording_sid, row.started_at, row.trigger_ms, row.attempts) == ("RE1", T0 + 1, 120, 2)
    assert len(row.url) == 1000
    assert store.started_recordings("o", own=False) == []
    assert [r.call_sid for r in store.recordings(state="completed")] == [SID]
    assert store.recordings(state="failed") == []
    assert store.update_recording(SID, error_text=None)
    with pytest.raises(ValueError, match="no state"):
        store.update_recording(SID, state="nonsense")


def test_a_failed_row_is_corrected_and_never_fails_again(store: Store) -> None:
    store.claim_recording(SID, ACCOUNT, "o", T0)
    reported = ("failed", "started", "failed", "completed", "failed")
    for state, then in zip(reported, ("failed", "started", "started", "completed", "completed"), strict=True):
        store.update_recording(SID, state=state)
        row = store.recording(SID)
        assert row is not None
        assert row.state == then


def test_a_dead_owners_row_is_taken_over_once(store: Store) -> None:
    store.claim_recording(SID, ACCOUNT, "dead", T0)
    assert not store.reclaim_recording(SID, "b", T0, from_owner="another")
    takers = [gevent.spawn(store.reclaim_recording, SID, f"n{k}", T0 + 1, from_owner="dead") for k in range(10)]
    gevent.joinall(takers, timeout=scaled(20), raise_error=True)
    assert [taker.value for taker in takers].count(True) == 1
    store.update_recording(SID, state="failed")
    row = store.recording(SID)
    assert row is not None
    assert not store.reclaim_recording(SID, "again", T0 + 2, from_owner=row.owner)
    assert store.reclaim_recording(SID, "again", T0 + 2, from_owner=row.owner, states=("failed",))


def test_delivered_claims_fill_wishes_and_respect_other_owners(store: Store) -> None:
    store.apply(stamp(bus.StartRecording(SID, ACCOUNT, T0)))
    assert store.claim_recording(call_sid(2), ACCOUNT, "other/1", T0)
    claims = [HeldClaim(call_sid(n), ACCOUNT, "here/1", T0) for n in (1, 2, 3)]
    assert store.bring_claims(claims) == {call_sid(1): "here/1", call_sid(2): "other/1", call_sid(3): "here/1"}
    assert {row.call_sid: row.state for row in store.recordings()} == dict.fromkeys(map(call_sid, (1, 2, 3)), "claimed")
    assert store.bring_claims([]) == {}


@pytest.mark.parametrize(
    ("owner", "claimant"), [("host:1a/7-b", "host:1a"), ("a/b/c", "a/b"), ("", ""), (None, ""), ("bare", "")]
)
def test_the_claimant_in_an_owner(owner: str | None, claimant: str) -> None:
    assert claimant_of(owner) == claimant


def test_pages_of_unsettled_recordings_join(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "PAGE", 2)
    for k in range(1, 6):
        store.claim_recording(call_sid(k), ACCOUNT, "here/1", T0)
    assert unstarted(store) == [call_sid(k) for k in (5, 4, 3, 2, 1)]
    for k in range(1, 6):
        store.update_recording(call_sid(k), state="started", started_at=T0 + k)
    assert unstarted(store) == []
    assert started(store, "here", own=True, before=T0 + 4) == [call_sid(k) for k in (1, 2, 3)]
    assert started(store, "here", own=True) == [call_sid(k) for k in (1, 2, 3, 4, 5)]
    assert started(store, "other", own=False) == [call_sid(k) for k in (1, 2, 3, 4, 5)]
    assert started(store, "here", own=False) == started(store, "her", own=True) == started(store, "other", own=True) == []


def unstarted(store: Store) -> list[str]:
    found: list[str] = []
    below: int | None = None
    while page := store.unstarted_recordings("claimed", below):
        assert len(page) <= 2
        found += [row.call_sid for _, row in page]
        below = page[-1][0]
    return found


def started(store: Store, claimant: str, *, own: bool, before: float | None = None) -> list[str]:
    found: list[str] = []
    above = 0
    while page := store.started_recordings(claimant, own=own, before=before, above=above):
        assert len(page) <= 2
        found += [row.call_sid for _, row in page]
        above = page[-1][0]
    return found


@pytest.mark.parametrize("own", [True, False])
def test_started_recordings_are_found_by_an_index(store: Store, own: bool) -> None:
    """Calls alive on every host must not be read in each pass."""
    seen: list[tuple[str, object]] = []

    def keep(connection: Connection, cursor: object, sql: str, parameters: object, *_: object) -> None:
        seen.append((sql, parameters))

    event.listen(store._backend._engine, "before_cursor_execute", keep)
    store.started_recordings("here", own=own, before=T0)
    event.remove(store._backend._engine, "before_cursor_execute", keep)
    sql, parameters = next(entry for entry in seen if entry[0].startswith("SELECT recordings.id"))
    explain = "EXPLAIN QUERY PLAN " if "?" in sql else "EXPLAIN "
    plan = store._backend.read(lambda connection: str(connection.exec_driver_sql(explain + sql, parameters).all()))
    assert "ix_recordings_state_owner" in plan or "ix_recordings_state_started_at" in plan
