"""gw.control.hooks.trial: one real request, with everything that a person needs to judge it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gw.config import Config, Hooks, Secrets, Tool
from gw.control.hooks.trial import SAMPLE_SID, try_hook, try_tool
from gw.twin.hooks import HookTwin


@pytest.fixture
def twin() -> Iterator[HookTwin]:
    with HookTwin("secret") as twin:
        yield twin


def config(url: str = "http://127.0.0.1/", **keys: Any) -> Config:
    tool = Tool(**{"description": "Looks up.", "url": url, "parameters": '{"type":"object","required":["a"]}', **keys})
    return Config(tools={"lookup": tool}, hooks=Hooks(allow_networks=("127.0.0.0/8",)), secrets=Secrets(hook_secret="secret"))


def test_a_tool(twin: HookTwin) -> None:
    trial = try_tool(config(twin.url("ok/lookup")), "lookup", '{"a":1}')
    assert (trial.ok, trial.outcome, trial.output) == (True, "ok", '{"done": "lookup"}')
    (exchange,) = trial.exchanges
    (request,) = twin.requests
    assert exchange.url == twin.url("ok/lookup")
    assert exchange.body == request.content.decode()
    assert exchange.headers["Submilli-Signature"] == request.headers["submilli-signature"]
    assert (exchange.status, exchange.answer, exchange.problem, exchange.signature_fault) == (200, '{"done": "lookup"}', "", "")
    assert request.body["call"]["sid"] == SAMPLE_SID
    assert 0 < exchange.ms <= trial.ms


def test_two_trials_have_two_keys(twin: HookTwin) -> None:
    for _ in range(2):
        try_tool(config(twin.url()), "lookup", '{"a":1}')
    assert len(twin.executions) == 2


def test_arguments_that_are_not_sent(twin: HookTwin) -> None:
    trial = try_tool(config(twin.url()), "lookup", "{}")
    assert (trial.ok, trial.outcome, trial.exchanges) == (False, "invalid_arguments", [])
    assert "'a' is a required property" in trial.output


def test_both_attempts_are_shown(twin: HookTwin) -> None:
    trial = try_tool(config(twin.url("flaky"), idempotent=True), "lookup", '{"a":1}')
    assert trial.ok
    assert [exchange.status for exchange in trial.exchanges] == [503, 200]


def test_a_problem_is_shown(twin: HookTwin) -> None:
    trial = try_tool(config(twin.url("dead")), "lookup", '{"a":1}')
    assert (trial.ok, trial.outcome) == (False, "unknown_outcome")
    (exchange,) = trial.exchanges
    assert exchange.status is None
    assert exchange.problem.startswith("no answer that can be read")


@pytest.mark.parametrize(("path", "outcome"), [("ok", "ok"), ("empty", "ok"), ("redirect", "http_307"), ("dead", "lost")])
def test_a_sample(twin: HookTwin, path: str, outcome: str) -> None:
    trial = try_hook(config(), twin.url(path))
    assert (trial.ok, trial.outcome) == (outcome == "ok", outcome)
    (request,) = twin.requests
    assert request.fault == ""
    assert request.body["type"] == "hook.test"
    assert request.body["id"] == request.key


def test_a_sample_to_no_url() -> None:
    with pytest.raises(ValueError, match="no user"):
        try_hook(config(), "https://me@example.com/")
