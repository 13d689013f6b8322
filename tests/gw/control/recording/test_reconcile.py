"""Abandoned rows are found, and each is looked at less and less often."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import gw.config
from gw import bus
from gw.control.recording import reconcile
from gw.control.recording.claims import Claims
from gw.control.recording.reconcile import (
    FOREIGN_AGE_S,
    LOOK_FIRST_S,
    LOOK_LAST_S,
    MAX_LOOKS,
    MAX_STARTED,
    OVERDUE_S,
    RENEW_S,
    STARTED_AGE_S,
    WANTED_AGE_S,
    Reconciler,
    reconcile_step,
)
from gw.control.recording.recorder import Recorder
from gw.control.recording.rows import RecordingRows
from gw.control.rows import RecordingRow, RowState
from gw.control.spool import Spool
from gw.control.store import Stamped, Store, tables
from gw.control.twilio_api.accounts import Accounts
from gw.control.twilio_api.circuit_breaker import OPEN_AFTER
from metrics import declare
from metrics.page import Page
from tests import schema
from tests.gw.control.bus_client import OTHER
from tests.gw.control.scripted_rest import (
    ACCOUNT,
    CALL,
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


@pytest.mark.parametrize(
    ("what", "step"),
    [
        (row("started", owner="other/1-a", age_s=STARTED_AGE_S - 1), "leave"),
        (row("started", owner="other/1-a", age_s=STARTED_AGE_S + 1), "look"),
        (row("claimed", owner="other/1-a", age_s=STARTED_AGE_S - 1), "leave"),
        (row("claimed", owner="other/1-a", age_s=STARTED_AGE_S + 1), "close"),
    ],
)
def test_the_next_step_for_a_row_of_a_gateway_that_is_gone(what: RecordingRow, step: str) -> None:
    """Twilio's list is asked as for an own row. A claim is closed, not taken up: the gateway may live, without the store."""
    assert reconcile_step(what, claimant="claimant", owned=False, now=NOW, adopted=True) == step


