"""gw.call.audio.playout and gw.call.audio.pacer together, driven like AI-out and TX, on the test's clock.

For any chunks from the AI, any stall of the hub, any hold and any interruption: the sequence is kept, only cleared audio is lost,
nothing leaves during a hold or more than a lead ahead, and the frames and the silence counted equal those heard.
"""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from gw.call.audio.pacer import Pacer
from gw.call.audio.playout import Playout, ResponseMark
from tests.gw.call.audio.test_pacer import PTIME_S, START_S, Ear, odd

FRAME = 160
#: Frames AI-out cuts ahead of TX.
QUEUE_FRAMES = 25


class Downlink:
    """AI-out and TX without their waits, and the far ear. `now_s` moves by `pass_` and `stall` alone."""

    def __init__(self, lead_ms: int) -> None:
        self.pacer = Pacer(lead_ms)
        self.playout = Playout(100_000)
        self.ear = Ear()
        self.now_s = START_S
        self._ahead_s = max(lead_ms / 1000, PTIME_S)
        self._queue: deque[tuple[int, bytes | ResponseMark]] = deque()
        self._in_hand: tuple[int, bytes | ResponseMark] | None = None
        self._due_s = self._asked_s = 0.0
        self._idle = False
        self._marked = False
        self._held = self._paused = False  # _paused: TX found the hold, with a message in hand
        self.sent: list[bytes] = []  # of this generation
        self.marks: list[str] = []

    def pass_(self, duration_s: float) -> None:
        """Advance the clock; TX sends frames when due."""
        until_s = self.now_s + duration_s
        while self._take():
            if self._due_s > until_s:
                break
            self.now_s = max(self.now_s, self._due_s)
            if self._held:
                self._paused = True
                break
            self._send()
        self.now_s = until_s

    def stall(self, duration_s: float) -> None:
        """Stall the hub; frames due in the meantime leave after it."""
        self.now_s += duration_s
        self.pass_(0.0)

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        """End a hold; TX continues now, with the message in hand."""
        self._held = False
        self.pass_(0.0)

    def clear(self) -> int:
        """Interrupt, which ends a hold. Returns the frames dropped."""
        self._held = False
        dropped = self.playout.clear(self.pacer.sent_frames)
        self._queue.clear()
        self.pacer.on_clear()
        self.ear.clear()
        self._marked = False
        self.sent = []
        return dropped

    def _take(self) -> bool:
        """Take the next frame, due at `_due_s`. Returns False without one."""
        while self._in_hand is None:
            while len(self._queue) < QUEUE_FRAMES and (piece := self.playout.pop()) is not None:
                self._queue.append((self.playout.generation, piece))
            if not self._queue:
                self._idle = True
                return False
            if self._idle:
                self._idle = False
                self.pacer.on_starved(self.now_s)
            _, piece = self._in_hand = self._queue.popleft()
            self._asked_s = self.now_s
            self._due_s = self.now_s if isinstance(piece, ResponseMark) else self.pacer.deadline(self.now_s)
        return True

    def _send(self) -> None:
        assert self._in_hand is not None
        assert not self._held
        generation, piece = self._in_hand
        self._in_hand = None
        if self._paused:
            self._paused = False
            (self.pacer.on_starved if isinstance(piece, ResponseMark) else self.pacer.on_held)(self.now_s)
        if generation != self.playout.generation:
            return
        if isinstance(piece, ResponseMark):
            self.pacer.on_mark()
            self._marked = True
            self.marks.append(piece.name)
            return
        new = self._marked and (self.ear.free_s is None or self._asked_s >= self.ear.free_s)
        self._marked = False
        heard_s = self.ear.play(self.now_s, new_talkspurt=new)
        assert heard_s - self.now_s <= self._ahead_s + 1e-9, "more than a lead ahead"
        self.pacer.on_sent(self.now_s)
        self.sent.append(piece)


