"""gw.media.uplink: the caller's audio in sequence, every dropped frame counted."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import gevent
import pytest
from websockets.protocol import Side

from gw.config import Agent
from gw.media.ai.openai_leg import CONGESTED_BYTES, OpenAiLeg
from gw.media.transport.plain import Transport
from gw.media.transport.websocket import WebSocket
from gw.media.uplink import BATCH_FRAMES, FILL_FRAMES, MISSING_S, Uplink, UplinkCells
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from metrics.declare import RX_DROPPED
from metrics.page import Page
from tests.gw.media.support import WAIT_S, ContextMaker, Peer, pair, until

KEPT_FRAMES = 250


def payload(n: int) -> str:
    return base64.b64encode(n.to_bytes(2, "big") * 80).decode()


class Rig:
    """Uplink to a real AI leg, whose other end the test may read."""

    def __init__(self, page: Page, *, small: bool = False) -> None:
        ours, theirs = pair(small=small)
        self.leg = OpenAiLeg(Agent(), "sk-test", None)  # type: ignore[arg-type]  # no TLS on a socket pair
        self.leg.transport = Transport(ours, 1 << 20)
        self.leg._socket = WebSocket(self.leg.transport, 1 << 20, is_client=True)
        self.peer = Peer(theirs, Side.SERVER)
        self.cells = UplinkCells(page)
        self.uplink = Uplink(self.leg, KEPT_FRAMES * 0.02, self.cells)

    def received(self, count: int) -> list[int]:
        numbers = []
        for _ in range(count):
            message = self.peer.text()
            assert message["type"] == "input_audio_buffer.append"
            numbers.append(int.from_bytes(base64.b64decode(message["audio"])[:2], "big"))
        return numbers

    def dropped(self, reason: str) -> float:
        return self.cells.by_reason[reason].value


@pytest.fixture
def rig(contexts: ContextMaker) -> Iterator[Rig]:
    made = Rig(contexts.page())
    yield made
    made.leg.transport.shut()  # type: ignore[union-attr]
    made.peer.close()


def test_a_ready_leg_gets_each_frame_unchanged(rig: Rig):
    rig.uplink.on_ready()
    text = payload(7)
    rig.uplink.push(text)
    assert rig.peer.text() == {"type": "input_audio_buffer.append", "audio": text}


def test_frames_kept_while_connecting_are_sent_first_in_sequence(rig: Rig):
    for n in range(200):
        rig.uplink.push(payload(n))
    reader = gevent.spawn(rig.received, 260)
    rig.uplink.on_ready()
    for n in range(200, 260):
        rig.uplink.push(payload(n))
        gevent.sleep(0)
    assert reader.get(timeout=WAIT_S) == list(range(260))
    assert rig.uplink.dropped == {}


def test_kept_audio_is_sent_in_bounded_batches(rig: Rig):
    for n in range(200):
        rig.uplink.push(payload(n))
    rig.uplink.on_ready()
    assert len(rig.uplink._kept) == 200 - BATCH_FRAMES
    rig.uplink.push(payload(200))
    assert len(rig.uplink._kept) in range(201 - 2 * BATCH_FRAMES, 201 - BATCH_FRAMES)


def test_beyond_the_bound_the_oldest_is_dropped_and_counted(rig: Rig):
    for n in range(KEPT_FRAMES + 30):
        rig.uplink.push(payload(n))
    assert rig.uplink.dropped == {"ai_connecting": 30}
    assert rig.dropped("ai_connecting") == 30
    reader = gevent.spawn(rig.received, KEPT_FRAMES)
    rig.uplink.on_ready()
    n = KEPT_FRAMES + 30
    while not reader.ready():
        rig.uplink.push(payload(n))
        n += 1
        gevent.sleep(0.001)
    assert reader.get() == list(range(30, KEPT_FRAMES + 30))


def test_under_congestion_audio_is_kept_and_the_oldest_dropped(contexts: ContextMaker):
    rig = Rig(contexts.page(), small=True)
    rig.uplink.on_ready()
    n = 0
    while not rig.leg.is_congested:
        rig.uplink.push(payload(n))
        n += 1
    sent = n
    for n in range(sent, sent + KEPT_FRAMES + 10):
        rig.uplink.push(payload(n))
    assert rig.leg.transport is not None
    assert rig.leg.transport.waiting_bytes < CONGESTED_BYTES + 1000, "the transport is not filled further"
    assert rig.uplink.dropped == {"ai_leg_busy": 10}
    assert rig.dropped("ai_leg_busy") == 10
    reader = gevent.spawn(rig.received, sent + KEPT_FRAMES)
    last = n + 1
    while not reader.ready():
        rig.uplink.push(payload(last))
        last += 1
        gevent.sleep(0.001)
    numbers = reader.get()
    assert numbers[:sent] == list(range(sent))
    assert numbers == sorted(set(numbers)), "in sequence, with gaps"
    rig.leg.transport.shut()
    rig.peer.close()


def test_frames_left_at_the_end_are_counted(rig: Rig):
    for n in range(5):
        rig.uplink.push(payload(n))
    rig.uplink.on_end()
    rig.uplink.on_end()
    assert rig.uplink.dropped == {"call_ended": 5}
    assert rig.dropped("call_ended") == 5


def test_every_reason_is_a_label(rig: Rig):
    for reason in RX_DROPPED.labels["reason"]:
        rig.uplink.count(reason)
        rig.uplink.count(reason, 0)
        assert rig.dropped(reason) == 1
    assert json.dumps(rig.uplink.dropped)


def test_a_whole_call_of_audio_reaches_a_realtime_api_unchanged(contexts: ContextMaker):
    sound = bytes(n % 255 for n in range(160 * 100))
    with AiTwin(AiScript()) as twin:
        leg = OpenAiLeg(Agent(base_url=twin.url), "sk-test", None)  # type: ignore[arg-type]  # ws:// needs no TLS
        uplink = Uplink(leg, 5.0, UplinkCells(contexts.page()))
        for start in range(0, len(sound) // 2, 160):
            uplink.push(base64.b64encode(sound[start : start + 160]).decode())
        leg.connect()
        uplink.on_ready()
        for start in range(len(sound) // 2, len(sound), 160):
            uplink.push(base64.b64encode(sound[start : start + 160]).decode())
        until(lambda: twin.sessions and len(twin.sessions[0].uplink) == len(sound))
        assert bytes(twin.sessions[0].uplink) == sound
        leg.close()


# -- audio beyond real time -------------------------------------------------------------------------------------------


def test_a_frame_is_pushed_unchanged_until_real_time_is_exceeded(rig: Rig):
    passed = [rig.uplink.try_push(payload(n), 10.0) for n in range(103)]
    assert passed == [True] * 100 + [False] * 3
    assert rig.uplink.kept_ms == 2000
    assert rig.uplink.try_push(payload(103), 10.02)
    assert not rig.uplink.try_push(payload(104), 10.02)


def test_a_message_that_is_not_one_frame_is_left_to_push_any(rig: Rig):
    for size in (0, 80, 159, 161, 162, 320):
        assert not rig.uplink.try_push(base64.b64encode(b"\x01" * size).decode(), 10.0)
    assert rig.uplink.kept_ms == 0


def test_a_long_message_is_cut_into_frames(rig: Rig):
    sound = bytes(range(256)) * 40
    rig.uplink.on_ready()
    rig.uplink.push_any(base64.b64encode(sound[: BATCH_FRAMES * 160 - 100]).decode(), 10.0)
    pieces = [base64.b64decode(rig.peer.text()["audio"]) for _ in range(BATCH_FRAMES)]
    assert b"".join(pieces) == sound[: BATCH_FRAMES * 160 - 100]
    assert {len(piece) for piece in pieces} == {160, 60}
    assert rig.uplink.dropped == {}


def test_the_surplus_of_a_long_message_is_dropped_and_counted_in_frames(rig: Rig):
    rig.uplink.push_any(base64.b64encode(b"\x01" * 160 * 250).decode(), 10.0)
    assert rig.uplink.kept_ms == 2000
    assert rig.uplink.dropped == {"surplus": 150}
    assert rig.dropped("surplus") == 150


def test_one_message_is_one_slice_also_after_a_stall(rig: Rig):
    assert rig.uplink.try_push(payload(0), 10.0)
    rig.uplink.push_any(base64.b64encode(b"\x01" * 160 * 250).decode(), 100.0)
    assert rig.uplink.kept_ms == 2020
    assert rig.uplink.dropped == {"surplus": 150}


def test_tiny_messages_are_limited_in_number(rig: Rig):
    for _ in range(300):
        rig.uplink.push_any("//8=", 10.0)
    assert rig.uplink.dropped == {"surplus": 100}


def test_an_empty_message_is_counted_and_not_sent(rig: Rig):
    rig.uplink.push_any("", 10.0)
    assert rig.uplink.kept_ms == 0
    assert rig.dropped("empty") == 1
    assert rig.uplink.dropped == {}, "no audio was lost"


# -- missing frames ---------------------------------------------------------------------------------------------------


SILENT = int.from_bytes(b"\xff\xff", "big")


def test_frames_are_missing_after_a_time_if_audio_has_come_and_the_ai_is_ready(rig: Rig):
    assert not rig.uplink.is_missing(1000.0), "no audio has come"
    assert rig.uplink.try_push(payload(1), 100.0)
    assert not rig.uplink.is_missing(101.0), "the AI leg is not ready"
    rig.uplink.on_ready()
    assert not rig.uplink.is_missing(99.999 + MISSING_S)
    assert rig.uplink.is_missing(100.001 + MISSING_S)
    rig.uplink.push_any(payload(2), 101.0)
    assert not rig.uplink.is_missing(101.1)


def test_silence_takes_the_place_of_missing_frames_in_real_time(rig: Rig):
    rig.uplink.on_ready()
    rig.uplink.try_push(payload(1), 100.0)
    rig.uplink.fill(True)
    sent = 0
    for step in range(20):  # a check each 50 ms, from 150 ms on
        now_s = 100.15 + step * 0.05 + 0.001
        frames = rig.uplink.check_fill(now_s)
        assert frames <= FILL_FRAMES
        sent += frames
        assert 0 <= (now_s - 100.0) - sent * 0.02 <= 0.2, "never early, and late by 200 ms at most"
    assert rig.received(1 + sent) == [1] + [SILENT] * sent
    rig.uplink.try_push(payload(2), 102.0)
    assert rig.uplink.check_fill(102.019) == 0, "a frame of the caller takes the place of silence"
    assert rig.received(1) == [2]
    rig.uplink.fill(False)
    assert rig.uplink.check_fill(103.0) == 0


def test_silence_continues_behind_a_single_frame(rig: Rig):
    """A check that comes late sees no end of the pause."""
    rig.uplink.on_ready()
    rig.uplink.try_push(payload(1), 100.0)
    rig.uplink.fill(True)
    assert rig.uplink.check_fill(100.161) == FILL_FRAMES
    rig.uplink.try_push(payload(2), 100.2)
    assert rig.uplink.check_fill(100.361) == FILL_FRAMES
    assert rig.uplink.check_fill(100.411) == FILL_FRAMES
    assert rig.received(17) == [1, *[SILENT] * FILL_FRAMES, 2, *[SILENT] * 2 * FILL_FRAMES]


def test_silence_is_not_charged_to_the_caller(rig: Rig):
    rig.uplink.on_ready()
    rig.uplink.try_push(payload(0), 100.0)
    rig.uplink.fill(True)
    for step in range(200):
        rig.uplink.check_fill(100.2 + step * 0.05)
    burst = sum(rig.uplink.try_push(payload(n), 110.2) for n in range(510))
    assert burst == 510, "what a stall of the network delayed still reaches the AI"


def test_no_silence_goes_to_an_ai_that_takes_no_audio(rig: Rig):
    rig.uplink.on_ready()
    rig.uplink.try_push(payload(1), 100.0)
    rig.uplink.fill(True)
    rig.uplink.on_lost(rig.leg)
    assert rig.uplink.check_fill(101.0) == 0
    rig.uplink.on_ready()
    assert rig.uplink.check_fill(101.045) == 2, "nothing is made up for"
    rig.uplink.fill(False)
    assert rig.uplink.check_fill(102.0) == 0
    assert rig.uplink.dropped == {}


@pytest.mark.parametrize("fills", [True, False])
def test_kept_audio_leaves_in_batches_though_no_frame_comes_and_silence_follows(rig: Rig, fills: bool):
    for n in range(60):
        assert rig.uplink.try_push(payload(n), 100.0)
    assert not rig.uplink.has_kept, "the AI leg is not ready"
    assert rig.uplink.check_fill(100.0) == 0
    rig.uplink.on_ready()
    assert rig.uplink.has_kept
    rig.uplink.fill(fills)
    assert [rig.uplink.check_fill(100.2 + step * 0.05) for step in range(2)] == [25, 10]
    assert not rig.uplink.has_kept
    assert rig.uplink.check_fill(100.295) == (2 if fills else 0), "nothing is made up for"
    assert rig.received(60) == list(range(60))
    assert rig.uplink.dropped == {}
    if fills:
        assert rig.received(2) == [SILENT] * 2


def test_audio_kept_for_congestion_leaves_once_that_is_over(contexts: ContextMaker):
    rig = Rig(contexts.page(), small=True)
    rig.uplink.on_ready()
    sent = 0
    while not rig.leg.is_congested:
        rig.uplink.push(payload(sent))
        sent += 1
    for n in range(sent, sent + 60):
        rig.uplink.push(payload(n))
    assert rig.uplink.check_fill(100.0) == 0, "the AI still takes nothing"
    reader = gevent.spawn(rig.received, sent + 60)
    until(lambda: not rig.leg.is_congested)
    batches = []
    while rig.uplink.has_kept:
        batches.append(rig.uplink.check_fill(100.0))
        gevent.sleep(0.001)
    assert reader.get(timeout=WAIT_S) == list(range(sent + 60))
    assert sum(batches) == 60
    assert max(batches) <= BATCH_FRAMES
    rig.leg.transport.shut()  # type: ignore[union-attr]
    rig.peer.close()
