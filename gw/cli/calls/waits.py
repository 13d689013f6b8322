"""Waits for answers in a call's events, and their words."""

from __future__ import annotations

from typing import Final

from gw.control.rows import CallDetails, EventRow

#: The event that reports a wait.
KIND: Final = "answered"
#: A shorter wait, or part of one, would be shown as 0.00 s.
LEAST_MS: Final = 5
#: Parts of a wait, with their words.
_PARTS: Final = {"pause_ms": "voice detection", "ai_ms": "AI", "tool_ms": "tools", "gateway_ms": "gateway"}


def waits_of(call: CallDetails) -> dict[str, EventRow]:
    """Return the measured wait for each answer of a call, by the answer's first item."""
    return {str(event.data.get("item")): event for event in call.events if is_measured(event)}


def is_measured(event: EventRow) -> bool:
    """Return whether an event is a wait that was measured."""
    return event.kind == KIND and total_ms(event) >= LEAST_MS


def total_ms(wait: EventRow) -> int:
    """Return the length of a wait."""
    return _ms(wait, "ms")


def parts(wait: EventRow) -> str:
    """Return the parts of a wait that took time: `voice detection 0.50 s, AI 0.72 s`."""
    return ", ".join(f"{words} {_ms(wait, name) / 1000:.2f} s" for name, words in _PARTS.items() if _ms(wait, name) >= LEAST_MS)


def _ms(wait: EventRow, name: str) -> int:
    value = wait.data.get(name)
    return round(value) if isinstance(value, int | float) else 0
