"""Calls that leave their stream while processes die: each is dialled once, and the caller is back in the conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from gw.twin import speech
from gw.twin.ai.faults import Call
from gw.twin.ai.script import AiScript
from gw.twin.twilio.dial import Callee
from tests.calls.hearing import until
from tests.calls.test_restart import running
from tests.calls.test_resume import kill_control, kill_worker_of
from tests.timing import scaled

TO: Final = "+15550000001"
TRANSFERS: Final = AiScript(
    greeting=speech.load("hello-world")[:8000],
    answers=(speech.load("thanks")[:4000],),
    agent_words=("Hello, world.", "Thank you."),
    calls={1: (Call("transfer", json.dumps({"target": "sales", "summary": "Anna asks."})),)},
    speed=20.0,
)
BACK: Final = AiScript(greeting=speech.load("thanks")[:4000], agent_words=("Thank you.",), speed=20.0)
AGENT: Final = {"agents.default": 'tools = ["hang_up", "transfer"]', "agents.default.transfer": f'targets = {{ sales = "{TO}" }}'}


@pytest.mark.parametrize("victim", ["control while Twilio is asked", "control while it rings", "worker after the return"])
def test_a_process_dies_while_a_call_is_away(tmp_path: Path, victim: str) -> None:
    with running(tmp_path, lambda n, path: TRANSFERS if n == 0 else BACK, workers=2, settings=AGENT) as r:
        r.twilio.callees[TO] = Callee(after_s=scaled(4.0), keys="2")
        if victim == "control while Twilio is asked":
            r.twilio.rest.delay_s = 1.5
        call = r.twilio.place_call(hang_up=False, max_s=scaled(90.0))
        until(lambda: r.twilio.dials, "it rings", 30)
        if victim.startswith("control"):
            kill_control(r)
        r.twilio.rest.delay_s = 0.0
        until(lambda: len(call.streams_s) == 2, "the caller is back", 30)
        until(lambda: [output for session in r.ai.sessions for output in session.tool_outputs], "the agent knows", 30)
        outputs = [output["output"] for session in r.ai.sessions for output in session.tool_outputs]
        assert outputs == ['{"status": "declined"}']
        if victim.startswith("worker"):
            kill_worker_of(r)
            until(lambda: len(call.streams_s) == 3, "the call resumes", 30)
        call.hang_up()
        assert call.wait(scaled(15.0))
        assert len(r.twilio.dials) == 1
        assert (call.error, call.warnings) == ("", [])
        until(lambda: r.row(call).get("reason") == "caller_hangup", "its end is stored")
        assert sum(start.recorded for start in r.twilio.rest.starts[call.call_sid]) == 1
