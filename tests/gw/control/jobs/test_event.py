"""gw.control.jobs.event: each event is completed from the store, delivered, tried again or given up."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw import bus
from gw.call.quality import Quality
from gw.config import Config, EventHook, Hooks, Secrets
from gw.control.jobs import lifecycle, table
from gw.control.jobs.event import (
    BACKOFF_FIRST_S,
    BACKOFF_LAST_S,
    RETRY_AFTER_S,
    TRANSFER_S,
    EventHandler,
    EventHooks,
    backoff_s,
    event_hooks,
    retry_after_s,
    state_of,
)
from gw.control.jobs.lifecycle import Again, Ended, Job, Rewritten
from gw.control.rows import CallDetails, EventRow, TurnRow
from gw.errors import GatewayError
from gw.protocol.hooks.event import Draft, decode_draft, is_draft
from gw.twin.hooks import HookTwin
from metrics.page import Page

T = TypeVar("T")

BEGAN = 1_000_000.0
ALL = ("call.started", "call.ended", "tool.called", "recording.completed")
ENDED = bus.CallEnded("CA1", BEGAN + 60, "caller_hangup", "success", "", Quality())
DETAILS = CallDetails(
    call_sid="CA1",
    agent="default",
    direction="inbound",
    from_number="+1",
    to_number="+2",
    started_at=BEGAN,
    answered_at=BEGAN + 1,
    ended_at=BEGAN + 60,
    reason="caller_hangup",
    result="success",
    turns=[TurnRow(call_sid="CA1", n=1, role="caller", text="Hello", start_ms=5, interrupted=False)],
    events=[EventRow(call_sid="CA1", kind="tool_called", at=BEGAN + 9, data={"tool": "t", "ms": 5}, instance="w", n=3)],
    usage={"text_in": 7},
)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    made = Page.create(tmp_path / "control.page")
    yield made
    made.close()


@pytest.fixture
def twin() -> Iterator[HookTwin]:
    with HookTwin("s") as made:
        yield made


class Disk:
    """The tables of jobs, in memory."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:")
        self._db.executescript(table.SCHEMA)
        self.is_full = False

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self.is_full:
            raise GatewayError("the disk is full")
        return work(self._db)


class Store:
    def __init__(self) -> None:
        self.details: CallDetails | None = DETAILS
        self.is_away = False
        self.owned = self.over = False
        self.disk = Disk()

    def call(self, call_sid: str) -> CallDetails | None:
        if self.is_away:
            raise GatewayError("the store is away")
        return self.details

    def handler(self, page: Page, url: str, **keys: Any) -> EventHandler:
        hooks = (EventHook(url=url, **{"types": ALL, **keys}),)
        config = Config(events=hooks, hooks=Hooks(allow_networks=("127.0.0.0/8",)), secrets=Secrets(hook_secret="s"))
        disk = self.disk
        [handler] = event_hooks(config, page, self.call, disk, lambda call_sid: self.owned, lambda call_sid: self.over).handlers
        return handler


def job_of(handler: EventHandler, event: bus.Event) -> Job:
    wanted = handler.of_event(event, time.time())
    assert wanted is not None
    return wanted.job


def claimed(job: Job) -> Job:
    return lifecycle.on_due(job, time.time())


def test_the_end_of_a_call_is_sent_with_what_the_store_has(page: Page, twin: HookTwin) -> None:
    handler = Store().handler(page, twin.url())
    job = job_of(handler, ENDED)
    assert (job.kind, is_draft(job.body), job.deadline_at - job.at) == (handler.kind, True, 24 * 3600.0)
    outcome = handler.run(claimed(job), 1)
    assert isinstance(outcome, Rewritten)
    job = lifecycle.on_outcome(claimed(job), outcome, time.time())
    for attempt in (1, 2):
        assert handler.run(claimed(job), attempt) == Ended("done", "ok", "")
    first, second = twin.requests
    assert (first.fault, first.content, first.key) == ("", second.content, job.id)
    assert first.body["type"] == "call.ended"
    assert first.body["call"]["from"] == "+1"
    data = first.body["data"]
    assert (data["reason"], data["duration_s"], data["usage"], data["cost_usd"]) == ("caller_hangup", 59.0, {"text_in": 7}, None)
    assert data["tools"] == [{"tool": "t", "id": None, "status": None, "ms": 5}]
    assert [turn["text"] for turn in data["turns"]] == ["Hello"]
    assert data["recording_sid"] is None


