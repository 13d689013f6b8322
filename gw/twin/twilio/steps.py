"""Steps of a caller and of the network, as data, and when each is due. Pure.

A step waits for the one before it, and then for a time or for what the caller hears. Time is passed in. `parse_step` reads the
notation of `gateway.py twin call`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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


# -- notation -----------------------------------------------------------------------------------------------------------

#: A caller speaks after this silence of the agent, and interrupts after this much of its speech.
PAUSE_S: Final = 0.5
#: A wait for an agent that stays silent.
PATIENCE_S: Final = 8.0
#: Longest time in a step.
MAX_STEP_S: Final = 600.0

#: Every step of the notation, and its meaning for the help.
NOTATION: Final[dict[str, str]] = {
    "say=PHRASE": "speaks once the agent was heard and is silent: a recording by name, or a WAV file",
    "interrupt=PHRASE": "speaks while the agent does",
    "press=KEYS": "presses keys, once the agent was heard and is silent",
    "wait=SECONDS": "waits",
    "hang_up": "hangs up, once the agent was heard and is silent",
    "lose_frames=SECONDS": "the network loses the caller's audio",
    "delay_frames=SECONDS": "the network delays it, then delivers all of it together",
    "reset=SECONDS": "the media socket breaks, and Twilio asks for the next step after that time",
    "half_open=SECONDS": "the media socket stays open and silent, and Twilio asks after that time",
}
_KEYS: Final = frozenset("0123456789*#ABCD")


def parse_step(text: str, audio_of: Callable[[str], bytes]) -> Step:
    """Parse one step of the notation. `audio_of` returns the audio of a phrase.

    Raises: ValueError with the fault and the expected form, and whatever `audio_of` raises.
    """
    name, _, value = text.partition("=")
    form = next((form for form in NOTATION if form.partition("=")[0] == name), "")
    if not form:
        raise ValueError(f"{text!r} is not a step; expected one of: {', '.join(NOTATION)}")
    if ("=" in form) != bool(value):
        raise ValueError(f"{text!r} is not a step; expected {form}")
    if name == "hang_up":
        return Step("hang_up", "quiet", PAUSE_S, patience_s=PATIENCE_S)
    if name == "press":
        if not set(value) <= _KEYS:
            raise ValueError(f"{text!r} has an invalid key; expected digits, *, # and A to D")
        return Step("press", "quiet", PAUSE_S, keys=" ".join(value), patience_s=PATIENCE_S)
    if name == "say":
        return Step("say", "quiet", PAUSE_S, audio=audio_of(value), patience_s=PATIENCE_S)
    if name == "interrupt":
        return Step("say", "heard", PAUSE_S, audio=audio_of(value), patience_s=PATIENCE_S)
    lasts_s = _seconds(text, value)
    if name == "wait":
        return Step("say", wait_s=lasts_s)
    return Step(next(kind for kind in NETWORK_FAULTS if kind == name), lasts_s=lasts_s)


def _seconds(text: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= MAX_STEP_S:
        raise ValueError(f"{text!r}: expected seconds, 0 to {MAX_STEP_S:g}")
    return seconds
