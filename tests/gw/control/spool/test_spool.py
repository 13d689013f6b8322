"""gw.control.spool: accepted events survive a crash, none is accepted twice, and poison is kept."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import gevent
import pytest

from gw.control.jobs import lifecycle, table
from gw.control.jobs.table import Wanted
from gw.control.spool import Entry, Erased, Spool, SpoolError
from gw.control.store import HeldClaim
from tests.program import ROOT
from tests.timing import scaled


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    opened = Spool(path)
    yield opened
    opened.close()


def wanted(job_id: str, call_sid: str = "CA1") -> Wanted:
    return Wanted(lifecycle.want(job_id, "tool", call_sid, "{}", deadline_at=2e9, now=1e9), 10)


def numbers(entries: list[Entry]) -> list[int]:
    return [entry.n for entry in entries]


def test_a_batch_is_the_oldest_entries_up_to_the_limit(spool: Spool) -> None:
    spool.append("a", [(1, b"one"), (2, b"two")], worker=3)
    spool.append("b", [(1, b"other")])
    assert [(e.instance, e.n, e.body, e.worker) for e in spool.batch(10)] == [
        ("a", 1, b"one", 3),
        ("a", 2, b"two", 3),
        ("b", 1, b"other", -1),
    ]
    assert numbers(spool.batch(1)) == [1]
    assert spool.latest(10) == spool.batch(10)
    assert [(e.instance, e.n) for e in spool.latest(2)] == [("a", 2), ("b", 1)]
    assert spool.backlog() == 3


def test_entries_of_control_are_read_page_by_page_without_the_others(spool: Spool) -> None:
    spool.append("a", [(1, b"one")], worker=0)
    spool.append("b", [(1, b"two"), (2, b"three")])
    spool.append("a", [(2, b"four")], worker=0)
    first, second = spool.batch(10)[1:3]
    assert [spool.of_no_worker(after, 1) for after in (0, first.id, second.id)] == [[first], [second], []]
    plan = "EXPLAIN QUERY PLAN SELECT body FROM entries WHERE worker < 0 AND id > 0 ORDER BY id LIMIT 1"
    assert "entries_of_no_worker" in str(spool.transact(lambda db: db.execute(plan).fetchall()))


def test_a_batch_is_bounded_in_bytes_but_never_empty(spool: Spool) -> None:
    spool.append("a", [(n, bytes(3 << 20)) for n in (1, 2, 3)])
    assert numbers(spool.batch(10)) == [1, 2]
    spool.append("a", [(4, bytes(9 << 20))])
    spool.remove([1, 2, 3])
    assert numbers(spool.batch(10)) == [4]


def test_progress_counts_stored_entries_and_those_set_aside(spool: Spool) -> None:
    spool.append("a", [(n, b"x") for n in range(1, 6)])
    assert spool.progress() == (0, 5)
    entries = spool.batch(3)
    spool.remove([entry.id for entry in entries[:2]])
    spool.remove([entry.id for entry in entries[:2]])
    spool.set_aside(entries[2].id, "cannot be stored")
    assert spool.progress() == (3, 2)


def test_an_event_sent_again_is_accepted_once(spool: Spool) -> None:
    spool.append("a", [(1, b"1"), (2, b"2")])
    spool.append("a", [(1, b"1"), (2, b"2"), (3, b"3"), (3, b"3")])
    assert numbers(spool.batch(10)) == [1, 2, 3]
    assert spool.backlog() == 3


def test_a_job_is_accepted_with_its_event_and_once(spool: Spool) -> None:
    jobs = {1: [wanted("one")], 2: [wanted("two"), wanted("three")]}
    assert [job.id for job in spool.append("a", [(2, b"2")], jobs=jobs)] == ["one", "two", "three"]
    assert (spool.last("a"), numbers(spool.batch(10))) == (2, [2])
    assert spool.append("a", [(2, b"2")], jobs=jobs) == []
    again = spool.append("b", [], jobs={1: [wanted("one")]})
    assert [(job.id, job.state) for job in again] == [("one", "wanted")]
    assert spool.transact(lambda db: db.execute("SELECT count(*) FROM jobs").fetchone()) == (3,)


def test_a_failed_commit_accepts_neither_event_nor_job(spool: Spool) -> None:
    with pytest.raises(SpoolError):
        spool.append("a", [(2, None)], jobs={1: [wanted("one")]})  # type: ignore[list-item]
    assert spool.last("a") == 0
    assert spool.transact(partial(table.find, ids=["one"])) == []


def test_work_in_one_commit_is_done_or_not(spool: Spool) -> None:
    def work(db: sqlite3.Connection) -> None:
        table.erase(db, "CA1")
        db.execute("INSERT INTO jobs VALUES (1)")

    spool.append("a", [], jobs={1: [wanted("one")]})
    with pytest.raises(SpoolError):
        spool.transact(work)
    assert [job.id for job in spool.transact(partial(table.find, ids=["one"]))] == ["one"]


def test_an_event_sent_again_after_its_removal_is_not_accepted(spool: Spool) -> None:
    spool.append("a", [(1, b"1"), (2, b"2")])
    spool.remove([entry.id for entry in spool.batch(10)])
    assert spool.last("a") == 2
    spool.append("a", [(2, b"2")])
    assert (spool.batch(10), spool.backlog()) == ([], 0)


def test_the_last_number_of_an_unknown_process_is_zero(spool: Spool) -> None:
    assert spool.last("unknown") == 0


def test_removing_counts_each_entry_once(spool: Spool) -> None:
    spool.append("a", [(1, b"1")])
    spool.remove([1, 1, 99])
    spool.remove([])
    assert spool.backlog() == 0


def test_reopening_finds_every_entry(path: Path) -> None:
    first = Spool(path)
    first.append("a", [(1, b"1"), (2, b"2")])
    first.close()
    second = Spool(path)
    assert (numbers(second.batch(10)), second.backlog(), second.last("a")) == ([1, 2], 2, 2)
    second.close()


def test_poison_is_kept_with_its_reason_and_can_be_requeued(spool: Spool) -> None:
    spool.append("a", [(1, b"bad"), (2, b"good")], worker=1)
    spool.set_aside(spool.batch(1)[0].id, "not an event")
    assert numbers(spool.batch(10)) == [2]
    assert spool.backlog() == 1
    (kept,) = spool.list_poison(100)
    assert spool.poisoned() == 1
    assert (kept.instance, kept.n, kept.worker, kept.bytes, kept.why) == ("a", 1, 1, 3, "not an event")
    assert spool.requeue([9]) == 0
    assert spool.requeue([1]) == 1
    assert (numbers(spool.batch(10)), spool.list_poison(100), spool.poisoned(), spool.backlog()) == ([2, 1], [], 0, 2)


def test_only_the_owner_can_read_the_file(spool: Spool, path: Path) -> None:
    spool.append("a", [(1, b"1")])
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_commits_are_synced(spool: Spool) -> None:
    assert spool._run(lambda: spool._db.execute("PRAGMA synchronous").fetchone()) == (2,)
    assert spool._run(lambda: spool._db.execute("PRAGMA journal_mode").fetchone()) == ("wal",)


def test_numbers_of_old_worker_processes_are_deleted(path: Path) -> None:
    first = Spool(path)
    first.append("old", [(1, b"1")])
    first.remove([entry.id for entry in first.batch(1)])
    first.append("old but waiting", [(1, b"1")])
    first._run(lambda: first._db.execute("UPDATE instances SET heard_at = 1"))
    first.append("new", [(1, b"1")])
    first.close()
    second = Spool(path)
    assert [second.last(name) for name in ("old", "old but waiting", "new")] == [0, 1, 1]
    second.close()


def test_a_closed_spool_refuses_events(path: Path) -> None:
    spool = Spool(path)
    spool.close()
    spool.close()
    with pytest.raises(SpoolError):
        spool.append("a", [(1, b"1")])


def test_a_failed_append_accepts_no_event(spool: Spool) -> None:
    spool.append("a", [(1, b"1")])
    with pytest.raises(SpoolError):
        spool.append("a", [(2, b"2"), (3, None)])  # type: ignore[list-item]
    assert (spool.last("a"), numbers(spool.batch(10)), spool.backlog()) == (1, [1], 1)
    spool.append("a", [(2, b"2")])
    assert spool.backlog() == 2


def test_many_greenlets_share_the_spool(spool: Spool) -> None:
    jobs = [gevent.spawn(spool.append, f"i{k}", [(n, b"x") for n in range(1, 6)]) for k in range(20)]
    gevent.joinall(jobs, timeout=scaled(20), raise_error=True)
    assert spool.backlog() == len(spool.batch(1000)) == 100


WRITER = """
from gevent import monkey; monkey.patch_all()
import sys
from pathlib import Path
from gw.control.spool import Spool
spool = Spool(Path(sys.argv[1]))
n = 0
while True:
    spool.append("w", [(n + 1, b"x" * 500), (n + 2, b"y" * 500)])
    n += 2
    print(n, flush=True)
