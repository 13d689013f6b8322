"""From an event to exactly one recording: real store, real HTTP, every way Twilio may answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from gw import bus
from gw.call.quality import Quality
from gw.config import Config
from gw.control.recording import recorder as recorder_module
from gw.control.recording import rows
from gw.control.recording.claims import Claims
from gw.control.recording.recorder import Recorder
from gw.control.recording.rows import RecordingRows
from gw.control.spool import Spool, SpoolError
from gw.control.store import Stamped, Store, StoreUnavailable
from gw.control.twilio_api.circuit_breaker import OPEN_AFTER, CircuitBreaker
from gw.control.twilio_api.rest import TwilioRest
from metrics import declare
from metrics.page import Page
from tests.gw.control.scripted_rest import (
    ACCOUNT,
    CALL,
    HTML,
    RECORDING,
    Answer,
    ScriptedRest,
    created,
    listing,
    recording,
    refusal,
)
from tests.timing import scaled

OWNER = "host/1-a"


class House:
    """A recorder on a real store and a scripted Twilio."""

    def __init__(self, folder: Path, twilio: ScriptedRest, config: Config, store: Store) -> None:
        self.store = store
        self.page = Page.create(folder / "control.page")
        self.twilio = twilio
        self.rows = RecordingRows(self.store, self.page)
        rest = TwilioRest(config) if config.signed else None
        self.spool = Spool(folder / "spool.db")
        self.claims = Claims(self.spool, claimant="host")
        self.breaker = CircuitBreaker(5.0)
        self.owned = {CALL}
        self.recorder = Recorder(
            config,
            self.store,
            rest,
            self.rows,
            self.page,
            owner=OWNER,
            claims=self.claims,
            breaker=self.breaker,
            is_owned=self.owned.__contains__,
        )

    def stop(self) -> None:
        self.recorder.stop()
        self.spool.close()
        self.page.close()

    def want(self, first_audio_at: float | None = None) -> None:
        at = time.time() if first_audio_at is None else first_audio_at
        self.recorder.on_event(bus.StartRecording(CALL, ACCOUNT, at))

    def settle(self, bound_s: float = 30.0) -> dict[str, Any]:
        with gevent.Timeout(scaled(bound_s)):
            while self.recorder.is_working_on(CALL):
                gevent.sleep(0.01)
        row = self.store.recording(CALL)
        assert row is not None
        return row

    def counted(self) -> dict[str, int]:
        outcomes = declare.RECORDINGS.labels["outcome"]
        values = {outcome: int(self.page.counter(declare.RECORDINGS, outcome=outcome).value) for outcome in outcomes}
        return {outcome: value for outcome, value in values.items() if value}

    def left_claimed(self, owner: str = "host/0-z") -> None:
        assert self.store.claim_recording(CALL, ACCOUNT, owner, time.time())


Make = Callable[..., House]


@pytest.fixture
def make(tmp_path: Path, store: Store) -> Iterator[Make]:
    houses: list[House] = []

    def make(**options: Any) -> House:
        twilio = ScriptedRest()
        houses.append(House(tmp_path, twilio, twilio.config(**options), store))
        return houses[-1]

    yield make
    for house in houses:
        house.stop()
        house.twilio.stop()


def test_a_recording_is_started_once(make: Make) -> None:
    house = make()
    house.twilio.posts.append(created())
    house.want(time.time() - 0.1)
    row = house.settle()
    assert (row.state, row.recording_sid, row.attempts, row.owner) == ("started", RECORDING, 1, OWNER)
    assert 100 <= row.trigger_ms < 5000
    assert house.counted() == {"started": 1}
    assert sum(house.page.histogram(declare.RECORDING_TRIGGER).buckets) == 1
    (request,) = house.twilio.seen
    assert request.form["RecordingStatusCallback"] == ["https://voice.example.com/twilio/recording"]
    assert request.form["RecordingChannels"] == ["dual"]


def test_a_second_wish_asks_nobody(make: Make) -> None:
    house = make()
    house.twilio.posts.append(created())
    house.want()
    house.want()
    house.settle()
    house.want()
    assert house.settle().state == "started"
    assert house.twilio.count("POST") == 1
    assert house.counted() == {"started": 1, "duplicate": 2}


def test_a_claim_of_another_host_stands(make: Make) -> None:
    house = make()
    house.left_claimed("elsewhere/1-b")
    house.want()
    assert house.settle().owner == "elsewhere/1-b"
    assert house.twilio.seen == []
    assert house.counted() == {"duplicate": 1}


def test_a_wish_the_forwarder_wrote_first_is_claimed(make: Make) -> None:
    house = make()
    house.store.apply([Stamped(bus.StartRecording(CALL, ACCOUNT, 1000.0), "host", 0, "w0", 1)])
    house.twilio.posts.append(created())
    house.want()
    row = house.settle()
    assert (row.state, row.first_audio_at) == ("started", 1000.0)


def test_becoming_in_progress_is_tried_again(make: Make) -> None:
    house = make()
    house.twilio.posts += [refusal(400, 21220), refusal(400, 21220), created()]
    house.want()
    row = house.settle()
    assert (row.state, row.attempts) == ("started", 3)
    assert house.counted() == {"started": 1}


def test_busy_is_tried_again_with_the_same_request(make: Make) -> None:
    house = make()
    house.twilio.posts += [refusal(429, 20429), created()]
    house.want()
    assert house.settle().state == "started"
    assert house.twilio.count("GET") == 0


@pytest.mark.parametrize("unclear", [Answer(503, HTML), Answer(201, b"cut off"), Answer(201, recording(), hold_s=1.0)])
def test_after_an_unclear_answer_the_recordings_are_listed(make: Make, unclear: Answer) -> None:
    house = make(timeout_s=0.3, retry_s=5.0)
    house.twilio.posts.append(unclear)
    house.twilio.gets.append(listing(recording()))
    house.want()
    row = house.settle()
    assert (row.state, row.recording_sid) == ("started", RECORDING)
    assert [request.method for request in house.twilio.seen] == ["POST", "GET"]


def test_nothing_listed_means_create(make: Make) -> None:
    house = make(retry_s=5.0)
    house.twilio.posts += [Answer(503, HTML), created()]
    house.twilio.gets.append(listing())
    house.want()
    assert house.settle().state == "started"
    assert [request.method for request in house.twilio.seen] == ["POST", "GET", "POST"]


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (refusal(404, 20404, "not found"), 20404, "not found"),
        (refusal(401, 20003, "authenticate"), 20003, "authenticate"),
        (Answer(403, HTML), None, "unauthorized"),
        (refusal(400, 21606, "no"), 21606, "no"),
    ],
)
def test_a_refusal_fails_the_row(make: Make, answer: Answer, code: int | None, text: str) -> None:
    house = make()
    house.twilio.posts.append(answer)
    house.want()
    row = house.settle()
    assert (row.state, row.error_code) == ("failed", code)
    assert text in (row.error_text if code else row.reason)
    assert house.counted() == {"failed": 1}
    assert house.twilio.count("POST") == 1


def test_wrong_credentials_are_loud(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    house = make()
    house.twilio.posts.append(refusal(401, 20003))
    house.want()
    house.settle()
    assert any(entry.levelname == "ERROR" and "20003" in entry.getMessage() for entry in caplog.records)


def test_what_twilio_does_not_say_is_not_called_failed(make: Make) -> None:
    house = make(retry_s=0.5)
    house.twilio.posts += [Answer(503, HTML)] * 3
    house.twilio.gets += [Answer(503, HTML)] * 3
    house.want()
    row = house.settle()
    assert (row.state, row.owner) == ("claimed", OWNER)
    house.twilio.posts.clear()
    house.twilio.gets.clear()
    house.twilio.gets.append(listing(recording()))
    assert house.recorder.take_up(row, create=True)
    assert house.settle().state == "started"


def test_while_twilio_is_down_recordings_wait_as_long_as_their_calls(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "HOLD_S", 0.05)
    house = make(retry_s=1.0)
    for _ in range(OPEN_AFTER):
        house.breaker.on_error("server", "HTTP 503", time.monotonic())
    house.breaker._until_s = time.monotonic() + 1.5  # longer than one effort
    house.want()
    gevent.sleep(0.3)
    assert house.twilio.seen == [], "nobody is asked"
    house.twilio.posts.append(created())
    row = house.settle()
    assert (row.state, house.breaker.state) == ("started", "closed")


def test_a_call_that_ends_while_twilio_is_down_is_left_to_the_pass(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "HOLD_S", 0.05)
    house = make()
    for _ in range(OPEN_AFTER):
        house.breaker.on_error("timeout", "no answer", time.monotonic())
    house.breaker._until_s = time.monotonic() + 60
    house.want()
    gevent.sleep(0.1)
    house.recorder.on_call_over(CALL)
    assert house.settle().state == "claimed"
    assert house.twilio.seen == []


def test_a_wish_that_comes_after_the_end_of_its_call_is_asked_for_once(make: Make) -> None:
    house = make()
    house.twilio.posts.append(refusal(400, 21220))
    house.recorder.on_call_over(CALL)
    house.want()
    row = house.settle()
    assert (row.state, row.error_code, row.attempts) == ("failed", 21220, 1)


def test_an_end_heard_while_the_row_is_claimed_is_not_forgotten(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make()
    claim = house.store.claim_recording

    def ends_meanwhile(*args: Any) -> bool:
        house.recorder.on_call_over(CALL)
        return claim(*args)

    monkeypatch.setattr(house.store, "claim_recording", ends_meanwhile)
    house.twilio.posts.append(refusal(400, 21220))
    house.want()
    assert house.settle().attempts == 1


def test_the_end_of_the_call_ends_the_tries(make: Make) -> None:
    house = make(retry_s=30.0)
    house.twilio.posts.append(refusal(429, 20429))

    def over(_seen: object) -> None:
        house.recorder.on_call_over(CALL)

    house.twilio.on_request = over
    house.want()
    row = house.settle()
    assert row.state == "failed"
    assert house.twilio.count("POST") == 1


def test_the_end_of_a_stream_is_not_the_end_of_the_call(make: Make) -> None:
    house = make(retry_s=5.0)
    house.twilio.posts += [refusal(429, 20429), created()]

    def dropped(_seen: object) -> None:
        house.recorder.on_event(bus.CallEnded(CALL, time.time(), "phone_lost", "peer_error", "", Quality()))

    house.twilio.on_request = dropped
    house.want()
    assert house.settle().state == "started"


def test_without_credentials_the_row_says_so(make: Make) -> None:
    house = make(signed=False)
    house.want()
    row = house.settle()
    assert row.state == "failed"
    assert row.reason == "no_credentials"
    assert house.counted() == {"skipped": 1}
    assert house.twilio.seen == []


def test_a_claim_left_by_an_earlier_process_lists_first(make: Make) -> None:
    house = make()
    house.left_claimed()
    house.twilio.gets.append(listing(recording(status="completed", duration="9")))
    row = house.store.recording(CALL)
    assert row is not None
    assert house.recorder.take_up(row, create=True)
    row = house.settle()
    assert (row.state, row.duration_s, row.owner) == ("completed", 9, OWNER)
    assert house.counted() == {"started": 1, "completed": 1}
    assert house.twilio.count("POST") == 0


def test_a_claim_left_without_a_recording_is_created(make: Make) -> None:
    house = make()
    house.left_claimed()
    house.twilio.gets.append(listing())
    house.twilio.posts.append(created())
    row = house.store.recording(CALL)
    assert row is not None
    assert house.recorder.take_up(row, create=True)
    assert not house.recorder.take_up(row, create=True), "one at a time"
    assert house.settle().state == "started"


def test_what_a_lost_host_left_is_closed_without_creating(make: Make) -> None:
    house = make()
    house.left_claimed("lost/1-b")
    house.twilio.gets.append(listing())
    row = house.store.recording(CALL)
    assert row is not None
    house.recorder.take_up(row, create=False)
    row = house.settle()
    assert (row.state, row.reason) == ("failed", "call_ended")
    assert house.twilio.count("POST") == 0


def test_a_claim_taken_by_somebody_else_meanwhile_is_left(make: Make) -> None:
    house = make()
    house.left_claimed()
    row = house.store.recording(CALL)
    assert row is not None
    assert house.store.reclaim_recording(CALL, "other/1-b", time.time(), from_owner="host/0-z")
    house.recorder.take_up(row, create=True)
    assert house.settle().owner == "other/1-b"
    assert house.twilio.seen == []


def unavailable(times: int, work: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """`work`, failing the first `times`; `after`: once the work was done, as a lost answer to a commit does."""
    left = [times]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            if after:
                work(*args, **kwargs)
            raise StoreUnavailable("away")
        return work(*args, **kwargs)

    return wrapped


def away(house: House, monkeypatch: pytest.MonkeyPatch, *, after: bool = False) -> Callable[[], None]:
    """The store does not answer; returns what brings it back."""
    for name in ("claim_recording", "bring_claims", "recording", "update_recording"):
        monkeypatch.setattr(house.store, name, unavailable(10**6, getattr(house.store, name), after=after))
    monkeypatch.setattr(rows, "WRITE_S", 0.0)

    def back() -> None:
        monkeypatch.undo()

    return back


def idle(house: House) -> None:
    with gevent.Timeout(scaled(30)):
        while house.recorder.is_working_on(CALL):
            gevent.sleep(0.01)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_without_the_store_the_spool_claims_and_twilio_decides(
    make: Make, monkeypatch: pytest.MonkeyPatch, after: bool, listed: bool
) -> None:
    house = make()
    back = away(house, monkeypatch, after=after)
    house.twilio.gets.append(listing(recording()) if listed else listing())
    house.twilio.posts += [] if listed else [created()]
    house.want()
    idle(house)
    assert [request.method for request in house.twilio.seen] == (["GET"] if listed else ["GET", "POST"])
    assert [(claim.owner, claim.recording_sid) for claim in house.spool.claims()] == [(OWNER, RECORDING)]
    back()
    house.claims.deliver(house.store)
    row = house.store.recording(CALL)
    assert row is not None
    assert (row.state, row.owner, len(house.claims), house.spool.claims()) == ("claimed", OWNER, 0, [])
    house.twilio.gets.append(listing(recording()))
    assert house.recorder.take_up(row, create=True)
    assert house.settle().recording_sid == RECORDING
    assert house.twilio.count("POST") == (0 if listed else 1)


def test_a_store_that_does_not_answer_is_away_after_a_second(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "CLAIM_S", 0.1)
    house = make()
    monkeypatch.setattr(house.store, "claim_recording", lambda *args: gevent.sleep(30))
    monkeypatch.setattr(house.store, "bring_claims", lambda *args: gevent.sleep(30))
    house.twilio.gets.append(listing())
    house.twilio.posts.append(created())
    house.want()
    with gevent.Timeout(scaled(20)):
        while house.twilio.count("POST") == 0:
            gevent.sleep(0.01)
    assert house.claims.holds(CALL)


def test_a_wish_of_a_call_that_is_claimed_here_lists_first(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make()
    back = away(house, monkeypatch)
    house.twilio.gets += [listing(), listing(recording())]
    house.twilio.posts.append(created())
    house.want()
    idle(house)
    back()
    house.want()
    assert house.settle().state == "started"
    assert house.twilio.count("POST") == 1
    assert not house.claims.holds(CALL), "the store has it"


def test_a_store_just_back_may_not_know_of_all_claims(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make()
    house.recorder._away_s = time.monotonic()
    house.twilio.gets.append(listing(recording()))
    house.want()
    assert house.settle().state == "started"
    assert house.twilio.count("POST") == 0


def test_a_call_that_is_not_alive_here_is_not_claimed_in_the_spool(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make()
    away(house, monkeypatch)
    house.owned.clear()
    house.want()
    idle(house)
    assert (house.twilio.seen, len(house.claims), house.counted()) == ([], 0, {})


def test_where_neither_store_nor_spool_keeps_a_claim_nobody_is_asked(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make()
    away(house, monkeypatch)

    def fail(*_args: object) -> None:
        raise SpoolError("the disk is full")

    monkeypatch.setattr(house.spool, "keep_claim", fail)
    house.want()
    idle(house)
    assert house.twilio.seen == []


def test_another_hosts_claim_is_respected_when_the_store_is_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make(retry_s=5.0)
    back = away(house, monkeypatch)
    house.twilio.gets.append(listing())
    house.twilio.posts += [refusal(429, 20429), created()]

    def return_with_another(seen: Any) -> None:
        if seen.method == "POST":
            back()
            house.left_claimed("other/1-b")

    house.twilio.on_request = return_with_another
    house.want()
    row = house.settle()
    assert (row.owner, row.state) == ("other/1-b", "claimed")
    assert house.twilio.count("POST") == 1, "no create once the row is known to be another's"


def test_two_recordings_are_said_in_the_row(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make()
    back = away(house, monkeypatch)
    house.twilio.gets.append(listing())
    house.twilio.posts.append(created())
    house.want()
    idle(house)
    back()
    house.left_claimed("other/1-b")
    assert house.store.update_recording(CALL, state="started", recording_sid="RE9", started_at=time.time())
    house.claims.deliver(house.store)
    house.claims.deliver(house.store)
    with gevent.Timeout(scaled(20)):
        while (row := house.settle()).reason != "recorded_twice":
            gevent.sleep(0.01)
    assert (row.owner, row.recording_sid, row.reason) == ("other/1-b", "RE9", "recorded_twice")
    assert RECORDING in row.error_text
    assert house.counted()["twice"] == 1


def test_an_outcome_waits_for_the_store(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make()
    monkeypatch.setattr(house.store, "update_recording", unavailable(2, house.store.update_recording))
    house.twilio.posts.append(created())
    house.want()
    assert house.settle().state == "started"
    assert house.counted() == {"started": 1}


def test_an_outcome_the_store_never_took_is_found_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make()
    monkeypatch.setattr(rows, "WRITE_S", 0.0)
    house.twilio.posts.append(created())
    with monkeypatch.context() as patch:
        patch.setattr(house.store, "update_recording", unavailable(1000, house.store.update_recording))
        house.want()
        row = house.settle()
    assert row.state == "claimed"
    house.twilio.gets.append(listing(recording()))
    assert house.recorder.take_up(row, create=True)
    assert house.settle().state == "started"
    assert house.twilio.count("POST") == 1
    assert house.counted() == {"started": 1}


def test_a_full_pool_leaves_the_wish(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MAX_EFFORTS", 1)
    house = make()
    house.twilio.posts.append(Answer(201, recording(), hold_s=0.2))
    house.want()
    assert not house.recorder.want("CA" + "9" * 32, ACCOUNT, None)
    assert house.settle().state == "started"
    assert house.store.recording("CA" + "9" * 32) is None


def test_a_call_that_came_back_is_listed_before_anything_is_made(make: Make) -> None:
    """Its first host may have claimed it in its spool, where the store cannot tell."""
    house = make()
    house.twilio.gets.append(listing(recording(status="completed", duration="9")))
    house.recorder.on_event(bus.StartRecording(CALL, ACCOUNT, time.time(), resumed=True))
    row = house.settle()
    assert (row.state, row.duration_s) == ("completed", 9)
    assert house.twilio.count("POST") == 0