class Rig:
    """A reconciler on a real store and a scripted Twilio."""

    def __init__(self, folder: Path, *, other: bool = False) -> None:
        """`other`: with a second account."""
        self.twilio = ScriptedRest()
        config = self.twilio.config(other=other)
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        schema.upgrade(self.store)
        self.page = Page.create(folder / "control.page")
        rows = RecordingRows(self.store, self.page)
        accounts = Accounts(config)
        self.owned: set[str] = set()
        self.spool = Spool(folder / "spool.db")
        self.breaker = next(iter(accounts)).breaker
        self.recorder = Recorder(
            config,
            self.store,
            accounts,
            rows,
            self.page,
            owner="claimant/2-b",
            claims=Claims(self.spool, claimant="claimant"),
            is_owned=self.owned.__contains__,
            is_over=lambda _: False,
        )
        self.overdue: list[int] = []
        self.adopted: list[str] = []
        self.may_settle = True
        self.reconciler = Reconciler(
            self.store,
            self.recorder,
            rows,
            accounts,
            claimant="claimant",
            is_owned=self.owned.__contains__,
            may_settle=lambda: self.may_settle,
            adopted=lambda: self.adopted,
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

    def started(self, call_sid: str = CALL, account: str = ACCOUNT) -> None:
        assert self.store.claim_recording(call_sid, account, "claimant/1-a", time.time())
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


@pytest.mark.parametrize(("owned", "after_s", "step"), [(True, 0.1, "want"), (True, -0.1, "leave"), (False, 0.1, "leave")])
def test_a_wish_of_an_earlier_process_is_taken_up_while_its_call_lives(owned: bool, after_s: float, step: str) -> None:
    found = row("wanted", owner=None)
    assert found.first_audio_at is not None
    since = found.first_audio_at + after_s
    assert reconcile_step(found, claimant="claimant", owned=owned, now=NOW, since=since) == step


def test_a_wish_that_a_replaced_process_left_is_recorded_at_the_start(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of a second was over before its wish had the age of an abandoned one."""
    monkeypatch.setattr(reconcile, "WANTED_AGE_S", 1e9)
    rig.store.apply([Stamped(bus.StartRecording(CALL, ACCOUNT, time.time() - 0.1), "host", 0, "w0", 1)])
    rig.owned.add(CALL)
    rig.twilio.gets.append(listing())
    rig.twilio.posts.append(created())
    rig.reconciler.start()
    with gevent.Timeout(scaled(20)):
        while len(rig.twilio.seen) < 2:
            gevent.sleep(0.01)
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


def test_a_living_call_is_not_overdue(rig: Rig) -> None:
    rig.started()
    rig.twilio.gets.append(listing(recording()))
    rig.pass_over()
    rig.pass_over(OVERDUE_S + 1)
    rig.owned.add(CALL)
    rig.pass_over(OVERDUE_S + 2)
    assert rig.overdue == [0, 1, 0]


# -- many rows --------------------------------------------------------------------------------------------------------

MANY = 100_000


def insert(rig: Rig, state: str, owner: str | None, age_s: float, count: int, first: int = 1) -> None:
    at = time.time() - age_s
    values = [
        {
            "call_sid": f"CA{n:032d}",
            "state": state,
            "owner": owner,
            "attempts": 1,
            "first_audio_at": at,
            "claimed_at": at,
            "started_at": at if state == "started" else None,
            "recording_sid": f"RE{n:032d}" if state == "started" else None,
        }
        for n in range(first, first + count)
    ]
    rig.store._backend.write(lambda connection: connection.execute(tables.recordings.insert(), values))


def test_a_new_wish_is_taken_up_beside_a_hundred_thousand_unsettled_rows(rig: Rig) -> None:
    """Calls alive on all hosts, ended calls of this host without a callback, and a lost host's claims."""
    insert(rig, "started", "elsewhere/1-a", STARTED_AGE_S + 60, MANY // 2)
    insert(rig, "started", "claimant/1-a", STARTED_AGE_S + 60, MANY // 2 - 3000, MANY)
    insert(rig, "claimed", "elsewhere/1-a", 1.0, 3000, 2 * MANY)
    rig.store.apply([Stamped(bus.StartRecording(CALL, ACCOUNT, time.time()), "host", 0, "w0", 1)])
    rig.owned.add(CALL)
    rig.twilio.gets += [listing()] + [listing(recording())] * MAX_LOOKS
    rig.twilio.posts.append(created())
    began_s = time.monotonic()
    done = rig.reconciler.pass_over(time.time() + WANTED_AGE_S + 1, 1000.0)
    print(f"a pass over {MANY} unsettled rows: {time.monotonic() - began_s:.2f} s")
    assert done.taken_up == 1
    assert done.unsettled <= 1 + 3000 + MAX_STARTED
    assert rig.pass_over().state == "started"


def test_started_rows_of_a_gateway_that_is_gone_are_looked_at_like_own_ones(rig: Rig) -> None:
    insert(rig, "started", "gone/1-a", STARTED_AGE_S + 60, 2)
    insert(rig, "started", "gone/1-a", LOOK_LAST_S + 60, 1, 3)
    insert(rig, "started", "alive/1-a", STARTED_AGE_S + 60, 1, 4)
    rig.twilio.gets += [listing(recording())] * 3
    assert rig.reconciler.pass_over(time.time(), 1000.0).asked == 1, "the old one, as of any gateway"
    rig.adopted.append("gone")
    insert(rig, "started", "gone/1-a", LOOK_LAST_S + 60, 1, 5)
    rig.twilio.gets.append(listing(recording()))
    done = rig.reconciler.pass_over(time.time(), 1010.0)
    assert (done.unsettled, done.asked) == (3, 3), "each row once, also the one that any gateway would look at"
    asked = {call_sid for request in rig.twilio.seen if (call_sid := request.path.split("/")[-2]).startswith("CA")}
    assert asked == {f"CA{n:032d}" for n in (1, 2, 3, 5)}


def test_no_pass_is_made_without_the_id(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process whose claims these seem to be may be alive elsewhere."""
    monkeypatch.setattr(reconcile, "FIRST_PASSES_S", (0.01,) * 50)
    assert rig.store.claim_recording(CALL, ACCOUNT, "claimant/1-a", time.time())
    rig.may_settle = False
    rig.reconciler.start()
    gevent.sleep(0.1)
    assert rig.twilio.seen == []
    rig.twilio.gets.append(listing(recording()))
    rig.may_settle = True
    with gevent.Timeout(scaled(20)):
        while not rig.twilio.seen:
            gevent.sleep(0.01)


def test_started_rows_are_looked_at_in_turn(rig: Rig) -> None:
    insert(rig, "started", "claimant/1-a", STARTED_AGE_S + 60, 5 * MAX_LOOKS)
    rig.twilio.gets += [listing(recording())] * (5 * MAX_LOOKS)
    looked: set[str] = set()
    for n in range(5):
        rig.reconciler.pass_over(time.time(), 1000.0 + n * LOOK_FIRST_S)
        looked |= {seen.path.split("/")[5] for seen in rig.twilio.seen}
    assert len(looked) == 5 * MAX_LOOKS


def test_an_operator_looks_at_every_started_row(rig: Rig) -> None:
    insert(rig, "started", "claimant/1-a", 1.0, MAX_LOOKS + 5)
    insert(rig, "started", "elsewhere/1-a", 1.0, 5, MANY)
    rig.twilio.gets += [listing(recording())] * (MAX_LOOKS + 10)
    assert rig.reconciler.pass_over(time.time(), 1000.0, asked=True).asked == MAX_LOOKS + 10


def test_every_row_that_needs_a_step_is_read(rig: Rig) -> None:
    """The database leaves out rows; none of them would need a step."""
    now, number = time.time(), 0
    for state, owner, age_s in itertools.product(
        ("wanted", "claimed", "started"),
        (None, "claimant/1-a", "claimant/9-z", "claimant0/1", "claimanu/1", "a/1"),
        (0.0, WANTED_AGE_S + 1, STARTED_AGE_S + 1, FOREIGN_AGE_S + 1, LOOK_LAST_S + 1),
    ):
        insert(rig, state, owner, age_s, 1, number := number + 1)
    read: set[str] = set()
    for kind in ("wanted", "claimed"):
        read |= {row.call_sid for _, row in rig.store.unstarted_recordings(kind)}
    for own, age_s in ((True, STARTED_AGE_S), (False, LOOK_LAST_S)):
        read |= {row.call_sid for _, row in rig.store.started_recordings("claimant", own=own, before=now - age_s)}
    every = rig.store.recordings(limit=1000)
    assert len(every) == number
    due = {row.call_sid for row in every if reconcile_step(row, claimant="claimant", owned=False, now=now) != "leave"}
    assert due <= read
    assert len(read) < number


def test_while_twilio_is_down_each_pass_tries_another_row(rig: Rig) -> None:
    insert(rig, "started", "claimant/1-a", STARTED_AGE_S + 60, 3)
    for _ in range(OPEN_AFTER):
        rig.breaker.on_error("server", "HTTP 503", time.monotonic())
    rig.twilio.gets += [Answer(503, {})] * 3
    for n in range(3):
        rig.breaker._until_s = 0.0
        rig.reconciler.pass_over(time.time(), 1000.0 + n)
    assert len({seen.path for seen in rig.twilio.seen}) == 3


def test_a_pause_of_the_circuit_postpones_no_look(rig: Rig) -> None:
    rig.started()
    for _ in range(OPEN_AFTER):
        rig.breaker.on_error("server", "HTTP 503", time.monotonic())
    rig.breaker._until_s = time.monotonic() + 60
    rig.pass_over(STARTED_AGE_S + 1)
    assert rig.twilio.seen == []
    rig.breaker.on_answer()
    rig.twilio.gets.append(listing(recording(status="completed")))
    assert rig.pass_over(STARTED_AGE_S + 2).state == "completed"


def test_looks_wait_for_the_time_that_twilio_asks_for(rig: Rig) -> None:
    insert(rig, "started", "claimant/1-a", STARTED_AGE_S + 60, 3)
    rig.twilio.gets.append(Answer(429, {"code": 20429, "message": "no"}, retry_after="30"))
    for n in range(2):
        rig.reconciler.pass_over(time.time(), 1000.0 + n * LOOK_FIRST_S)
    assert rig.twilio.count("GET") == 1


@pytest.mark.parametrize(
    ("state", "owner", "age_s", "overdue"),
    [
        ("wanted", None, OVERDUE_S + 1, 1),
        ("claimed", "claimant/1-a", OVERDUE_S - 1, 0),
        ("claimed", "claimant/1-a", OVERDUE_S + 1, 1),
        ("claimed", "other/1-a", OVERDUE_S + 1, 0),
        ("started", "claimant/1-a", OVERDUE_S + 1, 1),
        ("completed", "claimant/1-a", OVERDUE_S + 1, 0),
    ],
)
def test_a_row_unsettled_for_too_long_is_overdue(rig: Rig, state: str, owner: str | None, age_s: float, overdue: int) -> None:
    insert(rig, state, owner, age_s, 1)
    assert len(rig.store.overdue_recordings("claimant", time.time() - OVERDUE_S)) == overdue


def test_a_recording_that_is_tried_again_and_again_is_overdue(rig: Rig) -> None:
    insert(rig, "claimed", "claimant/1", OVERDUE_S + 1, 1)
    assert rig.store.reclaim_recording(f"CA{1:032d}", "claimant/2", time.time(), from_owner="claimant/1")
    assert len(rig.store.overdue_recordings("claimant", time.time() - OVERDUE_S)) == 1


def test_a_circuit_closes_without_calls_and_rows(rig: Rig) -> None:
    """Twilio's webhooks settled every row during the outage of its REST API."""
    for _ in range(OPEN_AFTER):
        rig.breaker.on_error("timeout", "no answer", time.monotonic())
    rig.breaker._until_s = math.inf
    rig.reconciler.pass_over(time.time(), 1000.0)
    assert rig.twilio.count("GET") == 0, "the pause is not over"
    for answer, state in ((Answer(503, {}), "open"), (Answer(404, {"code": 20404, "message": "no"}), "closed")):
        rig.breaker._until_s = 0.0
        rig.twilio.gets.append(answer)
        rig.reconciler.pass_over(time.time(), 1000.0)
        assert rig.breaker.state == state
    assert rig.twilio.count("GET") == 2


# -- accounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["wanted", "claimed", "started"])
def test_a_row_of_an_account_that_is_not_configured_is_left(rig: Rig, caplog: pytest.LogCaptureFixture, state: str) -> None:
    """Another gateway may have the account, or this one will have it again."""
    if state == "wanted":
        rig.store.apply([Stamped(bus.StartRecording(CALL, OTHER_ACCOUNT, 1.0), "vm1", 0, "w0", 1)])
    else:
        assert rig.store.claim_recording(CALL, OTHER_ACCOUNT, "claimant/1-a", 1.0)
    if state == "started":
        assert rig.store.update_recording(CALL, state="started", recording_sid=RECORDING, started_at=1.0)
    before = rig.store.recording(CALL)
    for after_s in (0.0, LOOK_LAST_S):
        assert rig.pass_over(after_s) == before
    assert rig.twilio.seen == []
    assert caplog.text.count(f"their account {OTHER_ACCOUNT} is not configured here") == 1


def test_an_account_that_is_down_is_asked_once_and_others_always(tmp_path: Path) -> None:
    rig = Rig(tmp_path, other=True)
    try:
        rig.started()
        rig.started(OTHER, OTHER_ACCOUNT)
        for _ in range(20):
            rig.breaker.on_error("unreachable", "down", time.monotonic())
        rig.twilio.gets.append(listing(recording(status="completed")))
        rig.pass_over(STARTED_AGE_S + 1)
        (request,) = rig.twilio.seen
        assert request.path.startswith(f"/2010-04-01/Accounts/{OTHER_ACCOUNT}/Calls/{OTHER}/")
        row = rig.store.recording(OTHER)
        assert row is not None
        assert row.state == "completed"
    finally:
        rig.stop()


def test_a_retry_after_holds_back_its_account_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, other=True)
    try:
        rig.started()
        rig.started(OTHER, OTHER_ACCOUNT)
        rig.twilio.gets.extend([Answer(429, {"code": 20429}, retry_after="60"), listing(recording(status="completed"))])
        rig.pass_over(STARTED_AGE_S + 1)
        assert [request.path.split("/")[3] for request in rig.twilio.seen] == [ACCOUNT, OTHER_ACCOUNT]
    finally:
        rig.stop()
