"""Measures how long a caller waits for an answer: from their last sound to the answer's first frame.

The wait has four parts:

    pause    the AI's voice detection waits for the end of the turn: `turns.silence_ms` with server_vad
    ai       until the AI sends the answer's first audio, with any replacement of its session
    tool     a tool runs whose result the answer needs
    gateway  an interruption is judged, earlier words are still heard, or the answer waits behind queued audio

Only spoken turns are measured, keys are not. A filler does not count as an answer. A caller who speaks again before the answer
begins another wait. Times are milliseconds of one clock, passed in.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import Facts, Party, Phase, Response

#: No frame: the answer's place among the caller's frames is unknown.
NO_FRAME: Final = -1


class Wait(NamedTuple):
    """One wait for an answer, by part. `item_id`: the answer's first item."""

    item_id: str
    pause_ms: int
    ai_ms: int
    tool_ms: int
    gateway_ms: int

    @property
    def total_ms(self) -> int:
        return self.pause_ms + self.ai_ms + self.tool_ms + self.gateway_ms


class AnswerClock:
    """The clock of one call's answers. `frame`: the first frame of an answer that is queued, else NO_FRAME."""

    __slots__ = ("_debt", "_item_id", "_party", "_pause_ms", "_runs", "_since_ms", "_spent", "_spoke", "frame", "is_answered")

    def __init__(self, pause_ms: int) -> None:
        """`pause_ms`: from the caller's last sound to the AI's report of it."""
        self._pause_ms = pause_ms
        self._spoke = False
        self._debt: Prompt | None = None
        self._clear()

    def _clear(self) -> None:
        self._runs = False  # a wait is measured
        self._since_ms = 0
        self._party: Party = "ai"  # what the caller waits for since then
        self._spent: dict[Party, int] = {"ai": 0, "tool": 0, "gateway": 0}
        self._item_id = ""
        self.is_answered = False  # the answer's first audio came; its frame is not sent yet
        self.frame = NO_FRAME

    def follow(self, machine: Facts) -> None:
        """Take the dialogue's state, after each of its turns."""
        spoke, self._spoke = self._spoke, machine.speaks
        debt, self._debt = self._debt, machine.debt
        if machine.speaks:
            if self._runs:
                self._clear()
            return
        if spoke:
            self._runs, self._since_ms = True, machine.now
        if not self._runs or self.is_answered:
            return
        self._spend(machine.now)
        if debt not in (None, Prompt.FILLER) and machine.debt is None and _has_begun(machine):
            self.is_answered, self._party = True, "gateway"
        elif (party := machine.waits_for) is not None:
            self._party = party
        else:
            self._clear()  # no answer follows: what the caller said was noise, or the call ends

    def on_queued(self, item_id: str, frame: int) -> None:
        """Record where the answer's first frame is queued."""
        self._item_id, self.frame = item_id, frame

    def on_sent(self, sent_ms: int) -> Wait:
        """Record when that frame left. Returns the wait."""
        self._spend(sent_ms)
        wait = Wait(self._item_id, self._pause_ms, self._spent["ai"], self._spent["tool"], self._spent["gateway"])
        self._clear()
        return wait

    def _spend(self, now_ms: int) -> None:
        self._spent[self._party] += max(0, now_ms - self._since_ms)
        self._since_ms = max(now_ms, self._since_ms)


def _has_begun(machine: Facts) -> bool:
    """Return whether the response under way is heard: it paid the debt."""
    return machine.response is Response.ACTIVE and machine.has_audio and machine.phase is not Phase.ENDED
