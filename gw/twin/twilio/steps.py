"""Steps of a caller and of the network, as data, and when each is due. Pure.

A step waits for the one before it, and then for a time or for what the caller hears. Time is passed in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from gw.twin import speech
from gw.twin.sound import BYTES_PER_MS, RATE_HZ

StepKind = Literal[
    "say",  # `audio`
    "press",  # `keys`, separated by spaces; invalid ones are sent too
    "lose_frames",  # the network loses the caller's audio for `lasts_s`
    "delay_frames",  # the network delays it, and delivers it in one burst after `lasts_s`
    "reset",  # the media socket breaks without `stop`; Twilio asks the action URL after `lasts_s`
    "half_open",  # the media socket stays open and silent; Twilio asks the action URL after `lasts_s`
    "hang_up",
]
When = Literal[
    "after",  # `wait_s` after the step before
    "heard",  # the agent has been audible for `wait_s` without a pause
    "quiet",  # the agent was audible since the step before, and has been silent for `wait_s`
]
NETWORK_FAULTS: Final[tuple[StepKind, ...]] = ("lose_frames", "delay_frames", "reset", "half_open")

#: A loud noise of 300 ms, and a backchannel word of 260 ms.
COUGH: Final = speech.load("weasels")[2400 : 2400 + 300 * BYTES_PER_MS]
BACKCHANNEL: Final = speech.load("monkeys")[2400 : 2400 + 260 * BYTES_PER_MS]


@dataclass(frozen=True, slots=True)
class Step:
    """One act. `patience_s` bounds the wait for what the caller hears; then the step comes anyway."""

    kind: StepKind
    when: When = "after"
    wait_s: float = 0.0
    audio: bytes = b""
    keys: str = ""
    lasts_s: float = 0.0
    patience_s: float = 15.0

    @property
    def length_s(self) -> float:
        """Duration of the act itself: the next step's wait begins after it."""
        return len(self.audio) / RATE_HZ


class StepClock:
    """Decides when each step is due."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._steps = deque(steps)
        self._since_s: float | None = None  # end of the step before
        self._edge_s = 0.0  # last change between audible and silent
        self._was_audible = False
        self._heard = False

    @property
    def is_over(self) -> bool:
        return not self._steps

    def due(self, now_s: float, audible: bool) -> Step | None:
        """Return the next step if it is due. `audible`: the caller hears the agent now."""
        since_s = self._since_s = now_s if self._since_s is None else self._since_s
        if audible != self._was_audible:
            self._was_audible, self._edge_s = audible, now_s
        self._heard = self._heard or (audible and now_s > since_s)
        if not self._steps or not self._is_due(self._steps[0], now_s, since_s, audible):
            return None
        step = self._steps.popleft()
        self._since_s, self._heard = now_s + step.length_s, False
        return step

    def _is_due(self, step: Step, now_s: float, since_s: float, audible: bool) -> bool:
        if step.when == "after":
            return now_s - since_s >= step.wait_s
        if now_s - since_s >= step.patience_s:
            return True
        lasted = now_s - max(self._edge_s, since_s) >= step.wait_s
        return lasted and (audible if step.when == "heard" else self._heard and not audible)