waits_us = st.sampled_from([0, 20_000, 100_000]) | st.integers(min_value=0, max_value=1_200_000)
scripts = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from([1, 159, 160, 1600, 8000]) | st.integers(min_value=1, max_value=20_000)),
        st.tuples(st.just("push"), st.integers(min_value=1, max_value=2000)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("pass"), waits_us),
        st.tuples(st.just("stall"), st.sampled_from([50_000, 100_000, 300_000, 1_000_000]) | waits_us),
        st.tuples(st.sampled_from(["clear", "pass", "pass", "hold", "hold", "release"]), waits_us),
    ),
    min_size=1,
    max_size=40,
)


class Said:
    """The AI's audio since the last clear, as the caller must hear it."""

    def __init__(self) -> None:
        self.whole = b""
        self.tail = b""

    def push(self, audio: bytes) -> None:
        self.tail += audio

    def end(self) -> None:
        self.whole += self.tail + b"\xff" * (-len(self.tail) % FRAME)
        self.tail = b""

    @property
    def audio(self) -> bytes:
        return self.whole + self.tail


@given(st.integers(min_value=0, max_value=500), scripts)
def test_any_arrivals_stalls_holds_and_clears(lead_ms: int, script: list[tuple[str, int]]) -> None:
    line, said, response, counter = Downlink(lead_ms), Said(), 0, 0
    for what, size in script:
        if what == "push":
            audio = bytes((counter + n) % 251 for n in range(size))
            counter += size
            assert line.playout.push(f"r{response}", f"i{response}", audio) == 0
            said.push(audio)
            line.pass_(0.0)
        elif what == "end":
            line.playout.end_response(f"r{response}")
            said.end()
            response += 1
        elif what == "pass":
            line.pass_(odd(size))
        elif what == "stall":
            line.stall(odd(size))
        elif what == "hold":
            line.hold()
            sent = len(line.sent)
            line.pass_(odd(size))
            assert len(line.sent) == sent, "a frame left during a hold"
        elif what == "release":
            line.release()
        else:
            sent = b"".join(line.sent)
            assert said.audio.startswith(sent)
            event("cleared in the middle" if len(sent) < len(said.audio) else "cleared after the last frame")
            assert line.clear() == -(-len(said.audio) // FRAME) - len(sent) // FRAME, "exactly the unsent frames are dropped"
            said = Said()
            response += 1
        assert said.audio.startswith(b"".join(line.sent))
        if lead_ms >= 20:
            probe_s = line.now_s + 5e-7
            assert line.pacer.underrun_s + line.pacer.held_s == pytest.approx(line.ear.gaps_s, abs=1e-6)
            assert line.pacer.heard_frames(probe_s) == line.ear.heard(probe_s)
    line.release()
    line.playout.end_response(f"r{response}")
    said.end()
    line.pass_(len(said.audio) / 8000 + 1.0)
    assert b"".join(line.sent) == said.audio, "all audio not cleared is heard, in sequence"
    assert line.playout.is_empty
    assert len(line.marks) == len(set(line.marks))
    event(f"silence: {line.pacer.moves > 0}")
    event(f"held: {line.pacer.held_s > 0}")


@given(st.integers(min_value=0, max_value=19), st.lists(st.integers(min_value=0, max_value=90_000), min_size=1, max_size=60))
def test_without_a_cushion_all_silence_beyond_the_allowed_noise_is_counted(lead_ms: int, stalls_us: list[int]) -> None:
    """Within one talkspurt the gaps heard exceed the gaps counted by less than the slack."""
    line = Downlink(lead_ms)
    line.playout.push("r", "i", bytes(FRAME * 400))
    for stall_us in stalls_us:
        line.stall(odd(stall_us))
        line.pass_(0.02)
        unaccounted_s = line.ear.gaps_s - line.pacer.underrun_s
        assert -1e-6 <= unaccounted_s <= PTIME_S - lead_ms / 1000 + 1e-6
