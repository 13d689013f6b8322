"""gw.control.main: a whole control process, from events on the bus to rows in the store, its start and its end."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import msgspec
import pytest
from sqlalchemy.engine import make_url

from gw import bus
from gw.config import Config, EventHook, Hooks, Ops, Secrets, Store, Tool
from gw.control import fleet, main
from gw.control.admin.client import AdminClient, NotReachable, Refused, read_only
from gw.control.calls import lost_calls, status_callbacks
from gw.control.main import Control
from gw.control.recording import service
from gw.control.spool import Spool, SpoolError
from gw.control.store import Stamped, StoreUnavailable, schema
from gw.control.store import Store as Rows
from gw.protocol.hooks.tool_call import CallFacts, ToolCall, encode_call
from gw.twin.hooks import HookTwin
from tests.gw.control.bus_client import CALL, OTHER, BusClient, call_ended, call_started
from tests.gw.control.scripted_rest import ACCOUNT, RECORDING, Answer, ScriptedRest, created, listing, recording
from tests.gw.control.store.test_outages import Line
from tests.mariadb import PASSWORD, MariaDB
from tests.program import ROOT
from tests.timing import scaled


def config_in(folder: Path, base: Config | None = None, store_url: str = "") -> Config:
    """A configuration with every file in `folder`, and free ports."""
    ops = Ops(listen="127.0.0.1:0", admin_socket=str(folder / "admin.sock"), var_dir=str(folder))
    store = Store(url=store_url or f"sqlite:///{folder}/store.db", connect_timeout_s=0.5)
    return msgspec.structs.replace(base or Config(), ops=ops, store=store)


class Rig:
    """A running control, in this process."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder = folder
        self.control = Control(config)
        self.ready = gevent.event.Event()
        self.greenlet = gevent.spawn(self.control.run, self.ready.set)
        assert self.ready.wait(scaled(30))
        self.admin = AdminClient(folder / "admin.sock")

    def worker(self, **options: Any) -> BusClient:
        return BusClient(self.folder / "bus.sock", **options)

    def ask(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.control.ops_port, timeout=scaled(20))
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def call(self, call_sid: str, condition: Callable[[dict[str, Any]], object], bound_s: float = 20.0) -> dict[str, Any]:
        """Return the stored call once it meets a condition."""
        with gevent.Timeout(scaled(bound_s)):
            while True:
                call = self.admin.request("call", call_sid=call_sid)
                if call is not None and condition(call):
                    return dict(call)
                gevent.sleep(0.02)

    def stop(self) -> int:
        self.control.stop()
        self.greenlet.join(scaled(30))
        assert self.greenlet.ready()
        return int(self.greenlet.get())


Make = Callable[..., Rig]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Rig] = []

    def make(config: Config | None = None) -> Rig:
        made.append(Rig(tmp_path, config or config_in(tmp_path)))
        return made[-1]

    yield make
    for rig in made:
        if not rig.greenlet.ready():
            rig.stop()


@pytest.fixture
def twilio() -> Iterator[ScriptedRest]:
    twilio = ScriptedRest()
    yield twilio
    twilio.stop()


def test_a_call_from_its_start_to_its_recording(make: Make, twilio: ScriptedRest, tmp_path: Path) -> None:
    twilio.posts.append(created())
    rig = make(config_in(tmp_path, twilio.config()))
    worker = rig.worker()
    now = time.time()
    worker.await_ack(worker.send(call_started(), bus.FirstAudio(CALL, now), bus.StartRecording(CALL, ACCOUNT, now)))
    call = rig.call(CALL, lambda call: (call["recording"] or {}).get("state") == "started")
    assert call["recording"]["recording_sid"] == RECORDING
    assert twilio.count("POST") == 1
    form = {
        "CallSid": CALL,
        "RecordingSid": RECORDING,
        "RecordingStatus": "completed",
        "RecordingDuration": "3",
        "RecordingSource": "StartCallRecordingAPI",
    }
    worker.await_ack(worker.send(call_ended(), bus.Webhook("recording", time.time(), form)))
    call = rig.call(CALL, lambda call: call["ended_at"] and call["recording"]["state"] == "completed")
    assert (call["reason"], call["recording"]["duration_s"]) == ("caller_hangup", 3)
    with gevent.Timeout(scaled(20)):
        while rig.admin.request("status")["backlog"]:
            gevent.sleep(0.02)
    status = rig.admin.request("status")
    assert {outcome: n for outcome, n in status["recordings"].items() if n} == {"started": 1, "completed": 1}
    assert [view["connected"] for view in status["workers"]] == [True]
    assert status["store"]["reachable"] is True
    page = rig.ask("/metrics")[1].decode()
    assert 'gw_recordings_total{outcome="completed"} 1.0' in page
    assert "gw_recording_trigger_seconds_count 1.0" in page


