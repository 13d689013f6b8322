"""gw.control.admin.hooks: events are listed, sent once more and deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gw.config import EventHook
from gw.control.admin import hooks
from gw.control.admin.hooks import HookCommands
from gw.control.admin.server import CommandError
from gw.control.jobs import lifecycle, table
from gw.control.jobs.event import EventHandler
from gw.control.jobs.service import Jobs
from gw.control.spool import Spool, SpoolError
from metrics.page import Page

URL = "https://api.example.com/events"


class Rig:
    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "spool.db")
        self.page = Page.create(folder / "control.page")
        handler = EventHandler(EventHook(url=URL), None, lambda sid: None, self.spool, lambda sid: False)  # type: ignore[arg-type]
        self.handler = handler
        jobs = Jobs(self.spool, self.page, [handler], settle=lambda settled: None)
        self.commands = HookCommands(self.spool, jobs, [handler]).table()
        now = time.time()
        for n, (kind, deadline_at) in enumerate(
            [(handler.kind, now - 1), ("event gone", now - 1), *[(handler.kind, now + 60)] * 2]
        ):
            job = lifecycle.want(f"e{n}", kind, "CA1", "{}", deadline_at=deadline_at, now=now - 9 + n)
            self.spool.append("w", [], jobs={n + 1: [table.Wanted(job, 9)]})
        self.spool.transact(lambda db: table.turn(db, [], {}, now))

    def run(self, command: str, **fields: object) -> Any:
        return self.commands[command].run(fields)

    def close(self) -> None:
        self.spool.close()
        self.page.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_events_are_listed_by_state(rig: Rig) -> None:
    dead = rig.run("hooks_list")
    assert {(one.id, one.url, one.state, one.why, one.next_at) for one in dead} == {
        ("e0", URL, "expired", "timeout", None),
        ("e1", "", "expired", "timeout", None),
    }
    first, second = rig.run("hooks_list", state="waiting", limit=9)
    assert (first.id, first.next_at is not None, second.id, second.next_at) == ("e2", True, "e3", None)
    with pytest.raises(CommandError):
        rig.run("hooks_list", limit=0)


@pytest.mark.parametrize("ids", [(), ("e0",)])
def test_a_stopped_endpoint_receives_events_again(rig: Rig, ids: tuple[str, ...]) -> None:
    rig.handler._stop()
    assert rig.run("hooks_retry", ids=["e1"])["queued"] == 1, "another endpoint's"
    assert (rig.handler.is_stopped, list(rig.spool.transact(table.stopped))) == (True, [rig.handler.kind])
    rig.run("hooks_retry", ids=list(ids))
    assert (rig.handler.is_stopped, rig.spool.transact(table.stopped)) == (False, {})


@pytest.mark.parametrize("command", ["hooks_retry", "hooks_drop"])
def test_many_events_are_changed_in_short_transactions(rig: Rig, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """A hundred thousand in one would keep the spool from calls for seconds."""
    monkeypatch.setattr(hooks, "_STEP", 2)
    at = time.time() - 9.0
    jobs = [lifecycle.want(f"d{n}", "event other", f"CB{n}", "{}", deadline_at=at, now=at) for n in range(3)]
    rig.spool.transact(lambda db: table.insert(db, [table.Wanted(one, 9) for one in jobs], at))
    rig.spool.transact(lambda db: table.turn(db, [], {}, time.time()))
    changed: list[int] = []
    change = getattr(table, command.removeprefix("hooks_"))

    def count(*args: Any, ids: list[str], **more: Any) -> Any:
        changed.append(len(ids))
        return change(*args, ids=ids, **more)

    monkeypatch.setattr(table, change.__name__, count)
    assert list(rig.run(command).values())[:2] == [5, 0]
    assert (changed, rig.run("hooks_list")) == ([2, 2, 1], [])


def _give_up(rig: Rig, *ids: str, call: str = "CB1") -> None:
    at = time.time() - 9.0
    jobs = [lifecycle.want(one, rig.handler.kind, call, "{}", deadline_at=at, now=at) for one in ids]
    rig.spool.transact(lambda db: table.insert(db, [table.Wanted(one, 9) for one in jobs], at))
    rig.spool.transact(lambda db: table.turn(db, [], {}, time.time()))


@pytest.mark.parametrize("step", [100, 2, 1])
@pytest.mark.parametrize("ids", [(), ("d3", "d2", "d1")])
def test_events_are_sent_in_their_sequence_whatever_that_of_the_ids(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, ids: tuple[str, ...], step: int
) -> None:
    """`hooks list` has the newest first."""
    monkeypatch.setattr(hooks, "_STEP", step)
    rig.run("hooks_drop")
    _give_up(rig, "d1", "d2", "d3")
    rig.spool.transact(lambda db: db.execute("UPDATE jobs SET next_at = next_at - rowid WHERE call_sid = 'CB1'") and None)
    assert rig.run("hooks_retry", ids=list(ids))["queued"] == 3
    sent = []
    while claimed := rig.spool.transact(lambda db: table.turn(db, [], {rig.handler.kind: 9}, time.time())).claimed:
        for one in claimed:
            sent.append(one.id)
            after = lifecycle.on_outcome(one, lifecycle.Ended("done", "ok", ""), time.time())
            rig.spool.transact(lambda db, one=one, after=after: table.change(db, table.Change(one, after)))  # type: ignore[misc]
    assert [one for one in sent if one.startswith("d")] == ["d1", "d2", "d3"]


@pytest.mark.parametrize("command", ["hooks_retry", "hooks_drop"])
def test_a_long_change_ends_before_its_time_and_can_be_continued(rig: Rig, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """An event that is given up meanwhile, as by an endpoint that answers 410, is not changed again."""
    monkeypatch.setattr(hooks, "_STEP", 1)
    monkeypatch.setattr(hooks, "STEPS_S", 0.0)
    rig.run("hooks_drop", ids=["e1"])
    _give_up(rig, "d1", "d2")
    first = rig.run(command)
    assert (list(first.values())[:2], first["after"]) == ([1, 2], 1)
    rig.spool.transact(lambda db: db.execute("UPDATE jobs SET state = 'failed' WHERE id = 'e0'") and None)
    second = rig.run(command, after=first["after"])
    third = rig.run(command, after=second["after"])
    assert [list(one.values())[:2] for one in (second, third)] == [[1, 1], [1, 0]]


def test_an_endpoint_is_resumed_though_the_outcome_on_disk_is_unknown(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.handler._stop()
    transact = rig.spool.transact

    def cut(work: Any) -> Any:
        done = transact(work)
        if getattr(work, "func", None) is table.retry:
            raise SpoolError("cut")
        return done

    monkeypatch.setattr(rig.spool, "transact", cut)
    with pytest.raises(SpoolError):
        rig.run("hooks_retry", ids=["e0"])
    assert (rig.handler.is_stopped, transact(table.stopped)) == (False, {})


def test_a_stopped_endpoint_without_events_receives_events_again(rig: Rig) -> None:
    rig.run("hooks_drop")
    rig.handler._stop()
    assert rig.run("hooks_retry") == {"queued": 0, "left": 0, "after": 0}
    assert (rig.handler.is_stopped, rig.spool.transact(table.stopped)) == (False, {})


def test_events_are_sent_once_more_or_deleted(rig: Rig) -> None:
    assert rig.run("hooks_retry", ids=["e0", "e2", "e0"]) == {"queued": 1, "left": 0, "after": 1}
    assert len(rig.run("hooks_list", state="waiting")) == 3
    assert rig.run("hooks_drop", ids=["e0", "e1"])["dropped"] == 1
    assert rig.run("hooks_list") == []
    assert rig.run("hooks_drop")["dropped"] == 0
