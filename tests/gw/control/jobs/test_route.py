"""gw.control.jobs.route on a real spool, with a real endpoint: a call is asked about once, whatever asks again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from gw import bus
from gw.config import Config, Hooks, RouteLookup, Secrets
from gw.control.jobs import route
from gw.control.jobs.lifecycle import Ended, want
from gw.control.jobs.route import Lookups, RouteHandler, route_handler
from gw.control.jobs.service import Jobs
from gw.control.spool import Spool, SpoolError
from gw.errors import GatewayError
from gw.protocol.hooks.route_call import Decision
from gw.twin.hooks import HookTwin
from metrics import declare
from metrics.page import Page

ASK = bus.Ask(7, "CA1", "route", "AC1", {"From": "+1", "CallSid": "CA1"})
ANN = Decision(agent="sales", variables={"name": "Ann"})


class Rig:
    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.page = Page.create(folder / "control.page")
        self.variables: dict[str, str] = {"name": "stored"}
        self.start()

    def start(self) -> None:
        config = Config(
            route=RouteLookup(url=self.url, timeout_s=9.0),
            hooks=Hooks(allow_networks=("127.0.0.0/8",)),
            secrets=Secrets(hook_secret="s"),
        )
        self.spool = Spool(self.folder / "spool.db")
        handler = route_handler(config, self.page) if self.url else None
        self.jobs = Jobs(self.spool, self.page, [handler] if handler else [], settle=lambda one: self.lookups.on_settled(one))
        self.lookups = Lookups(handler, self.jobs, self.spool, self.page, variables=lambda call_sid: self.variables)
        self.jobs.start()

    def stop(self) -> None:
        self.jobs.stop()
        self.spool.close()

    def count(self, outcome: str) -> float:
        return self.page.counter(declare.ROUTE_LOOKUPS, outcome=outcome).value


@pytest.fixture
def twin() -> Iterator[HookTwin]:
    with HookTwin("s", reply=lambda request: json.dumps({"agent": "sales", "variables": {"name": "Ann"}}).encode()) as made:
        yield made


@pytest.fixture
def rig(tmp_path: Path, twin: HookTwin) -> Iterator[Rig]:
    made = Rig(tmp_path, twin.url())
    yield made
    made.stop()
    made.page.close()


def test_a_call_is_asked_about_once(rig: Rig, twin: HookTwin) -> None:
    greenlets = [gevent.spawn(rig.lookups.answer, ASK) for _ in range(5)]  # webhooks at several workers
    gevent.joinall(greenlets, timeout=10)
    assert [one.value for one in greenlets] == [bus.Answer(7, route=ANN, reason="ok")] * 5
    assert rig.lookups.answer(ASK) == bus.Answer(7, route=ANN, reason="ok")
    assert [request.body["twilio"] for request in twin.requests] == [ASK.fields]
    assert rig.count("ok") == 1
    assert (rig.lookups._waiting, rig.lookups._count) == ({}, 0)


def test_a_question_outlives_control(rig: Rig, twin: HookTwin) -> None:
    rig.lookups.answer(ASK)
    rig.stop()
    rig.start()
    assert rig.lookups.answer(ASK).route == ANN
    assert len(twin.requests) == 1


def test_an_interrupted_question_is_asked_again(tmp_path: Path) -> None:
    with HookTwin("s", reply=lambda request: b"{}") as twin:
        made = Rig(tmp_path, twin.url("slow"))
        asking = gevent.spawn(made.lookups.answer, ASK)
        assert twin.wait_for(lambda one: len(one.requests) == 1)
        asking.kill()
        made.stop()
        made.start()
        assert made.lookups.answer(ASK).route == Decision()
        assert [request.key for request in twin.requests] == ["CA1", "CA1"]
        made.stop()
        made.page.close()


def test_a_failure_is_the_answer_of_every_webhook_of_the_call(tmp_path: Path) -> None:
    with HookTwin("s") as twin:
        made = Rig(tmp_path, twin.url("html"))
        assert [made.lookups.answer(ASK) for _ in range(2)] == [bus.Answer(7, reason="bad_answer")] * 2
        assert (len(twin.requests), made.count("bad_answer")) == (1, 1)
        made.stop()
        made.page.close()


def test_variables_are_of_the_job_or_else_of_the_calls_events(rig: Rig) -> None:
    ask = bus.Ask(8, "CA1", "variables", "AC1")
    assert rig.lookups.answer(ask) == bus.Answer(8, route=Decision(variables={"name": "stored"}))
    rig.lookups.answer(ASK)
    assert rig.lookups.answer(ask) == bus.Answer(8, route=ANN)
    other = bus.Ask(9, "CA1", "variables", "AC2")
    rig.variables = {}
    assert rig.lookups.answer(other).route == Decision(), "another account does not receive them"


def test_a_spool_that_fails_and_a_store_that_is_away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(call_sid: str) -> dict[str, str]:
        raise GatewayError("the store is away")

    rig.lookups._variables = away
    assert rig.lookups.answer(bus.Ask(8, "CA2", "variables")) == bus.Answer(8, reason="unavailable")

    def fails(work: object) -> None:
        raise SpoolError("full")

    monkeypatch.setattr(rig.spool, "transact", fails)
    assert rig.lookups.answer(ASK) == bus.Answer(7, reason="unavailable")


def test_places_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "MAX_WAITING", 0)
    assert rig.lookups.answer(ASK) == bus.Answer(7, reason="busy")
    monkeypatch.undo()
    monkeypatch.setattr(RouteHandler, "capacity", 0)
    assert rig.lookups.answer(ASK) == bus.Answer(7, reason="busy")
    assert rig.count("busy") == 2


def test_without_an_endpoint_there_is_no_decision(tmp_path: Path) -> None:
    made = Rig(tmp_path, "")
    assert made.lookups.answer(ASK) == bus.Answer(7, reason="unavailable")
    assert made.lookups.on_settled(bus.JobSettled("CA1/1/call_1", "CA1", "ok", "")) is False
    made.stop()
    made.page.close()


def test_a_question_without_its_call_is_not_sent(rig: Rig, twin: HookTwin) -> None:
    handler = rig.jobs._handlers["route"]
    outcome = handler.run(want("route/1", "route", "CA1", "{}", deadline_at=2e9, now=1.0), 1)
    assert isinstance(outcome, Ended)
    assert (outcome.cause, outcome.outcome, twin.requests) == ("failed", "bad_answer", [])
