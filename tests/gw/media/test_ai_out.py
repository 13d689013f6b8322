"""gw.media.ai_out with a real TX: sequence, watermarks, bounded turns, a guard asked every turn."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from gw.call.audio.pacer import Pacer
from gw.call.audio.playout import Playout
from gw.call.guard import RecordingGuard
from gw.media.ai_out import BATCH_FRAMES, TURN_S, AiOut
from gw.media.hub.clock import Clock
from gw.media.tx import Tx, TxCells
from gw.protocol.audio import FRAME_BYTES
from metrics.page import Page
from tests.gw.media.support import STREAM, WAIT_S, ContextMaker, Peer, StallMeter, transport_and_peer, until


class Rig:
    """AI-out, TX, and a client that reads their messages."""

    def __init__(self, page: Page, *, lead_ms: int = 100, enabled: bool = True) -> None:
        self.transport, sock = transport_and_peer()
        self.peer = Peer(sock)
        self.pacer = Pacer(lead_ms)
        self.playout = Playout(3000)
        self.tx = Tx(self.transport, self.pacer, self.playout, Clock(), TxCells(page))
        self.guard = RecordingGuard(enabled=enabled)
        self.has_room = True
        self.asked = 0
        self.recorded = 0
        self.first_audio = 0
        self.ai_out = AiOut(
            STREAM,
            self.tx,
            self.playout,
            self.guard,
            lead_ms=lead_ms,
            pool_has_room=self._ask_room,
            on_record=self._on_record,
            on_first_audio=self._on_first_audio,
        )
        self.greenlets: list[gevent.Greenlet] = []

    def _ask_room(self) -> bool:
        self.asked += 1
        return self.has_room

    def _on_record(self) -> None:
        self.recorded += 1

    def _on_first_audio(self, sent_s: float) -> None:
        self.first_audio += 1

    def say(self, frames: int, response: str = "r1", *, tail: bytes = b"", end: bool = True) -> bytes:
        """Put a response into the playout, each frame of a different byte. Returns its audio."""
        audio = b"".join(bytes([n % 200]) * FRAME_BYTES for n in range(frames)) + tail
        self.playout.push(response, f"item-{response}", audio)
        if end:
            self.playout.end_response(response)
        return audio

    def run(self) -> None:
        self.greenlets += [gevent.spawn(self.tx.run), gevent.spawn(self.ai_out.run)]

    def messages(self, count: int) -> list[Any]:
        return [self.peer.text() for _ in range(count)]

    def close(self) -> None:
        self.tx.stop()
        self.ai_out.stop()
        gevent.joinall(self.greenlets, timeout=WAIT_S)
        assert all(greenlet.successful() for greenlet in self.greenlets)
        self.transport.shut()
        self.peer.close()


@pytest.fixture
def rig(contexts: ContextMaker) -> Iterator[Rig]:
    made = Rig(contexts.page())
    yield made
    made.close()


def audio_of(messages: list[Any]) -> bytes:
    return b"".join(base64.b64decode(message["media"]["payload"]) for message in messages if message["event"] == "media")


def test_a_response_leaves_whole_in_sequence_and_with_a_mark(rig: Rig):
    audio = rig.say(30, tail=b"\x01" * 60)
    rig.run()
    messages = rig.messages(32)
    assert audio_of(messages) == audio + b"\xff" * 100, "the tail is padded with silence"
    assert [message["event"] for message in messages] == ["media"] * 31 + ["mark"]
    assert {message["streamSid"] for message in messages} == {STREAM}
    assert messages[-1] == {"event": "mark", "streamSid": STREAM, "mark": {"name": rig.playout.marks_pending[0][0]}}
    assert rig.playout.marks_pending[0][1] == 31


def test_messages_have_only_the_fields_that_twilio_accepts(rig: Rig):
    rig.say(1)
    rig.run()
    media, mark = rig.messages(2)
    assert list(media) == ["event", "streamSid", "media"]
    assert list(media["media"]) == ["payload"]
    assert list(mark) == ["event", "streamSid", "mark"]


def test_each_of_two_responses_has_its_mark(rig: Rig):
    rig.say(2, "r1")
    rig.say(3, "r2")
    rig.run()
    events = [message["event"] for message in rig.messages(7)]
    assert events == ["media", "media", "mark", "media", "media", "media", "mark"]


def test_the_guard_is_asked_without_further_audio(rig: Rig):
    rig.say(3, end=False)
    rig.run()
    rig.messages(3)
    until(lambda: rig.recorded == 1, "a greeting of three frames is recorded")
    assert rig.first_audio == 1
    asked = rig.asked
    until(lambda: rig.asked >= asked + 2, "the guard is still asked")
    assert rig.recorded == 1
    assert rig.first_audio == 1


def test_nothing_is_recorded_before_the_first_frame(rig: Rig):
    rig.run()
    gevent.sleep(2.5 * TURN_S)
    assert rig.asked >= 2, "the guard is asked on every turn, and refuses"
    assert (rig.guard.recording_started, rig.recorded, rig.first_audio) == (False, 0, 0)


def test_a_full_pool_leaves_the_guard_armed(rig: Rig):
    rig.has_room = False
    rig.say(1)
    rig.run()
    rig.messages(2)
    until(lambda: rig.asked >= 3)
    assert rig.recorded == 0
    assert not rig.guard.recording_started
    rig.has_room = True
    until(lambda: rig.recorded == 1)
    assert rig.guard.recording_started


def test_a_guard_that_is_off_never_records_but_first_audio_is_reported(contexts: ContextMaker):
    rig = Rig(contexts.page(), enabled=False)
    rig.say(1)
    rig.run()
    rig.messages(2)
    until(lambda: rig.first_audio == 1)
    gevent.sleep(2 * TURN_S)
    assert rig.recorded == 0
    rig.close()


def test_a_turn_cuts_a_bounded_batch_up_to_the_high_watermark(rig: Rig):
    rig.say(500)
    assert rig.ai_out.turn() is False, "16 frames are above the low watermark of 15"
    assert len(rig.tx.queue) == BATCH_FRAMES
    assert rig.ai_out.turn() is False
    assert len(rig.tx.queue) == BATCH_FRAMES, "a queue above the low watermark is left alone"
    for _ in range(6):
        rig.tx.queue.popleft()
    rig.ai_out.turn()
    assert len(rig.tx.queue) == rig.ai_out.high_frames == 25


def test_a_large_lead_is_filled_over_several_turns(contexts: ContextMaker):
    rig = Rig(contexts.page(), lead_ms=500)
    rig.say(500)
    assert rig.ai_out.turn() is True, "more can be cut, after other greenlets ran"
    assert rig.ai_out.turn() is True
    assert rig.ai_out.turn() is False
    assert rig.ai_out.low_frames <= len(rig.tx.queue) <= rig.ai_out.high_frames
    rig.close()


def test_marks_count_towards_the_batch(rig: Rig):
    for n in range(40):
        rig.say(1, f"r{n}")
    rig.ai_out.turn()
    assert len(rig.tx.queue) == BATCH_FRAMES


def test_wake_starts_a_turn_when_the_queue_is_low(rig: Rig):
    rig.run()
    gevent.sleep(0.01)
    rig.say(2)
    rig.ai_out.wake()
    gevent.sleep(0)
    gevent.sleep(0)
    assert rig.tx.frames_sent + len(rig.tx.queue) > 0, "before TURN_S has passed"


def test_wake_of_a_full_queue_starts_no_turn(rig: Rig):
    rig.say(100)
    rig.ai_out.turn()
    rig.ai_out.wake()
    assert not rig.ai_out._wake._is_set


def test_audio_after_a_clear_has_the_new_generation(rig: Rig):
    rig.say(100, "old")
    rig.run()
    until(lambda: rig.tx.frames_sent >= 6)
    sent = rig.tx.frames_sent
    rig.playout.clear(rig.pacer.sent_frames)
    rig.pacer.on_clear()
    rig.tx.discard()
    audio = rig.say(3, "new")
    rig.ai_out.wake()
    messages = rig.messages(sent + 4)
    assert audio_of(messages[sent:]) == audio
    assert messages[-1]["mark"]["name"].startswith("g1")


def test_a_response_longer_than_the_queue_never_starves_tx(rig: Rig):
    audio = rig.say(60)
    stood = StallMeter()
    rig.run()
    messages = rig.messages(61)
    assert audio_of(messages) == audio
    assert json.dumps(messages[-1]).count("mark") >= 1
    assert stood.end() > 0.05 or rig.pacer.moves == 0
