"""gw.control.jobs.table on SQLite: a row changes once per decision, and the indexes carry every regular query."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.control.jobs import lifecycle, table
from gw.control.jobs.lifecycle import Again, Ended, Job
from gw.control.jobs.table import Change, Kept, Wanted
from tests.examples import examples

NOW = 1000.0
#: Removes nothing.
LONG = Kept(1e9, 1000)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
    opened.executescript(table.SCHEMA)
    yield opened
    opened.close()


def job(n: int, kind: str = "tool", *, at: float = NOW, deadline_at: float = NOW + 60) -> Job:
    return lifecycle.want(f"j{n}", kind, f"CA{n}", "{}", deadline_at=deadline_at, now=at)


def insert(db: sqlite3.Connection, *jobs: Job, capacity: int = 100) -> list[Job]:
    return table.insert(db, [Wanted(one, capacity) for one in jobs], NOW)


def states(db: sqlite3.Connection) -> dict[str, str]:
    return dict(db.execute("SELECT id, state FROM jobs ORDER BY id"))


def claim(db: sqlite3.Connection, runners: int = 64, now: float = NOW) -> list[Job]:
    return table.turn(db, [], {"tool": runners}, now).claimed


def prune(db: sqlite3.Connection, now: float = NOW, *, passing: Kept = LONG, left: Kept = LONG, dead: Kept = LONG) -> int:
    return table.prune(db, now, passing=passing, left=left, dead=dead).lost


def dead_ids(db: sqlite3.Connection) -> list[str]:
    return [one.id for one in table.dead_after(db, None)]


def settled(n: int, kind: str, *, at: float = NOW, state: lifecycle.State = "done") -> Job:
    return msgspec.structs.replace(job(n, kind), state=state, next_at=at, body="", outcome="ok")


def done(before: Job) -> Change:
    return Change(before, lifecycle.on_outcome(before, Ended("done", "ok", "text"), NOW + 1))


def test_a_known_id_keeps_its_row(db: sqlite3.Connection) -> None:
    insert(db, job(1))
    [claimed] = claim(db)
    assert insert(db, job(1, at=NOW + 5)) == [claimed]
    table.change(db, done(claimed))
    assert insert(db, job(1, at=NOW + 5)) == [done(claimed).after]


def test_beyond_the_capacity_a_job_is_settled_immediately(db: sqlite3.Connection) -> None:
    insert(db, job(1), capacity=2)
    accepted = insert(db, job(2), job(3), job(4, "event"), capacity=2)
    assert [(one.state, one.outcome) for one in accepted] == [("wanted", ""), ("failed", "busy"), ("wanted", "")]
    claim(db, 1)
    assert insert(db, job(5), capacity=2)[0].state == "wanted"


def test_a_turn_claims_the_jobs_due_for_the_free_runners_of_each_kind(db: sqlite3.Connection) -> None:
    insert(db, job(1, at=NOW + 3), job(2), job(3), job(4), job(5, "event"))
    turn = table.turn(db, [], {"tool": 2, "event": 0}, NOW)
    assert [(one.id, one.attempts) for one in turn.claimed] == [("j2", 1), ("j3", 1)]
    assert (turn.next_at, turn.open, turn.oldest_at) == (NOW + 3, 5, NOW)
    assert states(db) == {"j1": "wanted", "j2": "claimed", "j3": "claimed", "j4": "wanted", "j5": "wanted"}


def test_a_turn_settles_late_jobs_of_every_kind_without_a_runner(db: sqlite3.Connection) -> None:
    insert(db, job(1, deadline_at=NOW - 1), job(2, "unknown", deadline_at=NOW - 1), job(3, "unknown"))
    turn = table.turn(db, [], {"tool": 0}, NOW)
    assert [(one.id, one.outcome) for one in turn.expired] == [("j1", "timeout"), ("j2", "timeout")]
    assert (turn.claimed, turn.next_at, turn.open) == ([], NOW + 60, 1)


def test_the_backlog_is_of_requests_to_the_users_endpoints(db: sqlite3.Connection) -> None:
    """A resume of a recording may wait for hours until Twilio is back."""
    for n, kind in enumerate(("leave", "dial", "pause", "resume")):
        insert(db, job(n, kind, at=NOW - 9))
    assert table.turn(db, [], {}, NOW)[3:] == (NOW + 60, 0, math.inf)
    for n, kind in enumerate(("tool", "tool a", "route", "event a"), 10):
        insert(db, job(n, kind, at=NOW - n))
    assert table.turn(db, [], {}, NOW)[3:] == (NOW + 60, 4, NOW - 13)


def test_an_empty_table_asks_for_no_turn(db: sqlite3.Connection) -> None:
    assert table.turn(db, [], {"tool": 64}, NOW) == ([], [], [], math.inf, 0, math.inf)


def test_more_late_jobs_than_fit_ask_for_another_turn(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_LATE", 2)
    insert(db, *[job(n, deadline_at=NOW - 1) for n in range(3)])
    assert table.turn(db, [], {}, NOW).next_at == NOW
    assert len(table.turn(db, [], {}, NOW).expired) == 1


def test_an_end_written_twice_changes_nothing(db: sqlite3.Connection) -> None:
    insert(db, job(1))
    [claimed] = claim(db)
    again = Change(claimed, lifecycle.on_outcome(claimed, Again(0.0), NOW))
    assert table.change(db, again)
    [second] = claim(db)
    assert not table.change(db, again), "the row is in its second attempt"
    assert (second.attempts, states(db)) == (2, {"j1": "claimed"})


def test_after_a_lost_commit_only_claims_without_a_runner_are_returned(db: sqlite3.Connection) -> None:
    insert(db, job(1), job(2), job(3))
    first, second, third = claim(db)
    running = {first.id: first.attempts, second.id: second.attempts}
    turn = table.turn(db, [done(second)], {"tool": 1}, NOW, running=running, since=NOW)
    assert turn.unsent == []
    assert [(one.id, one.attempts) for one in turn.claimed] == [(third.id, 1)], "its request was not sent: the first attempt"
    assert states(db) == {"j1": "claimed", "j2": "done", "j3": "claimed"}
    again = table.turn(db, [], {}, NOW + 2, running={}, since=NOW + 1)
    assert [one.id for one in again.unsent] == ["j2"], "its result may be unsent"


def test_recovery_decides_on_claimed_jobs_alone(db: sqlite3.Connection) -> None:
    insert(db, job(1), job(2), job(3))
    claim(db, 2)
    resumed = table.recover(db, lambda one: lifecycle.on_found(one, NOW, idempotent=one.id == "j1", renewed_s=9.0))
    assert [(one.id, one.state) for one in resumed] == [("j1", "wanted"), ("j2", "unknown")]
    assert states(db) == {"j1": "wanted", "j2": "unknown", "j3": "wanted"}


def test_settled_jobs_are_removed_by_age_and_number(db: sqlite3.Connection) -> None:
    insert(db, *[job(n) for n in range(6)])
    for n, claimed in enumerate(claim(db, 5)):
        table.change(db, Change(claimed, msgspec.structs.replace(done(claimed).after, next_at=NOW + n)))
    assert prune(db, NOW + 4, passing=Kept(2.0, 10)) == 0
    assert sorted(states(db)) == ["j2", "j3", "j4", "j5"]
    assert prune(db, NOW + 4, passing=Kept(9.0, 2)) == 0
    assert sorted(states(db)) == ["j3", "j4", "j5"]
    assert prune(db, NOW + 4) == 0
    assert sorted(states(db)) == ["j3", "j4", "j5"]


def test_each_sort_of_settled_jobs_has_separate_limits(db: sqlite3.Connection) -> None:
    kinds = ("tool", "tool a", "route", "event a", "leave", "pause")
    insert(db, *[settled(n, kind) for n, kind in enumerate(kinds)])
    dead = [settled(n, "event a", state=state) for n, state in enumerate(("failed", "expired"), 10)]
    insert(db, *dead, settled(12, "leave", state="failed"), settled(13, "event a", state="unknown"), job(14))
    passing, left, undelivered = {"j0", "j1", "j2", "j3", "j5", "j13"}, {"j4", "j12"}, {"j10", "j11"}
    everything = {*passing, *left, *undelivered, "j14"}
    for limit, gone in (("passing", passing), ("left", left), ("dead", undelivered)):
        assert prune(db, NOW + 6, **{limit: Kept(5.0, 9)}) == 0, "none before its time"
        everything -= gone
        assert states(db).keys() == everything


@pytest.mark.parametrize(("kind", "state", "lost"), [("tool", "done", 0), ("leave", "done", 0), ("event a", "failed", 3)])
def test_the_newest_are_kept_and_undelivered_events_removed_early_are_counted(
    db: sqlite3.Connection, kind: str, state: lifecycle.State, lost: int
) -> None:
    insert(db, *[settled(n, kind, at=NOW + n, state=state) for n in range(5)])
    few = Kept(1e9, 2)
    assert prune(db, passing=few, left=few, dead=few) == lost
    assert sorted(states(db)) == ["j3", "j4"]
    assert prune(db, passing=few, left=few, dead=few) == 0


def test_few_undelivered_events_are_removed_in_one_transaction(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bodies are long: a thousand of 100 KB would keep the spool from calls for a second."""
    monkeypatch.setattr(table, "_DEAD_REMOVED", 2)
    insert(db, *[settled(n, "event a", at=NOW + n, state="failed") for n in range(6)], *[settled(n, "tool") for n in range(6, 9)])
    old, few = Kept(-9.0, 9), Kept(1e9, 1)
    assert table.prune(db, NOW, passing=old, left=LONG, dead=Kept(-2.0, 9)) == (0, True)
    assert sorted(states(db)) == ["j2", "j3", "j4", "j5"], "of other jobs all"
    assert table.prune(db, NOW, passing=LONG, left=LONG, dead=few) == (2, True)
    assert table.prune(db, NOW, passing=LONG, left=LONG, dead=few) == (1, False)


