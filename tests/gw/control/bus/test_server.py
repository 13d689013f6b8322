"""gw.control.bus.server: each event is spooled once, then acknowledged, then published once, whatever breaks in between."""

from __future__ import annotations

import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from gw import bus
from gw.control.bus import link, server
from gw.control.bus.server import BusServer
from gw.control.bus.workers import MAX_HOLDS
from gw.control.calls.registry import Calls
from gw.control.jobs import lifecycle
from gw.control.jobs.lifecycle import Job
from gw.control.jobs.table import Wanted
from gw.control.spool import Spool, SpoolError
from tests.gw.control.bus_client import CALL, OTHER, BusClient, call_ended, call_started
from tests.timing import scaled


class Rig:
    """A bus server on a real spool, and the events its subscriber received."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bus.sock"
        self.spool = Spool(folder / "spool.db")
        self.received: list[bus.Event] = []
        self.lost: list[set[str]] = []
        self.calls = Calls(several_accounts=True)
        self.server = BusServer(self.path, self.spool, self.calls, on_lost=self.lost.append)
        self.server.answer_with(self.answer)
        self.server.subscribe(self.received.append)
        self.server.start()
        self._stopped = False

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self.server.stop()
            self.spool.close()

    def answer(self, ask: bus.Ask) -> bus.Answer:
        if ask.about == "nonsense":
            raise RuntimeError("on purpose")
        return bus.Answer(ask.n, step=f"{len(self.received)} received")

    def bodies(self) -> list[bus.Event]:
        return [bus.decode_event(entry.body) for entry in self.spool.batch(1000)]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.stop()


def until(condition: object, bound_s: float = 20.0) -> None:
    with gevent.Timeout(scaled(bound_s)):
        while not condition():  # type: ignore[operator]
            gevent.sleep(0.01)


def digit(n: int) -> bus.CallEvent:
    return bus.CallEvent(CALL, "dtmf", float(n), {"digit": str(n)})


def test_the_socket_is_private(rig: Rig) -> None:
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600


def test_events_are_spooled_acknowledged_and_published_in_sequence(rig: Rig) -> None:
    client = BusClient(rig.path)
    events = [call_started(), digit(1), digit(2)]
    client.await_ack(client.send(*events))
    assert rig.bodies() == events
    until(lambda: rig.received == events)
    assert rig.spool.last("w0-1") == 3
    assert rig.spool.batch(1)[0].worker == 0


def test_events_that_arrive_together_are_one_commit(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    append = rig.spool.append

    def counted(instance: str, items: list[tuple[int, bytes]], **rest: Any) -> list[Job]:
        commits.append(len(items))
        return append(instance, items, **rest)

    monkeypatch.setattr(rig.spool, "append", counted)
    client = BusClient(rig.path)
    client.await_ack(client.send(*[digit(n) for n in range(50)]))
    assert sum(commits) == 50
    assert len(commits) <= 2, "Hello and the events may arrive in two pieces, never one by one"


def test_a_known_number_is_acknowledged_but_not_published_again(rig: Rig) -> None:
    first = BusClient(rig.path)
    first.await_ack(first.send(digit(1), digit(2)))
    second = BusClient(rig.path)
    second.await_ack(second.send(digit(1), digit(2), digit(3)))
    assert rig.bodies() == [digit(1), digit(2), digit(3)]
    until(lambda: len(rig.received) == 3)
    assert second.send(digit(3), first=3) == 3
    assert second.command() == bus.Ack(3)
    assert len(rig.received) == 3


def test_each_process_has_its_own_numbers(rig: Rig) -> None:
    for instance in ("w0-1", "w0-2"):
        client = BusClient(rig.path, instance=instance)
        client.await_ack(client.send(digit(1)))
    assert rig.bodies() == [digit(1), digit(1)]


def test_numbers_survive_a_restart_of_control(rig: Rig, tmp_path: Path) -> None:
    client = BusClient(rig.path)
    client.await_ack(client.send(digit(1), digit(2)))
    rig.stop()
    again = Rig(tmp_path)
    try:
        client = BusClient(again.path)
        client.await_ack(client.send(digit(1), digit(2), digit(3)))
        assert again.bodies() == [digit(1), digit(2), digit(3)]
        until(lambda: again.received == [digit(3)])
    finally:
        again.stop()


def test_a_number_after_a_gap_is_accepted(rig: Rig) -> None:
    client = BusClient(rig.path)
    client.await_ack(client.send(digit(5), first=5))
    assert rig.spool.last("w0-1") == 5


def test_ownership_follows_the_events(rig: Rig) -> None:
    client = BusClient(rig.path, calls=[OTHER])
    until(lambda: rig.calls.is_owned(OTHER))
    client.await_ack(client.send(call_started()))
    until(lambda: rig.calls.owned() == {CALL, OTHER})
    assert rig.server.hang_up(CALL, "admin_hangup")
    assert client.command() == bus.HangUp(CALL, "admin_hangup")
    client.await_ack(client.send(call_ended()))
    until(lambda: rig.calls.owned() == {OTHER})
    assert not rig.server.hang_up(CALL, "admin_hangup")


def test_a_command_goes_to_the_owner_of_the_call(rig: Rig) -> None:
    one = BusClient(rig.path, instance="w0-1", index=0)
    two = BusClient(rig.path, instance="w1-1", index=1, calls=[CALL])
    one.await_ack(one.send(call_started(OTHER)))
    until(lambda: rig.calls.owned() == {CALL, OTHER})
    rig.server.hang_up(CALL, "admin_hangup")
    rig.server.hang_up(OTHER, "admin_hangup")
    assert two.command() == bus.HangUp(CALL, "admin_hangup")
    assert one.command() == bus.HangUp(OTHER, "admin_hangup")


def test_a_stream_ends_when_its_call_starts_at_another_worker(rig: Rig) -> None:
    one = BusClient(rig.path, instance="w0-1", index=0, calls=[CALL])
    two = BusClient(rig.path, instance="w1-1", index=1)
    until(lambda: rig.calls.owned() == {CALL})
    two.await_ack(two.send(call_started(CALL)))
    assert one.command() == bus.HangUp(CALL, "phone_lost")


def test_a_drain_reaches_connected_and_later_workers(rig: Rig) -> None:
    one = BusClient(rig.path)
    until(lambda: len(rig.server.workers()) == 1)
    assert rig.server.drain(True) == 1
    assert one.command() == bus.Drain(True)
    two = BusClient(rig.path, instance="w1-1", index=1)
    assert two.command() == bus.Drain(True)
    assert rig.server.drain(False) == 2
    assert two.command() == bus.Drain(False)


def test_the_view_shows_the_last_status(rig: Rig) -> None:
    client = BusClient(rig.path, index=3)
    client.status(calls=7, draining=True, unacked=2, lateness_p99_s=0.001)
    until(lambda: [view.calls for view in rig.server.workers()] == [7])
    (view,) = rig.server.workers()
    assert (view.index, view.pid, view.connected, view.draining, view.unacked) == (3, os.getpid(), True, True, 2)


def test_the_last_holds_of_an_index_outlive_its_process(rig: Rig) -> None:
    first = BusClient(rig.path, index=3)
    for at in range(MAX_HOLDS):
        first.hold(float(at))
    BusClient(rig.path, instance="w1-1", index=1).hold(0.5, "ai_in")
    until(lambda: len(rig.server.holds()) == MAX_HOLDS + 1)
    second = BusClient(rig.path, instance="w3-2", index=3)
    second.hold(1000.0)
    until(lambda: rig.server.holds()[0].at == 1000.0)
    kept = rig.server.holds()
    assert [hold.at for hold in kept] == [1000.0, *(float(at) for at in range(MAX_HOLDS - 1, 0, -1)), 0.5]
    assert (kept[-1].worker, kept[-1].kind, kept[-1].pid) == (1, "ai_in", os.getpid())
    assert (kept[0].wall_s, kept[0].cpu_s) == (0.002, 0.001)
    assert kept[0].stack == [bus.StackFrame("gw/media/uplink.py", 40, "Uplink.push")]


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x03abc",
        bus.pack(bus.HangUp(CALL, "admin_hangup")),
        bus.pack(bus.Hello(0, "w0-1", 1, [], bus.VERSION)),
    ],
)
def test_garbage_costs_only_the_connection(rig: Rig, garbage: bytes) -> None:
    good = BusClient(rig.path, instance="w1-1", index=1, calls=[OTHER])
    bad = BusClient(rig.path, calls=[CALL])
    until(lambda: len(rig.server.workers()) == 2)
    bad.socket.sendall(garbage)
    assert bad.ended()
    good.await_ack(good.send(digit(1)))
    back = BusClient(rig.path, calls=[CALL])
    back.await_ack(back.send(digit(1)))
    assert rig.lost == []


def test_an_event_before_hello_ends_the_connection(rig: Rig) -> None:
    client = BusClient(rig.path, hello=False)
    client.send(digit(1))
    assert client.ended()
    assert rig.bodies() == []


def test_the_wait_for_hello_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HELLO_S", 0.05)
    assert BusClient(rig.path, hello=False).ended()
    with BusClient(rig.path, hello=False).socket as sock:
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""


def test_connections_without_hello_exclude_no_worker(rig: Rig) -> None:
    worker = BusClient(rig.path)
    silent = [BusClient(rig.path, hello=False) for _ in range(server.MAX_WAITING + 1)]
    assert silent[0].ended()
    until(lambda: [view.connected for view in rig.server.workers()] == [True])
    worker.socket.close()


def test_silence_ends_the_connection(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SILENCE_S", 0.05)
    assert BusClient(rig.path).ended()


def test_a_worker_that_does_not_read_loses_its_connection(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_COMMANDS", 10)
    client = BusClient(rig.path, calls=[CALL])
    until(lambda: rig.calls.is_owned(CALL))
    until(lambda: not rig.server.hang_up(CALL, "x" * 100_000))
    client.socket.settimeout(scaled(20))
    assert client.ended()


def test_a_newer_connection_of_a_process_replaces_the_older(rig: Rig) -> None:
    old = BusClient(rig.path, calls=[CALL, OTHER])
    until(lambda: rig.calls.owned() == {CALL, OTHER})
    new = BusClient(rig.path, calls=[OTHER])
    assert old.ended()
    until(lambda: rig.calls.owned() == {OTHER})
    new.await_ack(new.send(digit(1)))
    assert [view.connected for view in rig.server.workers()] == [True]


def test_a_process_that_ended_loses_its_calls(rig: Rig) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    client = BusClient(rig.path, pid=process.pid, calls=[OTHER])
    client.await_ack(client.send(call_started()))
    process.kill()  # not waited for: a zombie counts as ended
    client.close()
    until(lambda: rig.lost == [{CALL, OTHER}])
    assert rig.server.workers() == []
    process.wait(scaled(20))


def test_a_check_finds_a_dead_process_immediately(rig: Rig) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    client = BusClient(rig.path, pid=process.pid, calls=[CALL, OTHER])
    until(lambda: rig.calls.is_owned(CALL))
    rig.server.check_owner(CALL)
    assert rig.lost == []
    process.kill()
    process.wait(scaled(20))
    rig.server.check_owner(CALL)
    assert rig.lost == [{CALL, OTHER}], "all of its calls together"
    rig.server.check_owner(CALL)
    assert rig.lost == [{CALL, OTHER}], "and once"
    client.close()


def test_a_question_is_answered_after_the_events_before_it(rig: Rig) -> None:
    client = BusClient(rig.path)
    data = bus.pack(bus.Numbered(1, digit(1))) + bus.pack(bus.Ask(5, CALL, "nonsense")) + bus.pack(bus.Ask(6, CALL, "next"))
    client.socket.sendall(data)
    commands = [client.command(), client.command()]
    assert commands == [bus.Ack(1), bus.Answer(6, step="1 received")]
    client.close()


def test_a_reused_pid_is_not_the_worker(rig: Rig) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait(scaled(20))
    client = BusClient(rig.path, pid=process.pid, calls=[CALL])
    until(lambda: rig.calls.is_owned(CALL))
    client.close()
    until(lambda: rig.lost == [{CALL}])


def test_a_live_process_may_reconnect(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    client = BusClient(rig.path, calls=[CALL])
    until(lambda: rig.calls.is_owned(CALL))
    client.close()
    until(lambda: [view.connected for view in rig.server.workers()] == [False])
    assert rig.calls.is_owned(CALL), "it may still be talking to the caller"
    assert not rig.server.hang_up(CALL, "admin_hangup")
    back = BusClient(rig.path, calls=[CALL])
    until(lambda: [view.connected for view in rig.server.workers()] == [True])
    monkeypatch.setattr(server, "RETURN_S", 0.0)
    assert rig.lost == []
    back.close()
    until(lambda: rig.lost == [{CALL}])


def test_a_worker_that_ends_without_calls_is_removed(rig: Rig) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait(scaled(20))
    client = BusClient(rig.path, pid=process.pid, calls=[CALL])
    client.await_ack(client.send(call_ended()))
    client.close()
    until(lambda: rig.server.workers() == [])
    assert rig.lost == []


def test_an_event_that_cannot_be_spooled_is_not_acknowledged(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FAILED_COMMIT_S", 0.0)

    def full(*_: object, **__: object) -> None:
        raise SpoolError("the disk is full")

    doubtful: list[str] = []
    rig.server.make_jobs_with(lambda event: (), lambda jobs: None, doubtful.extend)
    with monkeypatch.context() as patch:
        patch.setattr(rig.spool, "append", full)
        client = BusClient(rig.path)
        client.send(digit(1), bus.JobWanted("j1", "tool", CALL, 2_000_000_000_000, "{}"))
        with pytest.raises(EOFError):
            client.command()
    assert (rig.received, doubtful) == ([], ["j1"])
    back = BusClient(rig.path)
    back.await_ack(back.send(digit(1)))
    until(lambda: rig.received == [digit(1)])


def test_a_subscriber_that_fails_costs_the_others_nothing(rig: Rig) -> None:
    def broken(_event: bus.Event) -> None:
        raise RuntimeError("broken")

    received: list[bus.Event] = []
    rig.server.subscribe(broken)
    rig.server.subscribe(received.append)
    client = BusClient(rig.path)
    client.await_ack(client.send(digit(1)))
    until(lambda: received == [digit(1)])
    client.await_ack(client.send(digit(2)))
    until(lambda: received == [digit(1), digit(2)])


def test_stop_ends_everything(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = BusClient(rig.path, calls=[CALL])
    until(lambda: rig.calls.is_owned(CALL))
    rig.stop()
    assert client.ended()
    assert not rig.path.exists()
    assert rig.lost == []


def test_an_unreadable_event_is_spooled_and_blocks_no_other(rig: Rig) -> None:
    client = BusClient(rig.path)
    unknown = {"type": "Numbered", "n": 1, "event": {"type": "Smell", "call_sid": CALL, "at": 1.0}}
    body = msgspec.msgpack.encode(unknown)
    client.socket.sendall(struct.pack("!I", len(body)) + body)
    client.send(digit(2), first=2)
    until(lambda: rig.received)
    assert rig.received == [digit(2)]
    first, second = rig.spool.batch(10)
    assert msgspec.msgpack.decode(first.body) == unknown["event"]
    assert bus.decode_event(second.body) == digit(2)


def results_of(question: bus.JobsOpen) -> list[bus.JobSettled]:
    if not question.ids:
        raise RuntimeError("on purpose")
    return [bus.JobSettled(job_id, question.call_sid, "done", "{}") for job_id in question.ids]


def test_open_jobs_are_answered_one_by_one_and_a_failed_question_alone(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    client = BusClient(rig.path, calls=[CALL])
    client.socket.sendall(bus.pack(bus.JobsOpen(CALL, ["early"])))  # no answer until control has jobs
    client.await_ack(client.send(digit(1)))
    rig.server.answer_jobs_with(results_of)
    client.socket.sendall(bus.pack(bus.JobsOpen(CALL, [])) + bus.pack(bus.JobsOpen(CALL, ["a", "b"])))
    assert [client.command(), client.command()] == [bus.JobSettled(one, CALL, "done", "{}") for one in ("a", "b")]
    assert "a worker's question failed" in caplog.text


def test_cancelled_jobs_are_passed_on_behind_the_events(rig: Rig) -> None:
    cancelled: list[tuple[str, int]] = []
    client = BusClient(rig.path, calls=[CALL])
    client.socket.sendall(bus.pack(bus.JobCancelled("early")))
    client.await_ack(client.send(digit(1)))
    rig.server.cancel_jobs_with(lambda job_id: cancelled.append((job_id, len(rig.received))))
    client.socket.sendall(bus.pack(bus.JobCancelled("a")) + bus.pack(bus.Numbered(2, digit(2))))
    client.await_ack(2)
    assert cancelled == [("a", 2)]


def test_a_job_is_on_disk_when_its_event_is_acknowledged_and_no_entry(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    taken: list[Job] = []

    def jobs_of(event: bus.Event) -> list[Wanted]:
        if not isinstance(event, bus.JobWanted):
            return (
                [Wanted(lifecycle.want("beside", "event", CALL, "{}", deadline_at=2e9, now=1e9), 9)] if event == digit(3) else []
            )
        return [Wanted(lifecycle.want(event.id, event.kind, event.call_sid, event.body, deadline_at=2e9, now=1e9), 9)]

    def on_jobs(jobs: Sequence[Job]) -> None:
        taken.extend(jobs)
        raise RuntimeError("on purpose")

    wanted = bus.JobWanted("j1", "tool", CALL, 2_000_000_000_000, "{}")
    client = BusClient(rig.path)
    client.await_ack(client.send(wanted))  # nothing takes jobs yet: an event like any other
    doubtful: list[str] = []
    rig.server.make_jobs_with(jobs_of, on_jobs, doubtful.extend)
    client.await_ack(client.send(wanted, digit(2), digit(3)))
    until(lambda: len(rig.received) == 4)
    assert [job.id for job in taken] == ["j1", "beside"]
    assert rig.bodies() == [wanted, digit(2), digit(3)]
    assert rig.spool.last("w0-1") == 4
    assert "2 jobs were accepted, but not begun" in caplog.text
    assert doubtful == ["j1", "beside"]


def test_a_result_reaches_the_worker_of_its_call_only(rig: Rig) -> None:
    settled = bus.JobSettled("j1", CALL, "done", "text")
    assert not rig.server.settle(settled)
    client = BusClient(rig.path, calls=[CALL])
    other = BusClient(rig.path, instance="w1-1", index=1, calls=[OTHER])
    until(lambda: rig.calls.owned() == {CALL, OTHER})
    assert rig.server.settle(settled)
    assert client.command() == settled
    other.send(digit(1))
    assert other.command() == bus.Ack(1)


def test_a_worker_confirms_that_it_expects_a_stop(rig: Rig) -> None:
    client = BusClient(rig.path, calls=[CALL])
    until(lambda: rig.calls.is_owned(CALL))
    asked = gevent.spawn(rig.server.expect_stop, CALL, True)
    assert client.command() == bus.ExpectStop(CALL, server.STOP_S)
    client.confirm(CALL, route="r1")
    assert asked.get(timeout=scaled(10.0)) == {"route": "r1"}
    assert rig.server.expect_stop(CALL, False) == {}
    assert client.command() == bus.ExpectStop(CALL, 0.0)
    client.confirm(CALL)  # nothing waits for it
    client.await_ack(client.send(digit(1)))


def test_no_stop_is_expected_by_an_older_worker_or_without_an_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "EXPECT_S", 0.1)
    assert rig.server.expect_stop(CALL, True) == {}
    BusClient(rig.path, instance="w1-1", index=1, calls=[OTHER])
    older = BusClient(rig.path, hello=False)
    older.socket.sendall(bus.pack(bus.Hello(0, "w0-1", os.getpid(), [CALL], 3)))
    until(lambda: rig.calls.owned() == {CALL, OTHER})
    assert rig.server.expect_stop(OTHER, True) == {}
    assert rig.server.expect_stop(CALL, True) == {}
    older.send(digit(1))
    assert older.command() == bus.Ack(1), "it would end its connection on an unknown command"


@pytest.mark.parametrize("version", [0, 1, bus.VERSION + 1])
def test_a_worker_of_another_version_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    monkeypatch.setattr(server, "REFUSED_S", 0.1)
    client = BusClient(rig.path, hello=False)
    client.socket.sendall(bus.pack(bus.Hello(4, "w4-1", os.getpid(), [CALL], version)))
    refusal = client.command()
    assert isinstance(refusal, bus.VersionRefused)
    assert (refusal.version, refusal.why) == (bus.VERSION, rig.server.refused())
    assert f"speaks bus version {version}, control speaks {bus.OLDEST_VERSION} to {bus.VERSION}" in refusal.why
    assert (rig.server.workers(), rig.calls.owned()) == ([], set())
    monkeypatch.setattr(server, "REFUSED_FOR_S", 0.0)
    assert rig.server.refused() == ""


def test_a_stream_on_a_call_of_another_account_must_end_and_changes_no_row(rig: Rig) -> None:
    one, two = BusClient(rig.path), BusClient(rig.path, instance="w1-1", index=1)
    own = call_started()
    one.await_ack(one.send(own))
    two.send(msgspec.structs.replace(own, account_sid="AC" + "9" * 32, answered_at=own.answered_at + 5), digit(1))
    assert [two.command(), two.command()] == [bus.Ack(2), bus.HangUp(CALL, "wrong_account")]
    until(lambda: rig.received == [own, digit(1)])
    assert rig.bodies() == [own, digit(1)]
    two.await_ack(two.send(digit(2)))
    assert rig.calls.owner(CALL) == "w0-1"
