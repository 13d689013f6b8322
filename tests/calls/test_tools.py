"""Tools in whole calls, with the real control: each call is one request and one output, and the answer waits for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

import gw.config
from gw.call.prompts import filler_of, result_of
from gw.config import Hooks, Say, Tool
from gw.twin.ai.faults import Call
from gw.twin.ai.ledger import AiLedger
from gw.twin.hooks import HookRequest, HookTwin
from gw.twin.twilio.steps import Step
from tests.calls.gateway import HOOK_SECRET
from tests.calls.hearing import WORD
from tests.calls.held import NO_SOUND, Case, Held, hold_all, requested, says

#: Time of a slow tool, and of one that outlives a turn and a session.
SLOW_S: Final = 1.2
LATE_S: Final = 2.2
LISTENS: Final = Step("hang_up", "quiet", SLOW_S + 1.4, patience_s=12.0)
WAITS: Final = Step("hang_up", "quiet", LATE_S + 1.2, patience_s=12.0)
SPEAKS: Final = Step("say", "quiet", 0.3, audio=WORD)
NUMBER: Final = '{"number": "12345678"}'


def calls(*made: Call, wordless: bool = False, **changes: Any) -> Case:
    """Return a case whose greeting is followed by these tool calls, or replaced by them."""
    steps = changes.pop("steps", (LISTENS,))
    script = says(0.0 if wordless else 0.6, 0.6, calls={1: made}, **changes)
    return Case(script, says(0.6, 0.6), steps=steps, agent={"tools": ("hang_up", *TOOLS)})


TOOLS: Final = ("lookup", "slow", "bridged", "book", "search", "refused", "late")
CASES: Final = {
    "one": calls(Call("lookup", NUMBER, pieces=6)),
    "wordless": calls(Call("lookup", NUMBER), wordless=True),
    "three": calls(Call("lookup"), Call("slow"), Call("lookup")),
    "twice": calls(Call("lookup"), Call("lookup", again=True)),
    "bridged": calls(Call("bridged")),
    "background": calls(Call("book")),
    "interrupted": calls(Call("late"), steps=(SPEAKS, WAITS)),
    "cancelled": calls(Call("search"), steps=(SPEAKS, WAITS)),
    "refused": calls(Call("refused")),
    "broken": calls(Call("lookup", '{"number":')),
    "other_session": calls(Call("late"), steps=(WAITS,), ends_after_s=1.3),
}


@dataclass(frozen=True)
class Run:
    """The calls, and what the endpoints saw."""

    held: dict[str, Held]
    hooks: HookTwin
    metrics: dict[str, float]

    def __getitem__(self, name: str) -> Held:
        return self.held[name]

    def requests(self, name: str) -> list[HookRequest]:
        sid = self.held[name].call.call_sid
        return [request for request in self.hooks.requests if request.body["call"]["sid"] == sid]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Iterator[Run]:
    with HookTwin(HOOK_SECRET) as hooks:
        hooks.slow_s, hooks.late_s = SLOW_S, LATE_S
        tools = {
            "lookup": Tool(description="Finds an order.", url=hooks.url("ok/lookup"), idempotent=True),
            "slow": Tool(description="Takes time.", url=hooks.url("slow/slow"), filler="none"),
            "bridged": Tool(url=hooks.url("slow/bridged"), filler_after_s=0.3, filler=Say(say="One moment.")),
            "book": Tool(url=hooks.url("slow/book"), mode="background"),
            "search": Tool(url=hooks.url("late/search"), on_interrupt="cancel"),
            "refused": Tool(url=hooks.url("refused/refused")),
            "late": Tool(url=hooks.url("late/late")),
        }
        metrics: dict[str, float] = {}
        held = hold_all(
            tmp_path_factory.mktemp("tools"),
            shared_store,
            NO_SOUND,
            CASES,
            head_start_s={},
            then=lambda world, outcome: metrics.update(world.gateway.metrics()),
            tools=tools,
            hooks=Hooks(allow_networks=("127.0.0.1/32",)),
        )
        yield Run(held, hooks, metrics)


def outputs(session: AiLedger) -> list[str]:
    return [output["output"] for output in session.tool_outputs]


def acts(session: AiLedger) -> list[str]:
    """Return what the gateway sent of tools and requests, in sequence."""
    found = []
    for event in session.events:
        item = event.body.get("item", {})
        if event.kind == "response.create" or item.get("type", "").startswith("function_call"):
            found.append(event.kind if event.kind == "response.create" else item["type"])
    return found


@pytest.mark.parametrize("name", CASES)
def test_neither_twin_has_a_complaint(run: Run, name: str) -> None:
    one = run[name]
    assert (one.call.error, one.call.warnings) == ("", [])
    assert [session.violations for session in one.sessions] == [[] for _ in one.sessions]
    assert (one.row["reason"], one.row["result"]) == ("caller_hangup", "success"), one.row["detail"]
    assert [request.fault for request in run.requests(name)] == [""] * len(run.requests(name))


@pytest.mark.parametrize("name", CASES)
def test_each_call_has_one_output_and_work_is_done_once(run: Run, name: str) -> None:
    one = run[name]
    made = list(dict.fromkeys(call.call_id for session in one.sessions for call in session.calls))
    for session in one.sessions:
        answered = [output["call_id"] for output in session.tool_outputs]
        assert sorted(answered) == sorted(set(answered) & set(made))
    last = [output["call_id"] for output in one.sessions[-1].tool_outputs]
    assert sorted(last) == sorted(made)
    keys = [request.key for request in run.requests(name)]
    assert len(keys) == len(set(keys))


def test_the_agent_has_its_tools(run: Run) -> None:
    offered = {tool["name"]: tool for tool in run["one"].sessions[0].updates[0]["tools"]}
    assert set(offered) == {"hang_up", *TOOLS}
    assert offered["lookup"]["description"] == "Finds an order."
    assert offered["lookup"]["parameters"]["type"] == "object"


@pytest.mark.parametrize("name", ["one", "wordless"])
def test_a_tool_gets_the_arguments_and_the_ai_its_answer(run: Run, name: str) -> None:
    one = run[name]
    (session,), (request,) = one.sessions, run.requests(name)
    assert outputs(session) == ['{"done": "lookup"}']
    assert acts(session) == ["response.create", "function_call_output", "response.create"]
    assert request.body["arguments"] == json.loads(NUMBER)
    assert request.body["id"] == f"{one.call.call_sid}/1/{session.calls[0].call_id}"
    assert (request.body["call"]["agent"], request.body["attempt"]) == (name, 1)
    assert one.is_whole(one.responses[1])


def test_the_answer_follows_the_last_of_three_results(run: Run) -> None:
    (session,) = run["three"].sessions
    assert acts(session) == ["response.create", *["function_call_output"] * 3, "response.create"]
    assert session.creates[1].at_s - session.calls[0].at_s >= SLOW_S
    assert len(run.requests("three")) == 3


def test_a_slow_tool_is_bridged_by_a_sentence_without_tools(run: Run) -> None:
    (session,) = run["bridged"].sessions
    assert requested(session)[1:] == [filler_of("One moment."), ""]
    assert [create.with_tools for create in session.creates] == [True, False, True]


def test_a_tool_in_the_background_is_answered_twice(run: Run) -> None:
    (session,) = run["background"].sessions
    assert outputs(session) == ['{"status":"started"}']
    assert requested(session)[1:] == ["", result_of("book", '{"done": "book"}')]


def test_a_caller_who_speaks_meanwhile_is_answered_and_then_gets_the_result(run: Run) -> None:
    one = run["interrupted"]
    (session,) = one.sessions
    assert outputs(session) == ['{"done": "late"}']
    assert [response.asked for response in one.responses] == [True, False, True]
    assert one.is_whole(one.responses[-1])


def test_an_interruption_cancels_the_tool_that_asks_for_it(run: Run) -> None:
    one = run["cancelled"]
    (session,) = one.sessions
    assert [json.loads(output)["error"] for output in outputs(session)] == ["cancelled"]
    assert [response.asked for response in one.responses] == [True, False]
    (note,) = one.events("tool_called")
    assert note["status"] == "cancelled"
    assert note["ms"] < LATE_S * 1000
    assert run.metrics['gw_tool_seconds_count{outcome="cancelled"}'] == 1.0


def test_a_refusal_is_an_error_with_the_endpoints_words(run: Run) -> None:
    (session,) = run["refused"].sessions
    assert [json.loads(output) for output in outputs(session)] == [{"error": "refused", "detail": "no such order"}]


def test_broken_arguments_are_not_sent(run: Run) -> None:
    (session,) = run["broken"].sessions
    assert [json.loads(output)["error"] for output in outputs(session)] == ["invalid_arguments"]
    assert run.requests("broken") == []


def test_a_result_reaches_the_session_that_took_over(run: Run) -> None:
    one = run["other_session"]
    first, second = one.sessions
    assert acts(second) == ["function_call", "function_call_output", "response.create"]
    assert (outputs(first), outputs(second)) == ([], ['{"done": "late"}'])
    (request,) = run.requests("other_session")
    assert request.body["id"] == f"{one.call.call_sid}/1/{first.calls[0].call_id}"
    assert one.is_whole(one.responses[-1])


def test_notes_have_status_and_time_and_neither_log_nor_store_the_arguments(run: Run) -> None:
    one = run["one"]
    (note,) = one.events("tool_called")
    assert (note["tool"], note["status"]) == ("lookup", "ok")
    assert 0 <= note["ms"] < 5000
    assert not any("12345678" in str(value) for value in one.row["events"])
    assert not any("12345678" in line.text for line in one.log)
    assert [line.text for line in one.log if line.call_sid == one.call.call_sid and line.text.startswith("tool lookup: ok")]
