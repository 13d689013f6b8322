"""A call whose worker is killed, or whose socket breaks, resumes on another stream: one conversation, one recording."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gw.call.dialogue.commands import Prompt
from gw.call.prompts import text_of
from gw.call.resume import MAX_RESUMES, TURNS_PER_STREAM
from gw.config import Agent
from gw.twin import speech
from gw.twin.ai.ledger import AiLedger
from gw.twin.ai.script import AiScript
from gw.twin.twilio.caller import TwinCall
from tests.calls.hearing import WORD, until
from tests.calls.test_restart import Running, running
from tests.timing import scaled

#: A greeting, an answer, then silence.
TALKS = AiScript(
    answers=(speech.load("thanks")[:4000],),
    greeting=speech.load("hello-world")[:6000],
    speed=20.0,
    agent_words=("Hello, world.", "Thank you."),
    caller_words=("Monkeys.",),
)

RETURN = text_of(Prompt.RETURN)


def talking(r: Running, turns: int = 1) -> TwinCall:
    """Place a call and wait until `turns` turns are in the store."""
    call = r.twilio.place_call(speech.script(1000, WORD, 30_000), hang_up=False, max_s=scaled(60.0))
    until(lambda: len(r.row(call).get("turns", [])) >= turns, f"{turns} turns are in the store", 20)
    return call


def owner(r: Running) -> int:
    """Return the pid of the worker that has a call; 0 if none reports one."""
    status = r.status() or {"workers": []}
    return next((view["pid"] for view in status["workers"] if view["connected"] and view["calls"]), 0)


def kill_worker_of(r: Running) -> None:
    """Kill the worker that has the call."""
    until(lambda: owner(r), "a worker reports the call")
    os.kill(owner(r), signal.SIGKILL)


def kill_control(r: Running) -> None:
    """Kill control, and wait for the next one."""
    before = r.pids()["control"]
    os.kill(before, signal.SIGKILL)
    until(lambda: r.pids().get("control", before) != before, "control is back", 30)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One gateway for all tests of `on_lost = "resume"`: a start takes two seconds of CPU."""
    with running(tmp_path_factory.mktemp("resume"), TALKS, workers=2, server='on_lost = "resume"\n') as made:
        yield made


@pytest.fixture
def r(gateway: Running) -> Running:
    """The gateway without a call."""
    until(lambda: len(gateway.pids()) == 3 and not owner(gateway), "every worker is up, and no call is left")
    return gateway


@pytest.fixture
def sessions(r: Running) -> Callable[[], list[AiLedger]]:
    """Returns the AI's sessions since the test began."""
    first = len(r.ai.sessions)
    return lambda: r.ai.sessions[first:]


def test_a_call_resumes_its_conversation(r: Running, sessions: Callable[[], list[AiLedger]]) -> None:
    call = talking(r, turns=3)
    before = [(turn["role"], turn["text"]) for turn in r.row(call)["turns"]]
    first_stream = r.row(call)["stream_sid"]
    kill_worker_of(r)
    until(lambda: len(sessions()) == 2 and sessions()[1].responses, "another session speaks", 10)
    second = sessions()[1]
    given = [event.body["item"] for event in second.events if event.kind == "conversation.item.create"]
    roles = {"assistant": "agent", "user": "caller", "system": "system"}
    assert [(roles[item["role"]], item["content"][0]["text"]) for item in given] == [
        *before,
        ("system", RETURN),
    ]
    assert [event.kind for event in second.events].count("response.create") == 1
    until(lambda: [e for e in r.row(call)["events"] if e["kind"] == "resumed"], "stored")
    assert r.row(call)["ended_at"] is None, "it is alive"
    greeting = TALKS.greeting
    until(lambda: len(r.row(call)["turns"]) == 4, "the new session's turn is stored")
    call.hang_up()
    assert call.wait(scaled(10.0))
    until(lambda: r.row(call)["reason"] == "caller_hangup", "its end is stored")
    row = r.row(call)
    assert row["stream_sid"] == first_stream
    assert [turn["text"] for turn in row["turns"]][:3] == [text for _, text in before]
    assert row["turns"][3]["n"] > TURNS_PER_STREAM
    assert [turn["start_ms"] for turn in row["turns"]] == sorted(turn["start_ms"] for turn in row["turns"])
    assert [event["data"]["n"] for event in row["events"] if event["kind"] == "resumed"] == [1]
    assert call.received_audio.count(greeting[:4000]) == 2, "the twin's sessions have the same first response"
    assert (call.error, call.warnings) == ("", [])
    until(lambda: r.row(call)["recording"]["state"] == "completed", "recorded")
    assert len(r.twilio.rest.starts[call.call_sid]) == 1
    assert sum(start.recorded for start in r.twilio.rest.starts[call.call_sid]) == 1


