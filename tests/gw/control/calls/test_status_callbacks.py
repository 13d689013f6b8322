"""What a webhook means, and that no webhook can do harm."""

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
from gw.control.calls.status_callbacks import StatusCallbacks, recording_outcome
from gw.control.recording.lifecycle import Outcome
from gw.control.recording.rows import RecordingRows
from gw.control.store import Stamped, Store, StoreError, StoreUnavailable
from metrics import declare
from metrics.page import Page
from tests.gw.control.bus_client import CALL, OTHER, call_started
from tests.timing import scaled

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
    ("changes", "said"),
    [
        ({}, (Outcome("completed", "RE1", 12), {"url": FORM["RecordingUrl"], "channels": 2})),
        ({"RecordingStatus": "in-progress"}, (Outcome("started", "RE1"), {"url": FORM["RecordingUrl"], "channels": 2})),
        (
            {"RecordingStatus": "absent", "ErrorCode": "13421"},
            (Outcome("absent", "RE1", error_code="13421"), {"url": FORM["RecordingUrl"], "channels": 2}),
        ),
        ({"RecordingStatus": "paused"}, None),
        ({"RecordingStatus": ""}, None),
        ({"RecordingSource": "DialVerb"}, None),
        ({"RecordingDuration": "-1", "RecordingChannels": "two", "RecordingUrl": ""}, (Outcome("completed", "RE1"), {})),
        ({"RecordingDuration": "9" * 30}, (Outcome("completed", "RE1"), {"url": FORM["RecordingUrl"], "channels": 2})),
    ],
)
def test_what_a_recording_status_says(changes: dict[str, str], said: object) -> None:
    assert recording_outcome({**FORM, **changes}) == said


def test_fields_may_be_missing() -> None:
    assert recording_outcome({}) is None
    assert recording_outcome({"RecordingStatus": "completed"}) == (Outcome("completed"), {})
    assert recording_outcome({"RecordingStatus": "absent"}) == (Outcome("absent", error_code="absent"), {})


class FakeCalls:
    """The bus as webhooks see it: who is alive, who was told to hang up."""

    def __init__(self) -> None:
        self.alive: set[str] = set()
        self.told: list[tuple[str, str]] = []

    def is_owned(self, call_sid: str) -> bool:
        return call_sid in self.alive

    def hang_up(self, call_sid: str, reason: str) -> bool:
        self.told.append((call_sid, reason))
        return True


class House:
    def __init__(self, folder: Path) -> None:
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        self.store.upgrade()
        self.page = Page.create(folder / "control.page")
        self.calls = FakeCalls()
        self.over: list[str] = []
        self.lost: list[set[str]] = []
        self.spooled = (0, 0)
        self.webhooks = StatusCallbacks(
            self.store,
            RecordingRows(self.store, self.page),
            self.calls,
            host="here",
            on_call_over=self.over.append,
            on_lost=self.lost.append,
            spooled=lambda: self.spooled,
        )

    def say(self, kind: str, **fields: str) -> None:
        event = bus.Webhook(kind, time.time(), {"CallSid": CALL, **fields})
        self.webhooks.on_event(event)
        self.webhooks.on_stored(event)
        self.webhooks._pool.join(scaled(20))

    def started(self, host: str = "here") -> None:
        self.store.apply([Stamped(call_started(), host, 0, "w0", 1)])


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(status_callbacks, "GRACE_S", 0.01)
    house = House(tmp_path)
    yield house
    house.webhooks.stop()
    house.store.close()
    house.page.close()


def test_a_recording_status_settles_the_row(house: House) -> None:
    assert house.store.claim_recording(CALL, "AC0", "here/1-a", time.time())
    house.say("recording", **{**FORM, "RecordingStatus": "in-progress"})
    house.say("recording", **FORM)
    row = house.store.recording(CALL)
    assert row is not None
    found = {name: getattr(row, name) for name in ("state", "recording_sid", "duration_s", "channels", "url")}
    assert found == {"state": "completed", "recording_sid": "RE1", "duration_s": 12, "channels": 2, "url": FORM["RecordingUrl"]}


def test_a_status_told_twice_says_no_more_than_once(house: House) -> None:
    """The process ended between the store's commit and the spool's."""
    assert house.store.claim_recording(CALL, "AC0", "here/1-a", time.time())
    house.say("recording", **FORM)
    before = house.store.recording(CALL)
    house.say("recording", **FORM)
    assert house.store.recording(CALL) == before
    completed = house.page.counter(declare.RECORDINGS, outcome="completed")
    assert completed.value == 1


