"""The AI's audio on its way to the caller, and which of it was heard.

What counts is what the caller hears, not what the AI sent. AI audio comes in chunks of any length, faster than real time; it
leaves as frames of one ptime. The tail of a response is padded with mu-law silence, and a mark follows it.

Strategy: one segment per response holds its bytes, in pieces. Every frame cut is entered in a ledger of spans (item, offset in
the item, place in the stream of frames of this generation), so a number of frames heard is a place in an item.

    stream of the generation, in bytes     0        |        160 * n
    spans                                  [ item a ........ ][pad][ item b ...
    heard (from the pacer)                 ----------->|

Never waits, never reads a clock, never sends.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from gw.protocol.audio import BYTES_PER_MS, FRAME_BYTES, SILENCE_BYTE

#: Audio is kept in pieces of this many bytes, 200 ms: pieces of one size leave no holes in the heap when they go, and each starts
#: where a frame does, so no frame lies across two.
PIECE_BYTES: Final = 10 * FRAME_BYTES
#: Spans and items kept: an item is one span unless audio was dropped inside it, and only unheard ones matter.
MAX_SPANS: Final = 256


class ResponseMark(NamedTuple):
    """The mark that follows a response: echoed by Twilio once the response was played."""

    name: str


class Truncation(NamedTuple):
    """An item the caller did not hear to its end."""

    item_id: str
    heard_ms: int


class _Segment:
    """One response's audio that has not been cut yet."""

    __slots__ = ("_cut", "_pieces", "ended", "items", "last_item", "response_id", "size_bytes")

    def __init__(self, response_id: str, item_id: str) -> None:
        self.response_id = response_id
        self.last_item = item_id  # the item its audio came of last
        self._pieces: deque[bytes] = deque()  # all but the last are whole
        self._cut = 0  # bytes of the first piece that are gone
        self.size_bytes = 0
        self.items: deque[tuple[str, int, int]] = deque()  # item, offset in the item, bytes of it that are still here
        self.ended = False

    def add(self, audio: bytes) -> None:
        pieces = self._pieces
        self.size_bytes += len(audio)
        if pieces and len(pieces[-1]) < PIECE_BYTES:
            audio = pieces.pop() + audio
        for start in range(0, len(audio), PIECE_BYTES):
            pieces.append(audio[start : start + PIECE_BYTES])

    def cut_frame(self) -> bytes:
        """The first frame. There has to be a whole one."""
        first, start = self._pieces[0], self._cut
        self._cut = end = start + FRAME_BYTES
        self.size_bytes -= FRAME_BYTES
        if end == len(first):
            self._pieces.popleft()
            self._cut = 0
        return first[start:end]


class _Span:
    """`length` bytes of an item, from `item_start`, at `start` in the stream of frames."""

    __slots__ = ("item_id", "item_start", "length", "start")

    def __init__(self, item_id: str, item_start: int, start: int, length: int) -> None:
        self.item_id = item_id
        self.item_start = item_start
        self.start = start
        self.length = length