def _settled(worker: BusClient) -> bus.JobSettled:
    while not isinstance(command := worker.command(), bus.JobSettled):
        pass
    return command


def test_a_tool_wanted_by_a_worker_is_called_once_and_settled(make: Make, tmp_path: Path) -> None:
    facts = CallFacts(sid=CALL, agent="default", direction="inbound", from_="+1", to="+2", started_at="2026-11-28T14:05:00Z")
    with HookTwin("new", "old") as endpoint:
        tools = {
            "lookup": Tool(description="d", url=endpoint.url("ok/lookup")),
            "book": Tool(description="d", url=endpoint.url("dead/book")),
            "search": Tool(description="d", url=endpoint.url("silent/search"), timeout_s=60.0, on_interrupt="cancel"),
        }
        secrets = Secrets(hook_secret="new", hook_secret_old="old")
        rig = make(config_in(tmp_path, Config(tools=tools, hooks=Hooks(allow_networks=("127.0.0.0/8",)), secrets=secrets)))
        worker = rig.worker()

        def wanted(tool: str, number: int) -> bus.JobWanted:
            call = ToolCall(id=f"{CALL}/1/call_{number}", tool=tool, arguments='{"number":"7"}', call=facts)
            return bus.JobWanted(call.id, "tool", CALL, int(1000 * (time.time() + scaled(20))), encode_call(call))

        worker.send(call_started(), wanted("lookup", 1), wanted("lookup", 1))
        assert _settled(worker) == bus.JobSettled(f"{CALL}/1/call_1", CALL, "ok", '{"done": "lookup"}')
        worker.send(wanted("book", 2), wanted("look", 3))
        found = [_settled(worker) for _ in range(2)]
        assert {settled.outcome for settled in found} == {"unknown_outcome", "invalid_arguments"}
        worker.send(search := wanted("search", 4))
        assert endpoint.wait_for(lambda endpoint: endpoint.open == 1)
        worker.socket.sendall(bus.pack(bus.JobCancelled(search.id)))
        assert _settled(worker).outcome == "cancelled"
        assert endpoint.wait_for(lambda endpoint: endpoint.open == 0), "the connection is closed"
        assert endpoint.executions == {f"{CALL}%2F1%2Fcall_1": 1, f"{CALL}%2F1%2Fcall_2": 1}
        assert [request.fault for request in endpoint.requests] == ["", "", ""]
        page = rig.ask("/metrics")[1].decode()
        assert 'gw_hook_requests_total{kind="tool",outcome="ok"} 1.0' in page
        assert 'gw_hook_requests_total{kind="tool",outcome="lost"} 1.0' in page
        assert 'gw_hook_seconds_count{kind="tool"} 2.0' in page


def test_a_call_s_events_reach_an_endpoint_in_sequence(make: Make, tmp_path: Path) -> None:
    with HookTwin("new") as endpoint:
        events = (EventHook(url=endpoint.url("flaky/events"), types=("call.started", "tool.called", "call.ended")),)
        hooks = Hooks(allow_networks=("127.0.0.0/8",))
        rig = make(config_in(tmp_path, Config(events=events, hooks=hooks, secrets=Secrets(hook_secret="new"))))
        worker = rig.worker()
        called = bus.CallEvent(CALL, "tool_called", time.time(), {"tool": "lookup", "id": "i", "status": "ok", "ms": 5})
        turn = bus.Turn(CALL, 1, "caller", "Hello", "item", 5)
        worker.await_ack(worker.send(call_started(), turn, called, call_ended()))
        delivered = ["call.started", "tool.called", "call.ended"]
        assert endpoint.wait_for(lambda twin: len(twin.executions) == 3, scaled(30.0))
        sent = [request.body["type"] for request in endpoint.requests]
        assert list(dict.fromkeys(sent)) == delivered
        assert sorted(sent) != sorted(delivered), "the endpoint failed, and received the same event again"
        assert {request.fault for request in endpoint.requests} == {""}
        assert len({(request.key, request.content) for request in endpoint.requests}) == 3, "each attempt sends the same bytes"
        ended = endpoint.requests[-1].body
        assert [turn["text"] for turn in ended["data"]["turns"]] == ["Hello"]
        assert (ended["call"]["sid"], ended["data"]["tools"][0]["tool"]) == (CALL, "lookup")
        until(lambda: rig.admin.request("hooks_list", state="waiting") == [])
        assert rig.admin.request("status")["jobs"]["open"] == 0
        assert 'gw_hook_requests_total{kind="event",outcome="ok"} 3.0' in rig.ask("/metrics")[1].decode()


