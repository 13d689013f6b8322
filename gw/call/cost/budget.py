"""Limits on cost: how much of each is spent, and whether a call is near its end."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from gw.config import Budget

#: Share of a limit from which on the agent, or the operator, is warned.
NEAR: Final = 0.8


class Level(IntEnum):
    """State of a limit."""

    FREE = 0
    NEAR = 1
    SPENT = 2


class Left(NamedTuple):
    """Money left of the limits that are shared with other calls; None: no limit, or unknown."""

    day_usd: float | None = None
    caller_usd: float | None = None


class Standing(NamedTuple):
    """The limit that a call is closest to. `of`: call, caller or day; empty: none is near."""

    level: Level = Level.FREE
    of: str = ""


def level_of(spent_usd: float, limit_usd: float) -> Level:
    """Return the state of a limit; 0: no limit."""
    if not limit_usd or spent_usd < NEAR * limit_usd:
        return Level.FREE
    return Level.SPENT if spent_usd >= limit_usd else Level.NEAR


def standing(budget: Budget, spent_usd: float, unreported_usd: float, left: Left) -> Standing:
    """Return how a call stands.

    `spent_usd`: by the whole call. `unreported_usd`: the part of it that is not in `left` yet. A day that is nearly spent
    concerns the operator and no single call.
    """
    levels = [Standing(level_of(spent_usd, budget.call_usd), "call")]
    if left.caller_usd is not None:
        spent = budget.caller_day_usd - left.caller_usd + unreported_usd
        levels.append(Standing(level_of(spent, budget.caller_day_usd), "caller"))
    if left.day_usd is not None and left.day_usd <= unreported_usd:
        levels.append(Standing(Level.SPENT, "day"))
    worst = max(levels, key=lambda one: one.level)
    return worst if worst.level else Standing()
