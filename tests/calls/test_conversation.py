"""One conversation up to the AI's goodbye, as seen by caller, AI and store."""

from __future__ import annotations

from gw.twin import speech
from gw.twin.ai.script import conversation
from tests.calls.conftest import WorldMaker
from tests.timing import scaled


def test_a_conversation_is_heard_recorded_and_stored(world: WorldMaker) -> None:
    with world(conversation(hang_up_after=2)) as w:
        call = w.twilio.place_call(speech.script(2000, "weasels", 10_000), hang_up=False, max_s=scaled(30.0))
        assert call.wait(scaled(40.0))
        assert (call.error, call.warnings, call.closed_by, call.close_reason) == ("", [], "gateway", "ai_hangup")

        session = w.ai.session_of(call.number)
        assert session is not None
        sent = [response.audio for response in session.responses]
        padded = b"".join(bytes(audio) + b"\xff" * (-len(audio) % 160) for audio in sent)
        assert call.received_audio == padded
        assert call.heard_audio == padded
        assert session.truncates == []

        w.twilio.rest.wait_callbacks()
        w.gateway.until(lambda: w.gateway.store.recording(call.call_sid).state == "completed", "the recording is final")
        row = w.gateway.ended(call.call_sid)
        assert (row["reason"], row["result"], row["agent"]) == ("ai_hangup", "success", "default")
        assert row["quality"]["frames_sent"] == row["quality"]["frames_expected"] == len(padded) // 160
        assert [turn["role"] for turn in row["turns"]] == ["agent", "caller", "agent"]
        assert len(w.twilio.rest.starts[call.call_sid]) == 1
