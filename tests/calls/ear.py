"""The caller's ear: when which audio of the AI was heard, when the caller spoke, and judgements on both. Pure.

    agent   |== item a ==|      |== item a ==|        |== item b ==|
    caller          |~~~~~~~~~~~~~|
                    0   0.3 s     ^ an answer is owed: dead air until item b

Times are `time.monotonic()` of the twins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gw.call.audio.playout import RECORDED
from gw.twin.ai.ledger import AiLedger, SentResponse
from gw.twin.sound import FRAME_BYTES, PTIME_MS, PTIME_S, RATE_HZ, SILENCE, level
from gw.twin.twilio.call_record import CallRecord

#: Time in which speech of the caller has to silence the agent: detection, network, and the audio Twilio has buffered.
YIELD_S: Final = 0.3
#: A caller's pause within one talkspurt; shorter than the pause that ends a turn.
_PAUSE_S: Final = 0.4
#: Shorter than any word: a click on the line.
_WORD_S: Final = 0.06
#: Mean magnitude of a frame with voice.
_LOUD: Final = 0.01
#: Frames of one stretch follow each other closer than this.
_GAP_S: Final = 0.005


class Item(NamedTuple):
    """An item of the AI: its whole audio, sent or not, and when its response began."""

    item_id: str
    created_s: float
    audio: bytes


class Span(NamedTuple):
    """A stretch of sound. Of the agent: frames `first` and following of an item; without an item no AI audio."""

    start_s: float
    end_s: float
    item: str = ""
    first: int = 0


@dataclass(frozen=True)
class Ear:
    """A call as its caller experienced it. `words`: spoken by Twilio after the streams, from `ended_s` on."""

    agent: tuple[Span, ...] = ()
    caller: tuple[Span, ...] = ()
    began_s: float = 0.0
    ended_s: float = 0.0
    words: tuple[str, ...] = ()


def ear_of(call: CallRecord, sessions: Iterable[AiLedger], recorded: bytes = b"") -> Ear:
    """Return the ear of a call that has ended. `sessions`: all of its AI sessions. `recorded`: its recorded greeting."""
    items = [Item(one.item_id, one.created_s, _whole(one)) for session in sessions for one in session.responses]
    began_s = call.streams_s[0] if call.streams_s else call.placed_s
    items += [Item(RECORDED, began_s, recorded)] if recorded else []
    ended_s = call.ended_s if call.ended_s is not None else began_s
    sent = bytes(call.sent_speech)
    return Ear(
        agent=identify(call.played, items),
        caller=talkspurts((at_s, sent[n * FRAME_BYTES : (n + 1) * FRAME_BYTES]) for n, at_s in enumerate(call.sent_s)),
        began_s=began_s,
        ended_s=ended_s,
        words=tuple(call.spoken),
    )


def identify(played: Iterable[tuple[float, bytes]], items: Sequence[Item]) -> tuple[Span, ...]:
    """Find each piece of audio among the items' frames, and join what is contiguous.

    Equal frames are ambiguous: the continuation of the span comes first, then the latest response begun by then. A piece of
    several frames is found by its first. Silence that no item has is left out.
    """
    frames = {item.item_id: _frames(item.audio) for item in items}
    places: dict[bytes, list[tuple[float, str, int]]] = {}
    for item in items:
        for n, frame in enumerate(frames[item.item_id]):
            places.setdefault(frame, []).append((item.created_s, item.item_id, n))
    spans: list[Span] = []
    for start_s, audio in played:
        end_s, head = start_s + len(audio) / RATE_HZ, audio[:FRAME_BYTES]
        last = spans[-1] if spans else Span(0.0, 0.0)
        follows = start_s - last.end_s < _GAP_S
        at = last.first + round((last.end_s - last.start_s) / PTIME_S)
        expected = frames.get(last.item, [])[at : at + 1]
        if expected and _continues(head, expected[0]):
            found = (last.item, at)
        else:
            known = [place for place in places.get(head, []) if place[0] <= start_s]
            found = max(known)[1:] if known else ("", 0)
            if not found[0] and not head.strip(SILENCE):
                continue
        if spans and follows and found[0] == last.item and (not last.item or found[1] == at):
            spans[-1] = last._replace(end_s=end_s)
        else:
            spans.append(Span(start_s, end_s, *found))
    return tuple(spans)


def talkspurts(frames: Iterable[tuple[float, bytes]]) -> tuple[Span, ...]:
    """Return the caller's talkspurts. `frames`: when each left, and its audio."""
    spans: list[Span] = []
    for at_s, frame in frames:
        if level(frame) < _LOUD:
            continue
        if spans and at_s - spans[-1].end_s < _PAUSE_S:
            spans[-1] = spans[-1]._replace(end_s=max(spans[-1].end_s, at_s + PTIME_S))
        else:
            spans.append(Span(at_s, at_s + PTIME_S))
    return tuple(span for span in spans if span.end_s - span.start_s > _WORD_S)


