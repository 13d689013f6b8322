"""Whether the caller's voice interrupts the agent, and what is cut.

The caller interrupts when something of the agent is still to be heard, however much of it was received or sent. Everything is
decided in one value, which the edge carries out in one turn: discard, `clear`, truncate.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from gw.call.pacer import Pacer
from gw.call.playout import Playout, Truncation

#: Responses whose late deltas are dropped: one can be under way, one just cancelled; the rest is margin.
MAX_CUT_RESPONSES: Final = 8
#: Items whose truncation is remembered: a response has few.
MAX_TRUNCATED_ITEMS: Final = 64


class Interruption(NamedTuple):
    """What an interruption cuts: the items to truncate, in order, and the frames the caller never got."""

    truncations: list[Truncation]
    dropped_frames: int


class BargeIn:
    """One call's interruptions."""

    __slots__ = ("_cut", "_truncated", "count")

    def __init__(self) -> None:
        self._cut: deque[str] = deque(maxlen=MAX_CUT_RESPONSES)
        self._truncated: deque[str] = deque(maxlen=MAX_TRUNCATED_ITEMS)
        self.count = 0

    def on_speech_started(self, playout: Playout, pacer: Pacer, now_s: float, active_response: str | None) -> Interruption | None:
        """The caller began to talk. Returns None when nothing of the agent is left to hear; else the buffers are cleared and a
        new generation began.

        `active_response`: the one the AI is still generating; it cancels that itself, and what still comes of it is late.
        """
        if active_response is not None and active_response not in self._cut:
            self._cut.append(active_response)
        if not is_playing(playout, pacer, now_s):
            return None
        truncations = playout.unheard(pacer.heard_frames(now_s))
        dropped = playout.clear(pacer.sent_frames)
        pacer.on_clear()
        self.count += 1
        self._truncated.extend(item_id for item_id, _ in truncations)
        return Interruption(truncations, dropped)

    def is_late(self, response_id: str) -> bool:
        """Whether audio of this response comes after it was cut: it is dropped."""
        return response_id in self._cut

    def on_late_audio(self, item_id: str) -> bool:
        """Audio of a response that was cut came. True once for each item no truncation has named: the AI believes it was heard,
        and must be told that nothing of it was."""
        if item_id in self._truncated:
            return False
        self._truncated.append(item_id)
        return True


def is_playing(playout: Playout, pacer: Pacer, now_s: float) -> bool:
    """Whether the caller hears the agent now, or will once what is queued is sent."""
    return not playout.is_empty or playout.cut_frames > pacer.sent_frames or now_s < pacer.heard_out_s()
