"""gw.call.audio.bargein over a real playout and pacer, checked against an ear and each item's bytes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from gw.call.audio import bargein
from gw.call.audio.bargein import Interruption, is_playing
from gw.call.audio.pacer import Pacer
from gw.call.audio.playout import Outcome, Playout, ResponseMark
from tests.examples import examples
from tests.gw.call.audio.test_pacer import Line


class Talk:
    """An agent's way to the caller: playout, the queue before TX, TX on its pacer, the ear.

    Every byte of an item has the item's number as its value.
    """

    def __init__(self) -> None:
        self.playout = Playout(10_000)
        self.line = Line(100)
        self.pacer = self.line.pacer
        self.late: set[str] = set()  # responses that were cut: their further audio is dropped
        self.queue: list[bytes | ResponseMark] = []
        self.sent: list[bytes] = []  # in this generation
        self.received: Counter[int] = Counter()  # in this generation
        self.active: str | None = None

    def delta(self, item: int, size: int) -> bool:
        """Push audio of the active response. Returns False if it was dropped."""
        assert self.active
        if self.active in self.late:
            return False
        self.playout.push(self.active, str(item), bytes([item]) * size)
        self.received[item] += size
        return True

    def done(self) -> None:
        assert self.active
        self.playout.end_response(self.active)
        self.active = None

    def cut(self) -> None:
        """Move everything from playout to the queue of TX, as AI-out does."""
        while (piece := self.playout.pop()) is not None:
            self.queue.append(piece)

    def send(self, pieces: int) -> None:
        for _ in range(min(pieces, len(self.queue))):
            piece = self.queue.pop(0)
            if isinstance(piece, ResponseMark):
                self.line.mark()
            else:
                self.line.frame()
                self.sent.append(piece)

    def speech(self) -> Interruption | None:
        if self.active:
            self.late.add(self.active)
        cut = bargein.cut(self.playout, self.pacer, self.line.now_s)
        if cut is not None:
            self.queue.clear()
            self.line.ear.clear()
            self.sent.clear()
            self.received.clear()
        return cut

    def heard(self) -> Counter[int]:
        """Return the bytes of each item that the ear has heard."""
        return Counter(b"".join(self.sent[: self.line.ear.heard(self.line.now_s + 1e-7)]).replace(b"\xff", b""))


sizes = st.sampled_from([1, 160, 800]) | st.integers(min_value=1, max_value=4_000)
steps = st.lists(
    st.tuples(
        st.sampled_from(["delta"] * 5 + ["item", "done", "cut", "cut", "send", "send", "send", "wait", "speech"]),
        sizes,
        st.integers(min_value=1, max_value=30),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=examples(400))
@given(steps)
def test_any_conversation(script: list[tuple[str, int, int]]) -> None:
    """Check every interruption of a random conversation.

    It cuts each item not heard to its end, at its heard part. Later no byte of a cut response is heard, and every byte of the
    others.
    """
    talk, item, responses = Talk(), 0, 0
    taken: Counter[int] = Counter()  # bytes of each item that must be heard in the end, unless a clear drops them
    for what, size, times in script:
        if what in ("delta", "item"):
            if talk.active is None:
                responses += 1
                talk.active = f"r{responses}"
                item += 1
            elif what == "item":
                item += 1
            was_cut = talk.active in talk.late
            assert talk.delta(item, size) != was_cut
            if not was_cut:
                taken[item] += size
        elif what == "done" and talk.active:
            talk.done()
        elif what == "cut":
            talk.cut()
        elif what == "send":
            talk.send(times)
        elif what == "wait":
            talk.line.starve(times / 20 + 1e-9)
        elif what == "speech":
            heard, received, active = talk.heard(), Counter(talk.received), talk.active
            frames = talk.line.ear.heard(talk.line.now_s + 1e-7)
            waiting = [piece for piece in talk.queue if isinstance(piece, bytes)]
            to_come = received.total() > heard.total() or frames < len(talk.sent) or bool(waiting)
            under_way = not talk.playout.is_empty
            cut = talk.speech()
            assert (cut is not None) == (to_come or under_way)
            if cut is None:
                continue
            assert talk.playout.is_empty
            assert talk.pacer.sent_frames == 0
            unheard = {number for number in received if heard[number] < received[number]}
            cut_items = [int(truncation.item_id) for truncation in cut.truncations]
            assert cut_items == sorted(set(cut_items)), "in the sequence of speech"
            assert unheard <= set(cut_items) <= unheard | ({item} if active else set())
            assert {int(outcome.item_id) for outcome in cut.outcomes} == set(received)
            for outcome in cut.outcomes:
                number = int(outcome.item_id)
                assert outcome.heard_ms == heard[number] // 8
                assert outcome.length_ms == received[number] // 8
                assert outcome.heard_ms == outcome.length_ms or not outcome.whole
            for number in received:
                taken[number] = 0
    if talk.active:
        talk.done()
    talk.cut()
    talk.send(10_000)
    arrived = Counter(b"".join(talk.sent).replace(b"\xff", b""))
    assert arrived == +Counter({number: size for number, size in taken.items() if size})
    talk.line.starve(1.0)
    assert not is_playing(talk.playout, talk.pacer, talk.line.now_s)


def speaking(frames: int = 50) -> Talk:
    """Return a talk with one whole response in the queue and its lead sent."""
    talk = Talk()
    talk.active = "r1"
    talk.delta(1, 160 * frames)
    talk.done()
    talk.cut()
    talk.send(6)
    return talk


def test_silence_cannot_be_interrupted() -> None:
    talk = Talk()
    assert talk.speech() is None
    assert talk.playout.generation == 0


def test_queued_audio_is_playing() -> None:
    talk = speaking()
    talk.line.starve(0.060 + 1e-9)
    assert talk.speech() == Interruption([Outcome("1", 60, 1000, whole=False)], 44)
    assert talk.playout.generation == 1
    assert talk.playout.expected_frames == 6


def test_audio_held_by_twilio_is_playing() -> None:
    talk = speaking(5)
    talk.send(10)
    assert not talk.queue
    talk.line.starve(0.099)
    assert is_playing(talk.playout, talk.pacer, talk.line.now_s)
    assert talk.speech() == Interruption([Outcome("1", 99, 100, whole=False)], 0)


def test_playing_ends_with_the_last_frame_heard() -> None:
    talk = speaking(5)
    talk.send(10)
    talk.line.starve(0.101)
    assert talk.speech() is None


def test_frames_cut_but_not_sent_are_playing() -> None:
    talk = Talk()
    talk.active = "r1"
    talk.delta(1, 160)
    talk.done()
    talk.cut()
    assert talk.playout.is_empty
    assert talk.speech() == Interruption([Outcome("1", 0, 20, whole=False)], 1)


def test_the_response_after_the_cut_one_is_heard() -> None:
    talk = speaking()
    talk.active = "r2"
    talk.delta(2, 1600)
    assert talk.speech() is not None
    assert not talk.delta(2, 1600)
    talk.done()
    talk.active = "r3"
    assert talk.delta(3, 160)
    talk.cut()
    assert talk.queue == [bytes([3]) * 160]


def test_the_instant_the_last_frame_ends_is_no_longer_playing() -> None:
    playout, pacer = Playout(1000), Pacer(100)
    pacer.deadline(0.0)
    pacer.on_sent(0.0)
    assert is_playing(playout, pacer, pacer.heard_out_s() - 0.001)
    assert not is_playing(playout, pacer, pacer.heard_out_s())