@pytest.mark.parametrize("first", ["callback", "reconcile"])
def test_a_completed_recording_is_one_event(make: Make, twilio: ScriptedRest, tmp_path: Path, first: str) -> None:
    """Twilio's callback may be lost; then the reconcile pass finds the recording. The callback may also come late, or twice."""
    twilio.posts.append(created())
    with HookTwin("new") as endpoint:
        config = msgspec.structs.replace(
            twilio.config(),
            events=(EventHook(url=endpoint.url("ok/events"), types=("recording.completed",)),),
            hooks=Hooks(allow_networks=("127.0.0.0/8",)),
            secrets=msgspec.structs.replace(twilio.config().secrets, hook_secret="new"),
        )
        rig = make(config_in(tmp_path, config))
        worker = rig.worker()
        now = time.time()
        worker.await_ack(worker.send(call_started(), bus.FirstAudio(CALL, now), bus.StartRecording(CALL, ACCOUNT, now)))
        rig.call(CALL, lambda call: (call["recording"] or {}).get("state") == "started")
        form = {"CallSid": CALL, "RecordingSid": RECORDING, "RecordingStatus": "completed", "RecordingDuration": "3"}
        callback = bus.Webhook("recording", time.time(), form)
        worker.await_ack(worker.send(call_ended()))
        rig.call(CALL, lambda call: call["ended_at"] is not None)
        if first == "callback":
            worker.await_ack(worker.send(callback, callback))
        else:
            twilio.gets.append(listing(recording(status="completed", duration="3")))
            assert rig.admin.request("recordings_reconcile")["settled"] == 1
            worker.await_ack(worker.send(callback))
        rig.call(CALL, lambda call: call["recording"]["state"] == "completed")
        rig.admin.request("recordings_reconcile")
        assert endpoint.wait_for(lambda twin: twin.requests, scaled(20.0))
        until(lambda: not rig.admin.request("status")["backlog"] and not rig.admin.request("status")["jobs"]["open"])
        [request] = endpoint.requests
        assert (request.fault, request.body["type"], request.body["call"]["sid"]) == ("", "recording.completed", CALL)
        assert request.body["data"] == {"recording_sid": RECORDING, "duration_s": 3}
        assert twilio.count("GET") == (first == "reconcile")


def test_readiness_follows_the_workers(make: Make) -> None:
    rig = make()
    assert rig.ask("/healthz")[0] == 200
    status, body = rig.ask("/readyz")
    assert (status, json.loads(body)["reasons"]) == (503, ["no worker is connected"])
    worker = rig.worker()
    until(lambda: rig.ask("/readyz")[0] == 200)
    worker.status(draining=True)
    until(lambda: rig.ask("/readyz")[0] == 503)
    assert json.loads(rig.ask("/readyz")[1])["reasons"] == ["every worker drains"]
    until(lambda: b'gw_workers{state="draining"} 1.0' in rig.ask("/metrics")[1])


def until(condition: Callable[[], object], bound_s: float = 20.0) -> None:
    with gevent.Timeout(scaled(bound_s)):
        while not condition():
            gevent.sleep(0.02)


def test_a_worker_that_dies_leaves_no_call_open(make: Make) -> None:
    rig = make()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = rig.worker(pid=process.pid)
    worker.await_ack(worker.send(call_started()))
    rig.call(CALL, lambda call: call["ended_at"] is None)
    process.kill()
    worker.close()
    call = rig.call(CALL, lambda call: call["ended_at"] is not None)
    assert (call["reason"], call["result"]) == ("worker_lost", "own_error")
    process.wait(scaled(20))


