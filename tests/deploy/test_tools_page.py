"""deploy/TOOLS.md: its code verifies signatures, its configuration is valid, its errors are all there are."""

from __future__ import annotations

import json
import re
import time
import tomllib
import typing
from pathlib import Path

import pytest

from gw.config.load import problems
from gw.control.hooks.circuit import OPEN_AFTER, OPEN_S, WINDOW_S
from gw.control.hooks.places import CONNECTIONS, PER_HOST
from gw.protocol.hooks.signature import sign
from gw.protocol.hooks.tool_call import MAX_DETAIL_CHARS, CallFacts, ErrorWord, ToolCall, idempotency_key, request_body

PAGE = (Path(__file__).resolve().parents[2] / "deploy" / "TOOLS.md").read_text()
BODY = '{"v":1,"name":"gr\u00fc\u00df"}'.encode()


def blocks(language: str) -> list[str]:
    return [text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if kind == language]


def verifies(secret: str, header: str, body: bytes = BODY) -> bool:
    names: dict[str, typing.Any] = {}
    (code,) = blocks("python")
    exec(code, names)
    return bool(names["is_from_submilli"](secret, header, body))


def test_the_lines_accept_what_the_gateway_signs() -> None:
    header = sign(["new", "old"], BODY, time.time())
    assert verifies("new", header)
    assert verifies("old", header)
    assert verifies("new", sign(["new"], BODY, time.time() - 290))


@pytest.mark.parametrize("header", ["", "t=1", "v1=aa", "nonsense", "t=\u0662,v1=\u00e9"])
def test_the_lines_refuse_anything_else(header: str) -> None:
    assert not verifies("new", header)
    signed = sign(["new"], BODY, time.time())
    assert not verifies("other", signed)
    assert not verifies("new", signed, BODY + b" ")
    assert not verifies("new", signed.replace("t=1", "t=2"))
    assert not verifies("new", sign(["new"], BODY, time.time() - 310))
    assert not verifies("new", sign(["new"], BODY, time.time() + 310))


def test_they_are_ten_lines() -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line]) <= 10


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "submilli.toml"
    path.write_text("".join(blocks("toml")))
    assert problems(path, {"SUBMILLI_HOOK_SECRET": "s", "OPENAI_API_KEY": "k", "CRM_TOKEN": "t"}) == []
    assert set(tomllib.loads(path.read_text())) == {"agents", "hooks", "tools"}


def test_the_request_has_the_gateways_fields() -> None:
    shown = next(block for block in blocks("") if block.startswith("POST"))
    head, _, body = shown.partition("\n\n")
    document = json.loads(body)
    facts = CallFacts(sid="CA1", agent="a", direction="inbound", from_="+1", to="+2", started_at="2026-11-28T14:05:00Z")
    call = ToolCall(id=document["id"], tool="t", arguments="{}", call=facts)
    sent = json.loads(request_body(call, b"{}", attempt=1, deadline_ms=1))
    assert list(sent) == list(document)
    assert list(sent["call"]) == list(document["call"])
    assert f"Idempotency-Key: {idempotency_key(call.id)}\n" in head


def test_each_error_is_described() -> None:
    described = re.findall(r"^\| `(\w+)` \| ", PAGE.partition("## The answer")[2].partition("## ")[0], re.MULTILINE)
    assert described[1:] == list(typing.get_args(ErrorWord))


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"the first {MAX_DETAIL_CHARS} characters" in PAGE
    assert f"{CONNECTIONS} connections are open at one time, {PER_HOST} to a host" in PAGE
    assert OPEN_AFTER == 5
    assert f"five failures in a row within {WINDOW_S:g} s hold requests to this host and port back for {OPEN_S:g} s" in PAGE
