"""Control dies while the recording is paused for sensitive digits: none is recorded, and the recording continues."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from gw.twin.ai.faults import Call
from gw.twin.ai.script import AiScript, lasting
from tests.calls.hearing import until
from tests.calls.test_restart import running
from tests.calls.test_resume import kill_control
from tests.timing import scaled

ASKS = AiScript(
    greeting=lasting(1),
    answers=(lasting(1),) * 5,
    calls={2: (Call("collect_digits", '{"sensitive":true,"min":4,"max":4,"timeout_s":60}'),)},
    speed=20.0,
)
AGENT = {"agents.default": 'tools = ["hang_up", "collect_digits"]\n'}


@pytest.mark.parametrize("moment", ["while Twilio is asked", "while the caller types"])
def test_control_dies_during_a_pause(tmp_path: Path, moment: str) -> None:
    with running(tmp_path, lambda n, path: ASKS, workers=1, settings=AGENT) as r:
        call = r.twilio.place_call(hang_up=False, max_s=scaled(90.0))
        until(lambda: r.twilio.rest.recordings_of(call.call_sid), "the call is recorded", 20)
        (recording,) = r.twilio.rest.recordings_of(call.call_sid)
        until(lambda: len(r.ai.sessions) == 1 and r.ai.sessions[0].responses, "the agent greets", 20)
        typed_at = []

        def kinds() -> list[str]:
            return [event["kind"] for event in r.row(call).get("events", [])]

        def types(keys: str) -> None:
            for key in keys:
                typed_at.append(time.time())
                call.press(key)

        if moment == "while Twilio is asked":
            r.twilio.rest.delay_s = 2.0
        call.press("1")
        call.press("#")  # the agent answers, and asks for digits
        until(lambda: recording.status == "paused", "the recording is paused", 20)
        if moment == "while the caller types":
            until(lambda: "recording_paused" in kinds(), "control has stored that", 20)
            types("27")
        kill_control(r)
        r.twilio.rest.delay_s = 0.0
        time.sleep(scaled(1.5))  # the worker learns of the pause from the next control
        types("2718"[len(typed_at) :])
        until(lambda: r.ai.sessions[0].tool_outputs, "the agent has the digits", 20)
        (output,) = r.ai.sessions[0].tool_outputs
        assert json.loads(output["output"]) == {"digits": "****", "ref": "d1"}
        assert [recording.records(at) for at in typed_at] == [False] * 4
        until(lambda: recording.status == "in-progress", "the recording continues", 20)
        call.hang_up()
        assert call.wait(scaled(15.0))
        until(lambda: r.row(call).get("reason") == "caller_hangup", "its end is stored")
        assert recording.changes[-1][1] == "in-progress"
        assert sum(start.recorded for start in r.twilio.rest.starts[call.call_sid]) == 1
        assert (call.error, call.warnings) == ("", [])
