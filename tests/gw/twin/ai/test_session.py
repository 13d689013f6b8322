"""gw.twin.ai.session: the answer to each client event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gw.twin import sound, speech
from gw.twin.ai import script
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from tests.gw.twin.ai.client import QUICK, SESSION, audio_of, greeted, talking


def test_a_session_is_named_and_confirmed_as_asked() -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        created = client.next()
        assert created["type"] == "session.created"
        assert created["session"]["model"] == "m"
        assert created["session"]["expires_at"] > 1_700_000_000
        client.send("session.update", session=SESSION)
        updated = client.until("session.updated")[-1]
        assert updated["session"]["audio"] == SESSION["audio"]
        assert twin.sessions[0].updates == [SESSION]
        assert "authorization" not in twin.sessions[0].headers


def test_a_turn_of_the_caller_is_answered() -> None:
    spoken = sound.tag(77) + b"".join(speech.script("weasels", 600))
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.ready()
        client.say(spoken)
        events = client.until("response.done")
        kinds = [event["type"] for event in events]
        order = ["speech_started", "speech_stopped", "committed"]
        places = [kinds.index(f"input_audio_buffer.{name}") for name in order] + [kinds.index("response.created")]
        assert places == sorted(places)
        started = events[places[0]]
        assert 0 <= started["audio_start_ms"] < 200
        assert events[places[1]]["item_id"] == started["item_id"] == events[places[2]]["item_id"]
        assert audio_of(events) == QUICK.answers[1]
        transcripts = [event for event in events if event["type"].endswith("transcription.completed")]
        transcripts = transcripts or client.until("conversation.item.input_audio_transcription.completed")
        assert transcripts[-1]["item_id"] == started["item_id"]
        assert bytes(twin.sessions[0].uplink) == spoken
        assert twin.session_of(77) is twin.sessions[0]
        assert twin.session_of(78) is None
        assert not twin.sessions[0].responses[0].asked


def test_cancel_and_create_in_the_wrong_moment_are_errors() -> None:
    with AiTwin(AiScript(greeting=script.lasting(60), speed=5.0)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.cancel", event_id="mine")
        error = client.until("error")[-1]["error"]
        assert (error["code"], error["event_id"]) == ("response_cancel_not_active", "mine")
        client.send("response.create")
        client.until("response.created")
        client.send("response.create")
        assert client.until("error")[-1]["error"]["code"] == "conversation_already_has_active_response"
        client.send("response.cancel")
        done = client.until("response.done")[-1]["response"]
        assert done["status_details"]["reason"] == "client_cancelled"
        assert [error.code for error in twin.sessions[0].errors] == [
            "response_cancel_not_active",
            "conversation_already_has_active_response",
        ]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"type": "response.sing"}, "invalid_value"),
        ({"type": 5}, "invalid_value"),
        ({"type": "session.update", "session": {}}, "missing_required_parameter"),
        ({"type": "session.update", "session": {"type": "realtime", "voice": "marin"}}, "unknown_parameter"),
        (
            {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"format": "g711_ulaw"}}}},
            "invalid_value",
        ),
        ({"type": "session.update", "session": {"type": "realtime", "audio": 5}}, "invalid_type"),
        ({"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text", "audio"]}}, "invalid_value"),
        ({"type": "input_audio_buffer.append", "audio": "no base64!"}, "invalid_value"),
        ({"type": "input_audio_buffer.append"}, "invalid_value"),
        ({"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1}, "invalid_value"),
        ({"type": "conversation.item.create", "item": 5}, "invalid_value"),
        ({"type": "conversation.item.delete", "item_id": "x"}, "item_delete_invalid_item_id"),
        ({"type": "conversation.item.delete"}, "item_delete_invalid_item_id"),
    ],
)
def test_an_invalid_event_is_answered_by_an_error(sent: dict[str, Any], code: str) -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.next()
        client.websocket.send_text(json.dumps(sent).encode())
        error = client.next()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
        assert twin.sessions[0].errors[-1].code == code


def test_not_json_is_answered_by_an_error() -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.next()
        client.websocket.send_text(b"{")
        assert client.next()["type"] == "error"


def test_audio_before_the_session_is_confirmed_is_noted() -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.next()
        client.say(sound.SILENT_FRAME)
        client.send("session.update", session=SESSION)
        client.until("session.updated")
        assert twin.sessions[0].violations == ["audio before session.updated"]


def test_items_of_the_client_have_roles_and_ids_and_can_be_deleted() -> None:
    call = {"type": "function_call", "id": "our-call", "call_id": "c-1", "name": "look_up", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c-1", "output": "found"}
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.ready()
        for role, kind in (("system", "input_text"), ("user", "input_text"), ("assistant", "output_text")):
            item = {"type": "message", "id": f"our-{role}", "role": role, "content": [{"type": kind, "text": f"by {role}"}]}
            client.send("conversation.item.create", item=item)
            assert client.until("conversation.item.done")[-1]["item"]["id"] == f"our-{role}"
        for item in (call, output):
            client.send("conversation.item.create", item=item)
            client.until("conversation.item.done")
        told = [(item.item_id, item.kind, item.role, item.text, item.call_id) for item in twin.sessions[0].items]
        assert told[:4] == [
            ("our-system", "message", "system", "by system", ""),
            ("our-user", "message", "user", "by user", ""),
            ("our-assistant", "message", "assistant", "by assistant", ""),
            ("our-call", "function_call", "", "", "c-1"),
        ]
        assert told[4][1:] == ("function_call_output", "", "found", "c-1")
        client.send("conversation.item.create", item=call, event_id="again")
        assert client.next()["error"]["event_id"] == "again"
        client.send("conversation.item.delete", item_id="our-user")
        assert client.next() | {"event_id": ""} == {"event_id": "", "type": "conversation.item.deleted", "item_id": "our-user"}
        client.send("conversation.item.delete", item_id="our-user")
        assert client.next()["type"] == "error"
        assert [one.accepted for one in twin.sessions[0].deletions] == [True, False]
        assert "our-user" not in twin.sessions[0].item_ids


def test_a_deleted_item_cannot_be_truncated() -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        greeted(client)
        item_id = twin.sessions[0].responses[0].item_id
        client.send("conversation.item.delete", item_id=item_id)
        client.until("conversation.item.deleted")
        client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=20)
        assert "not found" in client.next()["error"]["message"]


@pytest.mark.parametrize("detection", ["server_vad", "semantic_vad"])
def test_speech_that_neither_cancels_nor_creates(detection: str) -> None:
    session = json.loads(json.dumps(SESSION))
    turns = {"type": detection, "interrupt_response": False, "create_response": False}
    session["audio"]["input"]["turn_detection"] = turns
    with AiTwin(AiScript(greeting=script.lasting(60), speed=5.0)) as twin, talking(twin) as client:
        client.next()
        client.send("session.update", session=session)
        client.until("session.updated")
        client.send("response.create")
        client.until("response.output_audio.delta")
        client.say(b"".join(speech.script("weasels", 600)))
        client.until("conversation.item.input_audio_transcription.completed")
        (greeting,) = twin.sessions[0].responses
        assert greeting.is_active
        client.send("response.cancel")
        client.until("response.done")
        assert [one.response_id for one in twin.sessions[0].cancels] == [greeting.response_id]
        client.send("response.create")
        client.until("response.created")
        assert [one.asked for one in twin.sessions[0].responses] == [True, True]


def test_debts_and_requests_are_in_the_ledger() -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create", response={"instructions": "Be someone else."})
        client.until("response.done")
        client.say(b"".join(speech.script("weasels", 600)))
        client.until("response.done")
        client.send("response.cancel")
        client.until("error")
        ledger = twin.sessions[0]
        greeting, answer = ledger.responses
        assert [(debt.cause, debt.response_id) for debt in ledger.debts] == [
            ("create", greeting.response_id),
            ("speech", answer.response_id),
        ]
        assert [debt.audio_s for debt in ledger.debts] == [greeting.deltas[0].at_s, answer.deltas[0].at_s]
        assert [(one.instructions, one.response_id) for one in ledger.creates] == [("Be someone else.", greeting.response_id)]
        assert [one.response_id for one in ledger.cancels] == [None]
        assert ledger.violations == ["instructions of a response, which replace the persona"]


def test_an_answer_is_owed_no_longer_once_the_caller_speaks_again() -> None:
    with AiTwin(AiScript(greeting=QUICK.greeting, thinking_s=30.0)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        client.until("response.created")
        client.say(speech.load("weasels")[:8000])
        client.until("response.done")
        (debt,) = twin.sessions[0].debts
        assert debt.withdrawn_s is not None and debt.audio_s is None
