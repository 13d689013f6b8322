"""gw.media.bus_client on a real socket: events arrive in sequence, and dropped ones are counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from socket import MSG_DONTWAIT, MSG_PEEK

import gevent
import pytest

from gw import bus
from gw.call.quality import Quality
from gw.media import bus_client as module
from gw.media.bus_client import BusClient
from metrics.declare import BUS_DROPPED, BUS_UNACKED
from metrics.page import Page
from tests.gw.media.support import WAIT_S, ContextMaker, Control, descriptors, until


def event(n: int) -> bus.CallEvent:
    return bus.CallEvent("CA1", f"event{n}", 1.0)


def ended(n: int) -> bus.CallEnded:
    return bus.CallEnded(f"CA{n}", 1.0, "caller_hangup", "success", "", Quality())


class Rig:
    def __init__(self, folder: Path, page: Page) -> None:
        self.path = folder / "bus.sock"
        self.page = page
        self.commands: list[bus.Command] = []
        self.calls = {"CA1": (5.0, "AC1")}
        self.open_jobs: dict[str, list[str]] = {}
        self.client = BusClient(
            self.path,
            3,
            page,
            calls=lambda: self.calls,
            status=lambda unacked: bus.WorkerStatus(7, False, unacked, 0.0, 0.0),
            on_command=self.commands.append,
            open_jobs=lambda: self.open_jobs,
        )
        self.running = gevent.Greenlet(self.client.run)
        self.controls: list[Control] = []

    def control(self) -> Control:
        self.path.unlink(missing_ok=True)
        self.controls.append(Control(self.path))
        return self.controls[-1]

    def dropped(self, kind: str) -> float:
        return self.page.counter(BUS_DROPPED, kind=kind).value

    def close(self) -> None:
        self.client.stop()
        if self.running.started or self.running.ready():
            self.running.join(timeout=WAIT_S)
            assert self.running.successful()
        for control in self.controls:
            control.close()


@pytest.fixture
def rig(contexts: ContextMaker, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, contexts.page())
    yield made
    made.close()


def numbers(got: list[bus.Numbered]) -> list[int]:
    return [message.n for message in got]


def test_hello_then_events_in_order_then_status(rig: Rig):
    control = rig.control()
    rig.client.emit(event(1))
    rig.running.start()
    hello = control.accept()
    assert (hello.worker, hello.instance, hello.calls) == (3, rig.client.instance, ["CA1"])
    rig.client.emit(event(2))
    got = control.events(2)
    assert got == [bus.Numbered(1, event(1)), bus.Numbered(2, event(2))]
    status = control.next()
    assert isinstance(status, bus.WorkerStatus)
    assert (status.calls, status.unacked) == (7, 2)


def test_what_one_turn_of_the_hub_emits_is_one_write(rig: Rig):
    """Control reads it in one read, and one commit has all of it."""
    control = rig.control()
    rig.running.start()
    control.accept()
    assert isinstance(control.next(), bus.WorkerStatus)
    assert control.link is not None
    rig.client.emit(event(1))
    rig.client.cancel_job("CA1/1/call_x")
    rig.client.emit(event(2))
    with pytest.raises(BlockingIOError):
        control.link._sock.recv(1, MSG_PEEK | MSG_DONTWAIT)
    assert [control.next(), control.next(), control.next()] == [
        bus.Numbered(1, event(1)),
        bus.JobCancelled("CA1/1/call_x"),
        bus.Numbered(2, event(2)),
    ]


def test_reports_wait_for_an_event_that_does_not(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """Control commits them together, and nothing overtakes them."""
    control = rig.control()
    rig.running.start()
    control.accept()
    assert isinstance(control.next(), bus.WorkerStatus)
    assert control.link is not None
    with monkeypatch.context() as patch:
        patch.setattr(module, "REPORT_S", 1000.0)
        for n in (1, 2):
            rig.client.emit(event(n))
            gevent.sleep(0.01)
        with pytest.raises(BlockingIOError):
            control.link._sock.recv(1, MSG_PEEK | MSG_DONTWAIT)
        rig.client.emit(ended(3))
    assert [control.next() for _ in range(3)] == [bus.Numbered(1, event(1)), bus.Numbered(2, event(2)), bus.Numbered(3, ended(3))]
    rig.client.emit(event(4))
    assert control.next() == bus.Numbered(4, event(4)), "alone, after a while"


def test_every_connection_asks_for_open_jobs_behind_the_events(rig: Rig):
    wanted = bus.JobWanted("CA1/1/call_x", "tool", "CA1", 5_000, "{}")
    rig.client.emit(wanted)
    rig.open_jobs.update({"CA1": ["CA1/1/call_x"], "CA2": []})
    settled = bus.JobSettled("CA1/1/call_x", "CA1", "done", "{}")
    for _ in range(2):
        control = rig.control()
        if not rig.running.started:
            rig.running.start()
        control.accept()
        assert control.next() == bus.Numbered(1, wanted)
        assert control.next() == bus.JobsOpen("CA1", ["CA1/1/call_x"])
        assert isinstance(control.next(), bus.WorkerStatus)
        control.say(settled)
        until(lambda: rig.commands == [settled])
        rig.commands.clear()
        control.hang_up()


def test_a_job_is_cancelled_while_control_is_connected(rig: Rig):
    rig.client.cancel_job("lost")
    control = rig.control()
    rig.running.start()
    control.accept()
    assert isinstance(control.next(), bus.WorkerStatus)
    rig.client.cancel_job("CA1/1/call_x")
    assert control.next() == bus.JobCancelled("CA1/1/call_x")


def test_a_hold_is_sent_while_control_is_connected_and_never_kept(rig: Rig):
    lost, sent = (bus.HubHold(at, "rx", 0.002, 0.001, [bus.StackFrame("a.py", 1, "f")]) for at in (1.0, 2.0))
    rig.client.send_hold(lost)
    control = rig.control()
    rig.running.start()
    control.accept()
    assert isinstance(control.next(), bus.WorkerStatus)
    rig.client.send_hold(sent)
    while not isinstance(message := control.next(), bus.HubHold):
        pass
    assert (message, rig.client.unacked) == (sent, 0)


def test_only_acknowledged_events_are_dropped(rig: Rig):
    control = rig.control()
    rig.running.start()
    control.accept()
    for n in range(1, 11):
        rig.client.emit(event(n))
    control.events(10)
    control.say(bus.Ack(4))
    until(lambda: rig.client.unacked == 6)
    control.say(bus.Ack(2), bus.Ack(4))
    control.hang_up()
    control.accept()
    assert numbers(control.events(6)) == [5, 6, 7, 8, 9, 10]
    assert rig.page.gauge(BUS_UNACKED).value == 6
    control.say(bus.Ack(10))
    assert rig.client.flush(WAIT_S) is True
    assert rig.page.gauge(BUS_UNACKED).value == 0


def test_an_acknowledgement_beyond_the_last_event_loses_nothing(rig: Rig):
    control = rig.control()
    rig.running.start()
    control.accept()
    rig.client.emit(event(1))
    control.events(1)
    control.say(bus.Ack(1 << 60))
    until(lambda: rig.client.unacked == 0)
    rig.client.emit(event(2))
    assert rig.client.unacked == 1
    assert numbers(control.events(1)) == [2]


def test_events_emitted_while_control_is_away_come_later_in_sequence(rig: Rig):
    rig.running.start()
    for n in range(1, 500):
        rig.client.emit(event(n))
        if n % 100 == 0:
            gevent.sleep(0.01)
    control = rig.control()
    control.accept()
    rig.client.emit(event(500))
    assert numbers(control.events(500)) == list(range(1, 501))


def test_an_event_emitted_during_a_resend_keeps_its_place(rig: Rig):
    for n in range(1, 2001):
        rig.client.emit(event(n))
    control = rig.control()

    def talk() -> None:
        for n in range(2001, 2101):
            rig.client.emit(event(n))
            gevent.sleep(0)

    others = gevent.spawn(talk)
    rig.running.start()
    control.accept()
    assert numbers(control.events(2100)) == list(range(1, 2101))
    others.join()


def test_a_resend_lets_other_greenlets_run(rig: Rig):
    for n in range(1, 2001):
        rig.client.emit(event(n))
    control = rig.control()
    rig.running.start()
    gevent.sleep(0)
    turns = 0
    while rig.client._transport is None:
        turns += 1
        gevent.sleep(0)
    assert turns >= 2000 // module.RESEND_BATCH
    control.accept()
    assert numbers(control.events(2000)) == list(range(1, 2001))


def test_a_slow_control_gets_everything(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 1 << 17)
    big = "x" * 10_000
    for n in range(1, 201):
        rig.client.emit(bus.CallEvent("CA1", "big", 1.0, {"n": n, "text": big}))
    control = rig.control()
    rig.running.start()
    control.accept()
    gevent.sleep(0.05)
    assert numbers(control.events(200)) == list(range(1, 201))


def test_a_control_that_does_not_read_is_disconnected_and_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 1 << 17)
    control = rig.control()
    rig.running.start()
    control.accept()
    until(lambda: rig.client._transport is not None)
    transport = rig.client._transport
    assert transport is not None
    n = 0
    while not transport.failure:
        n += 1
        rig.client.emit(bus.CallEvent("CA1", "big", 1.0, {"text": "x" * 10_000}))
        gevent.sleep(0)
    assert transport.failure == "stalled"
    control.accept()
    assert numbers(control.events(n)) == list(range(1, n + 1))


def test_over_the_bound_the_least_important_kind_is_dropped_first(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_UNACKED", 10)
    for n in range(1, 6):
        rig.client.emit(ended(n))
        rig.client.emit(event(n))
    rig.client.emit(bus.Webhook("status", 1.0, {}))
    rig.client.emit(ended(6))
    assert rig.client.unacked == 10
    assert rig.dropped("call_event") == 2
    control = rig.control()
    rig.running.start()
    control.accept()
    assert numbers(control.events(10)) == [1, 3, 5, 6, 7, 8, 9, 10, 11, 12]


def test_each_kind_is_dropped_before_the_more_important_ones(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_UNACKED", 6)
    kinds = {
        "start_recording": bus.StartRecording("CA1", "AC1", 1.0),
        "call_ended": ended(1),
        "turn": bus.Turn("CA1", 1, "caller", "Hello", "item", 0),
        "first_audio": bus.FirstAudio("CA1", 1.0),
        "webhook": bus.Webhook("status", 1.0, {}),
        "call_event": event(1),
    }
    for one in kinds.values():
        rig.client.emit(one)
    lost = []
    for n in range(2, 8):
        rig.client.emit(bus.StartRecording(f"CA{n}", "AC1", 1.0))
        lost.append([name for name in kinds if rig.dropped(name)])
    assert lost == [list(kinds)[5 - n :] for n in range(6)]


def test_the_bytes_are_bounded_too(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_UNACKED_BYTES", 10_000)
    for n in range(1, 6):
        rig.client.emit(bus.Turn("CA1", n, "agent", "x" * 1800, "item", 0))
    rig.client.emit(bus.Webhook("status", 1.0, {"Body": "y" * 5000}))
    assert (rig.dropped("webhook"), rig.dropped("turn"), rig.client.unacked) == (1, 0, 5)
    rig.client.emit(bus.Turn("CA1", 6, "agent", "x" * 1800, "item", 0))
    assert (rig.dropped("turn"), rig.client.unacked) == (1, 5)
    assert rig.client._unacked_bytes <= 10_000
    rig.client._on_ack(7)
    assert (rig.client.unacked, rig.client._unacked_bytes) == (0, 0)


def test_a_control_of_another_version_is_tried_seldom_and_no_event_is_lost(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "REFUSED_RETRY_S", 0.3)
    rig.client.emit(event(1))
    control = rig.control()
    rig.running.start()
    assert control.accept().version == bus.VERSION
    control.say(bus.VersionRefused(9, "worker 3 speaks bus version 1, control speaks 9"))
    until(lambda: rig.client._retry_s == 0.3)
    control.accept()
    assert numbers(control.events(1)) == [1]
    control.say(bus.Ack(1))
    until(lambda: rig.client.unacked == 0)
    assert rig.client._retry_s == module.RETRY_S


def test_over_the_bound_of_one_kind_the_oldest_is_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_UNACKED", 10)
    for n in range(1, 14):
        rig.client.emit(ended(n))
    assert rig.client.unacked == 10
    assert rig.dropped("call_ended") == 3
    rig.client._on_ack(5)
    for n in range(14, 20):
        rig.client.emit(ended(n))
    assert rig.client.unacked == 10
    control = rig.control()
    rig.running.start()
    control.accept()
    assert numbers(control.events(10)) == list(range(10, 20))


def test_at_the_bound_a_drop_does_not_scan_all_events(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    for n in range(module.MAX_UNACKED):
        rig.client.emit(ended(n))
    seen: list[int] = []

    class Watched(dict):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[int]:
            seen.append(1)
            return super().__iter__()

    rig.client._unacked = Watched(rig.client._unacked)
    for n in range(100):
        rig.client.emit(ended(n))
    assert rig.dropped("call_ended") == 100
    assert not seen


def test_an_event_that_cannot_be_packed_is_dropped_and_counted(rig: Rig):
    rig.client.emit(bus.CallEvent("CA1", "half \ud800", 1.0))
    rig.client.emit(bus.CallEvent("CA1", "long", 1.0, {"text": "x" * (bus.MAX_MESSAGE_BYTES + 1)}))
    rig.client.emit(event(1))
    assert rig.dropped("call_event") == 2
    control = rig.control()
    rig.running.start()
    control.accept()
    assert control.events(1) == [bus.Numbered(1, event(1))]


def test_a_question_is_answered_by_its_number(rig: Rig):
    control = rig.control()
    rig.running.start()
    control.accept()
    asking = [gevent.spawn(rig.client.ask, f"CA{n}", "next") for n in range(2)]
    asks: list[bus.Ask] = []
    while len(asks) < 2:
        if isinstance(message := control.next(), bus.Ask):
            asks.append(message)
    control.say(bus.Answer(99), *(bus.Answer(ask.n, agent=ask.call_sid) for ask in reversed(asks)))
    answers = [one.get(timeout=WAIT_S) for one in asking]
    assert [answer.agent for answer in answers] == ["CA0", "CA1"]
    assert rig.client._open == {}


def test_a_question_without_an_answer_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    assert rig.client.ask("CA1", "next") is None, "control is away"
    monkeypatch.setattr(module, "ASK_S", {"next": 0.02})
    control = rig.control()
    rig.running.start()
    control.accept()
    assert isinstance(control.next(), bus.WorkerStatus)
    assert rig.client.ask("CA1", "next") is None
    assert rig.client._open == {}


def test_a_question_ends_with_its_connection(rig: Rig):
    control = rig.control()
    rig.running.start()
    control.accept()
    asking = gevent.spawn(rig.client.put, bus.Ask(0, "CA1", "route", "AC1", {"From": "+1"}), 10 * WAIT_S)
    until(lambda: len(rig.client._open) == 1)
    control.hang_up()
    assert asking.get(timeout=WAIT_S) is None
    assert rig.client.put(bus.Ask(0, "CA1", "route", "", {"x": "y" * bus.MAX_MESSAGE_BYTES}), 1.0) is None
    assert rig.client._open == {}


def test_commands_reach_the_worker(rig: Rig):
    control = rig.control()
    rig.running.start()
    control.accept()
    commands = [bus.HangUp("CA1", "admin_hangup"), bus.Drain(True), bus.Drain(False)]
    control.say(*commands)
    until(lambda: len(rig.commands) == 3)
    assert rig.commands == commands


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1"])
def test_a_control_that_sends_nonsense_is_disconnected_without_a_leak(rig: Rig, nonsense: bytes):
    control = rig.control()
    rig.client.emit(event(1))
    rig.running.start()
    control.accept()
    before = descriptors()
    for _ in range(3):
        assert control.link is not None
        link = control.link
        control.events(1)
        link.sendall(nonsense)
        control.accept()
        link.close()
    assert numbers(control.events(1)) == [1]
    assert descriptors() <= before


def test_a_control_that_connects_repeatedly_leaks_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    control = rig.control()
    rig.running.start()
    control.accept()
    before = descriptors()
    for _ in range(20):
        control.hang_up()
        control.accept()
    assert descriptors() <= before


def test_hello_names_the_open_calls(rig: Rig):
    control = rig.control()
    rig.running.start()
    control.accept()
    rig.calls = {"CA2": (7.0, "AC1"), "CA3": (6.0, "AC2")}
    control.hang_up()
    hello = control.accept()
    assert (hello.calls, hello.answered_at, hello.account_sids) == (["CA2", "CA3"], [7.0, 6.0], ["AC1", "AC2"])


def test_flush_is_bounded(rig: Rig):
    rig.client.emit(event(1))
    with gevent.Timeout(WAIT_S):
        assert rig.client.flush(0.05) is False


@pytest.mark.parametrize("reachable", [True, False])
def test_stop_ends_the_greenlet(rig: Rig, reachable: bool):
    control = rig.control() if reachable else None
    rig.running.start()
    if control is not None:
        control.accept()
    gevent.sleep(0.01)
    rig.client.stop()
    rig.running.join(timeout=WAIT_S)
    assert rig.running.successful()
