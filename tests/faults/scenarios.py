"""Faults and scenarios as values, drawn from a seed.

A fault names its link, its act (`acts.py`) and its permitted effects; everything else must hold while it lasts. A scenario is a
list of strikes and calls. The same seed and length give the same scenario. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Link = Literal["phone", "ai", "rest", "store", "bus", "process"]
#: Permitted effects. audio: on audio and end of the calls it meets. rest: on requests to Twilio to record.
Spoils = Literal["audio", "rest"]
AUDIO: Final[frozenset[Spoils]] = frozenset({"audio"})
REST: Final[frozenset[Spoils]] = frozenset({"rest"})
NOTHING: Final[frozenset[Spoils]] = frozenset()


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    link: Link
    act: str
    lasts_s: tuple[float, float] = (0.0, 0.0)
    options: Mapping[str, Any] = field(default_factory=dict)
    spoils: frozenset[Spoils] = NOTHING
    after_s: float = 1.0  # time for recovery, before the next fault of its lane
    weight: int = 2


_BOTH: Final = {"direction": "both"}
_UP: Final = {"direction": "up"}
_DOWN: Final = {"direction": "down"}
_MEDIA: Final = {"opening": "GET /media"}

FAULTS: Final[Mapping[str, Fault]] = {
    fault.name: fault
    for fault in (
        # processes of the gateway
        Fault("control killed", "process", "kill", options={"role": "control"}, spoils=REST, after_s=6.0, weight=6),
        Fault("worker killed", "process", "kill", options={"role": "worker"}, spoils=AUDIO, after_s=6.0, weight=3),
        Fault("control stopped", "process", "stop", (0.5, 4.0), {"role": "control"}, REST, 2.0),
        Fault("worker stopped", "process", "stop", (0.2, 2.0), {"role": "worker"}, AUDIO, 2.0),
        Fault("reload", "process", "reload", spoils=REST, after_s=15.0, weight=1),
        # the store
        Fault("store killed", "store", "store_killed", (3.0, 9.0), after_s=3.0, weight=3),
        Fault("store frozen", "store", "store_frozen", (2.0, 8.0), after_s=3.0),
        Fault("store refuses", "store", "refuse", (2.0, 8.0), {"reset": True}, after_s=3.0),
        Fault("store half open", "store", "weather", (2.0, 8.0), {**_BOTH, "silent": True}, after_s=3.0),
        Fault("store slow", "store", "weather", (3.0, 8.0), {**_BOTH, "latency_ms": 150, "jitter_ms": 50}, after_s=2.0),
        Fault("store cut off", "store", "weather", (0.5, 2.0), {**_DOWN, "end_after_bytes": 300}, after_s=2.0),
        Fault("tables locked", "store", "store_locked", (2.0, 8.0), after_s=3.0),
        # Twilio's REST API
        Fault("REST 503", "rest", "rest_fails", (2.0, 5.0), {"kind": "503"}, REST),
        Fault("REST 429", "rest", "rest_fails", (2.0, 5.0), {"kind": "20429"}, REST),
        Fault("REST 21220", "rest", "rest_fails", (0.5, 1.0), {"kind": "21220"}, REST),
        Fault("REST not JSON", "rest", "rest_fails", (1.0, 3.0), {"kind": "not_json"}, REST),
        Fault("REST no answer", "rest", "rest_fails", (2.0, 5.0), {"kind": "timeout_without_effect"}, REST, 2.0),
        Fault("REST answer lost", "rest", "rest_fails", (2.0, 5.0), {"kind": "timeout_with_effect"}, REST, 2.0, weight=4),
        Fault("REST half open", "rest", "weather", (2.0, 5.0), {**_DOWN, "silent": True}, REST, 2.0, weight=3),
        Fault("REST cut off", "rest", "weather", (1.0, 3.0), {**_DOWN, "end_after_bytes": 40}, REST),
        Fault("REST refused", "rest", "refuse", (2.0, 6.0), {"reset": True}, REST),
        Fault("REST slow", "rest", "weather", (2.0, 6.0), {**_DOWN, "latency_ms": 1200, "jitter_ms": 300}, REST),
        # the bus
        Fault("bus reset", "bus", "reset", after_s=2.0, spoils=REST),
        Fault("bus stalled", "bus", "weather", (1.0, 5.0), {**_BOTH, "stalled": True}, REST, 3.0),
        Fault("bus half open", "bus", "weather", (1.0, 5.0), {**_BOTH, "silent": True}, REST, 3.0),
        Fault("bus slow", "bus", "weather", (2.0, 6.0), {**_BOTH, "latency_ms": 100, "jitter_ms": 80}, REST),
        Fault("bus narrow", "bus", "weather", (2.0, 6.0), {**_UP, "rate_bytes_s": 3000}, REST, 3.0),
        # the AI's leg
        Fault("AI refused", "ai", "refuse", (1.0, 4.0), spoils=AUDIO),
        Fault("AI reset", "ai", "reset", options={"one": True}, spoils=AUDIO, weight=3),
        Fault("AI cut off", "ai", "weather_of_one", (1.0, 1.0), {**_DOWN, "end_after_bytes": 700}, AUDIO),
        Fault("AI stalled", "ai", "weather_of_one", (1.0, 5.0), {**_BOTH, "stalled": True}, AUDIO),
        Fault("AI half open", "ai", "weather_of_one", (5.0, 7.0), {**_BOTH, "silent": True}, AUDIO),
        Fault("AI slow", "ai", "weather", (2.0, 5.0), {**_BOTH, "latency_ms": 200, "jitter_ms": 80}, AUDIO),
        Fault("AI narrow", "ai", "weather", (2.0, 5.0), {**_DOWN, "rate_bytes_s": 9000}, AUDIO),
        Fault("AI answers 500", "ai", "ai_fails", (2.0, 4.0), {"kind": "refuse_500", "times": 2}, AUDIO),
        Fault("AI mute", "ai", "ai_fails", (2.0, 4.0), {"kind": "mute", "times": 1}, AUDIO),
        Fault("AI closes", "ai", "ai_fails", (2.0, 4.0), {"kind": "close", "times": 2}, AUDIO),
        Fault("AI deaf", "ai", "ai_fails", (2.0, 4.0), {"kind": "deaf", "times": 1}, AUDIO),
        Fault("AI says nonsense", "ai", "ai_fails", (2.0, 4.0), {"kind": "bad_json", "times": 1}, AUDIO),
        # the phone's leg
        Fault("phone reset", "phone", "reset", options={**_MEDIA, "one": True}, spoils=AUDIO),
        Fault("phone cut off", "phone", "weather_of_one", (1.0, 1.0), {**_MEDIA, **_UP, "end_after_bytes": 500}, AUDIO),
        Fault("phone half open", "phone", "weather_of_one", (5.0, 7.0), {**_MEDIA, **_BOTH, "silent": True}, AUDIO),
        Fault("phone not reading", "phone", "weather_of_one", (2.0, 6.0), {**_MEDIA, **_DOWN, "stalled": True}, AUDIO),
        Fault("phone stalled", "phone", "weather_of_one", (0.5, 5.0), {**_MEDIA, **_BOTH, "stalled": True}, AUDIO),
        Fault("phone jitters", "phone", "weather", (2.0, 5.0), {**_BOTH, "latency_ms": 80, "jitter_ms": 60}, AUDIO),
    )
}
#: The first lane's faults follow one another; the second lane's run beside them.
_CONTROL_LANE: Final = ("process", "store", "rest", "bus")
_LEG_LANE: Final = ("ai", "phone")
#: In every other window of this length no leg has a fault, so that calls under the first lane's faults must be heard whole.
WINDOW_S: Final = 20.0


@dataclass(frozen=True)
class Strike:
    """A fault at its time. `pick` selects one of several targets: 0.0 the oldest, below 1.0."""

    at_s: float
    fault: Fault
    lasts_s: float
    pick: float = 0.0

    @property
    def until_s(self) -> float:
        return self.at_s + self.lasts_s


@dataclass(frozen=True)
class PlacedCall:
    """A call to be placed. The caller says at most one phrase, and hangs up after `stays_ms`."""

    at_s: float
    stays_ms: int
    phrase: str = ""
    phrase_ms: int = 0


@dataclass(frozen=True)
class Scenario:
    """Faults and calls of one run."""

    name: str
    seed: str
    seconds: float
    strikes: tuple[Strike, ...]
    calls: tuple[PlacedCall, ...]


def soak(seed: str, seconds: float, *, calls_a_minute: float = 30.0) -> Scenario:
    """Return random faults in both lanes for `seconds`."""
    strikes = [*_lane(seed, seconds, _CONTROL_LANE), *_lane(seed, seconds, _LEG_LANE)]
    ordered = tuple(sorted(strikes, key=lambda strike: strike.at_s))
    return Scenario("soak", seed, seconds, ordered, placed(seed, seconds, calls_a_minute))


def _lane(seed: str, seconds: float, links: Sequence[str]) -> list[Strike]:
    chance = random.Random(f"{seed}/{'/'.join(links)}")
    kinds = [fault for fault in FAULTS.values() if fault.link in links]
    strikes: list[Strike] = []
    at_s = 2.0
    while True:
        at_s += chance.uniform(0.5, 3.0)
        if links == _LEG_LANE and int(at_s / WINDOW_S) % 2:
            at_s = (int(at_s / WINDOW_S) + 1) * WINDOW_S
        fault = chance.choices(kinds, [fault.weight for fault in kinds])[0]
        strike = Strike(round(at_s, 3), fault, round(chance.uniform(*fault.lasts_s), 3), round(chance.random(), 3))
        if strike.until_s + fault.after_s > seconds:
            return strikes
        strikes.append(strike)
        at_s = strike.until_s + fault.after_s


def placed(seed: str, seconds: float, calls_a_minute: float) -> tuple[PlacedCall, ...]:
    """Return independent calls at this rate."""
    chance = random.Random(f"{seed}/calls")
    calls: list[PlacedCall] = []
    at_s = 0.5
    while at_s < seconds:
        if chance.random() < 0.3:
            phrase = chance.choice(("weasels", "monkeys", "something-wrong"))
            calls.append(PlacedCall(round(at_s, 3), 14_000, phrase, chance.randint(6500, 8000)))
        else:
            calls.append(PlacedCall(round(at_s, 3), chance.randint(4000, 13_000)))
        at_s += min(chance.expovariate(calls_a_minute / 60), 240 / calls_a_minute)
    return tuple(calls)


def _struck(*strikes: tuple[float, str, float]) -> tuple[Strike, ...]:
    return tuple(Strike(at_s, FAULTS[name], lasts_s, 0.5) for at_s, name, lasts_s in strikes)


def short(seed: str) -> Scenario:
    """Return ten faults of all links in forty seconds."""
    strikes = _struck(
        (2.0, "REST answer lost", 2.0),
        (3.5, "AI reset", 0.0),
        (5.5, "control killed", 0.0),
        (6.0, "phone reset", 0.0),
        (7.5, "AI stalled", 4.0),
        (12.0, "store killed", 8.0),
        (22.0, "REST 503", 2.5),
        (25.5, "bus half open", 2.0),
        (31.0, "worker killed", 0.0),
        (33.0, "phone half open", 5.0),
    )
    return Scenario("short", seed, 40.0, strikes, placed(seed, 38.0, 36.0))


def store_away(seed: str, seconds: float) -> Scenario:
    """Return one outage of the store of `seconds`, at twenty calls a minute."""
    strike = Strike(10.0, FAULTS["store killed"], seconds)
    return Scenario("store", seed, seconds + 20.0, (strike,), placed(seed, seconds + 15.0, 20.0))


#: Interval of kills or reloads. The supervisor waits longer after each, and calls must meet the restarted process.
EVERY_S: Final = 20.0


def again_and_again(fault: str, seed: str, seconds: float) -> Scenario:
    """Return one fault every twenty seconds, under load."""
    count = max(1, int((seconds - 5.0) / EVERY_S) + 1)
    strikes = tuple(Strike(5.0 + EVERY_S * n, FAULTS[fault], 0.0, n / count) for n in range(count))
    return Scenario(fault, seed, seconds, strikes, placed(seed, seconds - 2.0, 45.0))