def test_a_failing_spool_is_reported_and_leaves_the_gateway_ready(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()

    def full(*_: object, **__: object) -> None:
        raise SpoolError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(rig.control._spool, "append", full)
        worker = rig.worker()
        worker.send(call_started())
        until(lambda: rig.control._bus.spool_problem)
        until(lambda: not any(view.connected for view in rig.control._bus.workers()))  # it is to come again
        assert rig.ask("/readyz") == (200, b'{"ready":true,"reasons":["events stay with the workers, the disk is full"]}\n')
        worker.close()
    again = rig.worker()
    again.await_ack(again.send(call_started()))
    assert rig.ask("/readyz") == (200, b'{"ready":true,"reasons":[]}\n')


def test_without_a_supervisor_control_waits_for_the_workers(make: Make) -> None:
    rig = make()
    rig.control._is_orphan = lambda: True
    worker = rig.worker()
    worker.await_ack(worker.send(call_started()))
    rig.control.stop()
    until(lambda: rig.ask("/readyz")[0] == 503)
    gevent.sleep(0.3)
    assert rig.ask("/readyz")[0] == 503, "it stays for the events of the workers"
    worker.await_ack(worker.send(call_ended()))
    worker.close()
    assert rig.stop() == 0
    rig = make()
    assert rig.call(CALL, lambda call: call["ended_at"] is not None)["reason"] != "worker_lost"


def test_calls_left_open_by_an_earlier_gateway_are_ended(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()
    worker = rig.worker(calls=[])
    worker.await_ack(worker.send(call_started(CALL), call_started(OTHER)))
    rig.call(OTHER, lambda call: True)
    rig.stop()
    monkeypatch.setattr(lost_calls, "GRACE_S", 1.0)  # until then the worker below is here again
    rig = make()
    worker = rig.worker(calls=[OTHER])
    assert rig.call(CALL, lambda call: call["ended_at"] is not None)["reason"] == "worker_lost"
    assert rig.call(OTHER, lambda call: True)["ended_at"] is None, "a worker still owns it"
    assert worker.send() == 0


def test_a_call_completed_by_rest_is_hung_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_callbacks, "GRACE_S", 0.05)
    rig = make()
    worker = rig.worker()
    worker.await_ack(worker.send(call_started(), bus.Webhook("status", 1.0, {"CallSid": CALL, "CallStatus": "completed"})))
    assert worker.command() == bus.HangUp(CALL, "admin_hangup")


def test_a_recording_interrupted_by_a_crash_is_taken_up(make: Make, twilio: ScriptedRest, tmp_path: Path) -> None:
    config = config_in(tmp_path, twilio.config(timeout_s=5.0))
    twilio.posts.append(Answer(201, {}, hold_s=10.0))
    rig = make(config)
    worker = rig.worker()
    worker.await_ack(worker.send(call_started(), bus.StartRecording(CALL, ACCOUNT, time.time())))
    until(lambda: twilio.count("POST") == 1)
    rig.stop()
    twilio.gets.append(Answer(200, {"recordings": [], "next_page_uri": None}))
    twilio.posts.append(created())
    rig = make(config)
    call = rig.call(CALL, lambda call: call["recording"]["state"] == "started")
    assert call["recording"]["recording_sid"] == RECORDING
    assert [request.method for request in twilio.seen] == ["POST", "GET", "POST"]


def test_the_conversation_that_waits_for_the_store_is_known_at_the_start(make: Make, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    words = bus.Turn(CALL, 1, "agent", "One moment.", "item1", 0, False, 500)
    spool.append("w0", [(1, b"unreadable"), (2, bus.encode_event(words))])
    spool.close()
    rig = make()
    call = rig.control._bus.calls.get(CALL, time.monotonic())
    assert call is not None
    assert [one.text for one in call.conversation.utterances()] == ["One moment."]


def test_an_operators_pause_that_waits_for_the_store_is_known_at_the_start(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gw.control.main.MAX_RECALLED", 1)  # and there are more events behind the pause
    spool = Spool(tmp_path / "spool.db")
    act, other = (bus.CallEvent(CALL, kind, 1.0, {"by": "operator"}) for kind in ("recording_paused", "operator"))
    spool.append("admin-1", [(1, b"unreadable"), (2, bus.encode_event(act)), (3, bus.encode_event(other))])
    spool.close()
    assert make().control._commands._pauses.forbids_create(CALL)


STATUS = {"CallSid": CALL, "RecordingSid": RECORDING, "RecordingStatus": "completed", "RecordingDuration": "3"}


@pytest.mark.parametrize("stored", [False, True])
def test_a_recording_status_spooled_before_a_kill_is_acted_on_after_it(make: Make, tmp_path: Path, stored: bool) -> None:
    """A spooled webhook was acknowledged to Twilio and to the worker; it may be in the store too. It must still be acted on."""
    config = config_in(tmp_path)
    store, spool = Rows(config.store, ""), Spool(tmp_path / "spool.db")
    try:
        store.upgrade()
        assert store.claim_recording(CALL, ACCOUNT, "elsewhere/1-a", time.time())
        store.update_recording(CALL, state="started", recording_sid=RECORDING, started_at=time.time())
        events = [call_started(), bus.Webhook("recording", time.time(), STATUS)]
        spool.append("w0", [(n, bus.encode_event(event)) for n, event in enumerate(events, 1)])
        if stored:
            store.apply([Stamped(event, socket.gethostname(), -1, "w0", n) for n, event in enumerate(events, 1)])
    finally:
        store.close()
        spool.close()
    rig = make(config)
    assert rig.call(CALL, lambda call: call["recording"]["state"] == "completed")["recording"]["duration_s"] == 3


def test_a_recording_status_interrupted_by_a_stop_is_acted_on_after_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()
    store = rig.control._store
    assert store.claim_recording(CALL, ACCOUNT, "elsewhere/1-a", time.time())

    def away(*_: object, **__: object) -> bool:
        raise StoreUnavailable("away")

    monkeypatch.setattr(store, "update_recording", away)
    worker = rig.worker()
    worker.await_ack(worker.send(call_started(), bus.Webhook("recording", time.time(), STATUS)))
    worker.close()
    assert rig.stop() == 0
    assert make().call(CALL, lambda call: call["recording"]["state"] == "completed")["recording"]["duration_s"] == 3


def test_an_unavailable_store_does_not_fail_the_start(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "FIRST_UPGRADE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rig = make(config_in(tmp_path, store_url=f"mysql+pymysql://nobody@127.0.0.1:{port}/none"))
    worker = rig.worker()
    worker.await_ack(worker.send(call_started()))
    until(lambda: rig.ask("/readyz")[0] == 200)
    assert any("1 wait in the spool" in reason for reason in json.loads(rig.ask("/readyz")[1])["reasons"])
    status = rig.admin.request("status")
    assert (status["backlog"], status["store"]["reachable"], status["store"]["kind"]) == (1, False, "mysql")
    assert rig.stop() == 0


def test_a_corrupt_spool_is_replaced_and_twilio_s_lists_give_back_its_claims(
    make: Make, twilio: ScriptedRest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One live call is recorded under a lost claim; the other was never recorded, and may not have been heard yet."""
    monkeypatch.setattr(service, "RECOVER_S", 0.5)
    (tmp_path / "spool.db").write_bytes(b"no database at all " * 100)
    twilio.gets.extend([listing(recording()), listing(), listing(recording())])
    rig = make(config_in(tmp_path, twilio.config()))
    worker = rig.worker(calls=[CALL, OTHER])
    until(lambda: (row := rig.control._store.recording(CALL)) is not None and row.state == "started")
    row = rig.control._store.recording(CALL)
    assert row is not None and row.recording_sid == RECORDING
    assert (rig.control._store.recording(OTHER), twilio.count("POST")) == (None, 0)
    assert len(list(tmp_path.glob("spool.db.corrupt-*"))) == 1
    worker.close()


def test_a_schema_ahead_does_not_delay_the_start_and_keeps_events_in_the_spool(make: Make, tmp_path: Path) -> None:
    """The binary was rolled back. A refused event would be set aside, and be missing after the upgrade."""
    store = Rows(config_in(tmp_path).store, "")
    store.upgrade()
    for sql in ("UPDATE alembic_version SET version_num = '9999'", "UPDATE schema_range SET oldest = '9999'", "DROP TABLE calls"):
        store._backend.write(lambda connection, sql=sql: connection.exec_driver_sql(sql))
    store.close()
    rig = make()
    worker = rig.worker()
    worker.await_ack(worker.send(call_started()))
    until(lambda: rig.control._forwarder.retries > 0)
    status = rig.admin.request("status")
    assert (status["store"]["schema"], status["backlog"], status["poison"]) == ("ahead", 1, 0)
    assert rig.control._schema.answered.is_set() and not rig.control._schema.ready.is_set()
    assert rig.stop() == 0


def test_a_start_does_not_wait_for_a_store_that_does_not_answer(tmp_path: Path) -> None:
    """After a reload the workers wait for control, and keep their events meanwhile."""
    late: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mysql+pymysql://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        config = config_in(tmp_path, store_url=url)
        config = msgspec.structs.replace(config, store=msgspec.structs.replace(config.store, connect_timeout_s=120.0))
        timer = gevent.spawn_later(3.0, late.append, True)
        rig = Rig(tmp_path, config)
        assert late == [], "both timers run in this hub"
        assert not rig.control._schema.reached.is_set()
        assert rig.stop() == 0
        timer.kill()


def test_a_stop_does_not_wait_for_a_query_that_is_not_answered(
    tmp_path: Path, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORWARD_S", "STOP_S"):
        monkeypatch.setattr(main, name, 600.0)
    line = Line(mariadb.port)
    config = config_in(tmp_path, store_url=str(make_url(mariadb.fresh()).set(port=line.listens)))
    secrets = msgspec.structs.replace(config.secrets, db_password=PASSWORD)
    slow = msgspec.structs.replace(config.store, connect_timeout_s=5.0, statement_timeout_s=600.0)
    rig = Rig(tmp_path, msgspec.structs.replace(config, secrets=secrets, store=slow))
    worker = rig.worker()
    worker.await_ack(worker.send(call_started()))
    until(lambda: rig.control._spool.progress() == (1, 0))
    line.dead = True
    worker.await_ack(worker.send(bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"}), call_ended()))
    gevent.sleep(0.2)  # the forwarder is in its query
    assert rig.control._spool.backlog() > 0
    assert rig.stop() == 0, "within 30 s"
    worker.close()
    line.close()


def test_waiting_events_are_stored_once_the_store_is_back(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "FIRST_UPGRADE_S", 0.1)
    monkeypatch.setattr(schema, "WAIT_FIRST_S", 0.05)
    obstacle = tmp_path / "data"
    obstacle.write_text("a file where the folder should be")
    rig = make(config_in(tmp_path, store_url=f"sqlite:///{obstacle}/store.db"))
    worker = rig.worker()
    worker.await_ack(worker.send(call_started()))
    obstacle.unlink()
    until(lambda: rig.admin.request("status")["store"]["problem"] == "")
    assert rig.call(CALL, lambda call: True)["agent"] == "default"


def test_a_part_that_fails_ends_the_process(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()

    def broken(*_: object) -> None:
        raise RuntimeError("by design")

    monkeypatch.setattr(rig.control._forwarder, "_step", broken)
    rig.control._forwarder.notify()
    rig.greenlet.join(scaled(30))
    assert rig.greenlet.get() == 1


def test_a_second_control_is_refused(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make()
    assert main.run(config_in(tmp_path), -1) == 1
    assert "cannot start" in caplog.text


def test_a_copy_of_a_running_gateway_ends_with_one_sentence(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A cloned machine has the id of its original, and would end its calls."""
    monkeypatch.setattr(fleet, "BEAT_S", 0.1)
    monkeypatch.setattr(fleet, "LOOK_S", 0.1)
    monkeypatch.setattr(lost_calls, "GRACE_S", 0.1)
    (tmp_path / "original").mkdir()
    store_url = f"sqlite:///{tmp_path}/shared.db"
    original = Rig(tmp_path / "original", config_in(tmp_path / "original", store_url=store_url))
    try:
        worker = original.worker()
        worker.await_ack(worker.send(call_started()))
        original.call(CALL, lambda call: call["gateway"])
        (tmp_path / "copy").mkdir()
        shutil.copy(tmp_path / "original" / "gateway-id", tmp_path / "copy")
        assert main.run(config_in(tmp_path / "copy", store_url=store_url), -1) == 1
        assert f"delete {tmp_path}/copy/gateway-id there, and start it again" in caplog.text
        assert original.call(CALL, lambda call: True)["ended_at"] is None
        assert {row["state"] for row in original.admin.request("fleet")} == {"live"}
        worker.await_ack(worker.send(call_ended()))
        worker.close()
    finally:
        assert original.stop() == 0
    copy = Rig(tmp_path / "copy", config_in(tmp_path / "copy", store_url=store_url))
    assert copy.control._lease.held.is_set(), "the original has stopped"
    assert copy.stop() == 0


def test_a_taken_ops_port_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = config_in(tmp_path)
        config = msgspec.structs.replace(
            config, ops=msgspec.structs.replace(config.ops, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        )
        assert main.run(config, -1) == 1
    assert "in use" in caplog.text
    assert not (tmp_path / "bus.sock").exists()
    Control(config_in(tmp_path))._close()  # the refused start released its files


SCRIPT = """
from gevent import monkey
monkey.patch_all()
import sys
from gw.config import Config, Hooks, Ops, Secrets, Store, Tool
from gw.control.main import run
folder, ready_fd = sys.argv[1], int(sys.argv[2])
ops = Ops(listen="127.0.0.1:0", admin_socket=folder + "/admin.sock", var_dir=folder)
sys.exit(run(Config(ops=ops, store=Store(url=f"sqlite:///{folder}/store.db")), ready_fd))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_reports_ready_and_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path), str(writer)], cwd=ROOT, pass_fds=[writer])
    os.close(writer)
    try:
        assert gevent.get_hub().threadpool.apply(os.read, (reader, 10)) == b"1"
        assert gevent.get_hub().threadpool.apply(os.read, (reader, 10)) == b"", "the descriptor is closed"
        client = AdminClient(tmp_path / "admin.sock")
        assert client.request("status")["workers"] == []
        process.send_signal(number)
        assert process.wait(scaled(30)) == 0
        with pytest.raises(NotReachable):
            client.request("status")
        assert not (tmp_path / "bus.sock").exists()
    finally:
        os.close(reader)
        if process.poll() is None:
            process.kill()
            process.wait(scaled(20))


#: Every command of the admin socket: does it act?
ACTS = {
    "status": False,
    "holds": False,
    "hooks_list": False,
    "hooks_retry": True,
    "hooks_drop": True,
    "calls": False,
    "call": False,
    "recordings": False,
    "audit": False,
    "poison_list": False,
    "poison_export": False,
    "hangup": True,
    "transfer": True,
    "dial": True,
    "dial_status": False,
    "list_open": True,
    "list_add": True,
    "list_run": False,
    "list_stop": True,
    "list_lines": False,
    "talk": True,
    "forget": True,
    "recordings_pause": True,
    "recordings_resume": True,
    "recordings_retry": True,
    "recordings_reconcile": True,
    "poison_retry": True,
    "poison_drop": True,
    "drain": True,
    "reload": True,
    "fleet": False,
    "drain_machine": True,
    "loglevel": False,  # without a level
}


def test_each_command_is_known_to_act_or_to_read(make: Make) -> None:
    commands = make().control._admin._commands
    assert {name: command.acts({}) for name, command in commands.items()} == ACTS
    assert commands["loglevel"].acts({"level": "debug"})
    assert [name for name, command in commands.items() if command.erases] == ["forget"]


def test_acts_are_stored_and_listed(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    rig = make()
    rig.admin.request("drain", on=True)
    rig.admin.request("loglevel", level="debug")
    rig.admin.request("loglevel", level="configured")
    with pytest.raises(Refused):
        rig.admin.request("hangup", call_sid=CALL)
    reader = AdminClient(read_only(rig.folder / "admin.sock"))
    with pytest.raises(Refused, match="read-only"):
        reader.request("drain", on=False)
    assert reader.request("status")["readiness"]["ready"] is False
    with gevent.Timeout(scaled(20)):
        while len(acts := reader.request("audit")) < 4:
            gevent.sleep(0.02)
    assert [(act["call_sid"], act["data"]["command"], act["data"]["outcome"], act["data"]["uid"]) for act in acts] == [
        (CALL, "hangup", "not_found", os.getuid()),
        (None, "loglevel", "done", os.getuid()),
        (None, "loglevel", "done", os.getuid()),
        (None, "drain", "done", os.getuid()),
    ]
    assert caplog.text.count("operator: ") == 4
