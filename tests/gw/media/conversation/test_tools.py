"""gw.media.conversation.tools: a tool call becomes a job, its result an output; each once, whatever comes twice or late."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gw import bus
from gw.call.dialogue import inputs as given
from gw.call.state import Reason
from gw.config import Agent, Say, Tool
from gw.media.ai_in import AiIn
from gw.protocol import ai
from gw.protocol.hooks.tool_call import MAX_ARGUMENTS_BYTES, decode_call
from tests.gw.media.support import CALL, ContextMaker, FakeLeg, call_of, put_in_place, transport_and_peer

TOOLS = {
    "lookup": Tool(timeout_s=20.0, filler=Say(say="One moment.")),
    "book": Tool(mode="background"),
    "search": Tool(on_interrupt="cancel"),
    "others": Tool(),
}
SECRET = '{"number":"top secret"}'


class Rig:
    """A call with a ready AI leg in memory, whose agent has tools."""

    def __init__(self, contexts: ContextMaker) -> None:
        self.context, self.emitted = contexts.context(tools=TOOLS)
        self.transport, self.peer = transport_and_peer()
        agent = Agent(provider="openai", greeting="", tools=("hang_up", "lookup", "book", "search"))
        self.call = call_of(self.context, agent, self.transport)
        self.call.ai._new_leg = FakeLeg
        self.leg = FakeLeg()
        put_in_place(self.call, self.leg)
        self.call.dialogue.on(given.SessionReady())
        self.leg.sent.clear()
        self.ai_in = AiIn(self.call)

    def receive(self, *events: ai.AiEvent) -> None:
        self.ai_in._dispatch(list(events), self.call.ai.number)

    def call_tool(self, name: str, call_id: str = "call_1", arguments: str = SECRET) -> None:
        self.receive(ai.ResponseStarted("r1"), ai.ToolCall("r1", "i1", call_id, name, arguments))
        self.receive(ai.ResponseDone("r1", "completed", ""))

    @property
    def jobs(self) -> list[bus.JobWanted]:
        return [event for event in self.emitted if isinstance(event, bus.JobWanted)]

    def settle(self, job: bus.JobWanted, output: str = "42", outcome: str = "ok") -> None:
        self.call.on_job_settled(bus.JobSettled(job.id, job.call_sid, outcome, output))

    def notes(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.emitted if isinstance(event, bus.CallEvent) and event.kind == kind]


@pytest.fixture
def rig(contexts: ContextMaker) -> Iterator[Rig]:
    made = Rig(contexts)
    yield made
    made.transport.shut()
    made.peer.close()


def test_a_call_is_a_job_with_the_facts_of_the_telephone_call(rig: Rig) -> None:
    rig.call_tool("lookup")
    (job,) = rig.jobs
    assert (job.id, job.kind, job.call_sid) == (f"{CALL}/1/call_1", "tool", CALL)
    assert 18.0 < job.deadline_ms / 1000 - time.time() <= 20.0
    wanted = decode_call(job.body)
    assert (wanted.id, wanted.tool, wanted.arguments) == (job.id, "lookup", SECRET)
    assert (wanted.call.sid, wanted.call.agent, wanted.call.direction) == (CALL, "default", "inbound")
    assert wanted.call.started_at.endswith("Z")
    assert rig.leg.sent == []
    assert rig.call.tools.open_jobs == [job.id]


def test_a_result_is_the_output_verbatim_and_sent_once(rig: Rig) -> None:
    rig.call_tool("lookup")
    (job,) = rig.jobs
    for _ in range(2):
        rig.settle(job, "<html>yes")
    assert rig.leg.sent == [("tool_output", "call_1", "<html>yes"), ("create_response",)]
    rig.receive(ai.ToolCall("r1", "i1", "call_1", "lookup", SECRET))
    assert (len(rig.jobs), len(rig.leg.of("tool_output"))) == (1, 1)


def test_notes_and_log_name_the_tool_its_time_and_its_status_and_no_argument(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gw")
    rig.call_tool("lookup")
    rig.settle(rig.jobs[0], '{"error":"refused","detail":"top secret"}', "refused")
    assert rig.notes("tool_call") == [{"name": "lookup", "id": "call_1", "item": "i1"}]
    (note,) = rig.notes("tool_called")
    assert (note["tool"], note["id"], note["status"]) == ("lookup", f"{CALL}/1/call_1", "refused")
    assert 0 <= note["ms"] < 20_000
    assert f"tool lookup: refused after {note['ms']} ms" in caplog.messages
    assert "secret" not in caplog.text + str([event for event in rig.emitted if isinstance(event, bus.CallEvent)])


def test_a_result_for_another_call_or_job_is_dropped(rig: Rig) -> None:
    rig.call_tool("lookup")
    (job,) = rig.jobs
    rig.settle(bus.JobWanted(f"{CALL}/2/call_1", "tool", CALL, 0, ""))
    rig.settle(bus.JobWanted("", "tool", CALL, 0, ""))
    assert (rig.leg.sent, rig.call.tools.open_jobs) == ([], [job.id])


@pytest.mark.parametrize(
    ("arguments", "is_sent"),
    [
        ('"' + "x" * (MAX_ARGUMENTS_BYTES - 2) + '"', True),
        ('"' + "x" * (MAX_ARGUMENTS_BYTES - 1) + '"', False),
        ('"' + "é" * (MAX_ARGUMENTS_BYTES // 2) + '"', False),
    ],
)
def test_arguments_have_a_bound(rig: Rig, arguments: str, *, is_sent: bool) -> None:
    rig.call_tool("lookup", arguments=arguments)
    assert len(rig.jobs) == is_sent
    errors = [json.loads(output)["error"] for _, output in rig.leg.of("tool_output")]
    assert errors == ([] if is_sent else ["invalid_arguments"])


def test_half_a_surrogate_in_arguments_costs_no_call(rig: Rig) -> None:
    rig.call_tool("lookup", arguments='{"a":"\ud83d"}')
    assert "�" in decode_call(rig.jobs[0].body).arguments


def test_a_tool_that_the_agent_lacks_is_not_called(rig: Rig) -> None:
    rig.call_tool("others")
    assert rig.jobs == []
    ((_, output),) = rig.leg.of("tool_output")
    assert json.loads(output)["error"] == "invalid_arguments"


def test_a_tool_in_the_background_starts_and_its_result_is_a_system_item(rig: Rig) -> None:
    rig.call_tool("book")
    assert rig.leg.sent == [("tool_output", "call_1", '{"status":"started"}'), ("create_response",)]
    rig.leg.sent.clear()
    rig.receive(ai.ResponseStarted("r2"), ai.AudioDelta("r2", "i2", bytes(800)), ai.ResponseDone("r2", "completed", ""))
    rig.settle(rig.jobs[0], "booked")
    (_, role, text), create = rig.leg.sent
    assert (role, create) == ("system", ("create_response",))
    assert "The tool book" in text
    assert text.endswith("booked")


def test_a_given_up_call_gets_no_late_result(rig: Rig) -> None:
    cancelled: list[str] = []
    rig.context.cancel_job = cancelled.append
    rig.call_tool("search")
    rig.receive(ai.SpeechStarted("c1", 0))
    assert cancelled == [rig.jobs[0].id], "control closes the request"
    rig.settle(rig.jobs[0])
    ((_, output),) = rig.leg.of("tool_output")
    assert json.loads(output)["error"] == "cancelled"
    assert rig.call.tools.open_jobs == []


def test_a_sentence_bridges_the_wait_without_tools(rig: Rig) -> None:
    rig.call_tool("lookup")
    machine = rig.call.dialogue.machine
    rig.call.dialogue._carry_out(machine.tick(machine.filler_at))
    (_, role, text), create = rig.leg.sent
    assert (role, create) == ("system", ("create_response", False))
    assert text.endswith("One moment.")


def test_a_replacement_session_has_the_call_then_its_output(rig: Rig) -> None:
    rig.call_tool("lookup")
    rig.call_tool("book", "call_2")
    rig.call.dialogue.lose_session(given.SessionLost(Reason.AI_LOST), "gone", is_expired=False)
    rig.settle(rig.jobs[0])
    leg = rig.call.ai.leg
    assert isinstance(leg, FakeLeg)
    assert leg.sent == []
    rig.call.dialogue.on(given.SessionReady())
    assert [sent for sent in leg.sent if sent[0] != "create_response"] == [
        ("state_call", "call_1", "lookup", SECRET),
        ("state_call", "call_2", "book", SECRET),
        ("tool_output", "call_2", '{"status":"started"}'),
        ("tool_output", "call_1", "42"),
    ]
    rig.receive(ai.ToolCall("r9", "i9", "call_9", "lookup", "{}"))
    assert rig.jobs[-1].id == f"{CALL}/2/call_9"


def test_a_call_of_an_earlier_stream_is_wanted_under_its_own_name_and_time(rig: Rig) -> None:
    deadline_ms = int((time.time() + 9.0) * 1000)
    for call_id, name in (("a", "lookup"), ("b", "book")):
        event = rig.call.tools.resume(bus.OpenTool(f"{CALL}/7/{call_id}", name, SECRET, deadline_ms))
        assert event is not None
        assert (event.call_id, event.name, 8000 < event.left_ms <= 9000) == (call_id, name, True)
        rig.call.dialogue.on(event)
    assert [(job.id, job.deadline_ms) for job in rig.jobs] == [(f"{CALL}/7/a", deadline_ms), (f"{CALL}/7/b", deadline_ms)]
    assert decode_call(rig.jobs[0].body).arguments == SECRET
    assert [rig.call.tools.calls.get(call_id).output for call_id in "ab"] == [None, '{"status":"started"}']
    for strange in (bus.OpenTool(f"{CALL}/7/c", "gone", "{}", 0), bus.OpenTool("other/7/c", "lookup", "{}", 0)):
        assert rig.call.tools.resume(strange) is None
