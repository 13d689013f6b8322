"""gw.media.worker as a process: ready, serving, commanded, drained and replaced."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from gw import bus
from gw.config import Config, Ops, Secrets, Server
from gw.media import worker as module
from gw.media.worker import Worker
from gw.scoreboard import ProcessState, Scoreboard
from gw.supervise.child import HURRY
from metrics.declare import STREAMS_MISSED
from tests.gw.media.support import CALL, WAIT_S, Control, Peer, connected, start, stop, until
from tests.timing import scaled

ROOT = Path(__file__).parents[3]


class Process:
    """A worker process, with the test as its control."""

    def __init__(self, folder: Path, *, stop_timeout_s: float, control: bool = True) -> None:
        var = folder / "var"
        var.mkdir(parents=True)
        (var / "pages").mkdir()  # in the test's folder, not in the machine's shared memory
        config = folder / "submilli.toml"
        config.write_text(
            f'[server]\nstop_timeout_s = {stop_timeout_s}\n[ops]\nvar_dir = "{var}"\nadmin_socket = "{var}/admin.sock"\n'
        )
        self.control = Control(var / "bus.sock") if control else None
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.address: tuple[str, int] = self.listener.getsockname()
        ready, ready_fd = os.pipe()
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("SUBMILLI", "TWILIO", "OPENAI"))}
        descriptors = (self.listener.fileno(), ready_fd)
        self.popen = subprocess.Popen(
            [
                *(sys.executable, "gateway.py", "--config", str(config), "worker", "--index", "0"),
                *("--listen-fd", str(descriptors[0]), "--ready-fd", str(descriptors[1])),
            ],
            cwd=ROOT,
            env={**environ, "SUBMILLI_TOKEN_KEY": "a key of the tests"},
            pass_fds=descriptors,
            stderr=subprocess.PIPE,
        )
        os.close(ready_fd)
        try:
            with gevent.Timeout(scaled(20.0)):
                socket.wait_read(ready)
            self.ready = os.read(ready, 2)
            if self.ready != b"1":
                raise AssertionError(self.popen.communicate(timeout=WAIT_S)[1].decode())
        finally:
            os.close(ready)
        if self.control is not None:
            self.hello = self.control.accept()

    def event(self, kind: type) -> Any:
        """Return the next event of a kind; acknowledge all events up to it."""
        assert self.control is not None
        while True:
            message = self.control.next()
            if isinstance(message, bus.Numbered):
                self.control.say(bus.Ack(message.n))
                if isinstance(message.event, kind):
                    return message.event

    def call(self) -> Peer:
        peer = Peer.connect(self.address)
        peer.send(connected())
        peer.send(start())
        self.event(bus.CallStarted)
        return peer

    def voice(self) -> str:
        return self.post("/twilio/voice")

    def post(self, path: str) -> str:
        connection = http.client.HTTPConnection(*self.address, timeout=WAIT_S)
        connection.request("POST", path, f"CallSid={CALL}")
        body = connection.getresponse().read().decode()
        connection.close()
        return body

    def signal(self, signum: int) -> None:
        self.popen.send_signal(signum)

    def exit_code(self) -> int:
        return self.popen.wait(timeout=scaled(15.0))

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()
        self.listener.close()
        if self.control is not None:
            self.control.close()


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Process]:
    """A worker with a long stop timeout."""
    process = Process(tmp_path, stop_timeout_s=60.0)
    yield process
    process.close()


def test_a_worker_gets_ready_sends_hello_serves_and_stops(patient: Process):
    assert patient.ready == b"1"
    assert (patient.hello.worker, patient.hello.pid, patient.hello.calls) == (0, patient.popen.pid, [])
    assert "<Stream" in patient.voice()
    patient.signal(signal.SIGTERM)
    assert patient.exit_code() == 0


def test_commands_of_control(patient: Process):
    assert patient.control is not None
    peer = patient.call()
    patient.control.say(bus.Drain(True))
    until(lambda: "<Say>" in patient.voice(), "it still accepts calls")
    patient.control.say(bus.Drain(False))
    until(lambda: "<Stream" in patient.voice(), "it accepts calls again")
    patient.control.say(bus.HangUp("CA" + "9" * 32, "admin_hangup"), bus.HangUp(CALL, "no such reason"))
    assert peer.read_to_end() == (1000, "admin_hangup")
    assert patient.event(bus.CallEnded).reason == "admin_hangup"
    patient.signal(signal.SIGINT)
    assert patient.exit_code() == 0


def test_a_drain_lets_a_call_end(patient: Process):
    assert patient.control is not None
    peer = patient.call()
    patient.signal(signal.SIGTERM)
    patient.signal(signal.SIGTERM)
    status = patient.control.next()
    while not (isinstance(status, bus.WorkerStatus) and status.draining):
        status = patient.control.next()
    patient.control.say(bus.Drain(False))  # does not cancel the stop
    gevent.sleep(0.2)
    assert patient.popen.poll() is None
    peer.send(stop())
    assert peer.read_to_end() == (1000, "caller_hangup")
    assert patient.event(bus.CallEnded).reason == "caller_hangup"
    assert patient.exit_code() == 0


def test_webhooks_are_answered_until_the_end(patient: Process):
    """A new caller hears that the lines are busy, and the action webhook is answered."""
    assert patient.control is not None
    peer = patient.call()
    patient.signal(signal.SIGTERM)
    until(lambda: "<Say>" in patient.voice(), "it still accepts calls")
    peer.send(stop())
    assert peer.read_to_end() == (1000, "caller_hangup")
    assert patient.post("/twilio/action").endswith("<Response><Hangup /></Response>")
    assert patient.event(bus.CallEnded).reason == "caller_hangup"
    assert patient.exit_code() == 0


def test_a_hurried_stop_ends_calls_and_reports_them(patient: Process):
    peer = patient.call()
    patient.signal(signal.SIGTERM)
    patient.signal(HURRY)
    assert peer.read_to_end() == (1000, "shutdown")
    assert patient.event(bus.CallEnded).reason == "shutdown"
    assert patient.exit_code() == 0


def test_a_drain_that_is_over_ends_its_calls_and_reports_them(tmp_path: Path):
    process = Process(tmp_path, stop_timeout_s=0.2)
    peer = process.call()
    waiting = Peer.connect(process.address)
    process.signal(signal.SIGTERM)
    assert peer.read_to_end() == (1000, "shutdown")
    assert waiting.read_to_end() == (1000, "shutdown")
    ended = process.event(bus.CallEnded)
    assert (ended.reason, ended.result) == ("shutdown", "success")
    assert process.exit_code() == 0
    process.close()


def test_a_stop_does_not_wait_for_a_missing_control(tmp_path: Path):
    process = Process(tmp_path, stop_timeout_s=0.1)
    assert process.control is not None
    peer = process.call()
    process.control.close()
    begun_s = time.monotonic()
    process.signal(signal.SIGTERM)
    assert peer.read_to_end() == (1000, "shutdown")
    assert process.exit_code() == 0
    assert time.monotonic() - begun_s < scaled(10.0)
    process.close()


# -- a worker that is replaced ------------------------------------------------------------------------------------------------


class Replaced:
    """One of two workers, in this process, that is replaced."""

    def __init__(self, folder: Path) -> None:
        self.bus_path = folder / "bus.sock"
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(8)
        scoreboard = Scoreboard.private()
        self.row = scoreboard.take_row(0)
        config = Config(server=Server(workers=2), ops=Ops(var_dir=str(folder)), secrets=Secrets(token_key="a key of the tests"))
        self.worker = Worker(config, 0, self._listener, scoreboard=scoreboard, row=self.row)
        self._greenlet: gevent.Greenlet[..., int] | None = None

    def start(self) -> None:
        ready = Event()
        self._greenlet = gevent.spawn(self.worker.run, ready.set)
        assert ready.wait(WAIT_S)

    def exit_code(self) -> int:
        assert self._greenlet is not None
        return self._greenlet.get(timeout=WAIT_S)

    def close(self) -> None:
        self.worker.hurry()
        if self._greenlet is not None:
            self._greenlet.join(timeout=WAIT_S)
        self._listener.close()


@pytest.fixture
def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replaced]:
    monkeypatch.setattr(module, "FLUSH_S", 0.05)
    monkeypatch.setattr(module, "LINGER_S", 0.0)
    made = Replaced(tmp_path)
    yield made
    made.close()


def test_the_last_events_wait_for_a_control_that_is_replaced_too(replaced: Replaced, caplog: pytest.LogCaptureFixture):
    replaced.start()
    event = bus.CallEvent(CALL, "dtmf", 1.0)
    replaced.worker.context.emit(event)
    replaced.worker.leave()
    gevent.sleep(0.3)  # longer than a stopping gateway would wait
    control = Control(replaced.bus_path)
    control.accept()
    assert control.events(1) == [bus.Numbered(1, event)]
    control.say(bus.Ack(1))
    assert replaced.exit_code() == 0
    assert "control did not acknowledge" not in caplog.text
    control.close()


@pytest.mark.parametrize("end", ["hurry", "stop", "pass"])
def test_unacknowledged_events_are_logged(
    replaced: Replaced, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, end: str
):
    """The worker was hurried, the gateway stops, or control never came."""
    if end == "pass":
        monkeypatch.setattr(module, "LEAVE_FLUSH_S", 0.1)
    replaced.start()
    for at in (1.0, 2.0):
        replaced.worker.context.emit(bus.CallEvent(CALL, "dtmf", at))
    replaced.worker.leave()
    gevent.sleep(0.1)
    if end != "pass":
        getattr(replaced.worker, end)()
    assert replaced.exit_code() == 0
    assert [entry.getMessage() for entry in caplog.records if entry.levelname == "ERROR"] == [
        "control did not acknowledge the last 2 events: they may be lost"
    ]


def test_a_stream_that_does_not_come_is_counted_once_its_slot_is_released(replaced: Replaced):
    worker = replaced.worker
    worker.context.slots._reserved_ns = 0
    replaced.row.state = ProcessState.UP
    assert worker.context.slots.reserve(CALL) == ""
    replaced.start()
    until(lambda: worker.context.slots.reserved == 0, "the slot was not released")
    assert worker._page.counter(STREAMS_MISSED).value == 1
    worker.leave()


def test_heartbeats_continue_during_the_drain_after_publish_failed(replaced: Replaced, monkeypatch: pytest.MonkeyPatch):
    """Otherwise the supervisor would kill the worker and its calls."""
    monkeypatch.setattr(module, "LINGER_S", 3600.0)
    fails = Event()

    def turn() -> None:
        fails.wait()
        raise ValueError("publishing failed")

    monkeypatch.setattr(replaced.worker, "_publish", turn)
    replaced.start()
    ticks = {replaced.row.heartbeat_ns}

    def has_ticked() -> bool:
        ticks.add(replaced.row.heartbeat_ns)
        return len(ticks) > 3

    fails.set()
    until(has_ticked, "no heartbeat came")
    assert replaced.worker.context.leaving
    replaced.worker.hurry()
    assert replaced.exit_code() == 1