def test_each_event_of_the_bus_has_its_type(page: Page) -> None:
    handler = Store().handler(page, "http://127.0.0.1:9/x", transcript="live")
    events = {
        "call.started": bus.CallStarted("CA1", "MZ1", "AC1", "a", "inbound", "+1", "+2", BEGAN, BEGAN + 1),
        "call.ended": ENDED,
        "tool.called": bus.CallEvent("CA1", "tool_called", BEGAN, {"tool": "t", "arguments": "secret"}),
        "transcript.turn": bus.Turn("CA1", 1, "caller", "Hello", "item", 5),
    }
    drafts = [decode_draft(job_of(handler, event).body) for event in events.values()]
    assert [draft.type for draft in drafts] == list(events)
    assert "arguments" not in drafts[2].data
    others = [bus.FirstAudio("CA1", 1.0), bus.Webhook("recording", 1.0, {"CallSid": "CA1", "RecordingStatus": "completed"})]
    assert [handler.of_event(event, BEGAN) for event in others] == [None, None]
    few = Store().handler(page, "http://127.0.0.1:9/x", types=("call.ended",), transcript="none")
    made = [few.of_event(event, BEGAN) for event in events.values()]
    assert [wanted is not None for wanted in made] == [False, True, False, False]


def test_a_recording_has_one_event_for_each_endpoint(page: Page) -> None:
    store = Store()
    one, other = (store.handler(page, f"http://127.0.0.1:9/{name}") for name in ("a", "b"))
    hooks = EventHooks([one, other, store.handler(page, "http://127.0.0.1:9/c", types=("call.ended",))])
    first, second = hooks.of_recording("CA1", "RE1", 5)
    draft = decode_draft(first.job.body)
    assert (draft.type, draft.id, draft.data) == ("recording.completed", first.job.id, {"recording_sid": "RE1", "duration_s": 5})
    assert (first.job.kind, first.job.call_sid, second.job.kind) == (one.kind, "CA1", other.kind)
    again, _ = hooks.of_recording("CA1", "RE1", None)
    assert decode_draft(again.job.body).data == {"recording_sid": "RE1", "duration_s": None}
    unnamed = [hooks.of_recording(call_sid, "", 5)[0].job.id for call_sid in ("CA1", "CA2")]
    ids = [first.job.id, second.job.id, hooks.of_recording("CA1", "RE2", 5)[0].job.id, *unnamed]
    assert (again.job.id, len(set(ids))) == (first.job.id, 5)
    one.is_stopped = other.is_stopped = True
    assert hooks.of_recording("CA1", "RE1", 5) == []


def test_an_undelivered_event_with_a_long_transcript_is_retried_whole(page: Page, twin: HookTwin) -> None:
    store = Store()
    turns = [TurnRow(call_sid="CA1", n=n, role="caller", text="word " * 200, start_ms=n, interrupted=False) for n in range(100)]
    store.details = msgspec.structs.replace(DETAILS, turns=turns)
    handler, now = store.handler(page, twin.url()), time.time() + 1.0

    def take() -> Job:
        [job] = store.disk.transact(lambda db: table.turn(db, [], {handler.kind: 1}, now).claimed)
        return job

    def write(before: Job, after: Job) -> None:
        assert store.disk.transact(lambda db: table.change(db, table.Change(before, after)))

    store.disk.transact(lambda db: table.insert(db, [table.Wanted(job_of(handler, ENDED), 9)], now))
    job = take()
    write(job, lifecycle.on_outcome(job, handler.run(job, 1), now))
    whole = (job := take()).body
    assert len(whole) > lifecycle.MAX_BODY_CHARS
    write(job, lifecycle.on_outcome(job, Ended("failed", "gone", ""), now))
    assert store.disk.transact(lambda db: table.retry(db, [job.id], now, lambda one: now + 60)) == 1
    assert handler.run(take(), 1) == Ended("done", "ok", "")
    [request] = twin.requests
    assert (request.fault, request.content) == ("", whole.encode())


