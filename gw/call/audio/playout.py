"""Playout: the buffer of AI audio for the caller, and a ledger of the audio heard.

AI audio comes in chunks of any length, faster than real time; it leaves as frames of one ptime. The tail of a response is padded
with mu-law silence and followed by a mark.

Strategy: one segment per response holds its bytes, in pieces. Every frame cut is recorded in a ledger of spans (item, offset in
the item, position in this generation's stream of frames), so a number of heard frames maps to a position in an item.

    stream of the generation, in bytes     0        |        160 * n
    spans                                  [ item a ........ ][pad][ item b ...
    heard (from the pacer)                 ----------->|

No waiting, no clock, no sending.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from gw.protocol.audio import BYTES_PER_MS, FRAME_BYTES, SILENCE_BYTE

#: Size of a piece, 200 ms. Pieces of one size do not fragment the heap, and each begins with a frame, so no frame spans two.
PIECE_BYTES: Final = 10 * FRAME_BYTES
#: Spans and items kept. An item is one span unless audio was dropped inside it, and only unheard items matter.
MAX_SPANS: Final = 256
#: Responses waiting for TX, and items of each: an AI sends one or two. Each interruption goes through all of them in one slice.
MAX_RESPONSES: Final = 64
MAX_ITEMS: Final = 8
#: Response and item of the holding sound. The AI does not have this item.
HOLDING: Final = "holding"
#: Those of a recorded greeting. The AI gets its text under another name.
RECORDED: Final = "recorded"
#: Those of the message for an answering machine. The AI does not have this item.
MESSAGE: Final = "message"
#: Those of the notice that the call is recorded.
NOTICE: Final = "notice"


class ResponseMark(NamedTuple):
    """The mark that follows a response: echoed by Twilio once the response was played."""

    name: str


class Truncation(NamedTuple):
    """An item the caller did not hear to its end."""

    item_id: str
    heard_ms: int


class Outcome(NamedTuple):
    """The heard part of an item, of the audio received. `whole`: nothing of it is left to hear."""

    item_id: str
    heard_ms: int
    length_ms: int
    whole: bool


class _Segment:
    """The audio of one response that is not cut into frames yet."""

    __slots__ = ("_cut", "_pieces", "ended", "items", "last_item", "response_id", "size_bytes")

    def __init__(self, response_id: str, item_id: str) -> None:
        self.response_id = response_id
        self.last_item = item_id  # of its latest audio
        self._pieces: deque[bytes] = deque()  # all but the last have PIECE_BYTES
        self._cut = 0  # bytes of the first piece already cut
        self.size_bytes = 0
        self.items: deque[tuple[str, int, int]] = deque()  # item, offset in the item, bytes not cut yet
        self.ended = False

    def add(self, audio: bytes) -> None:
        pieces = self._pieces
        self.size_bytes += len(audio)
        if pieces and len(pieces[-1]) < PIECE_BYTES:
            audio = pieces.pop() + audio
        for start in range(0, len(audio), PIECE_BYTES):
            pieces.append(audio[start : start + PIECE_BYTES])

    def cut_frame(self) -> bytes:
        """Cut the first frame. The caller checks that there is a whole one."""
        first, start = self._pieces[0], self._cut
        self._cut = end = start + FRAME_BYTES
        self.size_bytes -= FRAME_BYTES
        if end == len(first):
            self._pieces.popleft()
            self._cut = 0
        return first[start:end]

    def skip_frames(self, count: int) -> None:
        """Drop the first frames. The caller checks that there are as many."""
        self.size_bytes -= count * FRAME_BYTES
        self._cut += count * FRAME_BYTES
        while self._pieces and self._cut >= len(self._pieces[0]):
            self._cut -= len(self._pieces.popleft())
        self.use(count * FRAME_BYTES)

    def use(self, size_bytes: int) -> list[tuple[str, int, int]]:
        """Take the first bytes out of the items. Returns: item, offset in the item, bytes; padding belongs to no item."""
        parts: list[tuple[str, int, int]] = []
        while size_bytes and self.items:
            item_id, start, length = self.items.popleft()
            used = min(size_bytes, length)
            parts.append((item_id, start, used))
            if used < length:
                self.items.appendleft((item_id, start + used, length - used))
            size_bytes -= used
        return parts


class _Span:
    """`length` bytes of an item from `item_start`, at `start` in the stream of frames."""

    __slots__ = ("item_id", "item_start", "length", "start")

    def __init__(self, item_id: str, item_start: int, start: int, length: int) -> None:
        self.item_id = item_id
        self.item_start = item_start
        self.start = start
        self.length = length


class Playout:
    """The bounded buffer between AI-in and AI-out, and its ledger."""

    __slots__ = (
        "_bound_bytes",
        "_cut_bytes",
        "_item_bytes",
        "_last_mark",
        "_overtaken",
        "_segments",
        "_spans",
        "cut_response",
        "expected_frames",
        "generation",
        "is_dry",
        "marks_pending",
        "overrun_frames",
    )

    def __init__(self, bound_frames: int) -> None:
        self._bound_bytes = bound_frames * FRAME_BYTES
        self._segments: deque[_Segment] = deque()
        self._spans: deque[_Span] = deque(maxlen=MAX_SPANS)
        self._item_bytes: dict[str, int] = {}  # bytes received, by item
        self._cut_bytes = 0  # position in this generation's stream of frames
        self._last_mark = 0
        self._overtaken = ("", "")  # a response in progress behind which another one is queued, and its latest item
        self.cut_response = ""  # of the last frame cut
        self.generation = 0
        self.is_dry = True  # the last `pop` found nothing, and no audio came since
        # marks of this generation not echoed yet: name, frames before the mark
        self.marks_pending: deque[tuple[str, int]] = deque(maxlen=MAX_SPANS)
        self.expected_frames = 0  # frames of the audio received, tails padded, less those dropped
        self.overrun_frames = 0

    # -- AI-in --------------------------------------------------------------------------------------------------------

    def push(self, response_id: str, item_id: str, audio: bytes) -> int:
        """Append AI audio to the buffer.

        Shape: any number of mu-law bytes; a remainder shorter than a frame waits for more, or for the response's end.
        Returns: frames dropped from the front to stay within the bound. A response dropped to its end loses its mark too.
        """
        if not audio:
            return 0
        self.is_dry = False
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.ended or segment.response_id != response_id:
            if self._overtaken[0] == response_id:
                self._overtaken = ("", "")
            if segment is not None and not segment.ended:
                self._overtaken = (segment.response_id, segment.last_item)
                self._end(segment)
            segment = _Segment(response_id, item_id)
            self._segments.append(segment)
        segment.last_item = item_id
        offset = self._item_bytes.get(item_id, 0)
        if segment.items and (segment.items[-1][0] == item_id or len(segment.items) == MAX_ITEMS):
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
        """End a response: its tail is padded to a frame, its mark follows. A response without audio has no mark."""
        if self._overtaken[0] == response_id:
            self._overtaken = ("", "")
        if self._segments and self._segments[-1].response_id == response_id and not self._segments[-1].ended:
            self._end(self._segments[-1])

    def end_open_response(self) -> None:
        """End the response in progress, if any: the AI is gone."""
        self._overtaken = ("", "")
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
        if len(self._segments) > MAX_RESPONSES:
            dropped = self._segments.popleft().size_bytes // FRAME_BYTES
        while (excess := self.depth_bytes - self._bound_bytes) > 0:
            segment = self._segments[0]
            if frames := min(segment.size_bytes, excess + FRAME_BYTES - 1) // FRAME_BYTES:
                segment.skip_frames(frames)
                dropped += frames
            elif segment.ended:
                self._segments.popleft()
            else:
                break
        self.expected_frames -= dropped
        self.overrun_frames += dropped
        return dropped

    # -- AI-out -------------------------------------------------------------------------------------------------------

    def pop(self) -> bytes | ResponseMark | None:
        """Return the next frame of 160 bytes, a response's mark, or None: nothing is ready."""
        while self._segments:
            segment = self._segments[0]
            if segment.size_bytes >= FRAME_BYTES:
                frame = segment.cut_frame()
                self._record(segment.use(FRAME_BYTES))
                self.cut_response = segment.response_id
                return frame
            if not segment.ended:
                break
            self._segments.popleft()
            self._last_mark += 1
            name = f"g{self.generation}r{self._last_mark}"
            self.marks_pending.append((name, self.cut_frames))
            return ResponseMark(name)
        self.is_dry = True
        return None

    def _record(self, parts: list[tuple[str, int, int]]) -> None:
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

    # -- state --------------------------------------------------------------------------------------------------------

    @property
    def depth_bytes(self) -> int:
        """Audio waiting to be cut, padding included."""
        return sum([segment.size_bytes for segment in self._segments])

    @property
    def is_empty(self) -> bool:
        """True if every response ended and was cut, with its mark."""
        return not self._segments

    @property
    def cut_frames(self) -> int:
        """Number of frames cut in this generation; the pacer counts those sent."""
        return self._cut_bytes // FRAME_BYTES

    def heard(self, heard_frames: float) -> dict[str, int]:
        """Return the milliseconds heard of each item, at most its received audio.

        `heard_frames`: of this generation. Items of which nothing was heard are missing.
        """
        heard_bytes = int(heard_frames * FRAME_BYTES + 1e-6)
        return {
            span.item_id: (span.item_start + min(span.length, heard_bytes - span.start)) // BYTES_PER_MS
            for span in self._spans
            if heard_bytes > span.start
        }

    def unheard(self, heard_frames: float) -> list[Truncation]:
        """Return the items not heard to their end, in sequence.

        The latest item of a response in progress is among them: the AI generated more of it than arrived.
        """
        names = dict.fromkeys(span.item_id for span in self._spans if span.start + span.length > heard_frames * FRAME_BYTES)
        for segment in self._segments:
            names.update(dict.fromkeys(item_id for item_id, _, _ in segment.items))
            if not segment.ended:
                names[segment.last_item] = None
        if self._overtaken[1] in self._item_bytes:
            names[self._overtaken[1]] = None
        heard = self.heard(heard_frames)
        return [Truncation(item_id, heard.get(item_id, 0)) for item_id in names]

    def outcomes(self, heard_frames: float) -> list[Outcome]:
        """Return how much was heard of each item of this generation, in the sequence received.

        `whole` is True for an item heard to its end, and for one whose rest was dropped at the bound.
        """
        unheard, heard = dict(self.unheard(heard_frames)), self.heard(heard_frames)
        return [
            Outcome(item_id, heard.get(item_id, 0), size // BYTES_PER_MS, item_id not in unheard)
            for item_id, size in self._item_bytes.items()
        ]

    def on_mark_echo(self, name: str) -> int | None:
        """Record Twilio's echo of a mark. The echo covers earlier marks too.

        Returns: the number of this generation's frames before the mark, all heard; None after a `clear`, or for an unknown mark.
        """
        for index, (pending, frames) in enumerate(self.marks_pending):
            if pending == name:
                for _ in range(index + 1):
                    self.marks_pending.popleft()
                return frames
        return None

    def clear(self, sent_frames: int) -> int:
        """Drop everything not sent and begin a new generation. Returns the frames dropped, cut ones included."""
        waiting = sum(-(-segment.size_bytes // FRAME_BYTES) for segment in self._segments)
        whole = sum(segment.size_bytes // FRAME_BYTES for segment in self._segments)
        cut = self.cut_frames - sent_frames
        self.expected_frames -= whole + cut
        self._segments.clear()
        self._spans.clear()
        self._item_bytes.clear()
        self._overtaken = ("", "")
        self.marks_pending.clear()
        self._cut_bytes = 0
        self.generation += 1
        return waiting + cut
