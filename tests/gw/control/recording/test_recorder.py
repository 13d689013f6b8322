"""From an event to exactly one recording: real store, real HTTP, every way Twilio may answer."""

from __future__ import annotations

import base64
import logging
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
from gw.control.twilio_api import accounts as accounts_module
from gw.control.twilio_api.accounts import Accounts
from gw.control.twilio_api.circuit_breaker import OPEN_AFTER
from metrics import declare
from metrics.page import Page
from tests.gw.control.scripted_rest import (
    ACCOUNT,
    CALL,
    HTML,
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

OWNER = "host/1-a"


class Rig:
    """A recorder on a real store and a scripted Twilio."""

    def __init__(self, folder: Path, twilio: ScriptedRest, config: Config, store: Store) -> None:
        self.store = store
        self.page = Page.create(folder / "control.page")
        self.twilio = twilio
        self.rows = RecordingRows(self.store, self.page)
        self.spool = Spool(folder / "spool.db")
        self.claims = Claims(self.spool, claimant="host")
        accounts = Accounts(config)
        self.owned = {CALL}
        self.over: set[str] = set()
        self.recorder = Recorder(
            config,
            self.store,
            accounts,
            self.rows,
            self.page,
            owner=OWNER,
            claims=self.claims,
            is_owned=self.owned.__contains__,
            is_over=self.over.__contains__,
        )
        if (main := accounts.of("")) is not None:
            self.breaker = main.breaker

    def stop(self) -> None:
        self.recorder.stop()
        self.spool.close()
        self.page.close()

    def want(self, first_audio_at: float | None = None) -> None:
        at = time.time() if first_audio_at is None else first_audio_at
        self.recorder.on_event(bus.StartRecording(CALL, ACCOUNT, at))

    def end_call(self) -> None:
        """Twilio reports the call's end."""
        self.over.add(CALL)
        self.recorder.on_call_over(CALL)

    def wait(self, bound_s: float = 30.0) -> dict[str, Any]:
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


Make = Callable[..., Rig]


@pytest.fixture
def make(tmp_path: Path, store: Store) -> Iterator[Make]:
    houses: list[Rig] = []

    def make(**options: Any) -> Rig:
        twilio = ScriptedRest()
        houses.append(Rig(tmp_path, twilio, twilio.config(**options), store))
        return houses[-1]

    yield make
    for rig in houses:
        rig.stop()
        rig.twilio.stop()


def test_a_recording_is_started_once(make: Make) -> None:
    rig = make()
    rig.twilio.posts.append(created())
    rig.want(time.time() - 0.1)
    row = rig.wait()
    assert (row.state, row.recording_sid, row.attempts, row.owner) == ("started", RECORDING, 1, OWNER)
    assert 100 <= row.trigger_ms < 5000
    assert rig.counted() == {"started": 1}
    assert sum(rig.page.histogram(declare.RECORDING_TRIGGER).buckets) == 1
    (request,) = rig.twilio.seen
    assert request.form["RecordingStatusCallback"] == ["https://voice.example.com/twilio/recording#rc=2&rp=all"]
    assert request.form["RecordingChannels"] == ["dual"]


def test_a_second_wish_sends_no_request(make: Make) -> None:
    rig = make()
    rig.twilio.posts.append(created())
    rig.want()
    rig.want()
    rig.wait()
    rig.want()
    assert rig.wait().state == "started"
    assert rig.twilio.count("POST") == 1
    assert rig.counted() == {"started": 1, "duplicate": 2}


def test_a_claim_of_another_host_is_respected(make: Make) -> None:
    rig = make()
    rig.left_claimed("elsewhere/1-b")
    rig.want()
    assert rig.wait().owner == "elsewhere/1-b"
    assert rig.twilio.seen == []
    assert rig.counted() == {"duplicate": 1}


def test_a_wish_the_forwarder_wrote_first_is_claimed(make: Make) -> None:
    rig = make()
    rig.store.apply([Stamped(bus.StartRecording(CALL, ACCOUNT, 1000.0), "host", 0, "w0", 1)])
    rig.twilio.posts.append(created())
    rig.want()
    row = rig.wait()
    assert (row.state, row.first_audio_at) == ("started", 1000.0)


def test_becoming_in_progress_is_tried_again(make: Make) -> None:
    rig = make()
    rig.twilio.posts += [refusal(400, 21220), refusal(400, 21220), created()]
    rig.want()
    row = rig.wait()
    assert (row.state, row.attempts) == ("started", 3)
    assert rig.counted() == {"started": 1}


def test_busy_is_tried_again_with_the_same_request(make: Make) -> None:
    rig = make()
    rig.twilio.posts += [refusal(429, 20429), created()]
    rig.want()
    assert rig.wait().state == "started"
    assert rig.twilio.count("GET") == 0


@pytest.mark.parametrize("unclear", [Answer(503, HTML), Answer(201, b"cut off"), Answer(201, recording(), hold_s=1.0)])
def test_after_an_unclear_answer_the_recordings_are_listed(make: Make, unclear: Answer) -> None:
    rig = make(timeout_s=0.3, retry_s=5.0)
    rig.twilio.posts.append(unclear)
    rig.twilio.gets.append(listing(recording()))
    rig.want()
    row = rig.wait()
    assert (row.state, row.recording_sid) == ("started", RECORDING)
    assert [request.method for request in rig.twilio.seen] == ["POST", "GET"]


def test_an_empty_listing_leads_to_a_create(make: Make) -> None:
    rig = make(retry_s=5.0)
    rig.twilio.posts += [Answer(503, HTML), created()]
    rig.twilio.gets.append(listing())
    rig.want()
    assert rig.wait().state == "started"
    assert [request.method for request in rig.twilio.seen] == ["POST", "GET", "POST"]


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (Answer(410, HTML), None, "rejected"),
        (refusal(400, 21606, "no"), 21606, "no"),
    ],
)
def test_a_refusal_fails_the_row(make: Make, answer: Answer, code: int | None, text: str) -> None:
    rig = make()
    rig.twilio.posts.append(answer)
    rig.want()
    row = rig.wait()
    assert (row.state, row.error_code) == ("failed", code)
    assert text in (row.error_text if code else row.reason)
    assert rig.counted() == {"failed": 1}
    assert rig.twilio.count("POST") == 1


