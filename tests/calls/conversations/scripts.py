"""Conversations from seeds: the caller's steps, the AI's scripts, faults of both legs. Pure.

The same seed gives the same conversation. Each frame of the AI's voice is unique within a conversation, so that the caller's ear
can be compared with the AI's items.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from gw.twin import speech
from gw.twin.ai.faults import EVERY, RESPONSES, TURNS
from gw.twin.ai.script import AiScript, lasting
from gw.twin.sound import FRAME_BYTES, frames
from gw.twin.twilio.steps import BACKCHANNEL, COUGH, NETWORK_FAULTS, Step, When
from gw.twin.twilio.stream import CallPlan

Interruptions = Literal["model", "gateway", "none"]

#: Faults of a connection attempt that the next attempt does not meet.
CONNECT_FAULTS: Final = ("refuse_429", "refuse_500", "close_first", "never_ready", "update_refused")
#: Faults that every attempt would meet: the call ends with words.
LASTING: Final = ("create_refused_quota", "failed_quota", "error_fatal", "close_4000")
#: Faults of responses and turns that a conversation outlives.
#: The audio of `long_id` shifts all later frames by two samples, so that no ear finds them.
PASSING: Final = tuple(sorted({*RESPONSES, *TURNS} - {*LASTING, "hang_up", "cancelled", "long_id"}))
#: Faults of a whole call.
HABITS: Final = ("late_start", "late_echoes", "no_stop")

ANSWERS: Final = 12
#: The first byte of each frame of a recorded greeting, beyond any session's number.
RECORDED_VOICE: Final = 200
_FRAMES: Final = frames(lasting(4))
_SAID: Final = tuple(speech.load(name) for name in speech.CALLER_PHRASES)
#: A caller whose conversation stalls gives up after this silence.
_GIVES_UP_S: Final = 12.0


@dataclass(frozen=True)
class Conversation:
    """Plan of each side. `agent_ends`: the AI hangs up after its last answer, if the caller lets it."""

    seed: int
    plan: CallPlan
    first: AiScript  # of the first session
    then: AiScript  # of every later one
    faults: tuple[str, ...]
    interruptions: Interruptions
    agent_ends: bool
    recorded: bytes = b""  # the greeting; empty: the AI speaks it
    warm: bool = False

    @property
    def agent(self) -> str:
        """Name of its agent, and the last part of the URL of its AI."""
        return f"c{self.seed}"

    def script(self, session: int) -> AiScript:
        """Return the script of a session, 0 for the first, in its own voice."""
        script = self.then if session else self.first
        chance = random.Random(f"voice {self.seed}/{session}")
        answers = tuple(voice(session, n + 1, chance.uniform(0.8, 3.0)) for n in range(ANSWERS))
        return replace(
            script,
            greeting=voice(session, 0, chance.uniform(1.0, 2.5)),
            answers=answers,
            goodbye=voice(session, ANSWERS + 1, 1.5),
        )


def voice(session: int, n: int, seconds: float) -> bytes:
    """Return the AI's speech for one response: each frame begins with session, response and its own number."""
    count = round(seconds * 50)
    return b"".join(bytes((session, n, *divmod(place, 256))) + _FRAMES[place][4:] for place in range(count))


def conversation(seed: int) -> Conversation:
    """Make the conversation of a seed."""
    chance = random.Random(f"conversation {seed}")
    interruptions: Interruptions = chance.choices(("model", "gateway", "none"), (55, 40, 5))[0]
    turns = chance.randint(1, 4)
    agent_ends = chance.random() < 0.5
    steps, words = _turns(chance, turns)
    script = AiScript(
        caller_words=tuple(words),
        hang_up_after=1 + turns if agent_ends else None,
        seed=seed,
        speed=chance.choice((1.5, 10.0, math.inf)),
        thinking_s=chance.choice((0.0, 0.2, 0.6)),
        trailing_s=chance.choice((0.0, 0.0, 0.3)),
    )
    if agent_ends:
        if chance.random() < 0.3:  # the caller speaks into the goodbye
            steps.append(Step("say", "heard", chance.uniform(0.3, 1.0), audio=_phrase(chance)))
        steps.append(Step("hang_up", "quiet", _GIVES_UP_S))
    else:
        steps.append(Step("hang_up", "quiet", chance.uniform(0.5, 1.5), patience_s=_GIVES_UP_S))
    made = Conversation(
        seed,
        CallPlan(agent=f"c{seed}", hang_up=False, max_s=120.0, steps=tuple(steps)),
        script,
        script,
        (),
        interruptions,
        agent_ends,
    )
    made = _first_words(made)
    for _ in range(chance.choices((0, 1, 2), (30, 45, 25))[0]):
        made = chance.choices((_network_fault, _habit, _ai_fault, _connect_fault), (30, 10, 50, 10))[0](made, chance)
    return made


