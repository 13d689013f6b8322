"""A tool that is under way when its call's stream breaks: the endpoint does it once, and the resumed call receives the result."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from gw.twin import speech
from gw.twin.ai.faults import Call
from gw.twin.ai.script import AiScript, lasting
from gw.twin.hooks import HookTwin
from tests.calls.gateway import HOOK_SECRET
from tests.calls.hearing import until
from tests.calls.test_restart import Running, running
from tests.timing import scaled


def kill_worker_of(r: Running) -> None:
    """Kill the worker that has the call."""

    def owner() -> int:
        status = r.status() or {"workers": []}
        return next((view["pid"] for view in status["workers"] if view["connected"] and view["calls"]), 0)

    until(lambda: owner(), "a worker reports the call")
    os.kill(owner(), signal.SIGKILL)


@pytest.mark.parametrize("breaks", ["a reset", "the worker's death"])
def test_a_resumed_call_receives_the_result_of_an_open_tool(tmp_path: Path, breaks: str) -> None:
    def script(index: int, path: str) -> AiScript:
        calls = {1: (Call("lookup", '{"n":7}'), Call("book", '{"n":8}'))} if not index else {}
        return AiScript(greeting=lasting(1), answers=(lasting(1),) * 3, calls=calls, speed=4.0)

    with HookTwin(HOOK_SECRET) as endpoint:
        endpoint.slow_s = 5.0
        tool = f'description = "d"\ntimeout_s = {scaled(20.0)}\nurl = "{endpoint.url("slow")}/'
        settings = {
            "agents.default": 'tools = ["hang_up", "lookup", "book"]\n',
            "hooks": 'allow_networks = ["127.0.0.1/32"]\n',
            "tools.lookup": f'{tool}lookup"\n',
            "tools.book": f'{tool}book"\nmode = "background"\n',
        }
        with running(tmp_path, script, workers=2, settings=settings) as r:
            call = r.twilio.place_call(speech.script(60_000), hang_up=False, max_s=scaled(60.0))
            until(lambda: len(endpoint.requests) == 2, "both tools are called")
            if breaks == "a reset":
                call.lose_stream(half_open=False)
            else:
                kill_worker_of(r)
            until(lambda: len(r.ai.sessions) == 2, "another session is open", 20)
            session = r.ai.sessions[1]
            until(lambda: len(session.tool_outputs) == 2, "it receives both outputs", 20)
            until(
                lambda: "book" in repr([item.text for item in session.items]), "and the result of the one in the background", 20
            )
            outputs = {json.loads(one["output"]).get("done") or one["output"] for one in session.tool_outputs}
            assert outputs == {"lookup", '{"status":"started"}'}
            calls = [event.body["item"] for event in session.events if event.kind == "conversation.item.create"]
            stated = {item["name"]: item["arguments"] for item in calls if item["type"] == "function_call"}
            assert stated == {"lookup": '{"n":7}', "book": '{"n":8}'}
            until(lambda: len(session.responses) >= 2, "and is asked for an answer", 20)
            call.hang_up()
            assert call.wait(scaled(10.0))
            until(lambda: r.row(call)["reason"] == "caller_hangup", "the end is stored")
            notes = {
                event["data"]["tool"]: event["data"]["status"]
                for event in r.row(call)["events"]
                if event["kind"] == "tool_called"
            }
            assert notes == {"lookup": "ok", "book": "ok"}
            assert (session.violations, call.error) == ([], "")
        assert sorted(endpoint.executions.values()) == [1, 1]
        assert len(endpoint.requests) == 2