def dead_air(ear: Ear, owed: Iterable[float]) -> list[float]:
    """Return the longest silence after each time at which an answer became owed, in seconds.

    The debt ends with audio of the AI, with the caller's next talkspurt, or with the call. Other sounds only break the silence.
    """
    return [_longest_silence(ear, at_s) for at_s in owed]


def _longest_silence(ear: Ear, owed_s: float) -> float:
    ends = [span.start_s for span in ear.caller if span.start_s > owed_s]
    ends += [max(owed_s, span.start_s) for span in ear.agent if span.item and span.end_s > owed_s]
    end_s = min([*ends, max(owed_s, ear.ended_s)])
    longest_s, since_s = 0.0, owed_s
    for span in ear.agent:
        if span.end_s > owed_s and span.start_s < end_s:
            longest_s = max(longest_s, span.start_s - since_s)
            since_s = span.end_s
    return max(longest_s, end_s - since_s)


def talked_over(ear: Ear, speech: Iterable[Span]) -> int:
    """Count the agent's frames played during the caller's `speech`, YIELD_S after its begin."""
    spoken_s = 0.0
    for said in speech:
        for span in ear.agent:
            spoken_s += max(0.0, min(span.end_s, said.end_s) - max(span.start_s, said.start_s + YIELD_S))
    return round(spoken_s / PTIME_S)


def heard_ms(ear: Ear, item: str, until_s: float = float("inf")) -> int:
    """Return the milliseconds of an item that were played until then."""
    return round(sum(max(0.0, min(span.end_s, until_s) - span.start_s) for span in ear.agent if span.item == item) * 1000)


def repeated_frames(ear: Ear) -> int:
    """Return how many frames of an item were heard again."""
    count, ends = 0, dict[str, int]()
    for span in ear.agent:
        if span.item:
            end = span.first + round((span.end_s - span.start_s) / PTIME_S)
            count += max(0, min(end, ends.get(span.item, 0)) - span.first)
            ends[span.item] = max(end, ends.get(span.item, 0))
    return count


def cut_goodbyes(ear: Ear, goodbyes: Mapping[str, int]) -> list[str]:
    """Return the goodbyes that were cut without an interruption.

    `goodbyes`: item and length in ms. One is taken back if the caller speaks after its begin.
    """
    cut = []
    for item, whole_ms in goodbyes.items():
        begins = [span.start_s for span in ear.agent if span.item == item]
        taken_back = any(said.end_s > min(begins) for said in ear.caller) if begins else False
        if heard_ms(ear, item) < whole_ms - PTIME_MS and not taken_back:
            cut.append(item)
    return cut


def _whole(sent: SentResponse) -> bytes:
    """Return what was sent of a response, and what might be sent late."""
    return bytes(sent.audio) + sent.intended[len(sent.audio) :]


def _continues(head: bytes, expected: bytes) -> bool:
    """Return whether a frame is the expected one, whole, cut by a clear, or cut by the AI and padded."""
    sound = head.rstrip(SILENCE)
    return expected.startswith(head) or (sound != b"" and expected.startswith(sound))


def _frames(audio: bytes) -> list[bytes]:
    padded = audio + SILENCE * (-len(audio) % FRAME_BYTES)
    return [padded[at : at + FRAME_BYTES] for at in range(0, len(padded), FRAME_BYTES)]
