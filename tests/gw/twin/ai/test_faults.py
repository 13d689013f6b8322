"""gw.twin.ai.faults: each fault strikes where the script places it, and shows on the wire."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any, Final

import pytest

from gw.twin import sound, speech
from gw.twin.ai.faults import AT_END, BEFORE, CREATED, EVERY, FILL_BYTES, RESPONSES, TURNS
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.websocket import ClosedError
from tests.gw.twin.ai.client import QUICK, Client, audio_of, talking

SAMPLES: Final = json.loads((Path(__file__).parents[3] / "wire/openai_realtime.json").read_text(encoding="utf-8"))["server"]
#: Speech long enough for the twin's voice detection, and the silence that ends a turn.
TURN: Final = b"".join(speech.script("weasels", 600))
#: Faults without a readable response.done.
NO_DONE: Final = frozenset(name for name, fault in RESPONSES.items() if fault.is_last or fault.raw) | {"bad_utf8"}


def done(events: list[dict[str, Any]]) -> dict[str, Any]:
    response: dict[str, Any] = events[-1]["response"]
    return response


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def asked(client: Client, event_id: str = "mine") -> list[dict[str, Any]]:
    client.send("response.create", event_id=event_id)
    return client.until("response.done")


def texts(client: Client) -> list[bytes]:
    """Request a response. Returns its messages unparsed."""
    client.send("response.create")
    found = [b""]
    while b'"type":"response.done","response":{"object"' not in found[-1]:
        found.append(client.websocket.receive().data)
    return found[1:]


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "details"),
    [
        ("failed", "failed", ("server_error", None)),
        ("failed_quota", "failed", ("insufficient_quota", "insufficient_quota")),
        ("failed_limit", "failed", ("requests", "rate_limit_exceeded")),
        ("incomplete", "incomplete", "max_output_tokens"),
        ("filtered", "incomplete", "content_filter"),
        ("cancelled", "cancelled", None),
        ("empty", "completed", None),
        ("status_gone", "gone", None),
        ("status_null", None, None),
    ],
)
@pytest.mark.parametrize("place", [CREATED, 0, 2, AT_END])
def test_a_response_ends_in_its_place(fault: str, status: str | None, details: object, place: int) -> None:
    with AiTwin(QUICK.with_fault(fault, deltas=place)) as twin, talking(twin) as client:
        events = asked(client.ready())
        response, sent = done(events), twin.sessions[0].responses[0]
        assert response["status"] == status == sent.status
        found = response["status_details"] or {}
        error = found.get("error")
        assert ((error["type"], error["code"]) if error else found.get("reason")) == details
        assert "{wait}" not in str(error)
        assert len(sent.deltas) == (len(QUICK.chunks(QUICK.greeting, 0, 1)) if place == AT_END else max(0, place))
        assert ("response.output_item.added" in kinds(events)) == bool(response["output"]) == (place != CREATED)
        assert audio_of(events) == bytes(sent.audio)


def test_a_response_of_text_alone() -> None:
    with AiTwin(QUICK.with_fault("text_only")) as twin, talking(twin) as client:
        events = asked(client.ready())
        assert {"response.output_text.delta", "response.output_text.done"} <= {*kinds(events)}
        assert not any("audio" in kind for kind in kinds(events))
        assert done(events)["status"] == "completed"


@pytest.mark.parametrize(("first", "times", "struck"), [(1, 1, [1]), (2, 1, [2]), (1, 2, [1, 2]), (2, EVERY, [2, 3, 4])])
def test_the_script_chooses_the_responses(first: int, times: int, struck: list[int]) -> None:
    with AiTwin(QUICK.with_fault("failed", first, CREATED, times)) as twin, talking(twin) as client:
        client.ready()
        statuses = [done(asked(client))["status"] for _ in range(4)]
        assert [number for number, status in enumerate(statuses, 1) if status == "failed"] == struck
        assert [one.number for one in twin.sessions[0].responses if one.faults] == struck


def test_the_greeting_that_failed_is_spoken_by_the_next_response() -> None:
    with AiTwin(QUICK.with_fault("empty")) as twin, talking(twin) as client:
        client.ready()
        assert audio_of(asked(client)) == b""
        assert audio_of(asked(client)) == QUICK.greeting
        assert audio_of(asked(client)) == QUICK.answers[0]


def test_the_goodbye_that_failed_is_spoken_by_the_next_response() -> None:
    script = AiScript(greeting=QUICK.greeting, goodbye=b"\x33" * 480, hang_up_after=2).with_fault("failed", 2, CREATED)
    with AiTwin(script) as twin, talking(twin) as client:
        client.ready()
        assert [len(called(asked(client))) for _ in range(3)] == [0, 0, 1]
        assert bytes(twin.sessions[0].responses[2].audio) == script.goodbye


# -- the create -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("create_refused", "server_error", None),
        ("create_refused_quota", "insufficient_quota", "insufficient_quota"),
        ("create_limited", "requests", "rate_limit_exceeded"),
    ],
)
def test_a_refusal_names_its_request(fault: str, kind: str, code: str | None) -> None:
    with AiTwin(QUICK.with_fault(fault)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create", event_id="mine")
        error = client.until("error")[-1]["error"]
        assert (error["type"], error["code"], error["event_id"]) == (kind, code, "mine")
        assert twin.sessions[0].responses == []
        assert [(one.response_id, one.refusal) for one in twin.sessions[0].creates] == [(None, code or kind)]


def test_refused_and_ignored_requests_count_as_responses() -> None:
    script = QUICK.with_fault("create_refused", times=2).with_fault("create_unanswered", response=3)
    with AiTwin(script) as twin, talking(twin) as client:
        client.ready()
        for event_id in ("a", "b", "c", "d"):
            client.send("response.create", event_id=event_id)
        events = client.until("response.done")
        assert [event["error"]["event_id"] for event in events if event["type"] == "error"] == ["a", "b"]
        assert audio_of(events) == QUICK.greeting
        assert [bool(one.response_id) for one in twin.sessions[0].creates] == [False, False, False, True]


def test_requests_before_the_end_of_a_rate_limit_are_refused_and_counted() -> None:
    with AiTwin(QUICK.with_fault("failed_limit", deltas=CREATED)) as twin, talking(twin) as client:
        failed = done(asked(client.ready()))["status_details"]["error"]
        assert failed["message"] == "Rate limit reached. Please try again in 4s."
        client.send("response.create", event_id="early")
        error = client.until("error")[-1]["error"]
        assert (error["code"], error["event_id"]) == ("rate_limit_exceeded", "early")
        assert twin.sessions[0].early_creates == 1


def test_a_rate_limit_ends() -> None:
    with AiTwin(AiScript(greeting=QUICK.greeting, limit_s=0.02).with_fault("create_limited")) as twin, talking(twin) as client:
        client.ready()
        kind = "error"
        while kind != "response.created":
            client.send("response.create")
            kind = client.next()["type"]
        assert audio_of(client.until("response.done")) == QUICK.greeting


# -- silence and the connection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [CREATED, 2])
def test_a_response_that_hangs_leaves_its_session_alive(place: int) -> None:
    with AiTwin(QUICK.with_fault("hang", deltas=place)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        events = client.until("response.output_audio.delta" if place > 0 else "response.created")
        assert twin.wait_for(lambda twin: len(twin.sessions[0].responses[0].deltas) == max(0, place))
        client.send("response.create", event_id="second")
        refused = client.until("error")
        assert refused[-1]["error"]["event_id"] == "second"
        client.send("response.cancel")
        events += refused + client.until("response.done")
        assert done(events)["status"] == "cancelled"
        assert len([one for one in kinds(events) if one == "response.output_audio.delta"]) == max(0, place)


def test_arguments_of_a_tool_call_come_long_before_audio() -> None:
    script = AiScript(greeting=QUICK.greeting, thinks_s=0.25).with_fault("thinks_aloud")
    with AiTwin(script) as twin, talking(twin) as client:
        found = kinds(events := asked(client.ready()))
        assert found.index("response.output_audio.delta") > found.index("response.function_call_arguments.delta")
        assert found.count("response.function_call_arguments.delta") == 2
        assert audio_of(events) == QUICK.greeting
        assert [call.is_due for call in twin.sessions[0].calls] == [False]


@pytest.mark.parametrize(("fault", "code"), [("close_4000", 4000), ("close", 1011), ("reset", 1006)])
@pytest.mark.parametrize("place", [BEFORE, CREATED, 3])
def test_the_connection_ends_in_its_place(fault: str, code: int, place: int) -> None:
    with AiTwin(QUICK.with_fault(fault, deltas=place)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        with pytest.raises(ClosedError) as end:
            client.until("response.done")
        assert end.value.code == code
        assert twin.wait_for(lambda twin: twin.sessions[0].is_over)
        assert [len(one.deltas) for one in twin.sessions[0].responses] == ([] if place == BEFORE else [max(0, place)])
        assert len(twin.sessions[0].creates) == 1


# -- audio in the wrong place -----------------------------------------------------------------------------------------


def test_deltas_after_the_end_of_a_response() -> None:
    with AiTwin(QUICK.with_fault("late_deltas")) as twin, talking(twin) as client:
        asked(client.ready())
        sent = twin.sessions[0].responses[0]
        late = client.next()
        assert (late["type"], late["item_id"]) == ("response.output_audio.delta", sent.item_id)
        assert sent.late.startswith(base64.b64decode(late["delta"]))


def test_deltas_of_a_truncated_item() -> None:
    with AiTwin(QUICK.with_fault("deltas_of_truncated")) as twin, talking(twin) as client:
        asked(client.ready())
        sent = twin.sessions[0].responses[0]
        assert not sent.late
        client.send("conversation.item.truncate", item_id=sent.item_id, content_index=0, audio_end_ms=40)
        client.until("conversation.item.truncated")
        assert client.next()["item_id"] == sent.item_id
        assert sent.late and sent.believed == QUICK.greeting[:320]


def test_a_response_without_ids() -> None:
    with AiTwin(QUICK.with_fault("no_ids")) as twin, talking(twin) as client:
        events = asked(client.ready())
        assert audio_of(events) == QUICK.greeting
        assert not any({"response_id", "item_id"} & event.keys() for event in events)
        assert "id" not in done(events)
        assert asked(client)[-1]["response"]["id"]


def test_a_response_without_its_own_id() -> None:
    with AiTwin(QUICK.with_fault("no_response_id")) as twin, talking(twin) as client:
        events = asked(client.ready())
        assert not any("response_id" in event for event in events)
        assert all(event["item_id"] for event in events if event["type"] == "response.output_audio.delta")


def test_words_before_the_first_audio() -> None:
    with AiTwin(QUICK.with_fault("words_first")) as twin, talking(twin) as client:
        found = kinds(asked(client.ready()))
        assert found.index("response.output_audio_transcript.delta") < found.index("response.output_audio.delta")
        assert found.index("response.output_item.added") < found.index("response.output_audio_transcript.delta")


# -- tool calls -------------------------------------------------------------------------------------------------------


def called(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    return [item for item in items if item["type"] == "function_call"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("call", {"name": "look_up", "status": "completed"}),
        ("hang_up", {"name": "hang_up", "arguments": "{}"}),
        ("call_unknown_tool", {"name": "make_coffee"}),
        ("call_null_status", {"status": None}),
        ("call_incomplete", {"status": "incomplete"}),
        ("call_bad_arguments", {"arguments": '{"number":'}),
    ],
)
@pytest.mark.parametrize("place", [CREATED, AT_END])
def test_a_tool_call_with_or_without_words(fault: str, expected: dict[str, Any], place: int) -> None:
    with AiTwin(QUICK.with_fault(fault, deltas=place)) as twin, talking(twin) as client:
        events = asked(client.ready())
        (item,) = called(events)
        assert expected.items() <= item.items()
        assert audio_of(events) == (QUICK.greeting if place == AT_END else b"")
        assert done(events)["output"][-1] == item
        (sent,) = twin.sessions[0].calls
        assert (sent.call_id, sent.name, sent.is_due) == (item["call_id"], item["name"], item["status"] != "incomplete")


def test_a_tool_call_without_a_status_or_with_a_long_id() -> None:
    with AiTwin(QUICK.with_fault("call_no_status").with_fault("call_long_id", response=2)) as twin, talking(twin) as client:
        (item,) = called(asked(client.ready()))
        assert "status" not in item and twin.sessions[0].calls[0].is_due
        assert len(called(asked(client))[0]["call_id"]) == 200


def test_the_same_call_twice_and_again() -> None:
    with AiTwin(QUICK.with_fault("call_twice").with_fault("call_again", response=2)) as twin, talking(twin) as client:
        items = called(asked(client.ready())) + called(asked(client))
        assert len({item["call_id"] for item in items}) == 1
        assert len({item["id"] for item in items}) == len(twin.sessions[0].calls) == 3


# -- unreadable events ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "mark"),
    [
        ("one_bad_event", b'"delta":5'),
        ("one_bad_base64", b"!not base64!"),
        ("no_call_id", b'"status":"completed"}'),
        ("long_id", b"x" * 200),
        ("long_event", b"A" * FILL_BYTES),
        ("half_a_surrogate", rb'"delta":"\ud83d"'),
        ("error_is_text", b'"error":"The'),
        ("error_is_null", b'"error":null'),
        ("error_without_code", b'"code":null'),
        ("session_without_formats", b'"type":"session.updated"'),
        ("unknown_event", b"telepathy"),
    ],
)
def test_an_unreadable_event_comes_beside_a_whole_response(fault: str, mark: bytes) -> None:
    with AiTwin(QUICK.with_fault(fault)) as twin, talking(twin) as client:
        found = texts(client.ready())
        places = [place for place, text in enumerate(found) if mark in text]
        assert places[0] < len(found) - 1
        assert b"$" not in b"".join(found)
        assert bytes(twin.sessions[0].responses[0].audio) == QUICK.greeting


# -- turns of the caller ----------------------------------------------------------------------------------------------


def test_a_response_of_the_ai_begins_right_after_speech_started() -> None:
    script = AiScript(answers=(speech.load("weasels"), b"\x11" * 1600), speed=5.0).with_fault("talks_over")
    with AiTwin(script) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        client.until("response.output_audio.delta")
        client.say(TURN)
        found = kinds(client.until("input_audio_buffer.speech_stopped"))
        first, second = twin.sessions[0].responses[:2]
        assert (first.status, first.reason, second.asked) == ("cancelled", "turn_detected", False)
        place = found.index("input_audio_buffer.speech_started")
        assert "response.created" in found[place:]


def test_a_transcription_fails_or_never_comes() -> None:
    script = QUICK.with_fault("transcription_failed").with_fault("transcription_never", response=2)
    with AiTwin(script) as twin, talking(twin) as client:
        client.ready()
        client.say(TURN)
        failed = client.until("conversation.item.input_audio_transcription.failed")[-1]
        assert failed["error"]["type"]
        for _ in range(2):
            client.say(TURN)
        events = client.until("conversation.item.input_audio_transcription.completed")
        stopped = [event["item_id"] for event in events if event["type"] == "input_audio_buffer.speech_stopped"]
        assert [event["item_id"] for event in events if "transcription" in event["type"]] == [stopped[-1]]
        assert len(stopped) == 2


@pytest.mark.parametrize(
    ("fault", "field", "value"),
    [
        ("start_float", "audio_start_ms", b"12.0"),
        ("start_negative", "audio_start_ms", b"-1"),
        ("start_without_item", "item_id", b"null"),
    ],
)
def test_the_begin_of_speech_is_unreadable(fault: str, field: str, value: bytes) -> None:
    with AiTwin(QUICK.with_fault(fault)) as twin, talking(twin) as client:
        client.ready()
        client.say(TURN)
        assert b'"%s":%s' % (field.encode(), value) in client.websocket.receive().data


# -- the session ------------------------------------------------------------------------------------------------------


def test_the_named_end_of_a_session_may_be_wrong() -> None:
    with AiTwin(AiScript(lifetime_s=-3600.0)) as twin, talking(twin) as client:
        assert client.next()["session"]["expires_at"] < time.time()
    with AiTwin(AiScript(ends_after_s=0.01)) as twin, talking(twin) as client:
        client.next()
        assert client.next()["error"]["code"] == "session_expired"


def test_a_caller_is_heard_again_right_after_the_session_opened() -> None:
    with AiTwin(AiScript(answers=(b"\x22" * 800,), hears_after_s=0.08)) as twin, talking(twin) as client:
        client.ready()
        assert client.next()["audio_start_ms"] == 80
        client.say(sound.silence(600))
        assert audio_of(client.until("response.done")) == b"\x22" * 800


# -- the tables -------------------------------------------------------------------------------------------------------


def test_every_event_of_a_good_session_has_the_fields_of_the_api() -> None:
    """Source: the required fields of the openai package's types."""
    script = QUICK.with_fault("call", response=2).with_fault("text_only", response=3).with_fault("transcription_failed", 2)
    seen: dict[str, dict[str, Any]] = {}
    with AiTwin(script) as twin, talking(twin) as client:
        client.ready()
        events = asked(client) + asked(client) + asked(client)
        for _ in range(2):
            client.say(TURN)
            events += client.until("response.done")
        client.send("conversation.item.delete", item_id=twin.sessions[0].responses[0].item_id)
        events += client.until("conversation.item.deleted")
    for event in events:
        assert SAMPLES[event["type"]].keys() <= event.keys(), event
        seen[event["type"]] = event
    assert len(seen) > 20


@pytest.mark.parametrize("fault", sorted(RESPONSES.keys() - NO_DONE))
def test_every_fault_leaves_the_next_response_whole(fault: str) -> None:
    script = AiScript(greeting=QUICK.greeting, answers=QUICK.answers, speed=1e6, limit_s=0.0, thinks_s=0.0).with_fault(fault)
    with AiTwin(script) as twin, talking(twin) as client:
        client.ready()
        texts(client)
        texts(client)
        last = twin.sessions[0].responses[-1]
        assert last.status == "completed" and bytes(last.audio) == last.intended != b""


def test_a_name_belongs_to_one_table() -> None:
    assert not RESPONSES.keys() & TURNS.keys()
