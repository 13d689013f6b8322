"""gw.call.turns over a real playout and pacer: the heard part of each turn, against an ear that counts bytes."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gw.call.audio import bargein
from gw.call.turns import Turn, Turns
from tests.gw.call.audio.test_pacer import PTIME_S
from tests.gw.call.test_downlink import Downlink

BYTES_PER_S = 8000
FRAME = 160
#: Milliseconds are rounded down.
TOLERANCE_MS = 1.2


class Talk:
    """An agent with short bursts of speech, and a caller who interrupts.

    Each byte of an item has the item's number as its value.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.line = Downlink(self.random.choice([20, 100, 200]))
        self.turns = Turns()
        self.finished: list[Turn] = []
        self.heard: dict[int, float] = {}  # milliseconds of each resolved item, by the ear
        self.received: Counter[int] = Counter()  # bytes of the present generation, by item
        self.item = self.response = self.interruptions = 0
        self.is_open = False
        self.frames = 0  # of the ended responses of this generation
        self.ends: list[int] = []  # the same after each of them, whose mark was not echoed

    def speak(self) -> None:
        """Receive a chunk of audio, of the same item or a new one."""
        if not self.is_open or self.random.random() < 0.3:
            self.item = self.item % 250 + 1
        self.response += not self.is_open
        self.is_open = True
        size = self.random.randrange(1, 12_000)
        self.received[self.item] += size
        name = self.name(self.item)
        self.finished += self.turns.on_agent_audio(name, 0)
        self.finished += self.turns.on_agent_text(name, "words", 0)
        self.line.playout.push(f"r{self.response}", name, bytes([self.item]) * size)
        self.line.pass_(0.0)

    def end_response(self) -> None:
        if self.is_open:
            self.is_open = False
            self.line.playout.end_response(f"r{self.response}")
            self.line.pass_(0.0)
            self.frames = self.line.playout.cut_frames + self.line.playout.depth_bytes // FRAME
            self.ends.append(self.frames)

    def pass_(self) -> None:
        """Let time pass, in one of ten cases with the hub held. Marks are echoed when played, or lost."""
        until_s = self.line.now_s + self.random.uniform(0.0, 1.5) ** 2
        if self.random.random() < 0.1:
            self.line.stall(until_s - self.line.now_s)
        while self.line.now_s < until_s:
            ends_s = self.line.ear.ends_s
            played_s = [ends_s[frames - 1] + 1e-9 for frames in self.ends if frames <= len(ends_s)]
            next_s = min([until_s, self.line.now_s + PTIME_S, *(at_s for at_s in played_s if at_s > self.line.now_s)])
            self.line.pass_(next_s - self.line.now_s)
            if next_s in played_s and self.random.random() < 0.7:
                self.echo(played_s.index(next_s))

    def echo(self, index: int) -> None:
        """Echo the mark of a response that was just played; it covers those before."""
        frames = self.line.playout.on_mark_echo(self.line.marks[index])
        assert frames == self.ends[index]
        del self.ends[: index + 1], self.line.marks[: index + 1]
        self.line.pacer.on_echo(frames, self.line.now_s)
        self.resolve(self.turns.on_heard(self.line.playout.outcomes(frames)))

    def interrupt(self) -> None:
        heard = self.ear()
        cut = bargein.cut(self.line.playout, self.line.pacer, self.line.now_s)
        if cut is None:
            return
        assert [outcome.item_id for outcome in cut.outcomes] == [self.name(item) for item in self.received]
        for outcome in cut.outcomes:
            item = int(outcome.item_id.rpartition(".")[2])
            assert 0 <= heard[item] / 8 - outcome.heard_ms <= TOLERANCE_MS
            assert outcome.length_ms == self.received[item] // 8
            if outcome.whole:
                assert self.received[item] / 8 - heard[item] / 8 <= TOLERANCE_MS
        self.resolve(self.turns.on_interrupted(cut.outcomes))
        assert self.turns.in_progress() == [], "a clear leaves no turn without an outcome"
        self.line.clear()
        self.line.marks.clear()
        self.interruptions += 1
        self.is_open = False
        self.received.clear()
        self.frames, self.ends = 0, []

    def resolve(self, turns: list[Turn]) -> None:
        heard = self.ear()
        for turn in turns:
            assert turn.heard_ms is not None and turn.length_ms is not None
            assert 0 <= heard[int(turn.item_id.rpartition(".")[2])] / 8 - turn.heard_ms <= TOLERANCE_MS
            assert turn.interrupted or turn.heard_ms == turn.length_ms
        self.finished += turns

    def ear(self) -> Counter[int]:
        """Return the bytes of each item that the ear has heard of this generation."""
        heard: Counter[int] = Counter()
        for frame, end_s in zip(self.line.sent, self.line.ear.ends_s, strict=True):
            played_s = min(PTIME_S, max(0.0, self.line.now_s - (end_s - PTIME_S)))
            heard.update(frame[: round(played_s * BYTES_PER_S)].rstrip(b"\xff"))
        return heard

    def name(self, item: int) -> str:
        return f"{self.interruptions}.{item}"


@pytest.mark.parametrize("seed", range(5))
def test_heard_ms_is_within_a_frame_of_the_ear_at_each_of_100_interruptions(seed: int) -> None:
    talk = Talk(seed)
    while talk.interruptions < 100:
        step = talk.random.choices((talk.speak, talk.end_response, talk.pass_, talk.interrupt), (6, 3, 5, 1))[0]
        step()
    ids = [turn.item_id for turn in talk.finished]
    assert len(ids) == len(set(ids))
    assert {turn.interrupted for turn in talk.finished} == {True, False}
    assert any(turn.heard_ms for turn in talk.finished if turn.interrupted)
