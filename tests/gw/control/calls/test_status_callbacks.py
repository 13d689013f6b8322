"""Effects of Twilio's status callbacks; malformed ones have none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import gw.config
from gw import bus
from gw.call.quality import Quality
from gw.control.calls import status_callbacks
from gw.control.calls.registry import Calls
from gw.control.calls.status_callbacks import StatusCallbacks, recording_outcome
from gw.control.recording.lifecycle import Outcome
from gw.control.recording.rows import RecordingRows
from gw.control.spool import SpoolError
from gw.control.store import Stamped, Store, StoreError, StoreUnavailable
from metrics import declare
from metrics.page import Page
from tests import schema
from tests.gw.control.bus_client import CALL, OTHER, call_ended, call_started
from tests.timing import scaled

FAILED = "the recording failed at Twilio"
FORM = {
    "AccountSid": "AC0",
    "CallSid": CALL,
    "RecordingSid": "RE1",
    "RecordingUrl": "https://api.twilio.com/2010-04-01/Accounts/AC0/Recordings/RE1",
    "RecordingStatus": "completed",
    "RecordingDuration": "12",
    "RecordingChannels": "2",
    "RecordingSource": "StartCallRecordingAPI",
    "SomethingNew": "x",
}


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, (Outcome("completed", "RE1", 12), {"url": FORM["RecordingUrl"], "channels": 2})),
        ({"RecordingStatus": "in-progress"}, (Outcome("started", "RE1"), {"url": FORM["RecordingUrl"], "channels": 2})),
        (
            {"RecordingStatus": "absent", "ErrorCode": "13421"},
            (Outcome("absent", "RE1", error_code="13421"), {"url": FORM["RecordingUrl"], "channels": 2}),
        ),
        (
            {"RecordingStatus": "failed", "ErrorCode": "16105"},
            (Outcome("absent", "RE1", error_code="16105", error_text=FAILED), {"url": FORM["RecordingUrl"], "channels": 2}),
        ),
        (
            {"RecordingStatus": "failed", "RecordingUrl": "", "RecordingChannels": ""},
            (Outcome("absent", "RE1", error_code="recording_failed", error_text=FAILED), {}),
        ),
        ({"RecordingStatus": "paused"}, None),
        ({"RecordingStatus": ""}, None),
        ({"RecordingSource": "DialVerb"}, None),
        ({"RecordingDuration": "-1", "RecordingChannels": "two", "RecordingUrl": ""}, (Outcome("completed", "RE1"), {})),
        ({"RecordingDuration": "9" * 30}, (Outcome("completed", "RE1"), {"url": FORM["RecordingUrl"], "channels": 2})),
    ],
)
def test_the_outcome_of_a_recording_status(changes: dict[str, str], outcome: object) -> None:
    assert recording_outcome({**FORM, **changes}) == outcome


def test_fields_may_be_missing() -> None:
    assert recording_outcome({}) is None
    assert recording_outcome({"RecordingStatus": "completed"}) == (Outcome("completed"), {})
    assert recording_outcome({"RecordingStatus": "absent"}) == (Outcome("absent", error_code="absent"), {})


class Rig:
    def __init__(self, folder: Path) -> None:
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        schema.upgrade(self.store)
        self.page = Page.create(folder / "control.page")
        self.calls = Calls(several_accounts=True)
        self.foreign: list[str] = []
        self.completed: list[str] = []
        self.spool_error: SpoolError | None = None
        self.hang_ups: list[tuple[str, str]] = []
        self.over: list[str] = []
        self.lost: list[set[str]] = []
        self.spooled = (0, 0)
        self.callbacks = StatusCallbacks(
            self.store,
            RecordingRows(self.store, self.page, self.on_completed),
            self.calls,
            gateway="here",
            hang_up=self.hang_up,
            on_call_over=self.over.append,
            on_lost=self.lost.append,
            on_foreign=self.foreign.append,
            spooled=lambda: self.spooled,
        )

    def on_completed(self, call_sid: str, recording_sid: str, duration_s: int | None) -> None:
        if self.spool_error is not None:
            raise self.spool_error
        self.completed.append(recording_sid)

    def hang_up(self, call_sid: str, reason: str) -> bool:
        self.hang_ups.append((call_sid, reason))
        return True

    def talk(self) -> None:
        self.calls.on_event("w0-1", call_started(), time.monotonic())

    def report(self, kind: str, **fields: str) -> None:
        event = bus.Webhook(kind, time.time(), {"CallSid": CALL, **fields})
        self.callbacks.on_event(event)
        self.callbacks.on_stored(event)
        self.join()

    def join(self) -> None:
        """Wait for every end under way."""
        assert self.callbacks._grace.join(scaled(20))
        if self.callbacks._looker:
            self.callbacks._looker.join(scaled(20))
        assert self.under_way == 0

    @property
    def under_way(self) -> int:
        return len(self.callbacks._grace) + len(self.callbacks._ending)

    def started(self, gateway: str = "here") -> None:
        self.store.apply([Stamped(call_started(), "vm1", 0, "w0", 1, gateway)])


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(status_callbacks, "GRACE_S", 0.01)
    rig = Rig(tmp_path)
    yield rig
    rig.callbacks.stop()
    rig.store.close()
    rig.page.close()


def test_a_recording_status_settles_the_row(rig: Rig) -> None:
    assert rig.store.claim_recording(CALL, "AC0", "here/1-a", time.time())
    rig.report("recording", **{**FORM, "RecordingStatus": "in-progress"})
    rig.report("recording", **FORM)
    row = rig.store.recording(CALL)
    assert row is not None
    found = {name: getattr(row, name) for name in ("state", "recording_sid", "duration_s", "channels", "url")}
    assert found == {"state": "completed", "recording_sid": "RE1", "duration_s": 12, "channels": 2, "url": FORM["RecordingUrl"]}


def test_a_repeated_status_changes_nothing(rig: Rig) -> None:
    """The process ended between the store's commit and the spool's."""
    assert rig.store.claim_recording(CALL, "AC0", "here/1-a", time.time())
    rig.report("recording", **FORM)
    before = rig.store.recording(CALL)
    rig.report("recording", **FORM)
    assert rig.store.recording(CALL) == before
    completed = rig.page.counter(declare.RECORDINGS, outcome="completed")
    assert (completed.value, rig.completed) == (1, ["RE1"])


@pytest.mark.parametrize("before", ["in-progress", "absent"])
def test_a_recording_whose_event_is_not_on_disk_is_reported_again(rig: Rig, before: str) -> None:
    """No reconcile pass looks at an absent one."""
    assert rig.store.claim_recording(CALL, "AC0", "here/1-a", time.time())
    rig.report("recording", **{**FORM, "RecordingStatus": before})
    row = rig.store.recording(CALL)
    rig.spool_error = SpoolError("the disk is full")
    with pytest.raises(SpoolError):
        rig.report("recording", **FORM)
    assert (rig.store.recording(CALL), rig.completed) == (row, [])
    rig.spool_error = None
    rig.report("recording", **FORM)
    row = rig.store.recording(CALL)
    assert row is not None
    assert (row.state, rig.completed) == ("completed", ["RE1"])


@pytest.mark.parametrize(("error", "kept"), [(StoreUnavailable("away"), True), (StoreError("no"), False), (KeyError("x"), False)])
def test_a_recording_status_is_kept_while_the_store_is_away(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, kept: bool
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(rig.store, "recording", refuse)
    if kept:
        with pytest.raises(StoreUnavailable):
            rig.report("recording", **FORM)
    else:
        rig.report("recording", **FORM)
    assert ("could not be acted on" in caplog.text) is not kept


def test_an_end_that_an_earlier_process_spooled_is_handled(rig: Rig) -> None:
    rig.talk()
    event = bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"})
    rig.callbacks.on_stored(event)
    rig.callbacks.on_stored(event)
    assert rig.under_way == 1
    rig.join()
    assert rig.hang_ups == [(CALL, "admin_hangup")]


def test_ends_that_an_earlier_process_did_not_handle_are_taken_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls' machine died, and the process that waited for it to end them was replaced meanwhile."""
    monkeypatch.setattr(status_callbacks, "TAKE_UP_S", 0.0)
    monkeypatch.setattr(status_callbacks, "RETRY_S", 0.01)
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.001)
    rig.started("elsewhere")
    for n, (call_sid, status) in enumerate([(CALL, "completed"), (CALL, "in-progress"), (OTHER, "in-progress"), ("CA3", "busy")]):
        if call_sid == OTHER:
            rig.store.apply([Stamped(call_started(OTHER), "vm1", 0, "w0", 2, "elsewhere")])
        status_event = bus.Webhook("status", time.time(), {"CallSid": call_sid, "CallStatus": status})
        rig.store.apply([Stamped(status_event, "vm1", 0, "w1", n + 1, "elsewhere")])
    read = rig.store.statuses_of_open_calls
    answers = iter([StoreUnavailable("away")])

    def away_once() -> Any:
        for error in answers:
            raise error
        return read()

    monkeypatch.setattr(rig.store, "statuses_of_open_calls", away_once)
    rig.callbacks.start()
    until_s = time.monotonic() + scaled(20)
    while not rig.lost and time.monotonic() < until_s:
        gevent.sleep(0.01)
    assert rig.lost == [{CALL}]


