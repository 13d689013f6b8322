"""gw.twin.ai.voice: responses, whole and interrupted."""

from __future__ import annotations

import base64
import json
import math

from gw.twin import speech
from gw.twin.ai import script
from gw.twin.ai.faults import Call
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from tests.gw.twin.ai.client import QUICK, audio_of, greeted, talking


def test_a_response_is_whole_and_its_ledger_exact() -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        events = client.until("response.done")
        kinds = [event["type"] for event in events]
        assert kinds[:2] == ["response.created", "rate_limits.updated"]
        assert kinds.count("response.output_audio.delta") == len(twin.sessions[0].responses[0].deltas) > 1
        for one in (
            "output_item.added",
            "content_part.added",
            "output_audio.done",
            "output_audio_transcript.done",
            "output_item.done",
        ):
            assert kinds.count(f"response.{one}") == 1
        assert audio_of(events) == QUICK.greeting == bytes(twin.sessions[0].responses[0].audio)
        done = events[-1]["response"]
        assert done["status"] == "completed"
        assert done["usage"]["output_tokens"] > 0
        assert len({event["event_id"] for event in events}) == len(events)
        client.send("response.create")
        assert audio_of(client.until("response.done")) == QUICK.answers[0]
        assert twin.sessions[0].audio == QUICK.greeting + QUICK.answers[0]


def test_a_response_without_tools_calls_none() -> None:
    with AiTwin(AiScript(greeting=b"\x22" * 480, hang_up_after=1, calls={1: (Call(),)})) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create", response={"tool_choice": "none"})
        kinds = [event["type"] for event in client.until("response.done")]
        assert "response.function_call_arguments.done" not in kinds
        assert [create.with_tools for create in twin.sessions[0].creates] == [False]


def test_the_caller_interrupts() -> None:
    with AiTwin(AiScript(greeting=script.lasting(60), speed=5.0)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        client.until("response.output_audio.delta")
        client.say(speech.load("weasels")[:8000])
        events = client.until("response.done")
        assert events[-1]["response"]["status"] == "cancelled"
        assert events[-1]["response"]["status_details"]["reason"] == "turn_detected"
        sent = twin.sessions[0].responses[0]
        assert 0 < len(sent.audio) < len(sent.intended)
        client.send("conversation.item.truncate", item_id=sent.item_id, content_index=0, audio_end_ms=sent.sent_ms)
        assert client.until("conversation.item.truncated")[-1]["audio_end_ms"] == sent.sent_ms
        client.send("conversation.item.truncate", item_id=sent.item_id, content_index=0, audio_end_ms=sent.sent_ms + 1)
        assert "shorter" in client.until("error")[-1]["error"]["message"]
        assert [cut.accepted for cut in twin.sessions[0].truncates] == [True, False]
        assert sent.truncated_ms == sent.sent_ms


def test_the_last_response_hangs_up() -> None:
    with AiTwin(AiScript(greeting=b"\x22" * 480, goodbye=b"\x33" * 480, hang_up_after=2)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        assert not any(event["type"] == "response.function_call_arguments.done" for event in client.until("response.done"))
        client.send("response.create")
        events = client.until("response.done")
        kinds = [event["type"] for event in events]
        call = next(
            e["item"] for e in events if e["type"] == "response.output_item.done" and e["item"]["type"] == "function_call"
        )
        assert (call["name"], call["status"]) == ("hang_up", "completed")
        assert json.loads(call["arguments"])
        assert audio_of(events) == b"\x33" * 480
        assert kinds.index("response.output_audio.done") < kinds.index("response.function_call_arguments.done")
        client.send("conversation.item.create", item={"type": "function_call_output", "call_id": call["call_id"], "output": "{}"})
        client.until("conversation.item.done")
        assert twin.sessions[0].tool_outputs[0]["call_id"] == call["call_id"]


def test_a_minute_without_pauses() -> None:
    minute = script.lasting(60)
    with AiTwin(AiScript(greeting=minute, whole=True, speed=math.inf)) as twin, talking(twin) as client:
        events = greeted(client)
        assert audio_of(events) == minute
        assert [len(base64.b64decode(e["delta"])) for e in events if e["type"] == "response.output_audio.delta"] == [len(minute)]


def test_a_script_calls_tools_in_pieces_with_and_without_words() -> None:
    calls = {1: (Call("lookup", '{"number": "7"}', pieces=4), Call("book", "")), 2: (Call("lookup"),)}
    with AiTwin(AiScript(greeting=b"\x22" * 480, answers=(b"",), calls=calls)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        events = client.until("response.done")
        pieces = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
        assert (len(pieces), "".join(pieces)) == (5, '{"number": "7"}')
        assert [item["type"] for item in events[-1]["response"]["output"]] == ["message", "function_call", "function_call"]
        client.send("response.create")
        output = client.until("response.done")[-1]["response"]["output"]
        assert [item["type"] for item in output] == ["function_call"]
        assert [call.name for call in twin.sessions[0].calls] == ["lookup", "book", "lookup"]
