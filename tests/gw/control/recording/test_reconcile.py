"""Abandoned rows are found, and each is looked at less and less often."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import gw.config
from gw import bus
from gw.control.recording.claims import Claims
from gw.control.recording.reconcile import (
    FOREIGN_AGE_S,
    LOOK_FIRST_S,
    LOOK_LAST_S,
    MAX_LOOKS,
    OVERDUE_S,
    RENEW_S,
    STARTED_AGE_S,
    WANTED_AGE_S,
    Reconciler,
    is_overdue,
    reconcile_step,
)
from gw.control.recording.recorder import Recorder
from gw.control.recording.rows import RecordingRows
from gw.control.rows import RecordingRow, RowState
from gw.control.spool import Spool
from gw.control.store import Stamped, Store
from gw.control.twilio_api.circuit_breaker import OPEN_AFTER, CircuitBreaker
from gw.control.twilio_api.rest import TwilioRest
from metrics import declare
from metrics.page import Page
from tests.gw.control.scripted_rest import ACCOUNT, CALL, RECORDING, Answer, ScriptedRest, created, listing, recording, refusal
from tests.timing import scaled

NOW = 1_800_000_000.0


def row(state: RowState, *, owner: str | None = "claimant/1-a", age_s: float = 0.0, **changes: Any) -> RecordingRow:
    at = NOW - age_s
    fields = dict.fromkeys(RecordingRow.__struct_fields__) | {"call_sid": CALL, "state": state, "owner": owner, "attempts": 0}
    return RecordingRow(**{**fields, "first_audio_at": at, "claimed_at": at, "started_at": at, **changes})


@pytest.mark.parametrize(
    ("what", "owned", "step"),
    [
        (row("wanted", owner=None), True, "leave"),
        (row("wanted", owner=None, age_s=WANTED_AGE_S + 1), True, "want"),
        (row("wanted", first_audio_at=None), True, "want"),
        (row("claimed"), True, "take_up"),
        (row("claimed", owner="other/1-a"), False, "leave"),
        (row("claimed", owner="other/1-a", age_s=FOREIGN_AGE_S + 1), False, "close"),
        (row("claimed", owner=None, age_s=FOREIGN_AGE_S + 1), False, "close"),
        (row("started", age_s=STARTED_AGE_S - 1), False, "leave"),
        (row("started", age_s=STARTED_AGE_S + 1), False, "look"),
        (row("started", age_s=STARTED_AGE_S + 1), True, "leave"),
        (row("started", owner="other/1-a", age_s=STARTED_AGE_S + 1), False, "leave"),
        (row("started", owner="other/1-a", age_s=LOOK_LAST_S + 1), False, "look"),
        (row("completed", age_s=1e6), False, "leave"),
    ],
)
def test_the_next_step_for_a_row(what: RecordingRow, owned: bool, step: str) -> None:
    assert reconcile_step(what, claimant="claimant", owned=owned, now=NOW) == step


class Rig:
    """A reconciler on a real store and a scripted Twilio."""

    def __init__(self, folder: Path) -> None:
        self.twilio = ScriptedRest()
        config = self.twilio.config()
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        self.store.upgrade()
        self.page = Page.create(folder / "control.page")
        rows = RecordingRows(self.store, self.page)
        rest = TwilioRest(config)
        self.owned: set[str] = set()
        self.spool = Spool(folder / "spool.db")
        self.breaker = CircuitBreaker(5.0)
        self.recorder = Recorder(
            config,
            self.store,
            rest,
            rows,
            self.page,
            owner="claimant/2-b",
            claims=Claims(self.spool, claimant="claimant"),
            breaker=self.breaker,
            is_owned=self.owned.__contains__,
        )
        self.overdue: list[int] = []
        self.reconciler = Reconciler(
            self.store,
            self.recorder,
            rows,
            rest,
            self.breaker,
            claimant="claimant",
            is_owned=self.owned.__contains__,
            on_overdue=self.overdue.append,
        )

    def stop(self) -> None:
        self.reconciler.stop()
        self.recorder.stop()
        self.spool.close()
        self.store.close()
        self.page.close()
        self.twilio.stop()

    def pass_over(self, after_s: float = 0.0) -> RecordingRow:
        self.reconciler.pass_over(time.time() + after_s, 1000.0 + after_s)
        with gevent.Timeout(scaled(20)):
            while self.recorder.is_working_on(CALL):
                gevent.sleep(0.01)
        found = self.store.recording(CALL)
        assert found is not None
        return found

    def started(self, call_sid: str = CALL) -> None:
        assert self.store.claim_recording(call_sid, ACCOUNT, "claimant/1-a", time.time())
        assert self.store.update_recording(call_sid, state="started", recording_sid=RECORDING, started_at=time.time())


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.stop()


def test_an_abandoned_wish_is_recorded(rig: Rig) -> None:
    rig.store.apply([Stamped(bus.StartRecording(CALL, ACCOUNT, time.time()), "host", 0, "w0", 1)])
    assert rig.pass_over().state == "wanted"
    rig.twilio.gets.append(listing())
    rig.twilio.posts.append(created())
    assert rig.pass_over(WANTED_AGE_S + 1).state == "started"
    assert [request.method for request in rig.twilio.seen] == ["GET", "POST"], "Twilio may have been asked before"


def test_a_claim_under_way_is_renewed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rig.store.claim_recording(CALL, ACCOUNT, "claimant/2-b", time.time() - 2 * RENEW_S)
    monkeypatch.setattr(rig.recorder, "is_working_on", lambda call_sid: True)
    rig.reconciler.pass_over(now := time.time(), 1000.0)
    found = rig.store.recording(CALL)
    assert found is not None
    assert found.claimed_at == pytest.approx(now, abs=0.01)


def test_a_lost_hosts_claim_is_recorded_by_the_host_of_the_call(rig: Rig) -> None:
    assert rig.store.claim_recording(CALL, ACCOUNT, "lost/1-a", time.time())
    rig.owned.add(CALL)
    rig.twilio.gets.append(listing())
    rig.twilio.posts.append(created())
    assert rig.pass_over(FOREIGN_AGE_S + 1).state == "started"


def test_while_twilio_is_down_one_row_a_pass_tries(rig: Rig) -> None:
    others = [f"CA{n:032d}" for n in range(3)]
    for call_sid in others:
        rig.started(call_sid)
    for _ in range(OPEN_AFTER):
        rig.breaker.on_error("server", "HTTP 503", time.monotonic())
    rig.breaker._until_s = 0.0
    rig.twilio.gets.append(Answer(503, {}))
    rig.reconciler.pass_over(time.time() + STARTED_AGE_S + 1, 1000.0)
    assert (rig.twilio.count("GET"), rig.breaker.state) == (1, "open")


def test_a_claim_of_an_earlier_process_is_taken_up_immediately(rig: Rig) -> None:
    assert rig.store.claim_recording(CALL, ACCOUNT, "claimant/1-a", time.time())
    rig.twilio.gets.append(listing(recording()))
    found = rig.pass_over()
    assert (found.state, found.owner) == ("started", "claimant/2-b")
    assert rig.twilio.count("POST") == 0


def test_a_lost_hosts_claim_is_settled_without_a_create(rig: Rig) -> None:
    assert rig.store.claim_recording(CALL, ACCOUNT, "lost/1-a", time.time())
    assert rig.pass_over().state == "claimed"
    rig.twilio.gets.append(listing())
    assert rig.pass_over(FOREIGN_AGE_S + 1).state == "failed"
    assert rig.twilio.count("POST") == 0


def test_a_recording_under_way_is_left_to_the_recorder(rig: Rig) -> None:
    assert rig.store.claim_recording(CALL, ACCOUNT, "claimant/1-a", time.time())
    found = rig.store.recording(CALL)
    assert found is not None
    rig.twilio.gets.append(listing(recording()))
    rig.recorder.take_up(found, create=True)
    assert rig.pass_over().state == "started"
    assert rig.twilio.count("GET") == 1


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (listing(recording(status="completed", duration="31")), "completed"),
        (listing(recording(status="absent", error_code=13421)), "absent"),
        (listing(recording(status="failed", error_code=16105)), "absent"),
        (listing(recording(status="processing")), "started"),
        (listing(), "absent"),
        (refusal(404, 20404), "absent"),
        (refusal(429, 20429), "started"),
    ],
)
def test_a_recording_without_a_status_callback(rig: Rig, answer: Any, state: str) -> None:
    rig.started()
    rig.twilio.gets.append(answer)
    found = rig.pass_over(STARTED_AGE_S + 1)
    assert found.state == state
    assert found.recording_sid == RECORDING
    if state == "completed":
        assert found.duration_s == 31
        assert rig.page.counter(declare.RECORDINGS, outcome="completed").value == 1


def test_looks_become_rarer(rig: Rig) -> None:
    rig.started()
    rig.twilio.gets += [listing(recording())] * 3
    after_s = STARTED_AGE_S + 1
    for wait_s, looks in ((0.0, 1), (1.0, 1), (LOOK_FIRST_S, 2), (LOOK_FIRST_S, 2), (LOOK_FIRST_S, 3)):
        after_s += wait_s
        rig.pass_over(after_s)
        assert rig.twilio.count("GET") == looks


def test_listings_in_a_pass_are_bounded(rig: Rig) -> None:
    for n in range(MAX_LOOKS + 5):
        rig.started(f"CA{n:032d}")
    rig.started()
    rig.twilio.gets += [listing(recording())] * (MAX_LOOKS + 6)
    rig.pass_over(STARTED_AGE_S + 1)
    assert rig.twilio.count("GET") == MAX_LOOKS
    rig.pass_over(STARTED_AGE_S + 2)
    assert rig.twilio.count("GET") == MAX_LOOKS + 6


def test_a_recording_of_a_living_call_is_not_looked_at(rig: Rig) -> None:
    rig.started()
    rig.owned.add(CALL)
    rig.pass_over(STARTED_AGE_S + 1)
    assert rig.twilio.seen == []


@pytest.mark.parametrize(
    ("what", "overdue"),
    [
        (row("wanted", owner=None, age_s=OVERDUE_S + 1), True),
        (row("claimed", age_s=OVERDUE_S - 1), False),
        (row("claimed", age_s=OVERDUE_S + 1), True),
        (row("claimed", owner="other/1-a", age_s=OVERDUE_S + 1), False),
        (row("started", age_s=OVERDUE_S + 1), True),
    ],
)
def test_a_row_unsettled_for_too_long_is_overdue(what: RecordingRow, overdue: bool) -> None:
    assert is_overdue(what, "claimant", NOW) is overdue


def test_a_living_call_is_not_overdue(rig: Rig) -> None:
    rig.started()
    rig.twilio.gets.append(listing(recording()))
    rig.pass_over()
    rig.pass_over(OVERDUE_S + 1)
    rig.owned.add(CALL)
    rig.pass_over(OVERDUE_S + 2)
    assert rig.overdue == [0, 1, 0]
