"""Interruptions: decides whether the caller's voice cuts the agent, and what is cut.

The caller interrupts while any of the agent's audio is still to be heard, received or not, sent or not. One returned value holds
the whole decision, which the edge carries out without switching: discard, `clear`, truncate.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from gw.call.pacer import Pacer
from gw.call.playout import Outcome, Playout, Truncation

#: Responses whose late deltas are dropped: one in progress, one just cancelled; the rest is margin.
MAX_CUT_RESPONSES: Final = 8
#: Items whose truncation is kept: a response has few.
MAX_TRUNCATED_ITEMS: Final = 64


class Interruption(NamedTuple):
    """The cut of one interruption: how much of each item was heard, in sequence, and frames the caller never got."""

    outcomes: list[Outcome]
    dropped_frames: int

    @property
    def truncations(self) -> list[Truncation]:
        """The items that the caller did not hear to their end."""
        return [Truncation(one.item_id, one.heard_ms) for one in self.outcomes if not one.whole]


class BargeIn:
    """Tracks one call's interruptions. `count`: their number."""

    __slots__ = ("_cut", "_truncated", "count")

    def __init__(self) -> None:
        self._cut: deque[str] = deque(maxlen=MAX_CUT_RESPONSES)
        self._truncated: deque[str] = deque(maxlen=MAX_TRUNCATED_ITEMS)
        self.count = 0

    def on_speech_started(self, playout: Playout, pacer: Pacer, now_s: float, active_response: str | None) -> Interruption | None:
        """Handle the start of the caller's speech.

        `active_response`: the response the AI is generating; the AI cancels it, and its further audio is late.
        Returns: the cut, with buffers cleared and a new generation begun; None if no audio of the agent is left to hear.
        """
        if active_response is not None and active_response not in self._cut:
            self._cut.append(active_response)
        if not is_playing(playout, pacer, now_s):
            return None
        outcomes = playout.outcomes(pacer.heard_frames(now_s))
        cut = Interruption(outcomes, playout.clear(pacer.sent_frames))
        pacer.on_clear()
        self.count += 1
        self._truncated.extend(item_id for item_id, _ in cut.truncations)
        return cut

    def is_late(self, response_id: str) -> bool:
        """Return True for a response that was cut: its audio is dropped."""
        return response_id in self._cut

    def on_late_audio(self, item_id: str) -> bool:
        """Handle audio of a cut response.

        Returns: True once for each item no truncation has named. The AI assumes the item was heard; truncate it at 0 ms.
        """
        if item_id in self._truncated:
            return False
        self._truncated.append(item_id)
        return True


def is_playing(playout: Playout, pacer: Pacer, now_s: float) -> bool:
    """Return True while the caller hears the agent, or will hear queued audio."""
    return not playout.is_empty or playout.cut_frames > pacer.sent_frames or now_s < pacer.heard_out_s()