class Playout:
    """The bounded buffer between AI-in and AI-out, with its ledger."""

    __slots__ = (
        "_bound_bytes",
        "_cut_bytes",
        "_item_bytes",
        "_last_mark",
        "_segments",
        "_spans",
        "expected_frames",
        "generation",
        "marks_pending",
        "overrun_frames",
    )

    def __init__(self, bound_frames: int) -> None:
        self._bound_bytes = bound_frames * FRAME_BYTES
        self._segments: deque[_Segment] = deque()
        self._spans: deque[_Span] = deque(maxlen=MAX_SPANS)
        self._item_bytes: dict[str, int] = {}  # bytes received of the items of buffered or unheard responses
        self._cut_bytes = 0  # place in the stream of frames of this generation
        self._last_mark = 0
        self.generation = 0
        # marks of this generation not echoed yet: name, frames before it
        self.marks_pending: deque[tuple[str, int]] = deque(maxlen=MAX_SPANS)
        self.expected_frames = 0  # frames the audio received makes, tails padded, less what was dropped
        self.overrun_frames = 0

    # -- AI-in --------------------------------------------------------------------------------------------------------

    def push(self, response_id: str, item_id: str, audio: bytes) -> int:
        """Add AI audio to the end of the buffer.

        Shape: any number of mu-law bytes; a rest shorter than a frame waits for more, or for the response's end.
        Returns: frames dropped from the front to stay within the bound; a response dropped to its end loses its mark too.
        """
        if not audio:
            return 0
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.ended or segment.response_id != response_id:
            if segment is not None and not segment.ended:
                self._end(segment)
            segment = _Segment(response_id, item_id)
            self._segments.append(segment)
        segment.last_item = item_id
        offset = self._item_bytes.get(item_id, 0)
        if segment.items and segment.items[-1][0] == item_id:
            name, start, length = segment.items[-1]
            segment.items[-1] = (name, start, length + len(audio))
        else:
            segment.items.append((item_id, offset, len(audio)))
        self._item_bytes[item_id] = offset + len(audio)
        if len(self._item_bytes) > MAX_SPANS:
            del self._item_bytes[next(iter(self._item_bytes))]
        before = segment.size_bytes
        segment.add(audio)
        self.expected_frames += segment.size_bytes // FRAME_BYTES - before // FRAME_BYTES
        return self._drop_oldest()

    def end_response(self, response_id: str) -> None:
        """No more audio of this response will come: its tail becomes a frame, its mark follows. A response without audio has
        no mark."""
        if self._segments and self._segments[-1].response_id == response_id and not self._segments[-1].ended:
            self._end(self._segments[-1])

    def end_open_response(self) -> None:
        """The AI is gone: what it has said so far is whole."""
        if self._segments and not self._segments[-1].ended:
            self._end(self._segments[-1])

    def _end(self, segment: _Segment) -> None:
        rest = segment.size_bytes % FRAME_BYTES
        if rest:
            segment.add(bytes([SILENCE_BYTE]) * (FRAME_BYTES - rest))
            self.expected_frames += 1
        segment.ended = True

    def _drop_oldest(self) -> int:
        dropped = 0
        while self.depth_bytes > self._bound_bytes:
            segment = self._segments[0]
            if segment.size_bytes >= FRAME_BYTES:
                self._take(segment)
                dropped += 1
            elif segment.ended and len(self._segments) > 1:
                self._segments.popleft()
            else:
                break
        self.expected_frames -= dropped
        self.overrun_frames += dropped
        return dropped

    # -- AI-out -------------------------------------------------------------------------------------------------------

    def pop(self) -> bytes | ResponseMark | None:
        """The next thing for the caller: a frame of 160 bytes, the mark after a response, or None while nothing is ready."""
        while self._segments:
            segment = self._segments[0]
            if segment.size_bytes >= FRAME_BYTES:
                frame, parts = self._take(segment)
                self._enter(parts)
                return frame
            if not segment.ended:
                return None
            self._segments.popleft()
            self._last_mark += 1
            name = f"g{self.generation}r{self._last_mark}"
            self.marks_pending.append((name, self.cut_frames))
            return ResponseMark(name)
        return None

    def _take(self, segment: _Segment) -> tuple[bytes, list[tuple[str, int, int]]]:
        """Cut one frame off the front. Returns it with its parts: item, offset in the item, bytes (padding belongs to none)."""
        frame = segment.cut_frame()
        parts: list[tuple[str, int, int]] = []
        room = FRAME_BYTES
        while room and segment.items:
            item_id, start, length = segment.items.popleft()
            used = min(room, length)
            parts.append((item_id, start, used))
            if used < length:
                segment.items.appendleft((item_id, start + used, length - used))
            room -= used
        return frame, parts

    def _enter(self, parts: list[tuple[str, int, int]]) -> None:
        place = self._cut_bytes
        for item_id, start, length in parts:
            last = self._spans[-1] if self._spans else None
            if (
                last is not None
                and last.item_id == item_id
                and last.item_start + last.length == start
                and last.start + last.length == place
            ):
                last.length += length
            else:
                self._spans.append(_Span(item_id, start, place, length))
            place += length
        self._cut_bytes += FRAME_BYTES

    # -- truth --------------------------------------------------------------------------------------------------------

    @property
    def depth_bytes(self) -> int:
        """Audio waiting to be cut, padding included."""
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def is_empty(self) -> bool:
        """No response is under way here: each one ended, and was cut with its mark."""
        return not self._segments

    @property
    def cut_frames(self) -> int:
        """Frames cut in this generation; what of them TX has sent the pacer knows."""
        return self._cut_bytes // FRAME_BYTES

    def heard_ms(self, item_id: str, heard_frames: int) -> int:
        """How much of an item the caller heard, given the frames of this generation heard. Never more than was received."""
        heard_bytes = heard_frames * FRAME_BYTES
        end = 0
        for span in self._spans:
            if span.item_id == item_id and heard_bytes > span.start:
                end = span.item_start + min(span.length, heard_bytes - span.start)
        return end // BYTES_PER_MS

    def unheard(self, heard_frames: int) -> list[Truncation]:
        """The items, in order, of which the caller has not heard all that was received, and the one a response under way is at:
        the AI said more of it than came."""
        names = dict.fromkeys(span.item_id for span in self._spans if span.start + span.length > heard_frames * FRAME_BYTES)
        for segment in self._segments:
            names.update(dict.fromkeys(item_id for item_id, _, _ in segment.items))
            if not segment.ended:
                names[segment.last_item] = None
        return [Truncation(item_id, self.heard_ms(item_id, heard_frames)) for item_id in names]

    def on_mark_echo(self, name: str) -> int | None:
        """Twilio echoed a mark. Returns how many frames of this generation stood before it: they were heard. None: the echo came
        from a `clear`, or the mark is none of ours."""
        for index, (pending, frames) in enumerate(self.marks_pending):
            if pending == name:
                for _ in range(index + 1):  # an echo says the earlier ones were played too
                    self.marks_pending.popleft()
                return frames
        return None

    def clear(self, sent_frames: int) -> int:
        """Drop everything not sent: a new generation. Returns the frames dropped, those already cut included."""
        waiting = sum(-(-segment.size_bytes // FRAME_BYTES) for segment in self._segments)
        whole = sum(segment.size_bytes // FRAME_BYTES for segment in self._segments)
        cut = self.cut_frames - sent_frames
        self.expected_frames -= whole + cut
        self._segments.clear()
        self._spans.clear()
        self._item_bytes.clear()
        self.marks_pending.clear()
        self._cut_bytes = 0
        self.generation += 1
        return waiting + cut