def test_a_call_resumes_a_bounded_number_of_times(r: Running, sessions: Callable[[], list[AiLedger]]) -> None:
    """Then the caller hears the goodbye. The count survives a death of control."""
    call = talking(r)
    for n in range(1, MAX_RESUMES + 1):
        kill_worker_of(r)
        until(lambda n=n: len(sessions()) == n + 1 and sessions()[n].responses, f"resumed {n} times", 30)  # type: ignore[misc]
        until(lambda n=n: [e for e in r.row(call)["events"] if e["kind"] == "resumed" and e["data"]["n"] == n], "stored", 30)  # type: ignore[misc]
        if n == 1:
            kill_control(r)
        until(lambda: len(r.pids()) == 3, "every worker is up", 30)
    kill_worker_of(r)
    assert call.wait(scaled(10.0))
    assert call.spoken == [Agent().goodbye]
    assert len(sessions()) == MAX_RESUMES + 1
    until(lambda: r.row(call)["reason"] == "worker_lost", "its end is stored")
    assert len(r.twilio.rest.starts[call.call_sid]) == 1


def test_a_goodbye_where_the_configuration_has_no_resume(tmp_path: Path) -> None:
    with running(tmp_path, TALKS, workers=2, server='on_lost = "goodbye"\n') as r:
        call = talking(r)
        kill_worker_of(r)
        assert call.wait(scaled(10.0))
        assert call.spoken == [Agent().goodbye]
        until(lambda: r.row(call)["reason"] == "worker_lost", "its end is stored")
        assert len(r.ai.sessions) == 1


@pytest.mark.parametrize("half_open", [False, True], ids=["a reset", "half open"])
def test_a_call_outlives_its_media_socket(r: Running, sessions: Callable[[], list[AiLedger]], half_open: bool) -> None:
    """The socket breaks while Twilio still has the caller. One that is half open goes unnoticed: the new stream replaces it."""
    call = talking(r, turns=3)
    before = [turn["text"] for turn in r.row(call)["turns"]]
    call.lose_stream(half_open=half_open)
    until(lambda: len(sessions()) == 2 and sessions()[1].responses, "another session speaks", 15)
    items = [event.body["item"] for event in sessions()[1].events if event.kind == "conversation.item.create"]
    told = [item["content"][0]["text"] for item in items if item["role"] != "system"]
    assert told[: len(before)] == before
    until(lambda: len(r.row(call)["turns"]) > len(before), "the new session's turn is stored")
    assert r.row(call)["ended_at"] is None, "it is alive, although its first stream has ended since"
    call.hang_up()
    assert call.wait(scaled(10.0))
    until(lambda: r.row(call)["reason"] == "caller_hangup", "its end is stored")
    row = r.row(call)
    assert row["result"] == "success"
    resumed = [event["data"] for event in row["events"] if event["kind"] == "resumed"]
    assert resumed == [{"n": 1, "after": "phone_lost"}]
    assert call.spoken == []
    until(lambda: r.row(call)["recording"]["state"] == "completed", "recorded")
    assert sum(start.recorded for start in r.twilio.rest.starts[call.call_sid]) == 1