def _first_words(made: Conversation) -> Conversation:
    """Let some agents greet by a recording, so that the AI's first response is an answer, and some have a warm leg."""
    chance = random.Random(f"words {made.seed}")
    made = replace(made, warm=chance.random() < 0.25)
    if chance.random() >= 0.25:
        return made
    script = made.first
    if script.hang_up_after is not None:
        script = replace(script, hang_up_after=script.hang_up_after - 1)
    return replace(made, first=script, then=script, recorded=voice(RECORDED_VOICE, 0, chance.uniform(1.0, 2.5)))


def interrupted(seed: int, times: int) -> Conversation:
    """Make a conversation whose caller interrupts the greeting and each answer, without faults."""
    chance = random.Random(f"interrupted {seed}")
    cuts = [Step("say", "heard", chance.uniform(0.1, 0.8), audio=_phrase(chance)) for _ in range(times)]
    steps = (*cuts, Step("hang_up", "quiet", 0.5, patience_s=_GIVES_UP_S))
    script = AiScript(caller_words=("Tell me more, please.",), seed=seed, speed=chance.choice((1.5, 10.0, math.inf)))
    plan = CallPlan(agent=f"c{seed}", hang_up=False, max_s=20.0 + 6.0 * times, steps=steps)
    return Conversation(seed, plan, script, script, (), chance.choice(("model", "gateway")), agent_ends=False)


def _turns(chance: random.Random, count: int) -> tuple[list[Step], list[str]]:
    """Return the caller's turns, and the words of each that the AI detects as speech."""
    steps: list[Step] = []
    words: list[str] = []
    for _ in range(count):
        kind = chance.choices(("answer", "interrupt", "cough", "backchannel", "keys", "pause"), (40, 25, 10, 10, 10, 5))[0]
        if kind in ("cough", "backchannel"):
            noise, word = (COUGH, "") if kind == "cough" else (BACKCHANNEL, "mhm")
            steps.append(Step("say", "heard", chance.uniform(0.2, 0.8), audio=noise))
            words.append(word)
        if kind == "keys":
            steps.append(Step("press", "quiet", chance.uniform(0.3, 1.0), keys=chance.choice(("1 2 3 #", "5", "a w 12 7 #"))))
            continue
        if kind == "interrupt":
            steps.append(Step("say", "heard", chance.uniform(0.2, 1.5), audio=_phrase(chance)))
        else:
            quiet_s = 4.0 if kind == "pause" else chance.uniform(0.3, 1.2)
            steps.append(Step("say", "quiet", quiet_s, audio=_phrase(chance)))
        words.append("Tell me more, please.")
    return steps, words


def _phrase(chance: random.Random) -> bytes:
    """Return 0.7 to 1.6 seconds of speech."""
    return chance.choice(_SAID)[2400 : 2400 + FRAME_BYTES * chance.randint(35, 80)]


# -- faults -------------------------------------------------------------------------------------------------------------

_Fault = Callable[[Conversation, random.Random], Conversation]


def _with(made: Conversation, fault: str, **changes: object) -> Conversation:
    return replace(made, faults=(*made.faults, fault), **changes)  # type: ignore[arg-type]


def _network_fault(made: Conversation, chance: random.Random) -> Conversation:
    """Put a fault between two steps: in the agent's speech, in silence, or in the middle of the caller's words."""
    kind = chance.choice(NETWORK_FAULTS)
    steps = list(made.plan.steps)
    place = chance.randrange(len(steps))
    lasts_s = chance.uniform(0.1, 1.0) if kind == "reset" else chance.uniform(1.2, 2.5) if kind == "half_open" else 0.0
    lasts_s = lasts_s or chance.choice((0.2, 0.6, 1.5))
    when: When = chance.choices(("heard", "quiet", "after"), (50, 30, 20))[0]
    steps.insert(place, Step(kind, when, chance.uniform(0.1, 0.8), lasts_s=lasts_s, patience_s=6.0))
    return _with(made, kind, plan=replace(made.plan, steps=tuple(steps)))


def _habit(made: Conversation, chance: random.Random) -> Conversation:
    name = chance.choice(HABITS)
    if name == "late_start":
        return _with(made, name, plan=replace(made.plan, start_after_s=chance.uniform(0.3, 1.5)))
    if name == "late_echoes":
        return _with(made, name, plan=replace(made.plan, echo_after_s=chance.uniform(0.1, 0.6)))
    return _with(made, name, plan=replace(made.plan, sends_stop=False))


def _ai_fault(made: Conversation, chance: random.Random) -> Conversation:
    """Strike one of the first responses or turns: mostly once, sometimes several in a row, and rarely for ever."""
    if chance.random() < 0.1:
        name = chance.choice(LASTING)
        return _with(made, name, first=made.first.with_fault(name, chance.randint(1, 3)))
    name, first = chance.choice(PASSING), chance.randint(1, 3)
    times = chance.choices((1, 2, EVERY if name in RESPONSES else 1), (75, 20, 5))[0]
    script = made.first.with_fault(name, first, times=times)
    made = _with(made, name, first=script)
    return replace(made, then=script, faults=(*made.faults, "every_time")) if times == EVERY else made


def _connect_fault(made: Conversation, chance: random.Random) -> Conversation:
    name = chance.choice(CONNECT_FAULTS)
    return _with(made, name, first=made.first.with_fault(name))