def test_undelivered_events_are_read_page_by_page(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some have the same time: they expired in one turn."""
    monkeypatch.setattr(table, "_DEAD_READ", 2)
    insert(db, *[settled(n, "event a", at=NOW + at, state="failed") for n, at in enumerate((2, 1, 1, 1, 0))])
    pages: list[list[str]] = []
    place = None
    while page := table.dead_after(db, place):
        place = page[-1]
        pages.append([one.id for one in page])
    assert pages == [["j4", "j1"], ["j2", "j3"], ["j0"]]


def test_a_call_can_be_erased_and_old_calls_removed(db: sqlite3.Connection) -> None:
    insert(db, job(1), job(2), job(3), job(4, at=NOW + 9))
    for claimed in claim(db, now=NOW + 9):
        if claimed.id != "j2":
            table.change(db, done(claimed))
    assert table.erase(db, "CA1") == 1
    assert table.purge(db, NOW + 5) == 1
    assert sorted(states(db)) == ["j2", "j4"]
    assert [one.id for one in table.find(db, ["j2", "none", "j4"])] == ["j2", "j4"]


def test_regular_queries_read_an_index_and_not_the_table(db: sqlite3.Connection) -> None:
    """With 10,000 waiting jobs a scan would take milliseconds of every turn."""
    seen: list[str] = []
    db.set_trace_callback(seen.append)
    insert(db, job(1))
    [claimed] = claim(db)
    table.turn(db, [done(claimed)], {"tool": 1}, NOW, running={}, since=NOW)
    table.recover(db, lambda one: one)
    prune(db)
    table.list_events(db, 9, dead=True)
    table.list_events(db, 9, dead=False)
    insert(db, settled(2, "event a", state="failed"))
    [place] = table.dead_after(db, None)
    assert (table.dead_after(db, place), table.dead_of(db, [place.id])) == ([], [place])
    table.retry(db, [place.id], NOW, lambda one: NOW + 50)
    table.drop(db, [place.id])
    table.erase(db, "CA1")
    db.set_trace_callback(None)
    plans = [
        (statement, detail)
        for statement in seen
        if statement.startswith(("SELECT", "UPDATE", "DELETE"))
        for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
    scans = {
        (statement, detail)
        for statement, detail in plans
        if "TEMP B-TREE" in detail
        or ("SCAN" in detail and "INDEX" not in detail and "CONSTANT" not in detail and "(subquery" not in detail)
    }
    assert not scans
    by_index = [
        next(word for word in detail.split() if word.startswith("jobs_"))
        for statement, detail in plans
        if statement.startswith("DELETE FROM jobs WHERE rowid IN") and "INDEX jobs_" in detail
    ]
    assert by_index == ["jobs_passing"] * 2 + ["jobs_left"] * 2 + ["jobs_dead"] * 2
    counts = {detail for statement, detail in plans if statement.startswith("SELECT count(*) FROM jobs WHERE")}
    assert counts == {"SCAN jobs USING INDEX jobs_requests"}, "without a look at the row of each waiting job"


def event(n: int, call: str = "CA1", *, deadline_at: float = NOW + 60) -> Job:
    return lifecycle.want(f"e{n}", "event a", call, f"body {n}", deadline_at=deadline_at, now=NOW)


def take(db: sqlite3.Connection, now: float = NOW) -> list[Job]:
    return table.turn(db, [], {"event a": 8}, now).claimed


def test_the_events_of_a_call_are_sent_one_after_the_other(db: sqlite3.Connection) -> None:
    insert(db, event(1), event(2), event(3, "CA2"), event(4))
    first, other = take(db)
    assert (first.id, other.id, take(db)) == ("e1", "e3", [])
    table.change(db, Change(first, lifecycle.on_outcome(first, Again(5.0), NOW)))
    assert take(db, NOW + 4) == [], "the call's other events wait for it"
    [first] = take(db, NOW + 5)
    table.change(db, done(first))
    assert [one.id for one in take(db, NOW + 5)] == ["e2"]
    insert(db, event(5))
    assert take(db, NOW + 9) == []


def test_an_event_that_was_not_delivered_is_kept_and_can_be_sent_again(db: sqlite3.Connection) -> None:
    insert(db, event(1, deadline_at=NOW - 1), event(2), job(3, deadline_at=NOW - 1))
    assert [one.body for one in table.turn(db, [], {}, NOW).expired] == ["body 1", "{}"]
    [second] = take(db)
    assert second.id == "e2"
    prune(db, NOW + 9, passing=Kept(5.0, 0), dead=Kept(18.0, 9))
    assert [one.id for one in table.list_events(db, 9, dead=True)] == ["e1"]
    assert [one.id for one in table.list_events(db, 9, dead=False)] == ["e2"]
    assert table.retry(db, ["e2", "none"], NOW, lambda one: NOW + 50) == 0
    assert dead_ids(db) == ["e1"]
    assert table.retry(db, ["e1"], NOW, lambda one: NOW + 50) == 1
    assert take(db) == [], "the call has another event under way"
    table.change(db, done(second))
    [again] = take(db, NOW + 1)
    assert (again.id, again.body, again.attempts, again.deadline_at) == ("e1", "body 1", 1, NOW + 50)


def test_events_that_were_not_delivered_can_be_dropped(db: sqlite3.Connection) -> None:
    insert(db, event(1, deadline_at=NOW - 1), event(2, deadline_at=NOW - 1), event(3))
    table.turn(db, [], {}, NOW)
    assert dead_ids(db) == ["e1", "e2"]
    assert (table.drop(db, ["e1", "e3"]), table.drop(db, []), sorted(states(db))) == (1, 0, ["e2", "e3"])


def test_the_events_of_a_call_that_are_sent_again_are_in_sequence(db: sqlite3.Connection) -> None:
    insert(db, *[event(n, deadline_at=NOW - 1) for n in (1, 2, 3)], event(4, "CA2", deadline_at=NOW - 1))
    table.turn(db, [], {}, NOW)
    insert(db, event(5))
    table.retry(db, dead_ids(db), NOW, lambda one: NOW + 50)
    sent = []
    while claimed := take(db, NOW + 9):
        for one in claimed:
            sent.append(one.id)
            table.change(db, done(one))
    assert sent == ["e4", "e5", "e1", "e2", "e3"], "of CA1 one after the other, behind the one that waited"


@settings(max_examples=examples(150))
@given(st.lists(st.tuples(st.sampled_from(["add", "take", "done", "again", "dead", "crash"]), st.integers(0, 3)), max_size=60))
def test_whatever_happens_a_call_has_one_event_under_way_and_the_first_comes_first(steps: list[tuple[str, int]]) -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(table.SCHEMA)
    accepted: dict[str, list[str]] = {}
    settled: dict[str, list[str]] = {}
    under_way: dict[str, Job] = {}
    outcomes = {"done": Ended("done", "ok", ""), "again": Again(0.0), "dead": Ended("failed", "gone", "")}
    for n, (step, which) in enumerate(steps):
        if step == "add":
            call = f"CA{which % 2}"
            insert(db, event(n, call))
            accepted.setdefault(call, []).append(f"e{n}")
        elif step == "take":
            for one in take(db):
                assert one.call_sid not in under_way
                assert one.id == accepted[one.call_sid][len(settled.get(one.call_sid, []))]
                under_way[one.call_sid] = one
        elif step == "crash":
            table.recover(db, lambda one: lifecycle.on_found(one, NOW, idempotent=True, renewed_s=0.0))
            under_way.clear()
        elif under_way:
            one = under_way.pop(sorted(under_way)[which % len(under_way)])
            after = lifecycle.on_outcome(one, outcomes[step], NOW)
            assert table.change(db, Change(one, after))
            if not after.is_open:
                settled.setdefault(one.call_sid, []).append(one.id)
    for _ in steps:  # nothing is stuck
        table.recover(db, lambda one: lifecycle.on_found(one, NOW, idempotent=True, renewed_s=0.0))
        for one in take(db, NOW + 9):
            table.change(db, done(one))
    assert states(db).keys() == {job_id for ids in accepted.values() for job_id in ids}
    assert set(states(db).values()) <= {"done", "failed"}
    db.close()
