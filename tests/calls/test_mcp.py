"""Tools of remote MCP servers in whole calls: the caller is answered whatever becomes of the provider's call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

import gw.config
from gw.config import Mcp
from gw.twin.ai.ledger import AiLedger, McpTool
from gw.twin.twilio.steps import Step
from tests.calls.held import NO_SOUND, Case, Held, hold_all, says

CRM: Final = Mcp(
    server_label="crm",
    server_url="https://crm.example.com/mcp",
    allowed_tools=("find_customer", "delete_customer"),
    approve=("find_customer",),
)
LISTENS: Final = Step("hang_up", "quiet", 2.6, patience_s=12.0)


def wants(tool: McpTool, **changes: Any) -> Case:
    """Return a case whose greeting is followed by a question about this tool."""
    return Case(says(0.6, 0.6, mcp={1: tool}, **changes), says(0.6, 0.6), steps=(LISTENS,), agent={"mcp": (CRM,)})


CASES: Final[Mapping[str, Case]] = {
    "approved": wants(McpTool("find_customer", takes_s=0.5)),
    "failed": wants(McpTool("find_customer", fails=True)),
    "not_approved": wants(McpTool("delete_customer")),
    "unlisted": wants(McpTool("find_customer"), mcp_lists=False),
    "session_lost": wants(McpTool("find_customer", ends=False), ends_after_s=1.3),
}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> dict[str, Held]:
    return hold_all(tmp_path_factory.mktemp("mcp"), shared_store, NO_SOUND, CASES, head_start_s={})


def acts(session: AiLedger) -> list[str]:
    """Return the gateway's answers and requests, in sequence."""
    found = []
    for event in session.events:
        item = event.body.get("item", {})
        if event.kind == "response.create" or item.get("type") == "mcp_approval_response":
            found.append(event.kind if event.kind == "response.create" else f"approve {item['approve']}")
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_caller_is_answered(held: dict[str, Held], name: str) -> None:
    one = held[name]
    assert (one.call.error, one.call.warnings) == ("", [])
    assert [problem for session in one.sessions for problem in session.violations] == []
    greeting, *_, last = one.responses
    assert one.is_whole(greeting)
    assert last is not greeting
    assert one.is_whole(last)


def test_the_session_has_the_server(held: dict[str, Held]) -> None:
    tools = held["approved"].sessions[0].updates[0]["tools"]
    assert [tool for tool in tools if tool["type"] == "mcp"] == [
        {
            "type": "mcp",
            "server_label": "crm",
            "server_url": "https://crm.example.com/mcp",
            "require_approval": "always",
            "allowed_tools": ["find_customer", "delete_customer"],
        }
    ]


@pytest.mark.parametrize(("name", "status"), [("approved", "ok"), ("failed", "unavailable")])
def test_one_answer_follows_the_end_of_an_approved_call(held: dict[str, Held], name: str, status: str) -> None:
    one = held[name]
    (session,) = one.sessions
    assert acts(session) == ["response.create", "approve True", "response.create"]
    assert session.tool_outputs == [], "the provider has given the output"
    (approval,) = one.events("mcp_approval")
    assert approval == {"name": "find_customer", "server": "crm", "approved": True}
    (note,) = one.events("tool_called")
    assert (note["tool"], note["status"]) == ("find_customer", status)
    assert len(session.responses) == 2


def test_what_is_not_approved_is_refused_with_a_reason_and_answered(held: dict[str, Held]) -> None:
    one = held["not_approved"]
    (session,) = one.sessions
    assert acts(session) == ["response.create", "approve False", "response.create"]
    (answer,) = session.mcp_answers
    assert answer["reason"] == "The operator of this agent has not approved the tool."
    assert one.events("tool_called") == []


def test_a_list_that_fails_is_one_event(held: dict[str, Held]) -> None:
    assert len(held["unlisted"].events("mcp_list_failed")) == 1
    assert held["approved"].events("mcp_list_failed") == []


def test_a_call_whose_session_is_lost_is_given_up_and_answered_in_the_next(held: dict[str, Held]) -> None:
    one = held["session_lost"]
    first, second = one.sessions
    assert acts(first) == ["response.create", "approve True"]
    assert acts(second) == ["response.create"]
    (note,) = one.events("tool_called")
    assert (note["tool"], note["status"]) == ("find_customer", "unknown_outcome")
