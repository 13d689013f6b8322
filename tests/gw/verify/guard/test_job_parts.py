"""Questions about a job reach the production code, whose clock is put back."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from gw.control.jobs import service
from gw.control.jobs.lifecycle import Job
from gw.protocol.hooks.tool_call import ToolAnswer
from gw.verify.guard.job_parts import DEADLINE, LATE, NOW, JobParts, Memory
from metrics.page import Page

READY = Memory(recovered=True)


@pytest.fixture(params=[False, True], ids=["once", "idempotent"])
def idempotent(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def parts(tmp_path: Path, idempotent: bool) -> Iterator[JobParts]:
    page = Page.create(tmp_path / "verify.page")
    made = JobParts(page, idempotent=idempotent)
    yield made
    made.close()
    page.close()


def wanted(parts: JobParts) -> Job | None:
    """Return the row of an accepted job for which no runner was free."""
    return parts.accept(None, READY, 1, NOW, is_busy=True)[0].row


def test_a_job_from_its_event_to_its_result(parts: JobParts) -> None:
    assert parts.fresh((1, 2), 1) == (2,)
    done, accepted = parts.accept(None, Memory(), 2, NOW)
    row = done.row
    assert row is not None
    assert (row.state, row.deadline_at, accepted) == ("wanted", DEADLINE, (row, row))
    assert parts.pass_on(row, Memory(), accepted).sent == ()
    turned = parts.turn(row, Memory(), NOW, "known")
    assert turned.begun == turned.row == turned.memory.running
    ended = parts.end(turned.row, turned.memory, NOW, ToolAnswer("text", "ok"))
    assert (ended.row, ended.sent, len(ended.memory.ended)) == (turned.row, ("ok",), 1)
    written = parts.turn(ended.row, ended.memory, NOW, "known")
    assert written.row is not None
    assert (written.row.state, written.memory) == ("done", READY)
    assert parts.results(written.row, READY) == ("ok",)
    assert parts.results(None, READY) == ("unknown_outcome",)


def test_a_job_that_finds_a_free_runner_is_claimed_with_its_event(parts: JobParts) -> None:
    done, accepted = parts.accept(None, READY, 1, NOW)
    assert done.row is not None
    assert (done.row.state, done.row.attempts, done.memory.reserved, accepted) == ("claimed", 1, done.row, (done.row,))
    passed = parts.pass_on(done.row, done.memory, accepted)
    assert (passed.begun, passed.memory) == (done.row, READY._replace(running=done.row))
    unclear = parts.doubt(done.row, done.memory, NOW)
    assert unclear.memory == READY._replace(doubt_from=NOW)
    assert parts.turn(unclear.row, unclear.memory, NOW, "known").begun == done.row, "returned, and claimed again"
    busy, _ = parts.accept(None, READY, 1, NOW, is_busy=True)
    assert busy.row is not None
    assert (busy.row.state, busy.memory) == ("wanted", READY)


def test_a_claimed_job_of_an_earlier_process(parts: JobParts, idempotent: bool) -> None:
    row = parts.turn(wanted(parts), READY, NOW, "known").row
    found = parts.turn(row, Memory(), LATE, "known")
    assert (found.sent, found.begun is not None) == (((), True) if idempotent else (("unknown_outcome",), False))


def test_a_commit_may_be_done_or_not_when_its_outcome_is_unknown(parts: JobParts) -> None:
    row = wanted(parts)
    for commit, state in (("lost", "wanted"), ("done", "claimed")):
        unclear = parts.turn(row, READY, NOW, commit)
        assert unclear.row is not None
        assert (unclear.row.state, unclear.begun, unclear.memory) == (state, None, Memory(recovered=True, doubt_from=NOW))


def test_a_stop_returns_an_unsent_claim(parts: JobParts) -> None:
    row = parts.turn(wanted(parts), READY, NOW, "known").row
    stopped = parts.stop(row, READY, NOW)
    assert stopped.row is not None
    assert (stopped.row.state, stopped.row.attempts) == ("wanted", 0)


def test_a_cancellation_is_remembered_or_ends_the_request(parts: JobParts) -> None:
    claimed = parts.turn(wanted(parts), Memory(), NOW, "known")
    waiting, killed = parts.cancel(claimed.row, claimed.memory, NOW, is_sent=False)
    assert (waiting.memory.cancelled, killed, waiting.sent) == (True, False, ())
    assert parts.begins(claimed.row, claimed.memory, NOW)
    assert not parts.begins(waiting.row, waiting.memory, NOW)
    ended, killed = parts.cancel(claimed.row, claimed.memory, NOW, is_sent=True)
    assert (killed, ended.sent, ended.memory.cancelled) == (True, ("cancelled",), False)


def test_the_clock_is_put_back_and_a_question_is_asked_once(parts: JobParts) -> None:
    for _ in range(2):
        parts.turn(None, READY, NOW, "known")
    assert parts.asked == 1
    assert (service.time, service.gevent, math.isinf(READY.doubt_from)) == (time, gevent, True)