def test_an_event_waits_for_the_store(page: Page) -> None:
    store = Store()
    handler = store.handler(page, "http://127.0.0.1:9/x")
    job = claimed(job_of(handler, ENDED))
    store.is_away = True
    assert handler.run(job, 1) == Rewritten(job.body, 5.0)
    store.is_away, store.details = False, None
    assert handler.run(job, 1) == Rewritten(job.body, 1.0)
    store.owned, store.details = True, DETAILS
    assert handler.run(job, 1) == Ended("done", "stale", "")
    assert handler.repeats(job) == 0.0


@pytest.mark.parametrize(
    ("path", "least_s", "most_s"), [("failed", 0.5, 1.5), ("wait", 7.0, 7.0), ("refused", 0.5, 1.5), ("dead", 0.5, 1.5)]
)
def test_all_but_2xx_and_410_is_tried_again(page: Page, twin: HookTwin, path: str, least_s: float, most_s: float) -> None:
    store = Store()
    handler = store.handler(page, twin.url(path))
    job = claimed(job_of(handler, ENDED))
    outcome = handler.run(job, 1)
    assert isinstance(outcome, Rewritten)
    again = handler.run(claimed(lifecycle.on_outcome(job, outcome, time.time())), 1)
    assert isinstance(again, Again)
    assert least_s <= again.after_s <= most_s


def test_410_stops_the_endpoint(page: Page, twin: HookTwin, caplog: pytest.LogCaptureFixture) -> None:
    handler = Store().handler(page, twin.url("gone"))
    job, other = claimed(job_of(handler, ENDED)), claimed(job_of(handler, ENDED))
    outcome = handler.run(job, 1)
    assert isinstance(outcome, Rewritten)
    job = claimed(lifecycle.on_outcome(job, outcome, time.time()))
    assert handler.run(job, 1) == handler.run(other, 1) == Ended("failed", "gone", "")
    assert handler.of_event(ENDED, BEGAN) is None
    assert len(twin.requests) == 1
    assert "answered 410" in caplog.text


