"""gw.control.hooks.tools: one output for each call, whatever the model and the endpoint do."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from gw.config import Config, Hooks, Secrets, Tool
from gw.config.json_schema import SchemaError
from gw.control.hooks import tools as tools_module
from gw.control.hooks.client import HookClient, client_of
from gw.control.hooks.tools import Tools
from gw.protocol.hooks.tool_call import CallFacts, Status, ToolAnswer, ToolCall
from gw.twin.hooks import HTML, HookTwin
from tests.timing import scaled

SCHEMA = '{"type":"object","properties":{"number":{"type":"string"}},"required":["number"],"additionalProperties":false}'
FACTS = CallFacts(
    sid="CA1", agent="default", direction="inbound", from_="+15550001111", to="+15552223333", started_at="2026-11-28T14:05:00Z"
)
LONG_S = scaled(10.0)


@pytest.fixture
def twin() -> Iterator[HookTwin]:
    with HookTwin("secret") as twin:
        yield twin


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools_module, "PAUSE_S", 0.0)


def tools_of(url: str, **keys: Any) -> Tools:
    tool = Tool(**{"description": "Looks up.", "url": url, "parameters": SCHEMA, **keys})
    config = Config(tools={"lookup": tool}, hooks=Hooks(allow_networks=("127.0.0.0/8",)), secrets=Secrets(hook_secret="secret"))
    return Tools(config, client_of(config, "tool"))


def call(
    tools: Tools, arguments: str = '{"number":"7"}', *, tool: str = "lookup", seconds: float = LONG_S, attempt: int = 1
) -> ToolAnswer:
    body = ToolCall(id="CA1/2/call_x", tool=tool, arguments=arguments, call=FACTS)
    return tools.call(body, attempt=attempt, deadline_s=time.monotonic() + seconds)


def error(answer: ToolAnswer) -> tuple[Status, str]:
    output = json.loads(answer.output)
    assert set(output) == {"error", "detail"}
    assert output["error"] == answer.status
    return answer.status, output["detail"]


def test_the_request_and_its_output(twin: HookTwin) -> None:
    assert call(tools_of(twin.url("ok/lookup"))) == ('{"done": "lookup"}', "ok")
    (request,) = twin.requests
    assert request.key == "CA1%2F2%2Fcall_x"
    deadline_ms = request.body.pop("deadline_ms")
    assert 1000 < deadline_ms <= 8000
    assert request.body == {
        "v": 1,
        "type": "tool.call",
        "id": "CA1/2/call_x",
        "tool": "lookup",
        "arguments": {"number": "7"},
        "attempt": 1,
        "call": {
            "sid": "CA1",
            "agent": "default",
            "direction": "inbound",
            "from": "+15550001111",
            "to": "+15552223333",
            "started_at": "2026-11-28T14:05:00Z",
            "variables": {},
        },
    }


def test_a_repeat_after_a_restart_has_its_attempt_and_the_same_key(twin: HookTwin) -> None:
    tools = tools_of(twin.url("ok"), idempotent=True)
    assert [call(tools, attempt=attempt).status for attempt in (1, 2)] == ["ok", "ok"]
    assert [request.body["attempt"] for request in twin.requests] == [1, 2]
    assert twin.executions == {"CA1%2F2%2Fcall_x": 1}


# -- bad arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "detail"),
    [
        ("{", "The arguments are not JSON: "),
        ("[]", "The arguments are not a JSON object."),
        ("", "The arguments do not fit the tool's parameters: 'number' is a required property."),
        ('{"number":7}', "The arguments do not fit the tool's parameters: at number: 7 is not of type 'string'."),
        ('{"number":"7","url":"https://evil.example"}', "The arguments do not fit the tool's parameters: Additional properties"),
        ('{"number":"7","number":"8"}', "The arguments are not JSON: a name is there twice in one object."),
        ('{"number":"' + "7" * 20_000 + '"}', "The arguments are longer than 16384 bytes."),
    ],
)
def test_arguments_that_break_the_schema_are_not_sent(twin: HookTwin, arguments: str, detail: str) -> None:
    status, found = error(call(tools_of(twin.url()), arguments))
    assert status == "invalid_arguments"
    assert found.startswith(detail)
    assert twin.requests == []


def test_an_unknown_tool(twin: HookTwin) -> None:
    assert error(call(tools_of(twin.url()), tool="look")) == ("invalid_arguments", "There is no tool of this name.")


def test_a_schema_that_never_ends_is_not_followed(twin: HookTwin) -> None:
    deep = '{"type":"object","properties":{"number":{"$ref":"#/$defs/a"}},"$defs":{"a":{"$ref":"#/$defs/a"}}}'
    assert error(call(tools_of(twin.url(), parameters=deep)))[0] == "invalid_arguments"
    with pytest.raises(SchemaError):
        tools_of(twin.url(), parameters="{")


def test_nothing_of_the_model_enters_the_url_or_a_header(twin: HookTwin) -> None:
    call(tools_of(twin.url("ok/lookup")), '{"number":"7\\r\\nX-Evil: 1/../../?a=b"}')
    (request,) = twin.requests
    assert request.path == "/ok/lookup"
    assert "x-evil" not in request.headers
    assert set(request.headers) == {
        "host",
        "user-agent",
        "accept-encoding",
        "connection",
        "content-type",
        "content-length",
        "idempotency-key",
        "submilli-signature",
    }


# -- bad answers --------------------------------------------------------------------------------------------------------


def test_200_with_html_is_verbatim(twin: HookTwin) -> None:
    assert call(tools_of(twin.url("html"))) == (HTML.decode(), "ok")


@pytest.mark.parametrize("path", ["empty", "nothing"])
def test_an_empty_body_is_an_empty_output(twin: HookTwin, path: str) -> None:
    assert call(tools_of(twin.url(path))) == ("", "ok")


def test_exactly_the_limit_passes(twin: HookTwin) -> None:
    twin.reply = lambda request: b"x" * 100
    assert call(tools_of(twin.url(), max_result_bytes=100)) == ("x" * 100, "ok")
    assert error(call(tools_of(twin.url(), max_result_bytes=99))) == ("too_large", "The tool's answer is longer than 99 bytes.")


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("huge", "too_large", "The tool's answer is longer than 16384 bytes."),
        ("stream", "too_large", "The tool's answer is longer than 16384 bytes."),
        ("latin1", "unavailable", "The tool's answer is not UTF-8 text."),
        ("gzip", "unavailable", "The tool's answer is not UTF-8 text."),
        ("redirect", "unavailable", "The tool's endpoint answered with a redirect, HTTP 307, which is not followed."),
        ("refused", "refused", "no such order"),
        ("long_refusal", "refused", "x" * 500),
        ("gone", "refused", "The tool's endpoint refused the request: HTTP 410."),
        ("failed", "unavailable", "The tool's endpoint failed: HTTP 500."),
        ("dead", "unknown_outcome", "The connection was lost; whether the tool did it is unknown."),
        ("half", "unknown_outcome", "The connection was lost; whether the tool did it is unknown."),
        ("garbage", "unknown_outcome", "The connection was lost; whether the tool did it is unknown."),
        ("continues", "unknown_outcome", "The connection was lost; whether the tool did it is unknown."),
    ],
)
def test_each_bad_answer_has_its_word(twin: HookTwin, path: str, status: Status, detail: str) -> None:
    assert error(call(tools_of(twin.url(path)))) == (status, detail)
    assert len(twin.requests) == 1


@pytest.mark.parametrize("path", ["silent", "late", "drip", "drip_body"])
def test_no_whole_answer_within_its_time(twin: HookTwin, path: str) -> None:
    twin.late_s = 1.0
    tools = tools_of(twin.url(path), timeout_s=0.5, idempotent=True)
    assert error(call(tools)) == ("timeout", "The tool did not answer in time.")
    assert len(twin.requests) == 1, "a timeout is not repeated"
    assert error(call(tools_of(twin.url(path)), seconds=0.1))[0] == "timeout", "the job's deadline ends it too"


def test_addresses_and_schemes_that_may_not_be_called(twin: HookTwin) -> None:
    for url in (f"http://[::1]:{twin.address[1]}/ok", "https://169.254.169.254/latest", "http://1.1.1.1/"):
        assert error(call(tools_of(url))) == ("refused", "The tool's endpoint has an address that may not be called.")
    assert twin.requests == []


def test_a_refused_connection(twin: HookTwin) -> None:
    url = twin.url()
    twin.stop()
    assert error(call(tools_of(url))) == ("unavailable", "The tool's endpoint cannot be reached.")


def test_a_failing_endpoint_is_busy_after_five_failures(twin: HookTwin) -> None:
    tools = tools_of(twin.url("failed"))
    assert [call(tools).status for _ in range(6)] == ["unavailable"] * 5 + ["busy"]
    assert len(twin.requests) == 5


# -- attempts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "idempotent", "status", "requests"),
    [
        ("flaky", True, "ok", 2),
        ("flaky", False, "unavailable", 1),
        ("lost_once", True, "ok", 2),
        ("lost_once", False, "unknown_outcome", 1),
        ("failed", True, "unavailable", 2),
        ("dead", True, "unavailable", 2),
        ("refused", True, "refused", 1),
        ("redirect", True, "unavailable", 1),
        ("latin1", True, "unavailable", 1),
    ],
)
def test_an_idempotent_tool_is_tried_once_more(
    twin: HookTwin, path: str, idempotent: bool, status: Status, requests: int
) -> None:
    assert call(tools_of(twin.url(path), idempotent=idempotent)).status == status
    assert len(twin.requests) == requests
    assert {request.key for request in twin.requests} == {"CA1%2F2%2Fcall_x"}
    assert [request.body["attempt"] for request in twin.requests] == [1, 2][:requests]
    assert all(count == 1 for count in twin.executions.values()), "the work is done once"
    first, last = twin.requests[0].body["deadline_ms"], twin.requests[-1].body["deadline_ms"]
    assert last <= first <= 8000


def test_a_second_attempt_needs_time(twin: HookTwin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools_module, "LEAST_S", 3600.0)
    assert call(tools_of(twin.url("flaky"), idempotent=True)).status == "unavailable"
    assert len(twin.requests) == 1


def test_a_killed_call_closes_its_connection(twin: HookTwin) -> None:
    running = gevent.spawn(call, tools_of(twin.url("silent")))
    assert twin.wait_for(lambda twin: bool(twin.requests))
    running.kill()
    assert twin.wait_for(lambda twin: twin.open == 0)


def test_the_log_has_the_cause_but_neither_arguments_nor_answers(twin: HookTwin, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        call(tools_of(twin.url("refused")), '{"number":"private"}')
        call(tools_of(twin.url("ok")), '{"number":7}')
        call(tools_of(twin.url("dead")))
        call(tools_of(twin.url("ok")))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("gw.")]
    assert lines[0] == "tool lookup: refused: HTTP 404"
    assert lines[1] == "tool lookup: invalid_arguments: the arguments do not fit the schema"
    assert lines[2].startswith("tool lookup: unknown_outcome: no answer that can be read")
    assert len(lines) == 3
    assert not any(word in caplog.text for word in ("private", "no such order", "secret"))


def test_https_is_made_ready_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(HookClient, "open_tls", lambda self: opened.append(1))
    tools_of("http://127.0.0.1/")
    assert opened == []
    tools_of("https://127.0.0.1/")
    assert opened == [1]
