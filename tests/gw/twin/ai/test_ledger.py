"""gw.twin.ai.ledger: lengths, audio, tag and kinds of a session's record."""

from __future__ import annotations

from gw.twin import sound
from gw.twin.ai.ledger import AiLedger, Received, SentResponse


def response(number: int, audio: bytes) -> SentResponse:
    return SentResponse(number, f"resp_{number}", f"item_{number}", True, audio, "", 0.0, audio=bytearray(audio))


def test_a_response_is_active_until_its_status_changes() -> None:
    one = response(1, b"\xff" * 800)
    assert one.is_active and one.sent_ms == 100
    one.status = "completed"
    assert not one.is_active


def test_a_ledger_joins_audio_and_finds_its_caller() -> None:
    ledger = AiLedger(0, "/", "m", {}, 0.0)
    assert (ledger.audio, ledger.tag, ledger.kinds(), ledger.is_over) == (b"", None, [], False)
    ledger.responses += [response(1, b"ab"), response(2, b"c")]
    ledger.uplink += sound.SILENT_FRAME + sound.tag(7)
    ledger.events.append(Received(0.0, "response.create", {}))
    ledger.closed_s = 1.0
    assert (ledger.audio, ledger.tag, ledger.kinds(), ledger.is_over) == (b"abc", 7, ["response.create"], True)