def test_a_stopped_endpoint_stays_stopped_over_a_restart(page: Page, twin: HookTwin, caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.handler(page, twin.url("gone"))._stop()
    handler = store.handler(page, twin.url("gone"))
    assert (handler.is_stopped, handler.of_event(ENDED, BEGAN), twin.requests) == (True, None, [])
    assert "`gateway.py hooks retry` sends it events again" in caplog.text
    assert not store.handler(page, twin.url("ok")).is_stopped
    store.disk.is_full = True
    handler.is_stopped = False
    handler._stop()
    assert handler.is_stopped
    assert "is not on disk" in caplog.text


def draft(kind: Any, at: float, **data: Any) -> Draft:
    return Draft(id="evt_1", type=kind, at=at, call_sid="CA1", data=data)


def test_a_stream_that_resumes_is_neither_a_start_nor_an_end() -> None:
    resumed = EventRow(call_sid="CA1", kind="resumed", at=BEGAN + 30, data={}, instance="w", n=4)
    several = CallDetails(**{**_fields(), "events": [resumed]})
    assert state_of(draft("call.started", BEGAN + 1), DETAILS, BEGAN, owned=True) == "ready"
    assert state_of(draft("call.started", BEGAN + 31), DETAILS, BEGAN, owned=True) == "stale"
    lost = draft("call.ended", BEGAN + 60, reason="phone_lost")
    assert state_of(lost, DETAILS, BEGAN + 61, owned=False) == "wait"
    assert state_of(lost, DETAILS, BEGAN + 61, owned=False, over=True) == "ready", "Twilio reported the end"
    assert state_of(lost, DETAILS, BEGAN + 81, owned=False) == "ready"
    assert state_of(lost, DETAILS, BEGAN + 81, owned=True) == "stale"
    assert state_of(draft("call.ended", BEGAN + 20, reason="phone_lost"), several, BEGAN + 81, owned=False) == "stale"
    assert state_of(draft("call.ended", BEGAN + 60), several, BEGAN + 61, owned=False) == "ready"
    assert state_of(draft("tool.called", BEGAN), None, BEGAN, owned=True) == "wait"


def test_a_call_that_was_transferred_ends_once_its_way_back_is_closed() -> None:
    def at(kind: str, at: float, **data: Any) -> EventRow:
        return EventRow(call_sid="CA1", kind=kind, at=at, data=data, instance="w", n=4)

    def state(now: float, *events: EventRow, ended_at: float = BEGAN + 60, over: bool = False) -> str:
        details = CallDetails(**{**_fields(), "events": list(events), "ended_at": ended_at, "reason": "transferred"})
        return state_of(draft("call.ended", BEGAN + 60, reason="transferred"), details, now, owned=False, over=over)

    assert state(BEGAN + 100) == "wait"
    assert state(BEGAN + 100, over=True) == "wait", "how the transfer ended is on its way to the store"
    assert state(BEGAN + 100, at("transfer_ended", BEGAN + 99, status="busy"), over=True) == "ready"
    assert state(BEGAN + 60 + TRANSFER_S, over=True) == "ready"
    assert state(BEGAN + 100, at("transferred", BEGAN + 59)) == "ready", "by an operator, without a way back"
    assert state(BEGAN + 100, at("transfer_ended", BEGAN + 99, status="busy")) == "wait", "the caller comes back"
    assert state(BEGAN + 100, at("transfer_ended", BEGAN + 99, status="completed")) == "ready"
    left = at("transfer_ended", BEGAN + 99, status="canceled")
    assert state(BEGAN + 100, left, ended_at=BEGAN + 99) == "ready", "the caller left during the ringing"
    assert state(BEGAN + 100, left, ended_at=BEGAN + 150) == "stale", "a later stream ended"


def _fields() -> dict[str, Any]:
    return {name: getattr(DETAILS, name) for name in DETAILS.__struct_fields__}


@given(st.integers(1, 10_000), st.floats(0.0, 1.0, exclude_max=True))
def test_pauses_are_bounded_and_double(attempt: int, chance: float) -> None:
    assert BACKOFF_FIRST_S <= backoff_s(attempt, chance) <= BACKOFF_LAST_S
    assert backoff_s(4, 0.5) == 8.0


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("", 0.0), ("-1", 0.0), ("99999", RETRY_AFTER_S), ("Fri, 1 Jan", 0.0)])
def test_retry_after_is_bounded(text: str, seconds: float) -> None:
    assert retry_after_s(text) == seconds


def test_a_gateway_without_endpoints_makes_no_jobs(page: Page) -> None:
    assert event_hooks(Config(), page, Store().call, Disk(), lambda call_sid: False).of_event(ENDED) == []


def test_an_event_that_cannot_be_built_is_given_up(page: Page) -> None:
    store = Store()
    store.details = CallDetails(**{**_fields(), "reason": "x" * 300_000})
    handler = store.handler(page, "http://127.0.0.1:9/x")
    assert handler.run(claimed(job_of(handler, ENDED)), 1) == Ended("failed", "invalid", "")
    assert json.loads(job_of(handler, ENDED).body)["draft"] == 1
