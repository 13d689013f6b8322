"""gw.call.audio.playout against a model that keeps every byte with its item and offset."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.call.audio.playout import MAX_ITEMS, MAX_RESPONSES, Outcome, Playout, ResponseMark, Truncation
from tests.examples import examples

FRAME = 160
PAD = 0xFF
Byte = tuple[str, int, int]  # item, place in the item, value


class Model:
    """The buffer: whole frames of named bytes, marks (None), and the open response's tail."""

    def __init__(self, bound_frames: int) -> None:
        self.bound = bound_frames
        self.waiting: list[list[Byte] | None] = []
        self.tail: list[Byte] = []
        self.open: tuple[str, str] | None = None  # response, last item
        self.overtaken: tuple[str, str] | None = None  # the same, of a response that was open when another one began
        self.places: dict[str, int] = {}
        self.cut: list[list[Byte]] = []  # frames popped in this generation
        self.expected = 0
        self.overrun = 0

    def push(self, response: str, item: str, audio: bytes) -> int:
        if self.overtaken and self.overtaken[0] == response:
            self.overtaken = None
        if self.open and self.open[0] != response:
            overtaken = self.open
            self.end(self.open[0])
            self.overtaken = overtaken
        self.open = (response, item)
        for value in audio:
            place = self.places.get(item, 0)
            self.places[item] = place + 1
            self.tail.append((item, place, value))
            if len(self.tail) == FRAME:
                self._frame()
        dropped = 0
        while self.frames * FRAME + len(self.tail) > self.bound * FRAME and self.waiting:
            dropped += self.waiting.pop(0) is not None
        self.expected -= dropped
        self.overrun += dropped
        return dropped

    def end(self, response: str) -> None:
        if self.overtaken and self.overtaken[0] == response:
            self.overtaken = None
        if self.open and self.open[0] == response:
            if self.tail:
                self._frame()
            self.waiting.append(None)
            self.open = None

    def _frame(self) -> None:
        self.waiting.append(self.tail)
        self.tail = []
        self.expected += 1

    @property
    def frames(self) -> int:
        return sum(frame is not None for frame in self.waiting)

    def clear(self, sent: int) -> int:
        whole = self.frames + len(self.cut) - sent
        self.expected -= whole
        dropped = whole + bool(self.tail)
        self.waiting, self.tail, self.cut, self.places, self.open, self.overtaken = [], [], [], {}, None, None
        return dropped

    def heard_ms(self, item: str, heard: int) -> int:
        return max((place + 1 for frame in self.cut[:heard] for name, place, _ in frame if name == item), default=0) // 8

    def unheard(self, heard: int) -> list[Truncation]:
        frames = self.cut[heard:] + [frame for frame in self.waiting if frame] + [self.tail]
        items = list(dict.fromkeys(name for frame in frames for name, _, _ in frame))
        if self.open and self.open[1] not in items:
            items.append(self.open[1])
        if self.overtaken and self.overtaken[1] in self.places and self.overtaken[1] not in items:
            items.append(self.overtaken[1])
        return [Truncation(item, self.heard_ms(item, heard)) for item in items]

    def outcomes(self, heard: int) -> list[Outcome]:
        left = dict(self.unheard(heard))
        return [Outcome(item, self.heard_ms(item, heard), size // 8, item not in left) for item, size in self.places.items()]


def voice() -> Iterator[int]:
    """Return bytes of which no two neighbours are alike, and none equals the padding."""
    return (n % 251 for n in count())


def padded(frame: list[Byte]) -> bytes:
    return bytes(value for _, _, value in frame).ljust(FRAME, bytes([PAD]))


sizes = st.sampled_from([1, 80, 159, 160, 161, 320]) | st.integers(min_value=0, max_value=900)
#: One step: action, response, item, number of bytes, number of frames (pop) or per cent (clear).
steps = st.lists(
    st.tuples(
        st.sampled_from(["push"] * 8 + ["end"] * 2 + ["pop"] * 6 + ["clear"]),
        st.sampled_from("AAAB"),
        st.sampled_from("xxxyz"),
        sizes,
        st.integers(min_value=1, max_value=8) | st.integers(min_value=0, max_value=100),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=examples(400))
@given(st.integers(min_value=0, max_value=12) | st.just(1000), steps)
def test_any_chunks_items_responses_drops_and_clears(bound: int, script: list[tuple[str, str, str, int, int]]) -> None:
    """Every frame is the next 160 bytes of its response, the tail is padded, the mark follows; the ledger has every byte."""
    playout, model, source = Playout(bound), Model(bound), voice()
    generation = 0
    names: set[str] = set()
    for what, response, item, size, times in script:
        if what == "push":
            audio = bytes(next(source) for _ in range(size))
            assert playout.push(response, item, audio) == (model.push(response, item, audio) if audio else 0)
            assert playout.depth_bytes <= max(bound * FRAME, FRAME - 1)
        elif what == "end":
            playout.end_response(response)
            model.end(response)
        elif what == "pop":
            for _ in range(times):
                piece = playout.pop()
                if not model.waiting:
                    assert piece is None
                    break
                frame = model.waiting.pop(0)
                if frame is None:
                    assert isinstance(piece, ResponseMark)
                    assert piece.name.startswith(f"g{generation}r")
                    assert piece.name not in names
                    assert playout.marks_pending[-1] == (piece.name, len(model.cut))
                    names.add(piece.name)
                else:
                    assert piece == padded(frame)
                    model.cut.append(frame)
        else:
            sent = len(model.cut) * times // 100
            assert playout.clear(sent) == model.clear(sent)
            generation += 1
            assert playout.is_empty
            assert not playout.marks_pending
        assert playout.generation == generation
        assert playout.cut_frames == len(model.cut)
        assert playout.expected_frames == model.expected
        assert playout.overrun_frames == model.overrun
        assert playout.is_empty == (not model.waiting and not model.open)
        assert playout.depth_bytes == model.frames * FRAME + len(model.tail)
        for heard in {0, 1, len(model.cut) // 2, len(model.cut) - 1, len(model.cut)} & set(range(len(model.cut) + 1)):
            assert [playout.heard(heard).get(item, 0) for item in "xyz"] == [model.heard_ms(item, heard) for item in "xyz"]
            assert playout.unheard(heard) == model.unheard(heard)
            assert playout.outcomes(heard) == model.outcomes(heard)


@given(
    st.lists(st.lists(st.tuples(st.sampled_from("xyz"), sizes), max_size=6), max_size=6),
    st.integers(min_value=0, max_value=2**32),
)
def test_popped_audio_equals_pushed_audio_with_padded_tails(responses: list[list[tuple[str, int]]], pops: int) -> None:
    playout, source = Playout(10_000), voice()
    expected, popped = bytearray(), bytearray()

    def pop(times: int) -> None:
        for _ in range(times):
            piece = playout.pop()
            if isinstance(piece, bytes):
                assert len(piece) == FRAME
                popped.extend(piece)

    for number, chunks in enumerate(responses):
        spoken = bytearray()
        for item, size in chunks:
            audio = bytes(next(source) for _ in range(size))
            spoken += audio
            playout.push(f"r{number}", f"{number}{item}", audio)
            pops, times = divmod(pops, 4)
            pop(times)
        playout.end_response(f"r{number}")
        expected += spoken + bytes([PAD]) * (-len(spoken) % FRAME)
    pop(10_000)
    assert popped == expected
    assert playout.is_empty
    assert playout.expected_frames == len(expected) // FRAME == playout.cut_frames


def drain(playout: Playout) -> list[bytes | ResponseMark]:
    pieces: list[bytes | ResponseMark] = []
    while (piece := playout.pop()) is not None:
        pieces.append(piece)
    return pieces


def test_a_remainder_waits_for_more_and_the_end_pads_it() -> None:
    playout = Playout(100)
    playout.push("r", "i", b"a" * 100)
    assert playout.pop() is None
    playout.push("r", "i", b"b" * 100)
    assert playout.pop() == b"a" * 100 + b"b" * 60
    assert playout.pop() is None
    playout.end_response("r")
    assert playout.depth_bytes == 160
    assert drain(playout) == [b"b" * 40 + b"\xff" * 120, ResponseMark("g0r1")]


def test_a_response_without_audio_has_no_mark() -> None:
    playout = Playout(100)
    assert playout.push("r", "i", b"") == 0
    playout.end_response("r")
    assert playout.is_empty
    assert playout.pop() is None


def test_a_new_response_ends_the_one_before() -> None:
    playout = Playout(100)
    playout.push("r1", "i1", b"a" * 10)
    playout.push("r2", "i2", b"b" * 160)
    assert drain(playout) == [b"a" * 10 + b"\xff" * 150, ResponseMark("g0r1"), b"b" * 160]
    playout.end_response("r1")
    assert playout.pop() is None, "the end of the older response has no effect"
    playout.end_response("r2")
    playout.end_response("r2")
    assert drain(playout) == [ResponseMark("g0r2")]


def test_an_open_response_is_not_empty_though_all_of_it_was_cut() -> None:
    playout = Playout(100)
    playout.push("r", "i", b"a" * 160)
    drain(playout)
    assert not playout.is_empty
    assert playout.depth_bytes == 0


def test_an_overrun_drops_the_oldest_and_the_ledger_skips_it() -> None:
    playout = Playout(2)
    playout.push("r", "i", b"a" * 160)
    playout.pop()
    assert playout.push("r", "i", b"b" * 320 + b"c" * 320) == 2
    assert [playout.pop(), playout.pop()] == [b"c" * 160] * 2
    assert (playout.overrun_frames, playout.expected_frames) == (2, 3)
    assert [playout.heard(heard).get("i", 0) for heard in range(4)] == [0, 20, 80, 100]


def test_a_response_dropped_to_its_end_loses_its_mark_and_the_next_keeps_its() -> None:
    playout = Playout(1)
    playout.push("r1", "i1", b"a" * 160)
    playout.end_response("r1")
    assert playout.push("r2", "i2", b"b" * 320) == 2
    playout.end_response("r2")
    assert drain(playout) == [b"b" * 160, ResponseMark("g0r1")]


def test_an_unknown_item_was_not_heard() -> None:
    assert Playout(1).heard(5).get("unknown", 0) == 0


def test_padding_is_not_heard_as_speech() -> None:
    playout = Playout(100)
    playout.push("r", "i", b"a" * 80)
    playout.end_response("r")
    drain(playout)
    assert playout.heard(1).get("i", 0) == 10
    assert playout.unheard(1) == []


def test_two_items_in_one_frame_are_heard_separately() -> None:
    playout = Playout(100)
    playout.push("r", "i1", b"a" * 80)
    playout.push("r", "i2", b"b" * 240)
    playout.end_response("r")
    drain(playout)
    assert [(playout.heard(heard).get("i1", 0), playout.heard(heard).get("i2", 0)) for heard in range(3)] == [
        (0, 0),
        (10, 10),
        (10, 30),
    ]
    assert playout.unheard(1) == [Truncation("i2", 10)]


def test_the_current_item_of_an_open_response_is_cut_though_all_its_audio_was_heard() -> None:
    """The AI generated more of the item than arrived; the rest is dropped, and the AI must not assume it was heard."""
    playout = Playout(100)
    playout.push("r", "i1", b"a" * 160)
    playout.push("r", "i2", b"b" * 160)
    drain(playout)
    assert playout.unheard(2) == [Truncation("i2", 20)]
    playout.end_response("r")
    assert playout.unheard(2) == []


def test_a_response_that_the_holding_sound_follows_is_still_in_progress() -> None:
    playout = Playout(100)
    playout.push("r", "i", b"a" * 160)
    playout.push("holding", "holding", b"h" * 160)
    playout.end_response("holding")
    drain(playout)
    assert playout.outcomes(2) == [Outcome("i", 20, 20, False), Outcome("holding", 20, 20, True)]
    playout.end_response("r")
    assert playout.unheard(2) == []


# -- marks ------------------------------------------------------------------------------------------------------------


def spoken(playout: Playout, response: str, frames: int) -> ResponseMark:
    playout.push(response, f"item of {response}", b"a" * 160 * frames)
    playout.end_response(response)
    mark = drain(playout)[-1]
    assert isinstance(mark, ResponseMark)
    return mark


def test_an_echo_returns_the_frames_before_its_mark_once() -> None:
    playout = Playout(100)
    first, second = spoken(playout, "r1", 3), spoken(playout, "r2", 2)
    assert playout.on_mark_echo(first.name) == 3
    assert playout.on_mark_echo(first.name) is None
    assert playout.on_mark_echo(second.name) == 5


def test_an_echo_covers_the_marks_before_it() -> None:
    playout = Playout(100)
    first, second = spoken(playout, "r1", 3), spoken(playout, "r2", 2)
    assert playout.on_mark_echo(second.name) == 5
    assert playout.on_mark_echo(first.name) is None
    assert not playout.marks_pending


def test_an_echo_caused_by_a_clear_does_not_count_as_heard() -> None:
    playout = Playout(100)
    mark = spoken(playout, "r1", 3)
    playout.clear(3)
    after = spoken(playout, "r2", 1)
    assert playout.on_mark_echo(mark.name) is None
    assert playout.on_mark_echo("unknown") is None
    assert after.name.startswith("g1")
    assert playout.on_mark_echo(after.name) == 1


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_marks_without_an_echo_are_bounded() -> None:
    playout = Playout(100)
    marks = [spoken(playout, f"r{n}", 1) for n in range(266)]
    assert len(playout.marks_pending) == 256
    assert playout.on_mark_echo(marks[0].name) is None
    assert playout.on_mark_echo(marks[-1].name) == 266


def test_the_ledger_keeps_the_newest_items() -> None:
    playout = Playout(100)
    for n in range(266):
        spoken(playout, f"r{n}", 1)
    assert playout.heard(10_000).get("item of r0", 0) == 0
    assert playout.heard(10_000).get(f"item of r{265}", 0) == 20
    assert len(playout._spans) == len(playout._item_bytes) == 256


@pytest.mark.parametrize("sent", [0, 1, 2, 3])
def test_a_clear_drops_cut_frames_that_were_not_sent(sent: int) -> None:
    playout = Playout(100)
    playout.push("r", "i", b"a" * 160 * 5 + b"b")
    for _ in range(3):
        playout.pop()
    assert playout.clear(sent) == 6 - sent
    assert playout.expected_frames == sent


def test_a_lost_ai_ends_its_open_response() -> None:
    playout = Playout(100)
    playout.end_open_response()
    assert playout.is_empty
    playout.push("r", "i", b"a" * 10)
    playout.end_open_response()
    playout.end_open_response()
    assert drain(playout) == [b"a" * 10 + b"\xff" * 150, ResponseMark("g0r1")]


@pytest.mark.parametrize("sizes", [[1600], [1599, 1], [1601, 1599], [1, 3999], [4000]])
def test_audio_is_kept_in_pieces_of_200_ms(sizes: list[int]) -> None:
    playout, source = Playout(100), voice()
    audio = bytes(next(source) for _ in range(sum(sizes)))
    at = 0
    for size in sizes:
        playout.push("r", "i", audio[at : at + size])
        at += size
    pieces = playout._segments[0]._pieces
    assert [len(piece) for piece in pieces] == [1600] * (len(audio) // 1600) + [len(audio) % 1600] * bool(len(audio) % 1600)
    assert b"".join(piece for piece in drain(playout) if isinstance(piece, bytes)) == audio[: len(audio) // FRAME * FRAME]


def test_an_item_without_a_gap_is_one_span() -> None:
    playout = Playout(100)
    for _ in range(5):
        playout.push("r", "i", b"a" * 200)
    assert len(playout._segments[0].items) == 1
    drain(playout)
    assert len(playout._spans) == 1


def test_an_item_with_dropped_audio_inside_has_two_spans() -> None:
    playout = Playout(2)
    playout.push("r", "i", b"a" * 160)
    playout.pop()
    playout.push("r", "i", b"b" * 480)
    drain(playout)
    assert [(span.item_start, span.start, span.length) for span in playout._spans] == [(0, 0, 160), (320, 160, 320)]


def test_responses_that_wait_are_bounded_in_number() -> None:
    playout = Playout(100_000)
    dropped = sum(playout.push(f"r{n}", f"i{n}", bytes(400)) for n in range(MAX_RESPONSES + 5))
    assert dropped == 5 * 3, "each of the oldest had two frames and a padded tail"
    assert playout.overrun_frames == dropped
    assert playout.unheard(0)[0].item_id == "i5"
    assert playout.expected_frames == MAX_RESPONSES * 3 - 1  # the last response has no tail yet


def test_the_items_of_a_response_are_bounded_in_number_and_no_audio_is_lost() -> None:
    playout = Playout(100_000)
    for n in range(1000):
        playout.push("r", f"i{n}", bytes(16))
    assert playout.depth_bytes == 16_000
    assert [item_id for item_id, _ in playout.unheard(0)] == [f"i{n}" for n in range(MAX_ITEMS)] + ["i999"]
