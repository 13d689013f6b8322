"""gw.control.turn_metrics: answers by agent and by part."""

from __future__ import annotations

from gw import bus
from gw.control.turn_metrics import OTHER, TurnMetrics
from metrics.declare import TURN_LATENCY, TURN_PART


def _answered(agent: str, kind: str = "answered", **parts: int) -> bus.CallEvent:
    return bus.CallEvent("CA1", kind, 0.0, {"ms": sum(parts.values()), **parts, "agent": agent, "item": "i1"})


def test_answers_are_counted_by_agent_and_by_part() -> None:
    counted = TurnMetrics(["sales", "default"])
    counted.on_event(_answered("sales", pause_ms=500, ai_ms=300, tool_ms=0, gateway_ms=20))
    counted.on_event(_answered("sales", pause_ms=500, ai_ms=1300, tool_ms=700, gateway_ms=0))
    counted.on_event(_answered("gone", pause_ms=0, ai_ms=1, tool_ms=0, gateway_ms=0))
    counted.on_event(_answered("sales", kind="other", pause_ms=1))
    counted.on_event(bus.FirstAudio("CA1", 1.0))
    totals, parts = counted.families()[TURN_LATENCY], counted.families()[TURN_PART]
    assert {agent: (sum(series[:-1]), round(series[-1], 6)) for (agent,), series in totals.items()} == {
        "default": (0.0, 0.0),
        "sales": (2.0, 3.32),
        OTHER: (1.0, 0.001),
    }
    assert totals["sales",][TURN_LATENCY.bounds.index(1.0)] == 1.0
    assert {part: round(series[-1], 6) for (part,), series in parts.items()} == {
        "pause": 1.0,
        "ai": 1.601,
        "tool": 0.7,
        "gateway": 0.02,
    }


def test_an_event_of_another_version_is_skipped() -> None:
    counted = TurnMetrics([])
    counted.on_event(bus.CallEvent("CA1", "answered", 0.0, {"ms": "soon"}))
    assert all(sum(series) == 0.0 for family in counted.families().values() for series in family.values())