@pytest.mark.parametrize("answer", [refusal(401, 20003), Answer(403, HTML)])
def test_wrong_credentials_are_loud_and_waited_for(make: Make, caplog: pytest.LogCaptureFixture, answer: Answer) -> None:
    rig = make()
    rig.twilio.posts += [answer, created()]
    rig.want()
    assert rig.wait().state == "started"
    assert [entry.levelname for entry in caplog.records if "unauthorized" in entry.getMessage()] == ["ERROR"]


def test_wrong_credentials_never_fail_a_row(make: Make) -> None:
    rig = make(retry_s=0.1)
    rig.twilio.posts.append(refusal(401, 20003))
    rig.want()
    assert rig.wait().state == "claimed", "the reconcile pass takes it up"


def test_a_call_that_twilio_does_not_know_yet_is_recorded(make: Make) -> None:
    rig = make()
    rig.owned.add(CALL)
    rig.twilio.posts += [refusal(404, 20404), created()]
    rig.want()
    row = rig.wait()
    assert (row.state, row.attempts, row.error_code) == ("started", 2, None)


def test_retry_after_is_respected(make: Make) -> None:
    rig = make()
    asked_at: list[float] = []
    rig.twilio.on_request = lambda seen: asked_at.append(time.monotonic())
    rig.twilio.posts += [Answer(429, {"code": 20429, "message": "no"}, retry_after="1"), created()]
    rig.want()
    assert rig.wait().state == "started"
    assert asked_at[1] - asked_at[0] >= 1.0


def test_a_row_does_not_fail_without_an_answer(make: Make) -> None:
    rig = make(retry_s=0.5)
    rig.twilio.posts += [Answer(503, HTML)] * 3
    rig.twilio.gets += [Answer(503, HTML)] * 3
    rig.want()
    row = rig.wait()
    assert (row.state, row.owner) == ("claimed", OWNER)
    rig.twilio.posts.clear()
    rig.twilio.gets.clear()
    rig.twilio.gets.append(listing(recording()))
    assert rig.recorder.take_up(row, create=True)
    assert rig.wait().state == "started"


def test_while_twilio_is_down_recordings_wait_as_long_as_their_calls(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "HOLD_S", 0.05)
    rig = make(retry_s=1.0)
    for _ in range(OPEN_AFTER):
        rig.breaker.on_error("server", "HTTP 503", time.monotonic())
    rig.breaker._until_s = time.monotonic() + 1.5  # longer than `retry_s`
    rig.want()
    gevent.sleep(0.3)
    assert rig.twilio.seen == [], "no request is sent"
    rig.twilio.posts.append(created())
    row = rig.wait()
    assert (row.state, rig.breaker.state) == ("started", "closed")