@pytest.mark.parametrize(("error", "kept"), [(StoreUnavailable("away"), True), (StoreError("no"), False), (KeyError("x"), False)])
def test_a_recording_status_is_kept_while_the_store_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, kept: bool
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(house.store, "recording", refuse)
    if kept:
        with pytest.raises(StoreUnavailable):
            house.say("recording", **FORM)
    else:
        house.say("recording", **FORM)
    assert ("could not be acted on" in caplog.text) is not kept


def test_an_end_that_an_earlier_process_spooled_is_seen_to(house: House) -> None:
    house.calls.alive.add(CALL)
    event = bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"})
    house.webhooks.on_stored(event)
    house.webhooks.on_stored(event)
    assert len(house.webhooks._pool) == 1
    house.webhooks._pool.join(scaled(20))
    assert house.calls.told == [(CALL, "admin_hangup")]


def test_ends_that_an_earlier_process_heard_of_are_taken_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine that died and of its calls: whoever waited for it to end them was replaced meanwhile."""
    monkeypatch.setattr(status_callbacks, "TAKE_UP_S", 0.0)
    monkeypatch.setattr(status_callbacks, "RETRY_S", 0.01)
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.001)
    house.started("elsewhere")
    for n, (call_sid, status) in enumerate([(CALL, "completed"), (CALL, "in-progress"), (OTHER, "in-progress"), ("CA3", "busy")]):
        if call_sid == OTHER:
            house.store.apply([Stamped(call_started(OTHER), "elsewhere", 0, "w0", 2)])
        told = bus.Webhook("status", time.time(), {"CallSid": call_sid, "CallStatus": status})
        house.store.apply([Stamped(told, "elsewhere", 0, "w1", n + 1)])
    read = house.store.statuses_of_open_calls
    answers = iter([StoreUnavailable("away")])

    def away_once() -> Any:
        for error in answers:
            raise error
        return read()

    monkeypatch.setattr(house.store, "statuses_of_open_calls", away_once)
    house.webhooks.start()
    until_s = time.monotonic() + scaled(20)
    while not house.lost and time.monotonic() < until_s:
        gevent.sleep(0.01)
    assert house.lost == [{CALL}]


def test_a_recording_nobody_wanted_makes_no_row(house: House) -> None:
    house.say("recording", **FORM)
    assert house.store.recording(CALL) is None


@pytest.mark.parametrize("status", ["completed", "busy", "failed", "no-answer", "canceled"])
def test_a_call_still_alive_after_the_grace_is_hung_up(house: House, status: str) -> None:
    house.calls.alive.add(CALL)
    house.say("status", CallStatus=status)
    assert house.over == [CALL]
    assert house.calls.told == [(CALL, "admin_hangup")]
    assert house.lost == []


@pytest.mark.parametrize("status", ["ringing", "in-progress", "queued", "", "unheard-of"])
def test_a_call_that_goes_on_is_left_alone(house: House, status: str) -> None:
    house.calls.alive.add(CALL)
    house.say("status", CallStatus=status)
    assert (house.over, house.calls.told, house.lost) == ([], [], [])


def test_the_streams_own_stop_wins(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_callbacks, "GRACE_S", 0.1)
    house.calls.alive.add(CALL)
    house.webhooks.on_event(bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"}))
    gevent.sleep(0)
    house.calls.alive.clear()
    house.webhooks._pool.join(scaled(20))
    assert house.calls.told == []


def test_an_open_row_nobody_owns_is_ended(house: House) -> None:
    house.started()
    house.say("status", CallStatus="completed")
    assert house.lost == [{CALL}]


@pytest.mark.parametrize("known", [True, False])
def test_an_end_that_waits_in_the_spool_is_waited_for(house: House, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.01)
    if known:
        house.started()
    house.spooled = (7, 2)
    house.webhooks.on_event(bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"}))
    gevent.sleep(0.1)
    house.started()
    house.spooled = (8, 4)
    gevent.sleep(0.1)
    assert (house.lost, len(house.webhooks._pool)) == ([], 1)
    house.store.apply([Stamped(bus.CallEnded(CALL, time.time(), "caller_hangup", "success", "", Quality()), "here", 0, "w0", 2)])
    house.webhooks._pool.join(scaled(20))
    assert house.lost == []


def test_a_row_that_is_open_once_the_spool_is_told_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.01)
    house.started()
    house.spooled = (7, 2)
    house.webhooks.on_event(bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"}))
    gevent.sleep(0.1)
    assert house.lost == []
    house.spooled = (9, 5)
    house.webhooks._pool.join(scaled(20))
    assert house.lost == [{CALL}]


def test_a_store_that_lags_for_long_leaves_the_row(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.001)
    house.started()
    house.spooled = (7, 2)
    house.say("status", CallStatus="completed")
    assert house.lost == []


def test_a_row_of_another_host_is_its_own_affair_for_a_while(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that died tells of no end; the one that hears from Twilio waits, and then does."""
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.005)
    house.started("elsewhere")
    house.webhooks.on_event(bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"}))
    gevent.sleep(0.1)
    assert (house.lost, len(house.webhooks._pool)) == ([], 1)
    house.webhooks._pool.join(scaled(20))
    assert house.lost == [{CALL}]


def test_another_host_ends_its_row(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.01)
    house.started("elsewhere")
    house.webhooks.on_event(bus.Webhook("status", time.time(), {"CallSid": CALL, "CallStatus": "completed"}))
    gevent.sleep(0.1)
    ended = bus.CallEnded(CALL, time.time(), "caller_hangup", "success", "", Quality())
    house.store.apply([Stamped(ended, "elsewhere", 0, "w9", 2)])
    house.webhooks._pool.join(scaled(20))
    assert house.lost == []


def test_a_row_that_ended_stays(house: House) -> None:
    house.started()
    ended = bus.CallEnded(CALL, time.time(), "caller_hangup", "success", "", Quality())
    house.store.apply([Stamped(ended, "here", 0, "w0", 2)])
    house.say("status", CallStatus="completed")
    assert house.lost == []


def test_a_stream_error_is_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.say("stream", StreamEvent="stream-error", StreamError="31921 " + "x" * 1000)
    house.say("stream", StreamEvent="stream-error")
    house.say("stream", StreamEvent="stream-started")
    assert [entry.getMessage()[:44] for entry in caplog.records] == [
        "Twilio reports a stream error: 31921 xxxxxxx",
        "Twilio reports a stream error: ",
    ]


@pytest.mark.parametrize("kind", ["recording", "status", "stream", "action", "unheard-of"])
def test_nothing_in_a_webhook_is_needed(house: House, kind: str) -> None:
    house.webhooks.on_event(bus.Webhook(kind, time.time(), {}))
    house.say(kind)
    assert (house.over, house.calls.told, house.lost) == ([], [], [])


def test_other_events_are_not_ours(house: House) -> None:
    house.webhooks.on_event(call_started())
    assert len(house.webhooks._pool) == 0


@pytest.mark.parametrize(
    ("error", "says"), [(StoreUnavailable("away"), "is not known yet"), (StoreError("no"), "could not be handled")]
)
def test_a_store_that_is_away_or_says_no_costs_no_more_than_the_row(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: StoreError, says: str
) -> None:
    monkeypatch.setattr(status_callbacks, "AWAY_S", 0.001)

    def away(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(house.store, "call", away)
    house.say("status", CallStatus="completed")
    assert says in caplog.text
    assert house.lost == []
    house.say("stream", StreamEvent="stream-error")


@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_a_row_is_looked_at_again_once_the_store_is_back(house: House, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(status_callbacks, "AWAY_S", 0.001)
    monkeypatch.setattr(status_callbacks, "LOOK_S", 0.001)
    house.started(host)
    read = house.store.call
    answers = iter([StoreUnavailable("away"), StoreUnavailable("away")])

    def away_twice(call_sid: str) -> Any:
        for error in answers:
            raise error
        return read(call_sid)

    monkeypatch.setattr(house.store, "call", away_twice)
    house.say("status", CallStatus="completed")
    assert house.lost == [{CALL}]


def test_only_so_many_ends_are_remembered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_callbacks, "MAX_HEARD", 1)
    for call_sid in (CALL, OTHER):
        house.webhooks.on_event(bus.Webhook("status", 0.0, {"CallSid": call_sid, "CallStatus": "busy"}))
    assert list(house.webhooks._heard) == [OTHER]


def test_too_many_at_once_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(status_callbacks, "MAX_ENDING", 1)
    house = House(tmp_path)
    house.webhooks.on_event(bus.Webhook("status", 0.0, {"CallSid": CALL, "CallStatus": "completed"}))
    house.webhooks.on_event(bus.Webhook("status", 0.0, {"CallSid": OTHER, "CallStatus": "completed"}))
    assert "too many calls end at the same time" in caplog.text
    house.webhooks.stop()
    house.store.close()
    house.page.close()
