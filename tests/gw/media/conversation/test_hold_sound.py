"""gw.media.conversation.hold_sound on a real downlink: pieces in sequence, little left after a stop."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from gw.media.conversation.hold_sound import PIECE_BYTES, HoldSound
from gw.protocol.audio import FRAME_BYTES
from tests.gw.media.listener import Listener
from tests.gw.media.support import ContextMaker, until

#: Six frames that differ: the last piece of a round is shorter.
SOUND = b"".join(bytes([n]) * FRAME_BYTES for n in range(1, 7))
AGENT = bytes([99]) * FRAME_BYTES
#: The most of the sound that waits to be sent.
LEFT_S = 0.1 + 1e-9


@pytest.fixture
def listener(contexts: ContextMaker) -> Iterator[Listener]:
    made = Listener(contexts)
    yield made
    made.close()


def test_the_sound_is_repeated_without_a_gap_and_little_of_it_waits(listener: Listener) -> None:
    sound, downlink = HoldSound(listener.downlink, SOUND), listener.downlink
    sound.start()
    sound.start()
    while len(listener.generations[0]) < 4 * len(SOUND):
        assert downlink.unsent_s() <= LEFT_S
        gevent.sleep(0.003)
    sound.stop()
    assert downlink.unsent_s() <= LEFT_S
    heard = listener.until_sent()[0]
    assert (SOUND * 20).startswith(heard)


def test_after_stop_the_agent_follows(listener: Listener) -> None:
    sound, downlink = HoldSound(listener.downlink, SOUND), listener.downlink
    sound.start()
    until(lambda: downlink.tx.frames_sent >= 6)
    sound.stop()
    sound.stop()
    sent = downlink.tx.frames_sent
    downlink.play("r1", "i1", AGENT * 3)
    downlink.end_response("r1")
    heard = listener.until_sent()[0]
    assert heard.endswith(AGENT * 3)
    assert len(heard) // FRAME_BYTES <= sent + 5 + 3
    assert AGENT not in heard[: -len(AGENT) * 3]
    until(lambda: [message["event"] for message in listener.messages].count("mark") == 2)
    gevent.sleep(0.2)
    assert downlink.playout.is_empty, "the player has ended"


def test_it_starts_again_from_the_beginning(listener: Listener) -> None:
    sound, downlink = HoldSound(listener.downlink, SOUND), listener.downlink
    for _ in range(2):
        before = len(listener.until_sent()[0])
        sound.start()
        until(lambda: downlink.playout.expected_frames * FRAME_BYTES > before)  # noqa: B023
        sound.stop()
        assert listener.until_sent()[0][before:].startswith(SOUND[:PIECE_BYTES])


def test_it_is_bounded_while_tx_is_held(listener: Listener) -> None:
    sound, downlink = HoldSound(listener.downlink, SOUND), listener.downlink
    downlink.hold()
    sound.start()
    gevent.sleep(0.4)
    assert 0.0 < downlink.unsent_s() <= LEFT_S
    sound.stop()


def test_it_waits_while_other_audio_is_left_to_send(listener: Listener) -> None:
    sound, downlink = HoldSound(listener.downlink, SOUND), listener.downlink
    downlink.play("r1", "i1", AGENT * 12)
    downlink.end_response("r1")
    downlink.hold()
    sound.start()
    gevent.sleep(0.3)
    assert downlink.playout.expected_frames == 12
    downlink.release()
    until(lambda: downlink.playout.expected_frames > 12)
    sound.stop()
    heard = listener.until_sent()[0]
    assert heard.startswith(AGENT * 12 + SOUND[:FRAME_BYTES])


def test_a_player_whose_sleep_is_over_queues_nothing_after_the_stop(listener: Listener) -> None:
    """A greenlet that is killed without a wait ends a turn of the hub later: its timer may be due before."""
    sound, downlink = HoldSound(listener.downlink, SOUND), listener.downlink
    sound.start()
    until(lambda: downlink.playout.expected_frames > 0)
    player = sound._player
    assert player is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(player, "kill", lambda *, block: None)
        sound.stop()
    until(lambda: player.dead)
    listener.until_sent()


def test_without_a_sound_nothing_is_played(listener: Listener) -> None:
    sound = HoldSound(listener.downlink, b"")
    sound.start()
    gevent.sleep(0.05)
    sound.stop()
    assert listener.downlink.playout.is_empty