def test_a_call_that_ends_while_twilio_is_down_is_left_to_the_pass(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "HOLD_S", 0.05)
    rig = make()
    for _ in range(OPEN_AFTER):
        rig.breaker.on_error("timeout", "no answer", time.monotonic())
    rig.breaker._until_s = time.monotonic() + 60
    rig.want()
    gevent.sleep(0.1)
    rig.end_call()
    assert rig.wait().state == "claimed"
    assert rig.twilio.seen == []


def test_a_wish_that_comes_after_the_end_of_its_call_is_asked_for_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gw")
    rig = make()
    rig.twilio.posts.append(refusal(400, 21220))
    rig.end_call()
    rig.want()
    row = rig.wait()
    assert (row.state, row.reason, row.attempts) == ("failed", "call_over", 1)
    assert rig.counted() == {"call_over": 1}
    assert {entry.levelname for entry in caplog.records if entry.name.startswith("gw.")} == {"INFO"}


def test_an_end_during_the_claim_is_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()
    claim = rig.store.claim_recording

    def ends_meanwhile(*args: Any) -> bool:
        rig.end_call()
        return claim(*args)

    monkeypatch.setattr(rig.store, "claim_recording", ends_meanwhile)
    rig.twilio.posts.append(refusal(400, 21220))
    rig.want()
    assert rig.wait().attempts == 1


def test_the_end_of_the_call_ends_the_retries(make: Make) -> None:
    rig = make(retry_s=30.0)
    rig.twilio.posts.append(refusal(429, 20429))

    def over(_seen: object) -> None:
        rig.end_call()

    rig.twilio.on_request = over
    rig.want()
    row = rig.wait()
    assert row.state == "failed"
    assert rig.twilio.count("POST") == 1


def test_the_end_of_a_stream_is_not_the_end_of_the_call(make: Make) -> None:
    rig = make(retry_s=5.0)
    rig.twilio.posts += [refusal(429, 20429), created()]

    def dropped(_seen: object) -> None:
        rig.recorder.on_event(bus.CallEnded(CALL, time.time(), "phone_lost", "peer_error", "", Quality()))

    rig.twilio.on_request = dropped
    rig.want()
    assert rig.wait().state == "started"


def test_without_credentials_the_row_fails_with_that_reason(make: Make) -> None:
    rig = make(signed=False)
    rig.want()
    row = rig.wait()
    assert row.state == "failed"
    assert row.reason == "no_credentials"
    assert rig.counted() == {"skipped": 1}
    assert rig.twilio.seen == []


def test_an_earlier_processs_claim_lists_first(make: Make) -> None:
    rig = make()
    rig.left_claimed()
    rig.twilio.gets.append(listing(recording(status="completed", duration="9")))
    row = rig.store.recording(CALL)
    assert row is not None
    assert rig.recorder.take_up(row, create=True)
    row = rig.wait()
    assert (row.state, row.duration_s, row.owner) == ("completed", 9, OWNER)
    assert rig.counted() == {"started": 1, "completed": 1}
    assert rig.twilio.count("POST") == 0


def test_an_abandoned_claim_without_a_recording_creates(make: Make) -> None:
    rig = make()
    rig.left_claimed()
    rig.twilio.gets.append(listing())
    rig.twilio.posts.append(created())
    row = rig.store.recording(CALL)
    assert row is not None
    assert rig.recorder.take_up(row, create=True)
    assert not rig.recorder.take_up(row, create=True), "one at a time"
    assert rig.wait().state == "started"


def test_a_lost_hosts_row_is_settled_without_a_create(make: Make) -> None:
    rig = make()
    rig.left_claimed("lost/1-b")
    rig.twilio.gets.append(listing())
    row = rig.store.recording(CALL)
    assert row is not None
    rig.recorder.take_up(row, create=False)
    row = rig.wait()
    assert (row.state, row.reason) == ("failed", "call_ended")
    assert rig.twilio.count("POST") == 0


def test_a_claim_that_another_host_took_meanwhile_is_left(make: Make) -> None:
    rig = make()
    rig.left_claimed()
    row = rig.store.recording(CALL)
    assert row is not None
    assert rig.store.reclaim_recording(CALL, "other/1-b", time.time(), from_owner="host/0-z")
    rig.recorder.take_up(row, create=True)
    assert rig.wait().owner == "other/1-b"
    assert rig.twilio.seen == []


