"""Sensitive digits that callers typed, in memory only: never on disk, in a log or in an answer.

Kept by call and reference until Twilio reports the call's end, or for the longest call. A restart of control loses them: a tool
that is called with their reference then fails, and the agent can ask again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final

from gw import bus

#: Calls whose digits are kept; one more drops the oldest.
MAX_CALLS: Final = 10_000
#: Digits of one call: more than a caller types.
MAX_REFS: Final = 100


class Digits:
    """Sensitive digits of all calls."""

    def __init__(self, longest_call_s: float) -> None:
        self._longest_call_s = longest_call_s
        self._calls: OrderedDict[str, tuple[float, dict[str, str]]] = OrderedDict()  # since when, by reference

    def __repr__(self) -> str:
        return f"Digits({len(self._calls)} calls)"

    def answer(self, ask: bus.Ask) -> bus.Answer:
        """Keep the digits in a worker's question."""
        is_kept = all(self.keep(ask.call_sid, ref, digits, time.monotonic()) for ref, digits in ask.fields.items())
        return bus.Answer(ask.n, step=bus.KEPT if is_kept else "")

    def keep(self, call_sid: str, ref: str, digits: str, now_s: float) -> bool:
        """Keep digits under a reference. A known one keeps its digits. Returns False if the call has too many."""
        self._drop_old(now_s)
        _, kept = self._calls.setdefault(call_sid, (now_s, {}))
        if ref not in kept and len(kept) >= MAX_REFS:
            return False
        kept.setdefault(ref, digits)
        if len(self._calls) > MAX_CALLS:
            self._calls.popitem(last=False)
        return True

    def of_call(self, call_sid: str) -> dict[str, str]:
        """Return a call's digits by reference."""
        return dict(self._calls.get(call_sid, (0.0, {}))[1])

    def on_call_over(self, call_sid: str) -> None:
        """Drop the digits of a call that ended."""
        self._calls.pop(call_sid, None)

    def _drop_old(self, now_s: float) -> None:
        while self._calls and next(iter(self._calls.values()))[0] < now_s - self._longest_call_s:
            self._calls.popitem(last=False)