"""


def test_survives_the_kill_of_its_writer(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        reported = 0
        with gevent.Timeout(scaled(30)):
            while reported < 40:
                reported = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait(scaled(10))
        rest = writer.stdout.read().split("\n")
        reported = max([reported, *(int(line) for line in rest[:-1])])
    spool = Spool(path)
    kept = numbers(spool.batch(100_000))
    assert kept == list(range(1, len(kept) + 1))
    assert len(kept) >= reported
    assert spool.last("w") == len(kept)
    spool.close()


@pytest.mark.parametrize("damage", ["not a database", "broken pages"])
def test_a_corrupt_file_is_set_aside_at_the_start(path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    spool = Spool(path)
    spool.append("a", [(n, bytes(1000)) for n in range(1, 200)])
    spool.close()
    _damage(path, 0 if damage == "not a database" else 4096)
    replaced = Spool(path)
    assert (replaced.backlog(), replaced.was_replaced, replaced.corrupt_files()) == (0, True, 1)
    assert "is corrupt" in caplog.text
    replaced.append("a", [(200, b"next")])
    assert numbers(replaced.batch(10)) == [200]
    replaced.close()
    again = Spool(path)
    assert (again.was_replaced, again.backlog()) == (False, 1)
    again.close()


def _damaged_while_open(path: Path) -> Spool:
    """Open a spool with 199 entries, and damage its file; the next read sees the damage."""
    spool = Spool(path)
    spool.append("a", [(n, bytes(1000)) for n in range(1, 200)])
    spool._run(lambda: spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    spool._run(lambda: spool._db.execute("PRAGMA cache_size=0").fetchall())
    _damage(path, 4096)
    return spool


def test_a_file_that_becomes_corrupt_is_replaced_under_the_running_gateway(path: Path) -> None:
    spool = _damaged_while_open(path)
    called: list[bool] = []
    spool.on_replaced = lambda: called.append(True)
    with pytest.raises(SpoolError):
        for _ in range(3):
            spool.batch(500)
    assert (called, spool.backlog(), sum(spool.progress()), spool.corrupt_files()) == ([True], 0, 199, 1)
    spool.append("a", [(200, b"sent again")])
    assert numbers(spool.batch(10)) == [200]
    spool.close()


def test_two_operations_that_fail_together_replace_the_file_once(path: Path) -> None:
    """The second would replace the new file, with events that were acknowledged."""
    spool = _damaged_while_open(path)
    called: list[int] = []

    def on_replaced() -> None:
        called.append(spool.corrupt_files())
        spool.append("a", [(200, b"accepted by the new file")])

    spool.on_replaced = on_replaced
    failing = [gevent.spawn(spool.batch, 500) for _ in range(2)]  # both wait for the thread before one has failed
    gevent.joinall(failing, scaled(20))
    assert [type(one.exception) for one in failing] == [SpoolError, SpoolError]
    assert (called, spool.corrupt_files(), spool.backlog(), sum(spool.progress())) == ([1], 1, 1, 200)
    assert numbers(spool.batch(10)) == [200]
    spool.close()


def test_the_entries_of_a_replaced_file_have_new_ids(path: Path) -> None:
    """A batch that the forwarder holds meanwhile is removed later: that must not remove events that the store does not have."""
    spool = _damaged_while_open(path)
    held = range(1, 200)
    with pytest.raises(SpoolError):
        for _ in range(3):
            spool.batch(500)
    spool.append("a", [(200, b"next")])
    spool.remove(held)
    spool.set_aside(held[0], "refused")
    assert (numbers(spool.batch(10)), spool.backlog(), spool.poisoned()) == ([200], 1, 0)
    spool.close()


def test_a_spool_that_could_not_be_replaced_is_replaced_once_the_disk_permits(path: Path) -> None:
    spool = _damaged_while_open(path)
    away = path.parent.rename(path.parent.with_name("away"))
    path.parent.touch()  # a directory that cannot be used
    for _ in range(3):
        with pytest.raises(SpoolError):
            spool.batch(500)
    path.parent.unlink()
    away.rename(path.parent)
    with pytest.raises(SpoolError):
        spool.append("a", [(200, b"sent again")])
    assert (spool.backlog(), sum(spool.progress()), spool.corrupt_files()) == (0, 199, 1)
    spool.append("a", [(200, b"sent again")])
    assert numbers(spool.batch(10)) == [200]
    spool.close()


def _damage(path: Path, start: int) -> None:
    """Overwrite the file from `start`, its write-ahead log being empty."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * 64_000)


