"""gw.control.recording.pauses: a pause holds no longer than its resume allows, whatever dies; an operator's stays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from gw import bus
from gw.control.jobs import lifecycle, table
from gw.control.jobs.lifecycle import Again, Ended, Job
from gw.control.recording.pauses import PauseHandler, Pauses
from gw.control.rows import EventRow
from gw.control.spool import Spool
from gw.control.store import StoreUnavailable
from gw.control.twilio_api.accounts import Accounts
from gw.errors import GatewayError
from gw.protocol.hooks.pause import encode_pause
from metrics.page import Page
from tests.gw.control.bus_client import call_ended
from tests.gw.control.scripted_rest import ACCOUNT, CALL, RECORDING, Answer, ScriptedRest, listing, recording, refusal
from tests.timing import scaled

PAUSED, RUNS = Answer(200, recording(status="paused")), Answer(200, recording())


class Rig:
    """Pauses over a spool and a scripted REST API."""

    def __init__(self, folder: Path, *, signed: bool = True) -> None:
        self.twilio = ScriptedRest()
        self.folder = folder
        self.spool = Spool(folder / "spool.db")
        self.page = Page.create(folder / "control.page")
        self.signed = signed
        self.over: set[str] = set()
        self.events: list[EventRow] | GatewayError = []
        self.noted: list[tuple[str, Any]] = []
        self.pauses = self.start()

    def start(self, *waiting: bus.CallEvent) -> Pauses:
        """Make the pauses of a further process. `waiting`: events that the store lacks."""

        def events_of(call_sid: str) -> list[EventRow]:
            if isinstance(self.events, GatewayError):
                raise self.events
            return self.events

        return Pauses(
            self.spool,
            Accounts(self.twilio.config(signed=self.signed, timeout_s=0.5)),
            self.page,
            longest_call_s=3600.0,
            is_over=self.over.__contains__,
            account_of=lambda call_sid: ACCOUNT,
            events_of=events_of,
            waiting=waiting,
            note=lambda call_sid, kind, **data: self.noted.append((kind, data["by"])),
        )

    def job(self, kind: str = "pause", *, name: str = "1", within_s: float = 5.0) -> Job:
        """Return a claimed job, which is on disk."""
        now = time.time()
        body = encode_pause(ACCOUNT, name)
        job_id = f"{CALL}/{kind}/{name}"
        made = lifecycle.want(job_id, kind, CALL, body, deadline_at=now + within_s, now=now)
        self.pauses.of_event(bus.JobWanted(job_id, kind, CALL, 0, body))
        self.spool.transact(partial(table.insert, wanted=[table.Wanted(made, 10)], now=now))
        return msgspec.structs.replace(made, state="claimed", attempts=1)

    def run(self, job: Job) -> Any:
        kind = "pause" if job.kind == "pause" else "resume"
        return PauseHandler(self.pauses, kind).run(job, 1)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """The name of the recording and the status of each update."""
        return [(one.path.rpartition("/")[2], one.form["Status"][0]) for one in self.twilio.seen if one.method == "POST"]

    def close(self) -> None:
        self.twilio.stop()
        self.page.close()
        self.spool.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_a_recording_is_paused_and_continues(rig: Rig) -> None:
    rig.twilio.posts.extend([PAUSED, RUNS])
    pause = rig.job()
    assert rig.pauses.is_concealed(CALL)
    assert rig.run(pause) == Ended("done", "ok", "")
    assert rig.twilio.seen[0].form["PauseBehavior"] == ["silence"]
    assert rig.run(rig.job("resume")) == Ended("done", "ok", "")
    assert rig.asked == [("Twilio.CURRENT.json", "paused"), ("Twilio.CURRENT.json", "in-progress")]
    assert rig.noted == [("recording_paused", "digits"), ("recording_resumed", "digits")]
    assert not rig.pauses.is_concealed(CALL)


def test_a_404_is_believed_once_the_list_agrees(rig: Rig) -> None:
    rig.twilio.posts.extend([refusal(404, 20404), PAUSED])
    rig.twilio.gets.append(listing(recording()))
    assert rig.run(rig.job()) == Ended("done", "ok", "")
    assert rig.asked == [("Twilio.CURRENT.json", "paused"), (f"{RECORDING}.json", "paused")]


def test_a_call_without_a_recording_needs_no_pause(rig: Rig) -> None:
    rig.twilio.posts.append(refusal(404, 20404))
    rig.twilio.gets.append(listing(recording(status="completed")))
    assert rig.run(rig.job()) == Ended("done", "ok", "")
    assert rig.noted == []


def test_a_pause_is_tried_again_within_its_time(rig: Rig) -> None:
    rig.twilio.posts.extend([Answer(503, b"no"), PAUSED])
    assert rig.run(rig.job()) == Ended("done", "ok", "")
    rig.twilio.posts.extend([Answer(503, b"no")] * 3)
    assert rig.run(rig.job(name="2", within_s=0.3)) == Ended("failed", "unavailable", "")


def test_a_late_pause_does_nothing(rig: Rig) -> None:
    rig.twilio.posts.append(RUNS)
    pause = rig.job()
    assert rig.run(rig.job("resume")) == Ended("done", "ok", "")
    assert rig.run(pause) == Ended("failed", "cancelled", "")
    assert rig.asked == [("Twilio.CURRENT.json", "in-progress")]


def test_a_resume_waits_for_twilio(rig: Rig) -> None:
    rig.twilio.posts.extend([PAUSED, Answer(503, b"no"), RUNS])
    rig.run(rig.job())
    resume = rig.job("resume")
    assert isinstance(rig.run(resume), Again)
    assert rig.pauses.is_concealed(CALL)
    assert rig.run(resume) == Ended("done", "ok", "")


def test_a_call_that_is_over_needs_no_resume(rig: Rig) -> None:
    rig.over.add(CALL)
    rig.job()
    assert rig.run(rig.job("resume")) == Ended("done", "ok", "")
    assert rig.asked == []


def test_the_end_of_a_stream_adds_the_resume_of_an_open_pause(rig: Rig) -> None:
    assert rig.pauses.of_event(call_ended(CALL)) == ()
    rig.job()
    (wanted,) = rig.pauses.of_event(call_ended(CALL))
    assert (wanted.job.id, wanted.job.kind) == (f"{CALL}/resume/1", "resume")


def test_another_process_has_the_open_pauses(rig: Rig) -> None:
    rig.twilio.posts.append(RUNS)
    rig.job()
    rig.pauses = rig.start()
    assert rig.pauses.is_concealed(CALL)
    (wanted,) = rig.pauses.of_event(call_ended(CALL))
    rig.spool.transact(partial(table.insert, wanted=[wanted], now=time.time()))
    claimed = msgspec.structs.replace(wanted.job, state="claimed", attempts=1)
    assert rig.run(claimed) == Ended("done", "ok", ""), "the account is read from the store"
    after = lifecycle.on_outcome(claimed, Ended("done", "ok", ""), time.time())
    on_disk = msgspec.structs.replace(wanted.job, attempts=0)
    rig.spool.transact(partial(table.change, one=table.Change(on_disk, after)))
    assert not rig.start().is_concealed(CALL)


def test_a_pause_waits_for_a_create_under_way(rig: Rig) -> None:
    asking = [True]
    rig.pauses.is_asking = lambda call_sid: asking[0]
    rig.twilio.posts.append(PAUSED)
    running = gevent.spawn(rig.run, rig.job())
    gevent.sleep(scaled(0.1))
    assert rig.asked == []
    asking[0] = False
    assert running.get(timeout=scaled(5)) == Ended("done", "ok", "")


def test_a_recording_is_not_started_in_an_operators_pause_that_relied_on_the_digits(rig: Rig) -> None:
    rig.job()
    assert rig.pauses.hold(account(rig), CALL, True)
    assert rig.asked == []
    rig.pauses.is_asking = lambda call_sid: True
    assert isinstance(rig.run(rig.job("resume")), Again), "a recording is being started"
    rig.pauses.is_asking = lambda call_sid: False
    rig.twilio.posts.append(PAUSED)
    assert rig.run(rig.job("resume")) == Ended("done", "ok", "")
    assert not rig.pauses.is_concealed(CALL)
    assert rig.pauses.forbids_create(CALL)


def test_a_new_pause_is_not_ended_by_the_resume_before_it(rig: Rig) -> None:
    rig.job()
    rig.job(name="2")
    assert rig.run(rig.job("resume")) == Ended("done", "ok", "")
    assert rig.asked == []
    assert rig.pauses.is_concealed(CALL)


# -- an operator ----------------------------------------------------------------------------------------------------------


def account(rig: Rig) -> Any:
    return rig.pauses._accounts.of(ACCOUNT)


def test_an_operators_pause_outlives_the_callers_typing(rig: Rig) -> None:
    rig.twilio.posts.extend([PAUSED, PAUSED, PAUSED, RUNS])
    assert rig.pauses.hold(account(rig), CALL, True)
    rig.run(rig.job())
    assert rig.run(rig.job("resume")) == Ended("done", "ok", "")
    assert [status for _, status in rig.asked] == ["paused", "paused", "paused"]
    assert rig.pauses.hold(account(rig), CALL, False)
    assert [status for _, status in rig.asked] == ["paused", "paused", "paused", "in-progress"]


def test_an_operators_pause_does_not_rely_on_one_for_digits_that_came_too_late(rig: Rig) -> None:
    rig.twilio.posts.append(PAUSED)
    pause = rig.job()
    assert rig.pauses.hold(account(rig), CALL, True), "the caller is about to type"
    assert rig.asked == []
    resume = rig.job("resume")
    assert rig.run(pause) == Ended("failed", "cancelled", "")
    assert rig.run(resume) == Ended("done", "ok", "")
    assert [status for _, status in rig.asked] == ["paused"]


def test_a_pause_fails_while_a_create_is_under_way(rig: Rig) -> None:
    rig.pauses.is_asking = lambda call_sid: True
    assert rig.run(rig.job(within_s=0.05)) == Ended("failed", "unavailable", "")
    assert rig.asked == []


@pytest.mark.parametrize(("last", "then"), [("recording_paused", "paused"), ("recording_resumed", "in-progress")])
def test_an_operators_act_that_the_store_lacks_is_known_and_nothing_waits(rig: Rig, last: str, then: str) -> None:
    rig.events = StoreUnavailable("away")
    acts = [bus.CallEvent(CALL, kind, 1.0, {"by": "operator"}) for kind in ("recording_paused", last)]
    digits = bus.CallEvent(CALL, "recording_resumed", 1.0, {"by": "digits"})
    rig.pauses = rig.start(*acts, digits, bus.CallEvent(CALL, "leaving", 1.0, {}))
    assert rig.pauses.forbids_create(CALL) is (then == "paused")
    rig.twilio.posts.append(Answer(200, recording(status=then)))
    rig.job()
    assert rig.run(rig.job("resume")) == Ended("done", "ok", "")
    assert [status for _, status in rig.asked] == [then]


def test_an_operators_resume_waits_for_the_caller(rig: Rig) -> None:
    rig.twilio.posts.extend([PAUSED, PAUSED, RUNS])
    rig.pauses.hold(account(rig), CALL, True)
    rig.run(rig.job())
    assert rig.pauses.hold(account(rig), CALL, False)
    assert [status for _, status in rig.asked] == ["paused", "paused"], "the caller types"
    rig.run(rig.job("resume"))
    assert rig.asked[-1][1] == "in-progress"


def test_nothing_runs_and_nothing_is_paused(rig: Rig) -> None:
    rig.twilio.posts.extend([refusal(404, 20404)] * 2)
    rig.twilio.gets.extend([listing()] * 2)
    assert not rig.pauses.hold(account(rig), CALL, True)
    assert not rig.pauses.hold(account(rig), CALL, False)
    assert rig.noted == []


def test_another_process_reads_an_operators_pause_from_the_store(rig: Rig) -> None:
    event = EventRow(call_sid=CALL, kind="recording_paused", at=1.0, data={"by": "operator"}, instance="i", n=1)
    rig.events = StoreUnavailable("away")
    rig.twilio.posts.append(PAUSED)
    rig.job()
    resume = rig.job("resume")
    assert isinstance(rig.run(resume), Again), "until the store is back"
    rig.events = [event]
    assert rig.run(resume) == Ended("done", "ok", "")
    assert [status for _, status in rig.asked] == ["paused"]
    rig.pauses.on_call_over(CALL)
    rig.events = [event, msgspec.structs.replace(event, kind="recording_resumed", at=2.0)]
    assert not rig.pauses.is_held(CALL)


def test_without_credentials_nothing_is_recorded(tmp_path: Path) -> None:
    rig = Rig(tmp_path, signed=False)
    assert rig.run(rig.job()) == Ended("done", "ok", "")
    assert rig.run(rig.job("resume")) == Ended("done", "ok", "")
    assert rig.twilio.seen == []
    rig.close()


def test_a_body_that_cannot_be_read_fails(rig: Rig) -> None:
    job = msgspec.structs.replace(rig.job(), body="{")
    assert rig.run(job) == Ended("failed", "invalid_arguments", "")
    rig.pauses.of_event(bus.JobWanted("x", "pause", "CA9", 0, "{"))
    assert not rig.pauses.is_concealed("CA9")


def test_both_kinds_are_repeated_after_a_crash(rig: Rig) -> None:
    pause, resume = rig.pauses.handlers
    assert (pause.kind, resume.kind) == ("pause", "resume")
    assert pause.repeats(rig.job()) == 0.0
    assert (resume.repeats(rig.job("resume")) or 0.0) > 0.0
