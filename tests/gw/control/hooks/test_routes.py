"""gw.control.hooks.routes: a real endpoint decides, and whatever else it answers has one cause and one log line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from gw.config import Config, Hooks, RouteLookup, Secrets
from gw.control.hooks.client import client_of
from gw.control.hooks.routes import Found, Routes
from gw.protocol.hooks.route_call import Decision, request_body
from gw.twin.hooks import HookTwin
from tests.timing import scaled

BODY = request_body("CA1", {"From": "+1"})


@pytest.fixture
def twin() -> Iterator[HookTwin]:
    with HookTwin("s", reply=lambda request: json.dumps({"agent": "default"}).encode()) as made:
        yield made


def ask(url: str, timeout_s: float = 2.0) -> Found:
    config = Config(
        route=RouteLookup(url=url, timeout_s=timeout_s),
        hooks=Hooks(allow_networks=("127.0.0.0/8",)),
        secrets=Secrets(hook_secret="s"),
    )
    return Routes(config, client_of(config, "route")).ask("CA1", BODY, deadline_s=time.monotonic() + scaled(10.0))


def test_a_decision(twin: HookTwin, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(twin.url()) == Found(Decision(agent="default"))
    (request,) = twin.requests
    assert (request.fault, request.content, request.key) == ("", BODY, "CA1")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("path", "failure", "why"),
    [
        ("html", "bad_answer", "malformed"),
        ("huge", "bad_answer", "longer than"),
        ("redirect", "bad_answer", "a redirect, HTTP 307, which is not followed"),
        ("refused", "bad_answer", "HTTP 404"),
        ("empty", "bad_answer", "truncated"),
        ("latin1", "bad_answer", "not UTF-8"),
        ("failed", "unavailable", "HTTP 500"),
        ("dead", "unavailable", "no answer that can be read"),
        ("silent", "timeout", "no whole answer within"),
        ("drip", "timeout", "no whole answer within"),
    ],
)
def test_anything_else_has_a_cause(twin: HookTwin, caplog: pytest.LogCaptureFixture, path: str, failure: str, why: str) -> None:
    found = ask(twin.url(path), 0.5)
    assert (found.decision, found.failure) == (None, failure)
    assert why in found.why
    (line,) = [record.getMessage() for record in caplog.records if record.name == "gw.control.hooks.routes"]
    assert line.startswith(f"the route endpoint gave no valid answer ({failure}): ")
    assert line.endswith("; route.on_failure = default applies")
    assert all(request.path == f"/{path}" for request in twin.requests), "no redirect is followed"


def test_a_lost_question_is_asked_once_more(twin: HookTwin) -> None:
    assert ask(twin.url("flaky")).decision == Decision(agent="default")
    assert [request.key for request in twin.requests] == ["CA1", "CA1"]


def test_an_address_that_may_not_be_called() -> None:
    assert ask("https://10.0.0.1/").failure == "refused"
