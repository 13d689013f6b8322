"""gw.media.downlink: audio in, frames and marks out, and the account of what was heard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from time import monotonic

import pytest

from gw.config import Agent
from gw.media.downlink import Downlink
from gw.media.tx import Ready
from gw.protocol.audio import FRAME_BYTES
from tests.gw.media.support import STREAM, ContextMaker, Peer, call_of, transport_and_peer


class Rig:
    def __init__(self, contexts: ContextMaker) -> None:
        self.context, _ = contexts.context(media={"playout_s": 1.0, "lead_ms": 100})
        self.transport, sock = transport_and_peer()
        self.peer = Peer(sock)
        self.downlink: Downlink = call_of(self.context, Agent(greeting=""), self.transport).downlink


@pytest.fixture
def rig(contexts: ContextMaker) -> Iterator[Rig]:
    rig = Rig(contexts)
    yield rig
    rig.transport.shut()
    rig.peer.close()


def test_audio_over_the_bound_drops_the_oldest_frames_and_counts_them(rig: Rig) -> None:
    rig.downlink.play("r1", "i1", bytes(53 * FRAME_BYTES))
    assert rig.downlink.playout.overrun_frames == 3
    assert rig.context.cells.dropped["overrun"].value == 3


def test_audio_and_ends_of_responses_wake_ai_out(rig: Rig) -> None:
    alarm = rig.downlink.ai_out._wake
    for act in (
        lambda: rig.downlink.play("r1", "i1", b"x"),
        lambda: rig.downlink.end_response("r1"),
        rig.downlink.end_open_response,
    ):
        alarm._is_set = False
        act()
        assert alarm._is_set


def test_an_interruption_empties_playout_queue_and_twilios_buffer(rig: Rig) -> None:
    downlink = rig.downlink
    assert downlink.interrupt(monotonic(), None) is None, "nothing is left to hear"
    downlink.play("r1", "i1", bytes(10 * FRAME_BYTES))
    downlink.tx.put(Ready(0, b"a frame", True))
    cut = downlink.interrupt(monotonic(), "r1")
    assert cut is not None
    assert (cut.dropped_frames, downlink.bargein_dropped) == (10, 10)
    assert rig.context.cells.dropped["bargein"].value == 10
    assert downlink.playout.is_empty
    assert not downlink.tx.queue
    assert downlink.bargein.is_late("r1")
    assert json.loads(json.dumps(rig.peer.text())) == {"event": "clear", "streamSid": STREAM}


def test_what_is_queued_is_counted_from_playout_queue_and_pacer(rig: Rig) -> None:
    downlink, now_s = rig.downlink, monotonic()
    assert downlink.is_heard_out(now_s)
    assert downlink.queued_s(now_s) == 0.0
    downlink.play("r1", "i1", bytes(10 * FRAME_BYTES))
    downlink.tx.put(Ready(0, b"a frame", True))
    assert downlink.queued_s(now_s) == pytest.approx(11 * 0.02)
    assert downlink.is_playing(now_s)
    assert not downlink.is_heard_out(now_s)


def test_a_call_is_heard_out_once_the_last_mark_came_back(rig: Rig) -> None:
    downlink, now_s = rig.downlink, monotonic()
    downlink.play("r1", "i1", bytes(2 * FRAME_BYTES))
    downlink.end_response("r1")
    pieces = [downlink.playout.pop() for _ in range(3)]
    assert downlink.on_mark_echo("no such mark", now_s) is None
    assert not downlink.is_heard_out(now_s)
    assert downlink.on_mark_echo(pieces[2].name, now_s) == 2  # type: ignore[union-attr]
    assert not downlink.playout.marks_pending


def test_stop_reaches_both_greenlets(rig: Rig) -> None:
    rig.downlink.stop()
    assert rig.downlink.tx.stopped
    assert rig.downlink.ai_out.stopped
