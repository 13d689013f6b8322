"""gw.control.store.dials on both databases: one claimant for each dial, late reports change nothing."""

from __future__ import annotations

import gevent
import msgspec

from gw.control.store import Store
from tests.gw.control.outbound.rows import LIST, line, listed


def filled(store: Store) -> None:
    store.dials.open_list(listed())
    store.dials.add([line(2), line(3, variables={"name": "Ada"})])
    store.dials.add([line(3, to_number="+1"), line(4, next_at=500.0)])


def test_a_list_and_its_lines_are_added_once(store: Store) -> None:
    filled(store)
    assert store.dials.open_list(listed(name="other", total=9)) == listed()
    assert store.dials.one_list("0" * 12) is None
    assert [row.to_number for row in store.dials.page(LIST, after=0, limit=9)] == ["+15550000002", "+15550000003", "+15550000004"]
    assert [row.n for row in store.dials.page(LIST, after=2, limit=1)] == [3]
    assert store.dials.one(LIST, 3) == line(3, variables={"name": "Ada"})
    assert store.dials.one(LIST, 9) is None
    assert store.dials.progress(LIST).counts == {"waiting": 3}


def test_only_due_lines_are_due(store: Store) -> None:
    filled(store)
    assert [row.n for row in store.dials.due(LIST, 100.0, 9)] == [2, 3]
    assert store.dials.defer(LIST, 2, 0, 900.0)
    assert [row.n for row in store.dials.due(LIST, 500.0, 9)] == [3, 4]
    assert store.dials.progress(LIST).next_at == 0.0
    assert store.dials.progress("0" * 12) == ({}, None)


def test_one_of_many_claims_a_dial(store: Store) -> None:
    filled(store)
    claims = [gevent.spawn(store.dials.claim, LIST, 2, 1, f"job {n}", 100.0) for n in range(8)]
    gevent.joinall(claims, raise_error=True)
    assert [bool(one.value) for one in claims].count(True) == 1
    assert not store.dials.claim(LIST, 2, 2, "job", 100.0), "it is claimed"
    assert store.dials.under_way() == 1
    row = store.dials.one(LIST, 2)
    assert row is not None
    assert (row.state, row.attempts, row.claimed_at) == ("claimed", 1, 100.0)


def test_a_dial_is_placed_answered_and_ended(store: Store) -> None:
    filled(store)
    assert store.dials.claim(LIST, 2, 1, "job", 100.0)
    assert [row.n for row in store.dials.in_state("claimed", 200.0, 9)] == [2]
    assert store.dials.place(LIST, 2, 1, "CA1")
    assert not store.dials.place(LIST, 2, 1, "CA2")
    assert store.dials.has_call("CA1") and not store.dials.has_call("CA2")
    assert store.dials.note_verdict(LIST, 2, 1, "unknown")
    assert store.dials.note_verdict(LIST, 2, 1, "human")
    assert not store.dials.note_verdict(LIST, 2, 1, "fax"), "the first verdict stays"
    row = store.dials.one(LIST, 2)
    assert row is not None
    again = msgspec.structs.replace(row, state="waiting", next_at=700.0, result="busy", detail="x" * 2000, ended_at=300.0)
    assert store.dials.end(again)
    assert not store.dials.end(again), "a repeated report changes nothing"
    assert [one.n for one in store.dials.ended(LIST, since=300.0, limit=9)] == [2]
    assert store.dials.claim(LIST, 2, 2, "job 2", 800.0)
    assert not store.dials.end(msgspec.structs.replace(again, state="done")), "a report of the first dial comes late"
    assert not store.dials.place(LIST, 2, 1, "CA1")
    assert store.dials.progress(LIST).counts == {"waiting": 2, "claimed": 1}


def test_a_request_that_was_not_sent_costs_no_dial(store: Store) -> None:
    filled(store)
    store.dials.claim(LIST, 2, 1, "job", 100.0)
    assert store.dials.release(LIST, 2, 1)
    row = store.dials.one(LIST, 2)
    assert row is not None
    assert (row.state, row.attempts) == ("waiting", 0)


def test_an_unknown_dial_may_be_asked_for_again(store: Store) -> None:
    filled(store)
    store.dials.claim(LIST, 2, 1, "job", 100.0)
    row = store.dials.one(LIST, 2)
    assert row is not None
    assert store.dials.end(msgspec.structs.replace(row, state="unknown", ended_at=130.0))
    assert store.dials.progress(LIST).counts == {"waiting": 2, "unknown": 1}
    assert store.dials.wait_again(LIST, 140.0) == 1
    row = store.dials.one(LIST, 2)
    assert row is not None
    assert (row.state, row.attempts, row.lost) == ("waiting", 1, 1)


def test_an_erased_call_is_not_dialled_again(store: Store) -> None:
    filled(store)
    store.dials.claim(LIST, 3, 1, "job", 100.0)
    store.dials.place(LIST, 3, 1, "CA1")
    store.forget("CA1")
    row = store.dials.one(LIST, 3)
    assert row is not None
    assert (row.to_number, row.variables, row.state) == ("", {}, "done")


def test_old_lists_are_removed(store: Store) -> None:
    filled(store)
    assert store.purge_dials(1000.0, 9) == 0
    assert [store.purge_dials(1001.0, 2) for _ in range(3)] == [2, 1, 0]
    assert store.dials.one_list(LIST) is None