def unavailable(times: int, work: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """`work`, with a failure in the first `times` calls; `after`: once the work is done, like a lost answer to a commit."""
    left = [times]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            if after:
                work(*args, **kwargs)
            raise StoreUnavailable("away")
        return work(*args, **kwargs)

    return wrapped


def away(rig: Rig, monkeypatch: pytest.MonkeyPatch, *, after: bool = False) -> Callable[[], None]:
    """Stop the store's answers; returns a function that restores them."""
    for name in ("claim_recording", "bring_claims", "recording", "update_recording"):
        monkeypatch.setattr(rig.store, name, unavailable(10**6, getattr(rig.store, name), after=after))
    monkeypatch.setattr(rows, "WRITE_S", 0.0)

    def back() -> None:
        monkeypatch.undo()

    return back


def idle(rig: Rig) -> None:
    with gevent.Timeout(scaled(30)):
        while rig.recorder.is_working_on(CALL):
            gevent.sleep(0.01)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_without_the_store_the_spool_claims_and_twilio_decides(
    make: Make, monkeypatch: pytest.MonkeyPatch, after: bool, listed: bool
) -> None:
    rig = make()
    back = away(rig, monkeypatch, after=after)
    rig.twilio.gets.append(listing(recording()) if listed else listing())
    rig.twilio.posts += [] if listed else [created()]
    rig.want()
    idle(rig)
    assert [request.method for request in rig.twilio.seen] == (["GET"] if listed else ["GET", "POST"])
    assert [(claim.owner, claim.recording_sid) for claim in rig.spool.claims()] == [(OWNER, RECORDING)]
    back()
    rig.claims.deliver(rig.store)
    row = rig.store.recording(CALL)
    assert row is not None
    assert (row.state, row.owner, len(rig.claims), rig.spool.claims()) == ("claimed", OWNER, 0, [])
    rig.twilio.gets.append(listing(recording()))
    assert rig.recorder.take_up(row, create=True)
    assert rig.wait().recording_sid == RECORDING
    assert rig.twilio.count("POST") == (0 if listed else 1)


def test_a_store_that_does_not_answer_is_away_after_a_second(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "CLAIM_S", 0.1)
    rig = make()
    monkeypatch.setattr(rig.store, "claim_recording", lambda *args: gevent.sleep(30))
    monkeypatch.setattr(rig.store, "bring_claims", lambda *args: gevent.sleep(30))
    rig.twilio.gets.append(listing())
    rig.twilio.posts.append(created())
    rig.want()
    with gevent.Timeout(scaled(20)):
        while rig.twilio.count("POST") == 0:
            gevent.sleep(0.01)
    assert rig.claims.holds(CALL)


def test_a_wish_of_a_call_that_is_claimed_here_lists_first(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()
    back = away(rig, monkeypatch)
    rig.twilio.gets += [listing(), listing(recording())]
    rig.twilio.posts.append(created())
    rig.want()
    idle(rig)
    back()
    rig.want()
    assert rig.wait().state == "started"
    assert rig.twilio.count("POST") == 1
    assert not rig.claims.holds(CALL), "the store has the claim"


def test_a_store_just_back_may_lack_claims(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()
    rig.recorder._away_s = time.monotonic()
    rig.twilio.gets.append(listing(recording()))
    rig.want()
    assert rig.wait().state == "started"
    assert rig.twilio.count("POST") == 0


def test_a_call_that_is_not_alive_here_is_not_claimed_in_the_spool(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()
    away(rig, monkeypatch)
    rig.owned.clear()
    rig.want()
    idle(rig)
    assert (rig.twilio.seen, len(rig.claims), rig.counted()) == ([], 0, {})


def test_without_store_and_spool_no_request_is_sent(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()
    away(rig, monkeypatch)

    def fail(*_args: object) -> None:
        raise SpoolError("the disk is full")

    monkeypatch.setattr(rig.spool, "keep_claim", fail)
    rig.want()
    idle(rig)
    assert rig.twilio.seen == []


def test_another_hosts_claim_is_respected_when_the_store_is_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make(retry_s=5.0)
    back = away(rig, monkeypatch)
    rig.twilio.gets.append(listing())
    rig.twilio.posts += [refusal(429, 20429), created()]

    def return_with_another(seen: Any) -> None:
        if seen.method == "POST":
            back()
            rig.left_claimed("other/1-b")

    rig.twilio.on_request = return_with_another
    rig.want()
    row = rig.wait()
    assert (row.owner, row.state) == ("other/1-b", "claimed")
    assert rig.twilio.count("POST") == 1, "no create once the row is another claimant's"


def test_two_recordings_are_named_in_the_row(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()
    back = away(rig, monkeypatch)
    rig.twilio.gets.append(listing())
    rig.twilio.posts.append(created())
    rig.want()
    idle(rig)
    back()
    rig.left_claimed("other/1-b")
    assert rig.store.update_recording(CALL, state="started", recording_sid="RE9", started_at=time.time())
    rig.claims.deliver(rig.store)
    rig.claims.deliver(rig.store)
    with gevent.Timeout(scaled(20)):
        while (row := rig.wait()).reason != "recorded_twice":
            gevent.sleep(0.01)
    assert (row.owner, row.recording_sid, row.reason) == ("other/1-b", "RE9", "recorded_twice")
    assert RECORDING in row.error_text
    assert rig.counted()["twice"] == 1


def test_an_outcome_waits_for_the_store(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()
    monkeypatch.setattr(rig.store, "update_recording", unavailable(2, rig.store.update_recording))
    rig.twilio.posts.append(created())
    rig.want()
    assert rig.wait().state == "started"
    assert rig.counted() == {"started": 1}


def test_an_outcome_that_was_not_written_is_found_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make()
    monkeypatch.setattr(rows, "WRITE_S", 0.0)
    rig.twilio.posts.append(created())
    with monkeypatch.context() as patch:
        patch.setattr(rig.store, "update_recording", unavailable(1000, rig.store.update_recording))
        rig.want()
        row = rig.wait()
    assert row.state == "claimed"
    rig.twilio.gets.append(listing(recording()))
    assert rig.recorder.take_up(row, create=True)
    assert rig.wait().state == "started"
    assert rig.twilio.count("POST") == 1
    assert rig.counted() == {"started": 1}


def test_a_full_pool_leaves_the_wish(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MAX_EFFORTS", 1)
    rig = make()
    rig.twilio.posts.append(Answer(201, recording(), hold_s=0.2))
    rig.want()
    assert not rig.recorder.want("CA" + "9" * 32, ACCOUNT, None)
    assert rig.wait().state == "started"
    assert rig.store.recording("CA" + "9" * 32) is None


def test_a_resumed_call_is_listed_before_a_create(make: Make) -> None:
    """The call's first host may hold a claim in its spool, which the store does not have."""
    rig = make()
    rig.twilio.gets.append(listing(recording(status="completed", duration="9")))
    rig.recorder.on_event(bus.StartRecording(CALL, ACCOUNT, time.time(), resumed=True))
    row = rig.wait()
    assert (row.state, row.duration_s) == ("completed", 9)
    assert rig.twilio.count("POST") == 0


# -- accounts ---------------------------------------------------------------------------------------------------------


def test_a_recording_uses_the_account_of_its_call(make: Make) -> None:
    rig = make(other=True)
    rig.twilio.posts.append(created())
    rig.recorder.on_event(bus.StartRecording(CALL, OTHER_ACCOUNT, time.time()))
    row = rig.wait()
    assert (row.state, row.account_sid) == ("started", OTHER_ACCOUNT)
    assert rig.twilio.seen[0].path.startswith(f"/2010-04-01/Accounts/{OTHER_ACCOUNT}/Calls/{CALL}/")
    assert base64.b64decode(rig.twilio.seen[0].authorization.split()[1]).decode() == f"{OTHER_ACCOUNT}:another secret"


def test_a_recording_of_an_account_that_is_not_configured_is_not_claimed(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A gateway that has the account may claim it."""
    rig = make()
    assert rig.recorder.want(CALL, OTHER_ACCOUNT, time.time())
    rig.recorder._pool.join(scaled(20))
    assert rig.store.recording(CALL) is None
    assert f"its account {OTHER_ACCOUNT} is not configured" in caplog.text
    assert rig.twilio.seen == []
    assert rig.counted() == {}


def test_requests_that_hang_take_no_slot_of_another_account(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "REST_CONCURRENCY", 1)
    rig = make(other=True)
    rig.twilio.posts.extend([Answer(201, {}, hold_s=scaled(60.0)), created()])
    rig.recorder.on_event(bus.StartRecording("CA" + "9" * 32, OTHER_ACCOUNT, time.time()))
    with gevent.Timeout(scaled(20)):
        while not rig.twilio.seen:
            gevent.sleep(0.01)
    rig.want()
    assert rig.wait().state == "started"
