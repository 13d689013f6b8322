"""Counts how long callers waited for answers, by agent and by part.

Agents are names of the configuration, so these histograms have no place in the shared pages: they are kept here, and begin anew
with each control process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

from gw import bus
from metrics.declare import TURN_LATENCY, TURN_PART, ConfiguredFamily, ConfiguredHistogram

#: The event that reports a wait, its total, and its parts by label.
EVENT: Final = "answered"
TOTAL: Final = "ms"
PARTS: Final = {"pause": "pause_ms", "ai": "ai_ms", "tool": "tool_ms", "gateway": "gateway_ms"}
#: The label of agents that are not configured.
OTHER: Final = "other"


_Series = dict[tuple[str, ...], list[float]]


class TurnMetrics:
    """Subscriber of the bus."""

    def __init__(self, agents: Iterable[str]) -> None:
        self._totals: _Series = {(agent,): _empty(TURN_LATENCY) for agent in sorted({*agents, OTHER})}
        self._parts: _Series = {(part,): _empty(TURN_PART) for part in PARTS}

    def on_event(self, event: bus.Event) -> None:
        """Count an answer. Returns immediately."""
        if not isinstance(event, bus.CallEvent) or event.kind != EVENT:
            return
        agent = (str(event.data.get("agent")),)
        _observe(TURN_LATENCY, self._totals[agent if agent in self._totals else (OTHER,)], event.data.get(TOTAL))
        for part, name in PARTS.items():
            _observe(TURN_PART, self._parts[part,], event.data.get(name))

    def families(self) -> Mapping[ConfiguredFamily, _Series]:
        """Return the metrics that are counted here: each series' buckets, and their sum."""
        return {TURN_LATENCY: self._totals, TURN_PART: self._parts}


def _empty(family: ConfiguredHistogram) -> list[float]:
    return [0.0] * (len(family.bounds) + 2)


def _observe(family: ConfiguredHistogram, series: list[float], ms: object) -> None:
    if isinstance(ms, int | float):
        series[bisect_left(family.bounds, ms / 1000)] += 1.0
        series[-1] += ms / 1000
