"""gw.control.admin.commands: each command over a real store, a real bus and a scripted Twilio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import gevent
import msgspec
import pytest

import gw.config
from gw import bus
from gw.control.admin import commands
from gw.control.admin.audit import Audit
from gw.control.admin.commands import AdminCommands
from gw.control.admin.server import CommandError
from gw.control.bus.server import STOP_S, BusServer
from gw.control.calls.registry import Calls
from gw.control.jobs.leave import LeaveHandler
from gw.control.jobs.service import Jobs
from gw.control.recording.claims import Claims
from gw.control.recording.pauses import Pauses
from gw.control.recording.reconcile import Reconciler
from gw.control.recording.recorder import Recorder
from gw.control.recording.rows import RecordingRows
from gw.control.spool import Spool
from gw.control.store import Stamped, Store
from gw.control.twilio_api.accounts import Accounts
from metrics.page import Page
from tests import schema
from tests.gw.control.bus_client import CALL, OTHER, BusClient, call_ended, call_started
from tests.gw.control.scripted_rest import (
    ACCOUNT,
    OTHER_ACCOUNT,
    RECORDING,
    Answer,
    ScriptedRest,
    created,
    listing,
    recording,
    refusal,
)
from tests.timing import scaled


class Rig:
    def __init__(self, folder: Path, *, signed: bool, other: bool) -> None:
        self.twilio = ScriptedRest()
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        schema.upgrade(self.store)
        self.spool = Spool(folder / "spool.db")
        calls = Calls()
        self.bus = BusServer(folder / "bus.sock", self.spool, calls, on_lost=lambda _: None)
        self.bus.start()
        self.path = folder / "bus.sock"
        accounts = Accounts(self.twilio.config(signed=signed, other=other))
        self.page = Page.create(folder / "control.page")
        rows = RecordingRows(self.store, self.page)
        self.recorder = Recorder(
            self.twilio.config(signed=signed),
            self.store,
            accounts,
            rows,
            self.page,
            owner="claimant/2-b",
            claims=Claims(self.spool, claimant="claimant"),
            is_owned=calls.is_owned,
            is_over=calls.is_over,
        )
        self.reconciler = Reconciler(self.store, self.recorder, rows, accounts, claimant="claimant", is_owned=calls.is_owned)
        self.pauses = Pauses(
            self.spool,
            accounts,
            self.page,
            longest_call_s=3600.0,
            is_over=calls.is_over,
            account_of=self.store.account_of,
            events_of=lambda call_sid: [],
            waiting=(),
            note=lambda call_sid, kind, **data: self.noted.append((kind, data)),
        )
        self.noted: list[tuple[str, dict[str, Any]]] = []
        self.notified: list[bool] = []
        self.ready = True
        leaves = LeaveHandler(self.twilio.config(signed=signed).server, accounts, calls.stream_began_at)
        self.jobs = Jobs(self.spool, self.page, [leaves], settle=lambda settled: None)
        self.commands = AdminCommands(
            self.store,
            self.bus,
            accounts,
            lambda: {"version": "1", "readiness": {"ready": self.ready, "reasons": ["drained by an operator"]}},
            recorder=self.recorder,
            reconciler=self.reconciler,
            pauses=self.pauses,
            spool=self.spool,
            audit=Audit(self.spool, lambda: self.notified.append(True)),
            jobs=self.jobs,
            notify=lambda: self.notified.append(True),
        )

    def ask(self, command: str, **fields: Any) -> Any:
        return msgspec.to_builtins(self.commands.table()[command].run(fields))

    def known(self, call_sid: str = CALL, *, ended: bool = False, account: str = ACCOUNT) -> None:
        started = msgspec.structs.replace(call_started(call_sid), account_sid=account)
        self.store.apply([Stamped(started, "here", 0, "w0", 1)])
        if ended:
            self.store.apply([Stamped(call_ended(call_sid), "here", 0, "w0", 2)])

    def worker(self, *calls: str) -> BusClient:
        client = BusClient(self.path, calls=list(calls))
        with gevent.Timeout(scaled(20)):
            while not all(self.bus.calls.is_owned(call_sid) for call_sid in calls) or not self.bus.workers():
                gevent.sleep(0.01)
        return client

    def stop(self) -> None:
        self.commands.stop()
        self.recorder.stop()
        self.page.close()
        self.bus.stop()
        self.spool.close()
        self.store.close()
        self.twilio.stop()


Make = Callable[..., Rig]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Rig] = []

    def make(*, signed: bool = True, other: bool = False) -> Rig:
        made.append(Rig(tmp_path, signed=signed, other=other))
        return made[-1]

    yield make
    for rig in made:
        rig.stop()


def test_holds_of_every_worker_are_listed(make: Make) -> None:
    rig = make()
    client = rig.worker()
    client.hold(1.0, "ai_out")
    with gevent.Timeout(scaled(20)):
        while not rig.ask("holds"):
            gevent.sleep(0.01)
    (hold,) = rig.ask("holds")
    assert (hold["kind"], hold["stack"][0]["function"]) == ("ai_out", "Uplink.push")


def test_reads_come_from_the_store(make: Make) -> None:
    rig = make()
    rig.known(CALL)
    rig.known(OTHER, ended=True)
    rig.store.claim_recording(CALL, "AC0", "here/1-a", time.time())
    assert {call["call_sid"] for call in rig.ask("calls")} == {CALL, OTHER}
    assert [call["call_sid"] for call in rig.ask("calls", open_only=True)] == [CALL]
    assert len(rig.ask("calls", limit=1)) == 1
    assert rig.ask("call", call_sid=CALL)["recording"]["state"] == "claimed"
    assert rig.ask("call", call_sid="CA0") is None
    assert [row["call_sid"] for row in rig.ask("recordings", state="claimed")] == [CALL]
    assert rig.ask("recordings", limit=5, state="failed") == []
    assert rig.ask("status")["version"] == "1"


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        ("status", {"verbose": True}),
        ("calls", {"limit": 0}),
        ("calls", {"limit": "20"}),
        ("calls", {"openonly": True}),
        ("call", {}),
        ("call", {"call_sid": ""}),
        ("hangup", {"call_sid": 5}),
        ("hangup", {"call_sid": "x" * 65}),
        ("recordings", {"state": 1}),
    ],
)
def test_wrong_arguments_are_refused(make: Make, command: str, fields: dict[str, Any]) -> None:
    with pytest.raises(CommandError) as caught:
        make().ask(command, **fields)
    assert caught.value.code == "bad_request"


def test_hangup_reaches_the_worker_and_twilio(make: Make) -> None:
    rig = make()
    worker = rig.worker(CALL)
    rig.twilio.posts.append(Answer(200, {"sid": CALL, "status": "completed"}))
    assert rig.ask("hangup", call_sid=CALL) == {"call_sid": CALL, "worker": True, "rest": "requested"}
    assert worker.command() == bus.HangUp(CALL, "admin_hangup")
    rig.commands._completions.join(scaled(20))
    assert rig.twilio.seen[0].form == {"Status": ["completed"]}


def test_the_worker_ends_a_call_that_twilio_refuses_to_end(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    rig = make()
    worker = rig.worker(CALL)
    rig.twilio.posts.append(refusal(429, 20429))
    assert rig.ask("hangup", call_sid=CALL)["worker"] is True
    assert worker.command() == bus.HangUp(CALL, "admin_hangup")
    rig.commands._completions.join(scaled(20))
    assert "20429" in caplog.text


def test_hangup_without_credentials_reaches_only_the_worker(make: Make) -> None:
    rig = make(signed=False)
    rig.worker(CALL)
    assert rig.ask("hangup", call_sid=CALL) == {"call_sid": CALL, "worker": True, "rest": "no_credentials"}


def test_a_call_without_a_worker_is_completed_by_twilio(make: Make) -> None:
    rig = make()
    rig.known()
    rig.twilio.posts += [Answer(200, {"sid": CALL, "status": "completed"}), refusal(404, 20404), refusal(401, 20003)]
    assert rig.ask("hangup", call_sid=CALL) == {"call_sid": CALL, "worker": False, "rest": "completed"}
    (kept,) = rig.spool.batch(10)
    event = bus.decode_event(kept.body)
    assert isinstance(event, bus.CallEvent)
    assert (event.call_sid, event.kind, event.data) == (CALL, "hung_up", {})
    for code in ("not_found", "failed"):
        with pytest.raises(CommandError) as caught:
            rig.ask("hangup", call_sid=CALL)
        assert caught.value.code == code
    assert rig.spool.backlog() == 1, "only what was done is stored"


@pytest.mark.parametrize("signed", [True, False])
def test_an_unknown_or_ended_call_is_not_found(make: Make, signed: bool) -> None:
    rig = make(signed=signed)
    rig.known(OTHER, ended=True)
    for call_sid in (CALL, OTHER):
        with pytest.raises(CommandError) as caught:
            rig.ask("hangup", call_sid=call_sid)
        assert caught.value.code == "not_found"
    assert rig.twilio.seen == []


def test_an_open_call_without_worker_and_credentials_cannot_be_ended(make: Make) -> None:
    rig = make(signed=False)
    rig.known()
    with pytest.raises(CommandError, match="no Twilio credentials"):
        rig.ask("hangup", call_sid=CALL)


def test_a_transfer_is_done_by_twilio_and_stored(make: Make) -> None:
    rig = make()
    worker = rig.worker(CALL)
    rig.twilio.posts.append(Answer(200, {"sid": CALL, "status": "in-progress"}))
    assert rig.ask("transfer", call_sid=CALL, to="+15551234567") == {"call_sid": CALL, "to": "+15551234567"}
    assert "<Number>+15551234567</Number>" in rig.twilio.seen[0].form["Twiml"][0]
    assert worker.command() == bus.ExpectStop(CALL, STOP_S)
    assert rig.notified == [True]
    (kept,) = rig.spool.batch(10)
    event = bus.decode_event(kept.body)
    assert isinstance(event, bus.CallEvent)
    assert (event.call_sid, event.kind, event.data) == (CALL, "transferred", {"to": "+15551234567"})


def test_a_refused_transfer_has_a_code(make: Make) -> None:
    rig = make()
    rig.known(OTHER, ended=True)
    worker = rig.worker(CALL)
    rig.twilio.posts += [refusal(404, 20404), refusal(401, 20003), refusal(500, 0)]
    for call_sid, to, code in (
        (OTHER, "+15551234567", "not_found"),
        ("CA9", "+15551234567", "not_found"),
        (CALL, "+15551234567", "not_found"),
        (CALL, "+15551234567", "failed"),
        (CALL, "+15551234567", "failed"),
        (CALL, "0049 123", "bad_request"),
    ):
        with pytest.raises(CommandError) as caught:
            rig.ask("transfer", call_sid=call_sid, to=to)
        assert caught.value.code == code
    assert rig.spool.backlog() == 0
    asked = [bus.ExpectStop(CALL, for_s) for for_s in (STOP_S, 0.0, STOP_S, 0.0, STOP_S)]
    assert [worker.command() for _ in asked] == asked, "after Twilio's error 500 the stream may end"


def test_a_call_is_placed_with_the_agents_webhook(make: Make) -> None:
    rig = make()
    rig.twilio.posts.append(Answer(201, {"sid": CALL, "status": "queued"}))
    placed = rig.ask("dial", to="+15551234567", caller="+15557654321")
    assert placed == {"call_sid": CALL, "to": "+15551234567", "from": "+15557654321", "agent": "default", "account": ""}
    (seen,) = rig.twilio.seen
    assert seen.path.endswith("/Calls.json")
    assert (seen.form["To"], seen.form["From"]) == (["+15551234567"], ["+15557654321"])
    voice, status = (urlsplit(seen.form[name][0]) for name in ("Url", "StatusCallback"))
    assert (voice.path, status.path) == ("/twilio/voice", "/twilio/status")
    assert parse_qs(voice.query)["agent"] == ["default"]
    assert parse_qs(voice.query)["dial"] == parse_qs(status.query)["dial"]
    assert "MachineDetection" not in seen.form


def test_a_call_may_have_variables_and_a_detection_of_machines(make: Make) -> None:
    rig = make()
    rig.twilio.posts.append(Answer(201, {"sid": CALL, "status": "queued"}))
    parties = {"to": "+15551234567", "caller": "+15557654321"}
    rig.ask("dial", **parties, variables={"name": "Ada & Bob"}, amd=True)
    (seen,) = rig.twilio.seen
    assert parse_qs(urlsplit(seen.form["Url"][0]).query)["var_name"] == ["Ada & Bob"]
    assert (seen.form["MachineDetection"], seen.form["AsyncAmd"]) == (["DetectMessageEnd"], ["true"])
    assert urlsplit(seen.form["AsyncAmdStatusCallback"][0]).path == "/twilio/amd"
    with pytest.raises(CommandError, match="is set by the gateway"):
        rig.ask("dial", **parties, variables={"caller": "x"})
    rig.twilio.gets.append(Answer(200, {"sid": CALL, "status": "completed", "answered_by": "human", "duration": "7"}))
    assert rig.ask("dial_status", call_sid=CALL) == {
        "call_sid": CALL,
        "status": "completed",
        "answered_by": "human",
        "duration_s": 7,
        "is_over": True,
    }


def test_a_refused_dial_gives_the_reason(make: Make) -> None:
    rig = make()
    dial = {"to": "+15551234567", "caller": "+15557654321"}
    rig.twilio.posts.append(refusal(503, 0))
    with pytest.raises(CommandError, match="it may ring anyway"):
        rig.ask("dial", **dial)
    with pytest.raises(CommandError, match="no agent 'unknown'"):
        rig.ask("dial", **dial, agent="unknown")
    rig.ready = False
    with pytest.raises(CommandError, match="drained by an operator"):
        rig.ask("dial", **dial)
    assert len(rig.twilio.seen) == 1


def test_dial_and_transfer_need_credentials(make: Make) -> None:
    rig = make(signed=False)
    for command, fields in (("dial", {"caller": "+15557654321"}), ("transfer", {"call_sid": CALL})):
        with pytest.raises(CommandError, match="no Twilio credentials"):
            rig.ask(command, to="+15551234567", **fields)


def test_the_talk_page_of_a_gateway_without_credentials(make: Make) -> None:
    rig = make(signed=False)
    with pytest.raises(CommandError, match=r"use the URL that `gateway\.py serve` printed"):
        rig.ask("talk")
    rig.commands._config = gw.config.Config(secrets=gw.config.Secrets(talk_key="a b"))
    assert rig.ask("talk") == {"url": "http://127.0.0.1:8080/talk?key=a%20b"}
    secrets = gw.config.Secrets(talk_key="k", twilio_auth_token="t")
    rig.commands._config = gw.config.Config(twilio=gw.config.Twilio(account_sid="AC1"), secrets=secrets)
    with pytest.raises(CommandError, match="without Twilio credentials only"):
        rig.ask("talk")


def test_acts_on_a_call_use_its_account(make: Make) -> None:
    rig = make(other=True)
    rig.known(account=OTHER_ACCOUNT)
    rig.twilio.posts.extend(Answer(200, {"sid": CALL, "status": "completed"}) for _ in range(3))
    rig.ask("transfer", call_sid=CALL, to="+15551234567")
    assert rig.ask("hangup", call_sid=CALL)["rest"] == "completed"
    worker = rig.worker(CALL)
    assert rig.ask("hangup", call_sid=CALL)["rest"] == "requested"
    assert worker.command() == bus.HangUp(CALL, "admin_hangup")
    rig.commands._completions.join(scaled(20))
    assert {request.path for request in rig.twilio.seen} == {f"/2010-04-01/Accounts/{OTHER_ACCOUNT}/Calls/{CALL}.json"}
    assert len(rig.twilio.seen) == 3


@pytest.mark.parametrize("account", ["", "AC" + "3" * 32])
def test_acts_on_a_call_of_no_known_account_are_refused(make: Make, caplog: pytest.LogCaptureFixture, account: str) -> None:
    rig = make(other=True)
    if account:
        rig.known(account=account)
    worker = rig.worker(CALL)
    with pytest.raises(CommandError, match=f"the account of {CALL} is not configured here, or the store has no such call"):
        rig.ask("transfer", call_sid=CALL, to="+15551234567")
    assert rig.ask("hangup", call_sid=CALL)["worker"], "its worker ends it"
    assert worker.command() == bus.HangUp(CALL, "admin_hangup")
    rig.commands._completions.join(scaled(20))
    assert "Twilio was not asked to end a call" in caplog.text
    assert rig.twilio.seen == []


def test_a_retry_of_an_account_that_is_not_configured_is_refused(make: Make) -> None:
    rig = make(other=True)
    assert rig.store.claim_recording(CALL, "AC" + "3" * 32, "claimant/1-a", 1.0)
    with pytest.raises(CommandError, match=f"the account of {CALL}, AC3+, is not configured here"):
        rig.ask("recordings_retry", call_sid=CALL)


def test_a_call_is_placed_from_an_account(make: Make) -> None:
    rig = make(other=True)
    rig.twilio.posts.append(Answer(201, {"sid": CALL, "status": "queued"}))
    parties = {"to": "+15551234567", "caller": "+15557654321"}
    assert rig.ask("dial", **parties, account="other")["account"] == "other"
    assert rig.twilio.seen[0].path == f"/2010-04-01/Accounts/{OTHER_ACCOUNT}/Calls.json"
    with pytest.raises(CommandError, match="no account 'sales'; use one of: other"):
        rig.ask("dial", **parties, account="sales")


def test_without_further_accounts_none_has_a_name(make: Make) -> None:
    with pytest.raises(CommandError, match=r"no account 'other'; there is no \[twilio.accounts.NAME\]"):
        make().ask("dial", to="+15551234567", caller="+15557654321", account="other")


def test_completions_are_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MAX_COMPLETIONS", 1)
    rig = make()
    rig.worker(CALL, OTHER)
    rig.twilio.posts += [Answer(200, {"sid": CALL, "status": "completed"}, hold_s=0.2)] * 2
    assert rig.ask("hangup", call_sid=CALL)["rest"] == "requested"
    assert rig.ask("hangup", call_sid=OTHER)["rest"] == "busy"


def failed(rig: Rig, owner: str = "claimant/1-a") -> None:
    rig.store.claim_recording(CALL, ACCOUNT, owner, time.time())
    rig.store.update_recording(CALL, state="failed", reason="unauthorized", error_text="no")


def test_a_failed_recording_of_a_live_call_is_started_on_request(make: Make) -> None:
    rig = make()
    failed(rig)
    rig.worker(CALL)
    rig.twilio.gets.append(listing())
    rig.twilio.posts.append(created())
    answer = rig.ask("recordings_retry", call_sid=CALL)
    row = answer["recording"]
    assert (answer["done"], row["state"], row["recording_sid"], row["reason"]) == (True, "started", RECORDING, None)


@pytest.mark.parametrize("there", [True, False])
def test_a_failed_recording_of_an_ended_call_is_looked_up(make: Make, there: bool) -> None:
    rig = make()
    failed(rig, owner="elsewhere/1-a")
    rig.twilio.gets.append(listing(recording(status="completed", duration="3")) if there else listing())
    row = rig.ask("recordings_retry", call_sid=CALL)["recording"]
    assert (row["state"], row["reason"]) == (("completed", None) if there else ("failed", "call_ended"))
    assert rig.twilio.count("POST") == 0


def test_a_refused_retry_gives_the_reason(make: Make) -> None:
    rig = make()
    for call_sid, words in (("CA0", "no recording was requested"), (RECORDING, "not of a recording")):
        with pytest.raises(CommandError, match=words):
            rig.ask("recordings_retry", call_sid=call_sid)
    rig.store.claim_recording(CALL, ACCOUNT, "elsewhere/1-a", time.time())
    with pytest.raises(CommandError, match="elsewhere/1-a has claimed it"):
        rig.ask("recordings_retry", call_sid=CALL)
    rig.store.update_recording(CALL, state="completed", recording_sid=RECORDING)
    with pytest.raises(CommandError, match="is completed"):
        rig.ask("recordings_retry", call_sid=CALL)
    assert rig.twilio.seen == []


@pytest.mark.parametrize("command", ["recordings_retry", "recordings_reconcile"])
def test_recording_commands_need_credentials(make: Make, command: str) -> None:
    rig = make(signed=False)
    failed(rig)
    with pytest.raises(CommandError, match="no Twilio credentials"):
        rig.ask(command, **({"call_sid": CALL} if command.endswith("retry") else {}))


def test_a_requested_pass_runs_immediately(make: Make) -> None:
    rig = make()
    rig.store.claim_recording(CALL, ACCOUNT, "claimant/1-a", time.time())
    rig.store.update_recording(CALL, state="started", recording_sid=RECORDING, started_at=time.time())
    rig.twilio.gets += [listing(recording()), listing(recording(status="completed", duration="3"))]
    assert rig.ask("recordings_reconcile") == {"unsettled": 1, "taken_up": 0, "asked": 1, "settled": 0, "left": 0}
    assert rig.ask("recordings_reconcile")["settled"] == 1
    assert rig.ask("recordings_reconcile") == {"unsettled": 0, "taken_up": 0, "asked": 0, "settled": 0, "left": 0}


def test_no_pass_is_requested_of_a_gateway_without_its_id(make: Make) -> None:
    rig = make()
    rig.reconciler.may_settle = lambda: False
    with pytest.raises(CommandError, match="does not hold its id"):
        rig.ask("recordings_reconcile")


def test_poison_is_listed_and_requeued(make: Make) -> None:
    rig = make()
    rig.spool.append("w0", [(1, b"bad"), (2, b"worse")])
    for entry in rig.spool.batch(2):
        rig.spool.set_aside(entry.id, "not an event")
    assert [(row["id"], row["why"]) for row in rig.ask("poison_list")] == [(1, "not an event"), (2, "not an event")]
    assert rig.ask("poison_retry", ids=[2]) == {"queued": 1, "set_aside": 1}
    assert rig.ask("poison_retry") == {"queued": 1, "set_aside": 0}
    assert (rig.spool.backlog(), rig.notified) == (2, [True, True])


def test_poison_is_exported_and_dropped(make: Make) -> None:
    rig = make()
    rig.spool.append("w0", [(1, b"bad"), (2, bus.encode_event(call_started(CALL)))])
    for entry in rig.spool.batch(2):
        rig.spool.set_aside(entry.id, "refused")
    unreadable, readable = rig.ask("poison_export")
    assert (unreadable["id"], unreadable["why"], unreadable["body"]) == (1, "refused", "YmFk")
    assert (readable["kind"], readable["event"]["call_sid"]) == ("CallStarted", CALL)
    assert [row["id"] for row in rig.ask("poison_export", after=1)] == [2]
    assert rig.ask("poison_drop", ids=[2]) == {"dropped": 1, "set_aside": 1}
    assert rig.ask("poison_drop") == {"dropped": 1, "set_aside": 0}


def test_calls_are_filtered(make: Make) -> None:
    rig = make()
    rig.known(ended=True)
    rig.known(OTHER)
    assert [row["call_sid"] for row in rig.ask("calls", which={"reason": "caller_hangup"})] == [CALL]
    with pytest.raises(CommandError, match="unknown field"):
        rig.ask("calls", which={"colour": "red"})


def test_a_warm_transfer_needs_the_calls_stream(make: Make) -> None:
    rig = make()
    rig.known()
    with pytest.raises(CommandError, match="no way back"):
        rig.ask("transfer", call_sid=CALL, to="+15551234567", warm=True)


def test_a_warm_transfer_that_twilio_refuses_is_an_error(make: Make) -> None:
    rig = make()
    rig.jobs.start()
    rig.known()
    rig.worker(CALL)
    rig.twilio.posts.append(refusal(404, 20404))
    with pytest.raises(CommandError, match="refused"):
        rig.ask("transfer", call_sid=CALL, to="+15551234567", warm=True, summary="Anna.")
    rig.jobs.stop()
    assert "/twilio/whisper" in rig.twilio.seen[0].form["Twiml"][0]
