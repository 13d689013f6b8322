"""Interruptions: what is cut of the agent's audio, and how much of it was heard.

The caller interrupts while any of the agent's audio is still to be heard, received or not, sent or not. One returned value holds
the whole cut, which the edge carries out without switching: discard, `clear`, truncate. `gw.call.dialogue` decides when.
"""

from __future__ import annotations

from typing import NamedTuple

from gw.call.audio.pacer import Pacer
from gw.call.audio.playout import Outcome, Playout, Truncation


class Interruption(NamedTuple):
    """The cut of one interruption: how much of each item was heard, in sequence, and frames the caller never got."""

    outcomes: list[Outcome]
    dropped_frames: int

    @property
    def truncations(self) -> list[Truncation]:
        """The items that the caller did not hear to their end."""
        return [Truncation(one.item_id, one.heard_ms) for one in self.outcomes if not one.whole]


def cut(playout: Playout, pacer: Pacer, now_s: float) -> Interruption | None:
    """Drop what the caller has not heard, and begin a new generation.

    Returns: the cut; None, without effect, if no audio of the agent is left to hear.
    """
    if not is_playing(playout, pacer, now_s):
        return None
    outcomes = playout.outcomes(pacer.heard_at_clear(now_s))
    dropped_frames = playout.clear(pacer.sent_frames)
    pacer.on_clear()
    return Interruption(outcomes, dropped_frames)


def is_playing(playout: Playout, pacer: Pacer, now_s: float) -> bool:
    """Return True while the caller hears the agent, or will hear queued audio."""
    return not playout.is_empty or playout.cut_frames > pacer.sent_frames or now_s < pacer.heard_out_s()
