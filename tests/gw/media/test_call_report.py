"""gw.media.call_report: what is left of a call's last words and frames when it ends."""

from __future__ import annotations

import logging

import pytest

from gw import bus
from gw.call.state import Reason
from gw.config import Agent
from gw.media.call_report import report
from gw.protocol.audio import FRAME_BYTES
from tests.gw.media.support import ContextMaker, call_of, door_and_peer


@pytest.mark.parametrize(
    ("reason", "result", "level"),
    [(Reason.CALLER_HANGUP, "success", "INFO"), (Reason.AI_LOST, "peer_error", "WARNING")],
)
def test_a_report_counts_what_was_not_heard(
    contexts: ContextMaker, caplog: pytest.LogCaptureFixture, reason: Reason, result: str, level: str
) -> None:
    context, emitted = contexts.context()
    transport, peer = door_and_peer()
    call = call_of(context, Agent(greeting=""), transport)
    call.playout.push("r1", "i1", bytes(3 * FRAME_BYTES))
    call.uplink.push("//8=")
    call.end(reason, "words " * 200)
    with caplog.at_level(logging.INFO):
        report(call)
    ended = emitted[-1]
    assert isinstance(ended, bus.CallEnded)
    assert (ended.reason, ended.result, len(ended.detail)) == (reason, result, 500)
    quality = ended.quality
    assert (quality.frames_sent, quality.dropped_frames) == (0, {"call_ended": 3})
    assert (quality.uplink_dropped_frames, quality.first_audio_ms) == ({"call_ended": 1}, -1)
    assert [record.levelname for record in caplog.records if record.message.startswith("call ended")] == [level]
    transport.shut()
    peer.close()


def test_first_audio_is_told_from_the_calls_start(contexts: ContextMaker) -> None:
    context, emitted = contexts.context()
    transport, peer = door_and_peer()
    call = call_of(context, Agent(greeting=""), transport)
    call.tx.first_audio_sent, call.tx.first_audio_s = True, call.started_s + 0.25
    report(call)
    ended = emitted[-1]
    assert isinstance(ended, bus.CallEnded)
    assert (ended.reason, ended.quality.first_audio_ms, ended.quality.dropped_frames) == (Reason.INTERNAL_ERROR, 250, {})
    transport.shut()
    peer.close()
