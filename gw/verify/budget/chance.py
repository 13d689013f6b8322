"""Share of the machine in the holds of a hub: how many its pauses explain. Pure.

A hold is measured in CPU time, yet the machine lengthens some: page faults, interrupts, time that a hypervisor takes without
saying so. How often it does so is measured in the same run, at code that is not the gateway's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

#: A run without a hold of the gateway's own exceeds the limit once in a thousand runs.
DOUBT: Final = 1e-3
#: Expected events above which the normal distribution replaces Poisson's, whose first term vanishes; and DOUBT's quantile of it.
_MANY: Final = 500.0
_NORMAL_QUANTILE: Final = 3.0903


@dataclass(frozen=True)
class Base:
    """Code without the holds that are judged: its CPU seconds, and how many of its steps took over 1 ms."""

    cpu_s: float = 0.0
    long_holds: int = 0

    def __add__(self, other: Base) -> Base:
        return Base(self.cpu_s + other.cpu_s, self.long_holds + other.long_holds)

    def expected(self, cpu_s: float) -> float:
        """Return how many long holds the machine causes in so many CPU seconds."""
        return self.long_holds / self.cpu_s * cpu_s if self.cpu_s else 0.0


def holds_by_chance(expected: float) -> int:
    """Return the most events that chance explains, if so many are expected (Poisson)."""
    if expected > _MANY:
        return math.ceil(expected + _NORMAL_QUANTILE * math.sqrt(expected))
    count, probability = 0, math.exp(-expected)
    below = probability
    while below < 1.0 - DOUBT:
        count += 1
        probability *= expected / count
        below += probability
    return count
