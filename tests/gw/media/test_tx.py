"""gw.media.tx on a real socket: sequence, generations, first-audio flag, marks, holds, stalls."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import pytest

from gw.call.audio.pacer import Pacer
from gw.call.audio.playout import Playout
from gw.media.hub.clock import Clock
from gw.media.transport.plain import Transport
from gw.media.tx import Ready, Tx, TxCells
from metrics.page import Page
from tests.gw.media.support import WAIT_S, ContextMaker, StallMeter, pair, transport_and_peer, until

FRAME = b"F" * 400


class NotingClock(Clock):
    """Clock that notes how many frames had left at each wait of TX."""

    __slots__ = ("tx", "waits")

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[int] = []
        self.tx: Tx

    def wait_until(self, deadline_s: float) -> None:
        if deadline_s > time.monotonic():
            self.waits.append(self.tx.frames_sent)
        super().wait_until(deadline_s)


class Rig:
    """TX over a socket pair."""

    def __init__(self, page: Page, *, lead_ms: int = 100, limit_bytes: int = 1 << 20) -> None:
        self.transport, self.peer = transport_and_peer(limit_bytes)
        self.pacer = Pacer(lead_ms)
        self.playout = Playout(1000)
        self.cells = TxCells(page)
        self.clock = NotingClock()
        self.tx = self.clock.tx = Tx(self.transport, self.pacer, self.playout, self.clock, self.cells)
        self.greenlet: gevent.Greenlet = gevent.Greenlet(self.tx.run)

    def put(self, data: bytes, *, audio: bool = True) -> None:
        """Cut a frame and queue a message, as AI-out does."""
        if audio:
            self.playout.push("r", "i", b"\xff" * 160)
            assert self.playout.pop() is not None
        self.tx.put(Ready(self.playout.generation, data, audio))

    def received(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.peer.recv(65536)
        return data

    def close(self) -> None:
        self.tx.stop()
        self.greenlet.kill()
        self.transport.shut()
        self.peer.close()


@pytest.fixture
def rig(contexts: ContextMaker) -> Iterator[Rig]:
    made = Rig(contexts.page())
    yield made
    made.close()


def test_messages_leave_in_sequence_with_marks_behind_their_frames(rig: Rig):
    sent = []
    for n in range(12):
        rig.put(b"frame %2d;" % n)
        sent.append(b"frame %2d;" % n)
    rig.put(b"mark;", audio=False)
    rig.greenlet.start()
    expected = b"".join(sent) + b"mark;"
    assert rig.received(len(expected)) == expected
    until(lambda: rig.pacer._mark_sent)
    assert rig.tx.frames_sent == 12
    assert rig.cells.frames.value == 12
    assert sum(rig.cells.send.buckets) == sum(rig.cells.lateness.buckets) == 12
    assert sum(rig.tx.send.counts) == sum(rig.tx.lateness.counts) == 12
    assert rig.pacer.sent_frames == 12


def test_only_the_lead_leaves_without_a_wait(rig: Rig):
    for _ in range(30):
        rig.put(FRAME)
    rig.greenlet.start()
    until(lambda: rig.clock.waits)
    assert 6 <= rig.clock.waits[0] <= 8, "five frames of lead and one due now; a slow machine may add some"


def test_without_a_lead_each_frame_waits_for_its_deadline(contexts: ContextMaker):
    rig = Rig(contexts.page(), lead_ms=0)
    begun_s = time.monotonic()
    for _ in range(5):
        rig.put(FRAME)
    rig.greenlet.start()
    rig.received(5 * len(FRAME))
    assert time.monotonic() - begun_s >= 0.079, "frame 4 is due 80 ms after frame 0"
    rig.close()


def test_a_frame_of_an_old_generation_is_dropped_after_the_wait(rig: Rig):
    old = 200  # more than can leave while the machine does not run this test
    for n in range(old):
        rig.put(b"old %3d;" % n)
    rig.greenlet.start()
    until(lambda: rig.tx.frames_sent >= 6)
    gevent.sleep(0)  # TX waits with a frame in hand
    sent = rig.tx.frames_sent
    in_hand = old - sent - len(rig.tx.queue)
    assert in_hand == 1
    # as barge-in does, in one turn
    dropped = rig.playout.clear(rig.pacer.sent_frames)
    rig.pacer.on_clear()
    rig.tx.discard()
    rig.transport.write(b"clear;")
    assert dropped == old - sent, "the frame that waits is counted"
    rig.put(b"new 00;")
    expected = b"".join(b"old %3d;" % n for n in range(sent)) + b"clear;new 00;"
    assert rig.received(len(expected)) == expected
    assert rig.tx.frames_sent == sent + 1
    assert rig.pacer.sent_frames == 1


def test_a_mark_of_an_old_generation_is_dropped(rig: Rig):
    rig.tx.put(Ready(rig.playout.generation - 1, b"old mark;", False))
    rig.put(b"new;")
    rig.greenlet.start()
    assert rig.received(4) == b"new;"


def test_first_audio_is_set_only_when_the_kernel_took_the_frame(contexts: ContextMaker):
    rig = Rig(contexts.page(), lead_ms=500)
    while rig.transport.write(b"x" * 1000):
        pass
    rig.put(FRAME)
    rig.greenlet.start()
    until(lambda: rig.tx.frames_sent == 1)
    assert rig.tx.first_audio_sent is False
    assert rig.tx.first_audio_s == 0.0
    while rig.transport.waiting_bytes:
        rig.peer.recv(65536)
        gevent.sleep(0)
    before_s = time.monotonic()
    rig.put(FRAME)
    until(lambda: rig.tx.frames_sent == 2)
    assert rig.tx.first_audio_sent is True
    assert rig.tx.first_audio_s >= before_s
    rig.close()


def test_the_holding_sound_does_not_set_first_audio(rig: Rig):
    rig.tx.put(Ready(rig.playout.generation, FRAME, True, is_voice=False))
    rig.greenlet.start()
    until(lambda: rig.tx.frames_sent == 1)
    assert not rig.tx.first_audio_sent
    rig.put(FRAME)
    until(lambda: rig.tx.frames_sent == 2)
    assert rig.tx.first_audio_sent


def test_a_mark_does_not_set_first_audio(rig: Rig):
    rig.put(b"mark;", audio=False)
    rig.greenlet.start()
    rig.received(5)
    gevent.sleep(0)
    assert rig.tx.first_audio_sent is False
    assert rig.tx.frames_sent == 0


def test_an_idle_tx_is_woken_by_put_and_by_stop(rig: Rig):
    rig.greenlet.start()
    gevent.sleep(0.01)
    rig.put(FRAME)
    assert rig.received(len(FRAME)) == FRAME
    rig.tx.stop()
    rig.greenlet.join(timeout=WAIT_S)
    assert rig.greenlet.successful()


def test_a_held_tx_sends_nothing_and_continues_with_the_next_frame(rig: Rig):
    for n in range(60):
        rig.put(b"frame %2d;" % n)
    rig.greenlet.start()
    until(lambda: rig.tx.frames_sent >= 6)
    rig.tx.hold()
    rig.tx.hold()
    sent = rig.tx.frames_sent
    gevent.sleep(0.2)  # twice the lead
    assert rig.tx.frames_sent == sent < 60
    rig.tx.release()
    expected = b"".join(b"frame %2d;" % n for n in range(60))
    assert rig.received(len(expected)) == expected, "no frame is lost or repeated"
    until(lambda: rig.tx.frames_sent == 60)
    assert rig.cells.held.value == pytest.approx(rig.pacer.held_s)
    assert rig.pacer.held_s > 0.05


def test_a_mark_passes_a_hold_unless_a_frame_is_before_it(rig: Rig):
    """Its echo reports that all was heard, also to a caller who speaks."""
    rig.greenlet.start()
    rig.tx.hold()
    rig.put(b"mark;", audio=False)
    rig.put(b"frame;")
    rig.put(b"mark;", audio=False)
    assert rig.received(5) == b"mark;"
    until(lambda: len(rig.tx.queue) == 1)  # the frame is in TX's hand
    rig.tx.release()
    assert rig.received(11) == b"frame;mark;"
    assert rig.cells.held.value == 0.0, "a talkspurt that has not begun has no gap"


def test_a_hold_that_ends_before_tx_looks_has_no_effect(rig: Rig):
    rig.put(FRAME)
    rig.tx.hold()
    rig.tx.release()
    rig.greenlet.start()
    assert rig.received(len(FRAME)) == FRAME


def test_a_second_hold_before_tx_looks_continues_the_first(rig: Rig):
    rig.put(FRAME)
    rig.tx.hold()
    rig.greenlet.start()
    until(lambda: not rig.tx.queue)
    rig.tx.release()
    rig.tx.hold()
    gevent.sleep(0.02)
    assert rig.tx.frames_sent == 0
    rig.tx.release()
    assert rig.received(len(FRAME)) == FRAME


def test_a_clear_during_a_hold_drops_the_frame_in_hand(rig: Rig):
    rig.put(b"old;")
    rig.tx.hold()
    rig.greenlet.start()
    until(lambda: not rig.tx.queue)
    assert rig.playout.clear(rig.pacer.sent_frames) == 1
    rig.pacer.on_clear()
    rig.tx.release()
    rig.put(b"new;")
    assert rig.received(4) == b"new;"
    assert (rig.tx.frames_sent, rig.pacer.sent_frames, rig.pacer.held_s) == (1, 1, 0.0)


@pytest.mark.parametrize("again", [False, True], ids=["held", "held again after stop"])
def test_stop_ends_a_hold(rig: Rig, again: bool):
    rig.put(FRAME)
    rig.tx.hold()
    rig.greenlet.start()
    until(lambda: not rig.tx.queue)
    rig.tx.stop()
    if again:
        rig.tx.hold()
    rig.greenlet.join(timeout=WAIT_S)
    assert rig.greenlet.successful()
    assert rig.tx.frames_sent == 0


def test_nothing_leaves_after_stop(rig: Rig):
    for _ in range(20):
        rig.put(FRAME)
    rig.greenlet.start()
    until(lambda: rig.tx.frames_sent >= 6)
    gevent.sleep(0)
    sent = rig.tx.frames_sent
    rig.tx.stop()
    rig.greenlet.join(timeout=WAIT_S)
    assert rig.greenlet.successful()
    assert rig.tx.frames_sent == sent, "the frame that waited is not sent"


def test_a_broken_transport_ends_tx(contexts: ContextMaker):
    ours, theirs = pair()
    rig = Rig(contexts.page())
    rig.tx = Tx(Transport(ours, 1000), rig.pacer, rig.playout, Clock(), rig.cells)
    theirs.close()
    rig.put(FRAME)
    greenlet = gevent.spawn(rig.tx.run)
    greenlet.join(timeout=WAIT_S)
    assert greenlet.successful()
    assert rig.tx.frames_sent == 0
    ours.close()
    rig.close()


def test_a_phone_that_does_not_read_ends_tx_stalled(contexts: ContextMaker):
    rig = Rig(contexts.page(), lead_ms=500, limit_bytes=2000)
    while rig.transport.write(b"x" * 100):
        pass
    for _ in range(20):
        rig.put(FRAME)
    rig.greenlet.start()
    rig.greenlet.join(timeout=WAIT_S)
    assert rig.greenlet.successful()
    assert rig.transport.failure == "stalled"
    rig.close()


def test_after_a_stall_the_lead_is_caught_up_and_the_rest_is_a_gap(rig: Rig):
    for _ in range(100):
        rig.put(FRAME)
    stood = StallMeter()
    rig.greenlet.start()
    until(lambda: rig.tx.frames_sent >= 10)
    stood_s = stood.end()
    before, waits = rig.tx.frames_sent, len(rig.clock.waits)
    _hold_the_hub(0.4)  # four leads
    until(lambda: len(rig.clock.waits) > waits)
    assert 6 <= rig.clock.waits[waits] - before <= 8, "the frame that waited and one lead without a wait, not all overdue frames"
    assert rig.pacer.moves == 1 or stood_s > 0.05
    assert 0.25 < rig.pacer.underrun_s < 2.0
    assert rig.cells.underrun.value == pytest.approx(rig.pacer.underrun_s)
    until(lambda: rig.tx.frames_sent == 100)
    assert rig.received(100 * len(FRAME)) == FRAME * 100, "nothing is dropped to catch up"


@pytest.mark.parametrize("is_dry", [True, False], ids=["ai", "gateway"])
def test_a_gap_has_the_cause_that_the_playout_shows_when_tx_starves(contexts: ContextMaker, is_dry: bool):
    rig = Rig(contexts.page(), lead_ms=20)
    rig.put(FRAME)
    if is_dry:
        assert rig.playout.pop() is None
    rig.greenlet.start()
    until(lambda: rig.tx.frames_sent == 1)
    gevent.sleep(0.1)
    rig.put(FRAME)
    until(lambda: rig.tx.frames_sent == 2)
    found = {"ai": rig.cells.ai_underrun.value, "gateway": rig.cells.underrun.value}
    cause = "ai" if is_dry else "gateway"
    assert found[cause] >= 0.06
    assert sum(found.values()) == pytest.approx(rig.pacer.underrun_s)
    assert not is_dry or found["gateway"] < found["ai"]
    assert is_dry or found["ai"] == 0.0
    rig.close()


def test_a_stall_shorter_than_the_lead_causes_no_gap(contexts: ContextMaker):
    rig = Rig(contexts.page(), lead_ms=500)
    for _ in range(60):
        rig.put(FRAME)
    rig.greenlet.start()
    until(lambda: rig.tx.frames_sent >= 28)
    _hold_the_hub(0.1)
    until(lambda: rig.tx.frames_sent == 60)
    assert rig.pacer.moves == 0
    assert rig.cells.underrun.value == 0
    assert rig.tx.lateness.max_s > 0.05, "late against its deadline, but in time for the caller"
    rig.close()


def _hold_the_hub(seconds: float) -> None:
    """Keep every greenlet from running, as a computing greenlet does."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass
