"""Money left of the limits that calls share, as control last reported it. Decides whether one more call is admitted."""

from __future__ import annotations

import time
from typing import Final

from gw import bus
from gw.call.cost.budget import Left
from gw.call.cost.usage import day_of
from gw.config import Budget

#: Callers kept, the ones reported last; many times those of a day.
MAX_CALLERS: Final = 50_000


class BudgetBoard:
    """One worker's copy. Of a day that is over it is void."""

    __slots__ = ("_budget", "_callers", "_day", "_day_usd")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._day = ""
        self._day_usd: float | None = None
        self._callers: dict[str, float] = {}

    def on_budget(self, budget: bus.Budget) -> None:
        """Take a report of control."""
        if budget.day != self._day:
            self._day, self._callers = budget.day, {}
        self._day_usd = budget.day_usd
        for caller, left_usd in budget.callers.items():
            self._callers.pop(caller, None)
            self._callers[caller] = left_usd
        while len(self._callers) > MAX_CALLERS:
            del self._callers[next(iter(self._callers))]

    def left(self, caller: str) -> Left:
        """Return what is left. `caller`: the number of an inbound call's caller, otherwise empty."""
        if not self._budget.has_days or self._day != day_of(time.time()):
            return Left()
        has_limit = caller and self._budget.caller_day_usd
        caller_usd = self._callers.get(caller, self._budget.caller_day_usd) if has_limit else None
        return Left(self._day_usd if self._budget.day_usd else None, caller_usd)

    def is_spent(self, caller: str) -> bool:
        """Return whether nothing is left for a further call."""
        return any(left_usd is not None and left_usd <= 0.0 for left_usd in self.left(caller))
