"""The lookup of routes in whole calls: the user's endpoint decides who answers, and no answer of it costs a caller words."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

import gw.config
from gw.config import Agent, EventHook, Hooks, Overflow, Route, RouteLookup
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.hooks import BEHAVIOURS, HookRequest, HookTwin, Visit
from gw.twin.twilio.steps import Step
from gw.twin.twilio.stream import CallPlan
from tests.calls.conftest import World
from tests.calls.gateway import HOOK_SECRET
from tests.calls.held import says
from tests.calls.shared import Outcome, run_world
from tests.timing import scaled

CALLER: Final = "+15550007777"
LISTENS: Final = (Step("hang_up", "quiet", 0.6, patience_s=5.0),)
BREAKS: Final = (Step("reset", "heard", 0.3, lasts_s=0.3), Step("hang_up", "quiet", 1.0, patience_s=8.0))
ANN: Final = {"agent": "clerk", "variables": {"who": "Ann", "company": "Acme {x}"}}

#: By called number: the endpoint's answer, or the name of a behaviour; then steps.
CASES: Final[dict[str, tuple[dict[str, Any] | str, tuple[Step, ...]]]] = {
    "decided": (ANN, LISTENS),
    "greeted": ({**ANN, "greeting": "Greet {{who}} by name.", "record": False}, LISTENS),
    "resumed": ({**ANN, "record": False}, BREAKS),
    "nothing": ({}, LISTENS),
    "busy": ({"refuse": "busy"}, ()),
    "closed": ({"refuse": "We are closed."}, ()),
    "elsewhere": ({"dial": "+15559990000"}, ()),
    "unknown": ({"agent": "salse"}, ()),
    "html": ("html", LISTENS),
    "huge": ("huge", LISTENS),
    "redirect": ("redirect", LISTENS),
    "silent": ("silent", LISTENS),
    "braces": ({"variables": {"who": "{{company}}"}}, LISTENS),
    "long": ({"variables": {"who": "x" * 10_000}}, LISTENS),
    "control": ({"variables": {"who": "a\nb"}}, LISTENS),
    "static": ({"refuse": "busy"}, LISTENS),
    "named": ({"refuse": "busy"}, LISTENS),
    "unopened": (ANN, LISTENS),
}
BAD: Final = {
    "html": "bad_answer",
    "huge": "bad_answer",
    "redirect": "bad_answer",
    "silent": "timeout",
    "braces": "bad_answer",
    "long": "bad_answer",
    "control": "bad_answer",
}
NUMBERS: Final = {name: f"+1555000{n:04}" for n, name in enumerate(CASES)}
NAMES: Final = {number: name for name, number in NUMBERS.items()}


def _answer_of(request: HookRequest) -> dict[str, Any] | str:
    return CASES[NAMES[request.body["twilio"]["To"]]][0]


def _decide(visit: Visit) -> None:
    """Answer as the case of the called number says."""
    answer = _answer_of(visit.request)
    if isinstance(answer, str):
        BEHAVIOURS[answer](visit)
    else:
        BEHAVIOURS["ok"](visit)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Outcome:
    def agents(ai: AiTwin) -> dict[str, Agent]:
        def agent(name: str, **more: Any) -> Agent:
            return Agent(provider="openai", base_url=f"{ai.url}/{name}", **{"greeting": "Greet.", **more})

        return {"default": agent("default"), "clerk": agent("clerk", instructions="For {{who}} of {{company}}.")}

    def script(index: int, path: str) -> AiScript:
        return says(1.2)

    def reply(request: HookRequest) -> bytes:
        return json.dumps(_answer_of(request)).encode()

    def body(world: World, outcome: Outcome) -> None:
        for name, (_, steps) in CASES.items():
            plan: dict[str, Any] = {"hang_up": False, "max_s": scaled(20.0), "from_number": CALLER, "to_number": NUMBERS[name]}
            plan |= {"named": {"agent": "default"}, "unopened": {"unopened": 1}}.get(name, {})
            outcome.calls[name] = world.twilio.place(CallPlan(steps=steps, **plan))
        assert world.twilio.wait(scaled(40.0))
        for name, (_, steps) in CASES.items():
            if steps or name == "unknown":
                world.gateway.ended(outcome.calls[name].call_sid)
        outcome.keep(world)
        outcome.seen["failed"] = world.gateway.events("route_failed")
        outcome.seen["sessions"] = world.ai.sessions
        hooks.wait_for(lambda twin: sum(one.path == "/ok/events" for one in twin.requests) >= 30, scaled(20.0))
        outcome.seen["requests"] = list(hooks.requests)

    with HookTwin(HOOK_SECRET, reply=reply, behaviours={"decide": _decide, "ok": BEHAVIOURS["nothing"]}) as hooks:
        return run_world(
            tmp_path_factory.mktemp("lookup"),
            shared_store,
            script,
            body,
            agents=agents,
            hooks=Hooks(allow_networks=("127.0.0.0/8",)),
            routes=(Route(called=NUMBERS["static"], agent="clerk", variables={"who": "Eve"}),),
            route=RouteLookup(url=hooks.url("decide"), timeout_s=1.0),
            events=(EventHook(url=hooks.url("ok/events"), types=("call.started", "call.ended")),),
        )


def _asked(outcome: Outcome, name: str) -> list[HookRequest]:
    sid = outcome.calls[name].call_sid
    return [one for one in outcome.seen["requests"] if one.path == "/decide" and one.body["id"] == sid]


def test_every_call_is_asked_about_once(outcome: Outcome) -> None:
    asked = {name: len(_asked(outcome, name)) for name in CASES}
    assert asked == {name: 0 if name in ("static", "named") else 1 for name in CASES}
    (request,) = _asked(outcome, "decided")
    assert (request.fault, request.key, request.body["type"]) == ("", outcome.calls["decided"].call_sid, "call.route")
    form = request.body["twilio"]
    assert (form["From"], form["To"], form["CallSid"]) == (CALLER, NUMBERS["decided"], outcome.calls["decided"].call_sid)


def test_who_answers(outcome: Outcome) -> None:
    agents = {name: row["agent"] for name, row in outcome.rows.items() if row}
    clerks = ("decided", "greeted", "resumed", "static", "unopened")
    expected = {name: "clerk" if name in clerks else "default" for name, (_, steps) in CASES.items() if steps}
    assert agents == {**expected, "unknown": "salse"}
    recorded = {name for name, row in outcome.rows.items() if row and row["recording"] is not None}
    assert recorded == expected.keys() - {"greeted", "resumed"}


def test_the_persona_receives_the_variables_also_after_a_resume(outcome: Outcome) -> None:
    sessions = [one for one in outcome.seen["sessions"] if one.path.endswith("/clerk")]
    texts = [update["instructions"] for one in sessions for update in one.updates]
    assert sorted(texts) == ["For Ann of Acme {x}."] * 5 + ["For Eve of ."]
    greetings = [
        [item.text for item in one.items if item.text] for one in outcome.seen["sessions"] if one.path.endswith("/clerk")
    ]
    assert [["Greet Ann by name."] in greetings, ["Greet."] in greetings] == [True, True]


def test_calls_that_no_agent_answers(outcome: Outcome) -> None:
    calls = outcome.calls
    assert (calls["busy"].status, calls["busy"].spoken) == ("busy", ["busy"])
    assert calls["closed"].spoken == ["We are closed."]
    assert calls["elsewhere"].dialled == ["+15559990000"]
    assert calls["unknown"].spoken == [Overflow().text]
    lines = [
        line.text for line in outcome.log.lines if line.call_sid == calls["unknown"].call_sid and line.reason == "unknown_agent"
    ]
    assert ["the route endpoint names the agent 'salse'" in line for line in lines] == [True]
    assert [calls[name].error for name in CASES] == [""] * len(CASES)


def test_a_bad_answer_is_a_log_line_and_on_failure(outcome: Outcome) -> None:
    failed = {event["call_sid"]: event["data"]["why"] for event in outcome.seen["failed"]}
    assert failed == {outcome.calls[name].call_sid: why for name, why in BAD.items()}
    for name, why in BAD.items():
        sid = outcome.calls[name].call_sid
        lines = [line for line in outcome.log.lines if line.call_sid == sid and line.logger == "gw.control.hooks.routes"]
        assert [line.text.startswith(f"the route endpoint gave no valid answer ({why}): ") for line in lines] == [True], name
    counts = {name.split('"')[1]: value for name, value in outcome.metrics.items() if name.startswith("gw_route_lookups_total")}
    assert counts == {"ok": 9, "bad_answer": 6, "timeout": 1, "refused": 0, "unavailable": 0, "busy": 0}


def test_events_have_the_variables_of_the_route(outcome: Outcome) -> None:
    found: dict[tuple[str, str], dict[str, str]] = {}
    names = {call.call_sid: name for name, call in outcome.calls.items()}
    for one in outcome.seen["requests"]:
        if one.path == "/ok/events":
            found[names[one.body["call"]["sid"]], one.body["type"]] = one.body["call"]["variables"]
    for kind in ("call.started", "call.ended"):
        assert found["decided", kind] == ANN["variables"]
        assert found["resumed", kind] == ANN["variables"]
        assert found["unopened", kind] == ANN["variables"]
        assert found["static", kind] == {"who": "Eve"}
        assert found["nothing", kind] == {}


def test_nothing_is_left(outcome: Outcome) -> None:
    outcome.check_nothing_left()
