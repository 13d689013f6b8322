"""gw.control.jobs.dial: a call is placed once, whatever is lost, and a lost answer is looked up."""

from __future__ import annotations

import time

import msgspec
import pytest

from gw.control.jobs import lifecycle
from gw.control.jobs.dial import KIND, DialBody, DialHandler, want
from gw.control.jobs.lifecycle import Ended, Job, Outcome, Rewritten
from gw.control.rows import DialRow
from gw.control.store import StoreUnavailable
from gw.control.twilio_api.answers import Kind, RestError
from tests.gw.control.outbound.rows import LIST, line


class World:
    """One line in a store, Twilio, and the reports."""

    def __init__(self) -> None:
        self.row = line(2)
        self.away = False  # the store
        self.placed = 0
        self.error: Kind | None = None
        self.found = ""
        self.reports: list[str] = []

    # the store
    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable("away")

    def one(self, list_id: str, n: int) -> DialRow | None:
        self._reach()
        return self.row

    def claim(self, list_id: str, n: int, attempt: int, job: str, now: float) -> bool:
        self._reach()
        if (self.row.state, self.row.attempts) != ("waiting", attempt - 1):
            return False
        self.row = msgspec.structs.replace(self.row, state="claimed", attempts=attempt, claim=job, claimed_at=now)
        return True

    def release(self, list_id: str, n: int, attempt: int) -> bool:
        self._reach()
        self.row = msgspec.structs.replace(self.row, state="waiting", attempts=attempt - 1)
        return True

    # Twilio, for both protocols
    def place(self, *given: object) -> object:
        if isinstance(given[0], DialBody):
            self.placed += 1
            if self.error is not None:
                raise RestError(self.error, 0, 0, "no")
            return "CA1"
        self._reach()
        self.row = msgspec.structs.replace(self.row, state="placed", call_sid=str(given[3]))
        return True

    def find(self, body: DialBody, since: float) -> str:
        if self.error == "unreachable":
            raise RestError("unreachable", 0, 0, "no")
        return self.found

    # the reports
    def on_refused(self, row: DialRow, detail: str) -> None:
        self.reports.append("refused")

    def on_lost(self, row: DialRow) -> None:
        self.reports.append("lost")

    def on_turn(self, body: DialBody) -> None:
        self.reports.append("turn")


@pytest.fixture
def world() -> World:
    return World()


def body(**changes: object) -> DialBody:
    facts = {"list_id": LIST, "n": 2, "attempt": 1, "to": "+15550000002", "caller": "+1", "agent": "default", "account": ""}
    return DialBody(**{**facts, "until": time.time() + 60.0, **changes})  # type: ignore[arg-type]


def job(one: DialBody) -> Job:
    return want(one, "dial/1", time.time()).job


def run(world: World, one: Job, attempt: int = 1, look_s: float = 30.0) -> Outcome:
    return DialHandler(world, world, world, look_s=look_s).run(one, attempt)  # type: ignore[arg-type]


def again(one: Job, outcome: Outcome) -> Job:
    assert isinstance(outcome, Rewritten)
    return msgspec.structs.replace(one, body=outcome.body)


def test_a_call_is_claimed_placed_and_noted(world: World) -> None:
    one = job(body())
    assert (one.kind, len(one.body) < lifecycle.MAX_BODY_CHARS) == (KIND, True)
    following = again(one, run(world, one))
    assert (world.row.state, world.placed, world.reports) == ("claimed", 1, ["turn"])
    assert run(world, following) == Ended("done", "ok", "CA1")
    assert (world.row.state, world.row.call_sid, world.placed) == ("placed", "CA1", 1)


def test_the_sid_waits_on_disk_for_the_store(world: World) -> None:
    one = job(body())
    following = again(one, run(world, one))
    world.away = True
    following = again(following, run(world, following))
    world.away = False
    assert run(world, following, attempt=2) == Ended("done", "ok", "CA1")
    assert world.placed == 1


def test_a_claim_of_another_is_left_alone(world: World) -> None:
    world.row = msgspec.structs.replace(world.row, state="claimed", attempts=1, claim="dial/2")
    assert run(world, job(body())) == Ended("failed", "taken", "")
    assert run(world, job(body(until=0.0))) == Ended("failed", "late", "")
    assert world.placed == 0


def test_a_store_that_is_away_delays_the_claim(world: World) -> None:
    world.away = True
    one = job(body())
    following = again(one, run(world, one))
    world.away = False
    again(following, run(world, following))
    assert (world.placed, world.reports) == (1, ["turn"])


@pytest.mark.parametrize("kind", ["busy", "unreachable", "unauthorized"])
def test_a_request_that_twilio_did_not_take_is_sent_again_in_time(world: World, kind: Kind) -> None:
    world.error = kind
    one = job(body())
    following = again(one, run(world, one))
    late = job(msgspec.structs.replace(msgspec.json.decode(following.body, type=DialBody), until=0.0))
    world.error = None
    assert isinstance(run(world, following), Rewritten)
    assert world.placed == 2
    assert run(world, late) == Ended("failed", "late", "")
    assert (world.row.state, world.row.attempts, world.placed) == ("waiting", 0, 2)


def test_a_refused_call_is_reported(world: World) -> None:
    world.error = "rejected"
    ended = run(world, job(body()))
    assert (isinstance(ended, Ended), world.reports) == (True, ["turn", "refused"])


@pytest.mark.parametrize("kind", ["server", "timeout"])
def test_a_lost_answer_is_looked_up_and_never_asked_again(world: World, kind: Kind) -> None:
    world.error = kind
    one = job(body())
    following = again(one, run(world, one))
    following = again(following, run(world, following))
    world.error = "unreachable"
    following = again(following, run(world, following))
    world.error, world.found = None, "CA7"
    following = again(following, run(world, following))
    assert run(world, following) == Ended("done", "ok", "CA7")
    assert world.placed == 1


def test_a_call_that_twilio_does_not_list_is_unknown(world: World) -> None:
    world.error = "timeout"
    one = job(body())
    following = again(one, run(world, one))
    ended = run(world, following, look_s=0.0)
    assert (ended, world.reports, world.placed) == (Ended("unclear", "unknown_outcome", ""), ["turn", "lost"], 1)


def test_a_claim_found_after_a_kill_is_looked_up(world: World) -> None:
    one = job(body())
    world.claim(LIST, 2, 1, one.id, time.time())
    assert DialHandler(world, world, world).repeats(one) is not None  # type: ignore[arg-type]
    assert isinstance(run(world, one, attempt=2), Rewritten)
    assert world.placed == 0


def test_a_job_found_before_its_claim_is_dialled(world: World) -> None:
    one = job(body())
    following = again(one, run(world, one, attempt=2))
    assert world.placed == 1
    assert run(world, following, attempt=2) == Ended("done", "ok", "CA1")


def test_a_report_that_came_first_settles_the_job(world: World) -> None:
    one = job(body())
    world.claim(LIST, 2, 1, one.id, time.time())
    world.row = msgspec.structs.replace(world.row, state="done", call_sid="CA9")
    assert run(world, one, attempt=2) == Ended("done", "ok", "CA9")


def test_an_unreadable_body_is_not_run(world: World) -> None:
    ended = run(world, msgspec.structs.replace(job(body()), body="{}"))
    assert isinstance(ended, Ended) and ended.outcome == "invalid"
