"""gw.media.downlink: audio in, frames and marks out, and the account of what was heard."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from time import monotonic

import gevent
import pytest

from gw.call.audio.playout import HOLDING
from gw.config import Agent
from gw.media.downlink import Downlink
from gw.media.tx import Ready
from gw.protocol.audio import FRAME_BYTES
from tests.gw.media.listener import Listener
from tests.gw.media.support import STREAM, ContextMaker, Peer, call_of, transport_and_peer, until


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
    assert downlink.interrupt(monotonic()) is None, "nothing is left to hear"
    downlink.play("r1", "i1", bytes(10 * FRAME_BYTES))
    downlink.tx.put(Ready(0, b"a frame", True))
    cut = downlink.interrupt(monotonic())
    assert cut is not None
    assert (cut.dropped_frames, downlink.bargein_dropped) == (10, 10)
    assert rig.context.cells.dropped["bargein"].value == 10
    assert downlink.playout.is_empty
    assert not downlink.tx.queue
    assert downlink.interruptions == 1
    assert json.loads(json.dumps(rig.peer.text())) == {"event": "clear", "streamSid": STREAM}


def test_what_is_queued_is_counted_from_playout_queue_and_pacer(rig: Rig) -> None:
    downlink, now_s = rig.downlink, monotonic()
    assert downlink.is_heard_out(now_s)
    assert downlink.queued_s(now_s) == 0.0
    downlink.play("r1", "i1", bytes(11 * FRAME_BYTES))
    assert downlink.playout.pop() is not None, "a frame in TX's hand"
    assert downlink.unsent_s() == downlink.queued_s(now_s) == pytest.approx(11 * 0.02)
    downlink.pacer.deadline(now_s)
    downlink.pacer.on_sent(now_s)
    assert downlink.unsent_s() == pytest.approx(10 * 0.02)
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


def test_a_pause_of_the_ai_within_its_answer_is_not_the_gateway_s_gap(rig: Rig) -> None:
    downlink = rig.downlink
    greenlets = [gevent.spawn(downlink.tx.run), gevent.spawn(downlink.ai_out.run)]
    downlink.play("r1", "i1", bytes(2 * FRAME_BYTES + 80))
    gevent.sleep(0.5)
    downlink.play("r1", "i1", bytes(2 * FRAME_BYTES))
    until(lambda: downlink.pacer.sent_frames == 4)
    downlink.stop()
    gevent.joinall(greenlets)
    cells = rig.context.tx_cells
    assert cells.ai_underrun.value >= 0.1
    assert cells.ai_underrun.value + cells.underrun.value == pytest.approx(downlink.pacer.underrun_s)
    assert cells.underrun.value < cells.ai_underrun.value


def verdicts(rig: Rig) -> dict[str, float]:
    """Return the interruptions counted, by verdict."""
    return {verdict: cell.value for verdict, cell in rig.context.cells.interruptions.items() if cell.value}


def test_a_hold_ends_by_release_and_by_an_interruption(rig: Rig) -> None:
    downlink = rig.downlink
    downlink.release()
    downlink.play("r1", "i1", bytes(10 * FRAME_BYTES))
    downlink.hold()
    assert downlink.tx.held
    assert downlink.is_playing(monotonic())
    downlink.release()
    downlink.release()
    assert not downlink.tx.held
    assert verdicts(rig) == {}
    downlink.hold()
    assert downlink.interrupt(monotonic(), "cut_words") is not None
    assert not downlink.tx.held
    assert verdicts(rig) == {"cut_words": 1}
    downlink.hold()
    assert downlink.interrupt(monotonic()) is None
    assert not downlink.tx.held, "a hold of nothing ends too"
    downlink.play("r2", "i2", bytes(10 * FRAME_BYTES))
    assert downlink.interrupt(monotonic()) is not None
    assert verdicts(rig) == {"cut_words": 1, "model": 1}


def test_the_holding_sound_is_cut_but_not_truncated_at_the_ai(rig: Rig) -> None:
    rig.downlink.play("r1", "i1", bytes(3 * FRAME_BYTES))
    rig.downlink.play(HOLDING, HOLDING, bytes(5 * FRAME_BYTES))
    cut = rig.downlink.interrupt(monotonic())
    assert cut is not None
    assert cut.dropped_frames == 8
    assert [item_id for item_id, _ in cut.truncations] == ["i1"]


@pytest.mark.parametrize("seed", range(3))
def test_no_frame_is_lost_or_repeated(contexts: ContextMaker, seed: int) -> None:
    """Any sequence of audio, holds, releases and interruptions, with TX and AI-out running."""
    listener = Listener(contexts)
    downlink, draw = listener.downlink, random.Random(seed)
    said, sent, cuts = [b""], 0, [0]

    def push() -> None:
        start = len(said[-1]) // FRAME_BYTES
        audio = b"".join(bytes([n % 251]) * FRAME_BYTES for n in range(start, start + draw.randint(1, 8)))
        downlink.play(f"r{len(said)}", f"i{len(said)}", audio)
        said[-1] += audio

    def hold() -> None:
        nonlocal sent
        downlink.hold()
        sent = downlink.tx.frames_sent
        gevent.sleep(draw.uniform(0.0, 0.15))
        assert downlink.tx.frames_sent == sent, "a frame left during a hold"
        now_s = monotonic()
        if downlink.unsent_s():
            assert downlink.is_playing(now_s)
            assert not downlink.is_heard_out(now_s)
            assert downlink.queued_s(now_s) >= downlink.unsent_s()

    def cut() -> None:
        unsent_s = downlink.unsent_s()
        found = downlink.interrupt(monotonic())
        if found is not None:
            assert found.dropped_frames == round(unsent_s / 0.02)
            cuts.append(found.dropped_frames)
            said.append(b"")

    def nap() -> None:
        gevent.sleep(draw.uniform(0.0, 0.03))

    acts: list[Callable[[], None]] = [push, push, push, hold, downlink.release, nap, nap, nap, cut]
    for act in draw.choices(acts, [1, 1, 1, 1, 1, 1, 1, 1, 0.4], k=100):
        act()
    downlink.release()
    downlink.end_response(f"r{len(said)}")
    generations = listener.until_sent()
    assert len(generations) == len(said)
    for heard, whole in zip(generations[:-1], said[:-1], strict=True):
        assert whole.startswith(heard)
    assert generations[-1] == said[-1]
    assert [(len(whole) - len(heard)) // FRAME_BYTES for heard, whole in zip(generations, said, strict=True)][:-1] == cuts[1:]
    assert downlink.pacer.heard_frames(monotonic() + 60.0) == len(said[-1]) // FRAME_BYTES
    assert downlink.playout.expected_frames == downlink.tx.frames_sent
    listener.close()


def test_stop_reaches_both_greenlets(rig: Rig) -> None:
    rig.downlink.stop()
    assert rig.downlink.tx.stopped
    assert rig.downlink.ai_out.stopped
