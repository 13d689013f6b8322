"""Plans of calls and kills, drawn from a seed: transfers, digits, talk, and the callees' reactions. Pure."""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from gw.twin.twilio.dial import Callee

#: Longest ringing, by agent. `warm` whispers, `cold` connects as the callee answers; the AI session of `slow` is gone by then.
RING_S: Final = {"warm": 3, "cold": 3, "slow": 18}
#: Every agent's targets: the party, and the outcome that the agent must learn. `completed`: the caller does not return.
PARTIES: Final = {
    "accepts": (Callee(after_s=1.5, keys="1", talks_s=0.5), "completed"),
    "declines": (Callee(after_s=2.0, keys="2", listens_s=0.5), "declined"),
    "leaves": (Callee(after_s=1.0, keys="", listens_s=1.0), "declined"),
    "busy": (Callee(ends="busy", after_s=1.5), "busy"),
    "fails": (Callee(ends="failed", after_s=0.5), "failed"),
    "silent": (Callee(after_s=60.0), "no-answer"),
}
#: Parties that do not connect the caller: without a whisper, the answer connects.
_RETURNS: Final = {
    "warm": ("declines", "leaves", "busy", "fails", "silent"),
    "cold": ("busy", "fails", "silent"),
    "slow": ("declines", "busy", "silent"),
}
NUMBERS: Final = {name: f"+1555000000{n}" for n, name in enumerate(PARTIES)}


class Leaving(NamedTuple):
    """One leave of a call. `party`: of a transfer; `digits`: to be sent."""

    party: str = ""
    digits: str = ""

    @property
    def outcome(self) -> str:
        """The status that the agent's tool returns."""
        return PARTIES[self.party][1] if self.party else "sent"


class CallPlan(NamedTuple):
    """One call. `acts`: of its agent's responses in sequence; None: it only talks. Parties and digits differ within a call."""

    number: int
    agent: str
    acts: tuple[Leaving | None, ...]

    @property
    def caller(self) -> str:
        return f"+1556{self.number:07}"

    @property
    def leavings(self) -> list[Leaving]:
        return [act for act in self.acts if act is not None]


class Kill(NamedTuple):
    """One kill. `pick`: which worker. `when_away`: as soon as a call is away from its stream."""

    role: str
    pause_s: float
    pick: float
    when_away: bool


def draw_call(seed: str, number: int) -> CallPlan:
    """Draw a call: up to four leaves between one and seven responses, and in four of ten a transfer that connects at the end."""
    chance = random.Random(f"{seed}/call/{number}")
    agent = chance.choices(("warm", "cold", "slow"), (6, 3, 1))[0]
    parties = list(_RETURNS[agent])
    chance.shuffle(parties)
    acts: list[Leaving | None] = []
    for n in range(chance.randint(0, 3 if agent != "slow" else 1)):
        acts += [None] * chance.randint(0, 1)
        acts.append(Leaving(digits=f"{n + 1}{number % 1000:03}#") if chance.random() < 0.4 else Leaving(parties.pop()))
    acts += [None] * chance.randint(0, 1)
    if chance.random() < 0.4 or not any(acts):
        acts.append(Leaving("accepts"))
    return CallPlan(number, agent, tuple(acts))


def draw_kills(seed: str, count: int) -> list[Kill]:
    """Draw kills of control and of workers."""
    chance = random.Random(f"{seed}/kills")
    return [
        Kill(chance.choice(("control", "worker")), chance.uniform(5.5, 8.0), chance.random(), chance.random() < 0.7)
        for _ in range(count)
    ]
