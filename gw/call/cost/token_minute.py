"""Tokens that an AI allows by the minute: what is left, and whether one more call can be carried.

The AI reports limit and rest with every response, and then the use. A rest is whole again after its
`reset_s`, and grows evenly until then. A call takes as much as the calls of the last minute did, on average.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from gw.protocol.ai import TokenLimit

#: The window of uses.
MINUTE_S: Final = 60.0
#: Uses kept: five a second, and more only of calls without pauses.
MAX_USES: Final = 2000


class TokenMinute:
    """The limit of one model, as one worker sees it."""

    __slots__ = ("_at_s", "_limit", "_uses")

    def __init__(self) -> None:
        self._limit: TokenLimit | None = None
        self._at_s = 0.0
        self._uses: deque[tuple[float, int, str]] = deque(maxlen=MAX_USES)

    def on_limit(self, limit: TokenLimit, now_s: float) -> None:
        """Take the AI's report."""
        self._limit, self._at_s = limit, now_s

    def on_used(self, call_sid: str, tokens: int, now_s: float) -> None:
        """Count what a response used."""
        self._uses.append((now_s, tokens, call_sid))

    def left(self, now_s: float) -> int | None:
        """Return the tokens left now; None if the AI has reported no limit."""
        limit = self._limit
        if limit is None:
            return None
        passed = (now_s - self._at_s) / limit.reset_s if limit.reset_s > 0.0 else 1.0
        return limit.remaining + int(max(0, limit.limit - limit.remaining) * min(1.0, passed))

    def carries_one_more(self, now_s: float) -> bool:
        """Return whether the tokens left suffice for what a call takes in a minute."""
        left = self.left(now_s)
        while self._uses and self._uses[0][0] <= now_s - MINUTE_S:
            self._uses.popleft()
        calls = {call_sid for _, _, call_sid in self._uses}
        if left is None or not calls:
            return True
        return left >= sum(tokens for _, tokens, _ in self._uses) / len(calls)