def test_a_recording_that_was_not_wanted_makes_no_row(rig: Rig) -> None:
    rig.report("recording", **FORM)
    assert rig.store.recording(CALL) is None


@pytest.mark.parametrize("status", ["completed", "busy", "failed", "no-answer", "canceled"])
def test_a_call_still_alive_after_the_grace_is_hung_up(rig: Rig, status: str) -> None:
    rig.talk()
    rig.report("status", CallStatus=status)
    assert rig.over == [CALL]
    assert rig.hang_ups == [(CALL, "admin_hangup")]
    assert rig.lost == []


@pytest.mark.parametrize("status", ["ringing", "in-progress", "queued", "", "unheard-of"])
def test_a_call_that_continues_is_left_alone(rig: Rig, status: str) -> None:
    rig.talk()
    rig.report("status", CallStatus=status)
    assert (rig.over, rig.hang_ups, rig.lost) == ([], [], [])


def test_the_streams_own_stop_comes_first(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_callbacks, "GRACE_S", 0.1)
    rig.talk()
    rig.callbacks.on_event(bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"}))
    gevent.sleep(0)
    rig.calls.on_event("w0-1", call_ended(), time.monotonic())
    rig.join()
    assert rig.hang_ups == []


def test_an_open_row_without_an_owner_is_ended(rig: Rig) -> None:
    rig.started()
    rig.report("status", CallStatus="completed")
    assert rig.lost == [{CALL}]


@pytest.mark.parametrize("known", [True, False])
def test_an_end_that_waits_in_the_spool_is_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.01)
    if known:
        rig.started()
    rig.spooled = (7, 2)
    rig.callbacks.on_event(bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"}))
    gevent.sleep(0.1)
    rig.started()
    rig.spooled = (8, 4)
    gevent.sleep(0.1)
    assert (rig.lost, rig.under_way) == ([], 1)
    rig.store.apply([Stamped(bus.CallEnded(CALL, time.time(), "caller_hangup", "success", "", Quality()), "here", 0, "w0", 2)])
    rig.join()
    assert rig.lost == []


def test_a_row_still_open_once_the_spool_is_stored_is_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.01)
    rig.started()
    rig.spooled = (7, 2)
    rig.callbacks.on_event(bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"}))
    gevent.sleep(0.1)
    assert rig.lost == []
    rig.spooled = (9, 5)
    rig.join()
    assert rig.lost == [{CALL}]


def test_a_store_that_lags_for_long_leaves_the_row(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.001)
    rig.started()
    rig.spooled = (7, 2)
    rig.report("status", CallStatus="completed")
    assert rig.lost == []


def test_a_look_is_one_query_for_all_calls_that_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that lags behind 200 ends is asked once a look, and not for whole calls."""
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.01)
    monkeypatch.setattr(rig.store, "call", None)
    queries: list[int] = []
    read = rig.store.ends_of_calls

    def count(call_sids: list[str]) -> Any:
        queries.append(len(call_sids))
        return read(call_sids)

    monkeypatch.setattr(rig.store, "ends_of_calls", count)
    sids = [f"CA{n}" for n in range(200)]
    rig.store.apply([Stamped(call_started(sid), "vm1", 0, "w0", n, "here") for n, sid in enumerate(sids, 1)])
    rig.spooled = (7, 2)
    for sid in sids:
        rig.callbacks.on_event(bus.Webhook("status", time.time(), {"CallSid": sid, "CallStatus": "completed"}))
    until_s = time.monotonic() + scaled(20)
    while queries.count(200) < 3 and time.monotonic() < until_s:
        gevent.sleep(0.01)
    asked = len(queries)
    rig.spooled = (9, 0)
    rig.join()
    assert {sid for lost in rig.lost for sid in lost} == set(sids)
    assert (queries[asked:], set(queries[-3:])) == ([200], {200})


def test_a_row_of_another_host_is_left_to_that_host_for_a_while(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that died reports no end; the host that receives the callback waits, and then ends the row."""
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.005)
    rig.started("elsewhere")
    rig.callbacks.on_event(bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"}))
    gevent.sleep(0.1)
    assert (rig.lost, rig.under_way) == ([], 1)
    rig.join()
    assert rig.lost == [{CALL}]


def test_another_host_ends_its_row(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.01)
    rig.started("elsewhere")
    rig.callbacks.on_event(bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"}))
    gevent.sleep(0.1)
    ended = bus.CallEnded(CALL, time.time(), "caller_hangup", "success", "", Quality())
    rig.store.apply([Stamped(ended, "elsewhere", 0, "w9", 2)])
    rig.join()
    assert rig.lost == []


def test_a_row_that_ended_stays(rig: Rig) -> None:
    rig.started()
    ended = bus.CallEnded(CALL, time.time(), "caller_hangup", "success", "", Quality())
    rig.store.apply([Stamped(ended, "here", 0, "w0", 2)])
    rig.report("status", CallStatus="completed")
    assert rig.lost == []


def test_a_stream_error_is_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.report("stream", StreamEvent="stream-error", StreamError="31921 " + "x" * 1000)
    rig.report("stream", StreamEvent="stream-error")
    rig.report("stream", StreamEvent="stream-started")
    assert [entry.getMessage()[:44] for entry in caplog.records] == [
        "Twilio reports a stream error: 31921 xxxxxxx",
        "Twilio reports a stream error: ",
    ]


@pytest.mark.parametrize("kind", ["recording", "status", "stream", "action", "unheard-of"])
def test_every_field_of_a_webhook_may_be_missing(rig: Rig, kind: str) -> None:
    rig.callbacks.on_event(bus.Webhook(kind, time.time(), {}))
    rig.report(kind)
    assert (rig.over, rig.hang_ups, rig.lost) == ([], [], [])


def test_the_action_webhook_of_a_call_that_is_over_reports_its_end(rig: Rig) -> None:
    rig.report("action", CallStatus="in-progress")
    assert not rig.calls.is_over(CALL)
    rig.report("action", CallStatus="completed")
    assert rig.calls.is_over(CALL)
    assert (rig.over, rig.hang_ups) == ([], [])


def test_other_events_are_ignored(rig: Rig) -> None:
    rig.callbacks.on_event(call_started())
    assert rig.under_way == 0


@pytest.mark.parametrize(
    ("error", "message"), [(StoreUnavailable("away"), "is not known yet"), (StoreError("no"), "could not be handled")]
)
def test_a_store_that_fails_costs_only_the_row(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: StoreError, message: str
) -> None:
    monkeypatch.setattr(status_callbacks, "AWAY_S", 0.001)

    def away(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(rig.store, "ends_of_calls", away)
    rig.report("status", CallStatus="completed")
    assert message in caplog.text
    assert rig.lost == []
    rig.report("stream", StreamEvent="stream-error")


@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_a_row_is_looked_at_again_once_the_store_is_back(rig: Rig, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(status_callbacks, "AWAY_S", 0.001)
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.001)
    rig.started(host)
    read = rig.store.ends_of_calls
    answers = iter([StoreUnavailable("away"), StoreUnavailable("away")])

    def away_twice(call_sids: list[str]) -> Any:
        for error in answers:
            raise error
        return read(call_sids)

    monkeypatch.setattr(rig.store, "ends_of_calls", away_twice)
    rig.report("status", CallStatus="completed")
    assert rig.lost == [{CALL}]


def test_ends_under_way_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(status_callbacks, "MAX_ENDING", 1)
    rig = Rig(tmp_path)
    rig.callbacks.on_event(bus.Webhook("status", 0.0, {"CallSid": CALL, "CallStatus": "completed"}))
    rig.callbacks.on_event(bus.Webhook("status", 0.0, {"CallSid": OTHER, "CallStatus": "completed"}))
    assert "too many calls end at the same time" in caplog.text
    rig.callbacks.stop()
    rig.store.close()
    rig.page.close()


FOREIGN = {"AccountSid": "AC" + "9" * 32}


def test_a_report_of_another_account_changes_no_live_call(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.talk()
    rig.report("status", CallStatus="completed", **FOREIGN)
    rig.report("stream", StreamEvent="stream-error", StreamError="no", **FOREIGN)
    assert (rig.over, rig.hang_ups, rig.lost, rig.foreign) == ([], [], [], ["status", "stream"])
    assert {entry.getMessage() for entry in caplog.records} == {
        f"a {kind} webhook of another account is ignored: AC{'9' * 32}" for kind in ("status", "stream")
    }
    rig.report("status", CallStatus="completed", AccountSid=call_started().account_sid)
    assert rig.hang_ups == [(CALL, "admin_hangup")]


def test_a_report_of_another_account_ends_no_row(rig: Rig) -> None:
    """No worker has the call: its row names the account."""
    rig.started()
    rig.report("status", CallStatus="completed", **FOREIGN)
    assert (rig.lost, rig.foreign) == ([], ["status"])


def test_a_recording_status_of_another_account_changes_no_row(rig: Rig) -> None:
    assert rig.store.claim_recording(CALL, "AC0", "here/1-a", time.time())
    rig.report("recording", **{**FORM, **FOREIGN})
    row = rig.store.recording(CALL)
    assert row is not None
    assert (row.state, row.url, rig.foreign, rig.completed) == ("claimed", None, ["recording"], [])
    rig.report("recording", **FORM)
    row = rig.store.recording(CALL)
    assert row is not None
    assert row.state == "completed"