def test_an_emptied_spool_shrinks(spool: Spool, path: Path) -> None:
    """A spool that an outage of the store filled kept its size for ever."""
    for n in range(1, 11):
        spool.append("a", [(10 * n + k, os.urandom(100_000)) for k in range(10)])
    assert path.stat().st_size + Path(f"{path}-wal").stat().st_size > 10_000_000
    while entries := spool.batch(100):
        spool.remove([entry.id for entry in entries])
    for n in range(1, 8):  # further events, as they come: each removal returns a bounded number of pages
        spool.append("b", [(n, b"x")])
        spool.remove([entry.id for entry in spool.batch(10)])
    spool.close()
    assert path.stat().st_size < 2_000_000


def test_a_spool_of_an_earlier_version_learns_to_shrink(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.execute("CREATE TABLE unrelated (x)")
    old.close()
    Spool(path).close()
    with sqlite3.connect(path) as now:
        assert now.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    now.close()


def test_erasing_a_call_leaves_no_trace_of_it(spool: Spool, path: Path) -> None:
    sid = "CA" + "7" * 32
    spool.append("a", [(1, f"one {sid}".encode()), (2, b"another call"), (3, f"{sid} three".encode()), (4, b"kept")])
    poisoned = spool.batch(3)[2:]
    spool.set_aside(poisoned[0].id, "refused")
    spool.keep_claim(HeldClaim(sid, "AC1", "me/1", 1.0))
    spool.append("a", [], jobs={5: [wanted(f"{sid}/1/x", sid), wanted("other", "CA1")]})
    assert spool.erase(sid) == Erased(entries=1, poison=1, claims=1, jobs=1)
    assert numbers(spool.batch(10)) == [2, 4]
    assert (spool.backlog(), spool.poisoned(), spool.claims()) == (2, 0, [])
    assert all(sid.encode() not in file.read_bytes() for file in path.parent.iterdir())
    assert spool.erase(sid) == Erased(0, 0, 0, 0)
    assert [job.id for job in spool.transact(partial(table.find, ids=[f"{sid}/1/x", "other"]))] == ["other"]


def test_poison_is_exported_and_dropped(spool: Spool) -> None:
    spool.append("a", [(n, f"event {n}".encode()) for n in (1, 2, 3)])
    for entry in spool.batch(3):
        spool.set_aside(entry.id, "refused")
    first, *_ = ids = [one.id for one in spool.list_poison(10)]
    assert [body for _, body in spool.export_poison()] == [b"event 1", b"event 2", b"event 3"]
    assert [one.n for one, _ in spool.export_poison(first)] == [2, 3]
    assert (spool.drop_poison([first, 999]), spool.poisoned()) == (1, 2)
    assert (spool.drop_poison(), spool.poisoned()) == (2, 0)
    assert spool.export_poison() == []
    assert len(ids) == 3
