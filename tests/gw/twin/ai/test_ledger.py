"""gw.twin.ai.ledger: lengths, audio, tag and kinds of a session's record."""

from __future__ import annotations

from gw.twin import sound
from gw.twin.ai.ledger import AiLedger, Received, SentCall, SentResponse


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


def test_a_truncated_response_was_heard_to_there() -> None:
    one = response(1, bytes(range(160)))
    assert one.believed == one.audio
    one.truncated_ms = 2
    assert one.believed == bytes(range(16))
    one.truncated_ms = 0
    assert one.believed == b""


def test_an_answer_is_owed_until_its_audio_or_the_callers_next_words() -> None:
    ledger = AiLedger(0, "/", "m", {}, 0.0)
    for at_s in (1.0, 2.0, 5.0):
        ledger.owe("speech", at_s)
    one = response(1, b"")
    one.created_s = 2.0
    ledger.answer(one, 3.0)
    ledger.withdraw(6.0)
    ledger.answer(one, 7.0)
    assert [(debt.response_id, debt.audio_s, debt.withdrawn_s, debt.is_open) for debt in ledger.debts] == [
        ("resp_1", 3.0, None, False),
        ("resp_1", 3.0, None, False),
        (None, None, 6.0, False),
    ]
    ledger.owe("create", 8.0)
    assert ledger.debts[-1].is_open


def test_calls_that_were_cut_short_need_no_output() -> None:
    due = [SentCall(0.0, "r", "c", "look_up", status).is_due for status in ("completed", None, "", "incomplete", "in_progress")]
    assert due == [True, True, True, False, False]
