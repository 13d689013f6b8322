"""One call's usage of AI models: counted, reported to control, and held against the budget.

Decides nothing about the conversation: `on_standing` receives what the dialogue has to know, once for each level.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from time import monotonic
from typing import Final

from gw import bus
from gw.call.cost.budget import Level, Standing, standing
from gw.call.cost.usage import CallUsage, Used
from gw.config import Agent
from gw.media.call_events import CallEvents
from gw.media.shared.context import MediaContext
from gw.protocol.ai import Tokens
from gw.protocol.twilio import Start

log = logging.getLogger(__name__)

#: Interval of the reports to control, while there is news.
REPORT_S: Final = 10.0


class CallSpending:
    """Usage and cost of one call's stream."""

    __slots__ = (
        "_agent_name",
        "_budget",
        "_caller",
        "_context",
        "_events",
        "_level",
        "_reported_s",
        "_reported_tokens",
        "_reported_usd",
        "_stream_sid",
        "_usage",
        "earlier_usd",
    )

    def __init__(self, context: MediaContext, events: CallEvents, start: Start, agent_name: str, agent: Agent) -> None:
        self._context = context
        self._events = events
        self._budget = context.config.budget
        self._agent_name = agent_name
        self._stream_sid = start.stream_sid
        is_inbound = start.parameters.get("direction", "inbound") == "inbound"
        self._caller = start.parameters.get("caller", "") if is_inbound else ""
        self._usage = CallUsage(agent.model, context.config.prices)
        self._level = Level.FREE
        self._reported_s = monotonic()
        self._reported_tokens, self._reported_usd = 0, 0.0
        self.earlier_usd = 0.0  # spent by the call's earlier streams

    def add(self, model: str, tokens: Tokens) -> None:
        """Count the usage of a response, or of a transcription."""
        if any(tokens):
            self._usage.add(model, tokens, time.time())

    def report_in_time(self, now_s: float) -> None:
        """Report news to control, every REPORT_S."""
        if now_s - self._reported_s >= REPORT_S:
            self.report(now_s)

    def check(self, on_standing: Callable[[Level], None]) -> None:
        """Pass on that a limit is near or reached."""
        if not self._budget.is_limited:
            return
        now = self._standing()
        if now.level > self._level:
            self._level = now.level
            self._note(now)
            on_standing(now.level)

    def _standing(self) -> Standing:
        spent_usd = self._usage.spent_usd
        left = self._context.budget_board.left(self._caller)
        return standing(self._budget, self.earlier_usd + spent_usd, spent_usd - self._reported_usd, left)

    def _note(self, now: Standing) -> None:
        is_spent = now.level is Level.SPENT
        spent_usd = round(self.earlier_usd + self._usage.spent_usd, 6)
        self._events.note("budget_spent" if is_spent else "budget_near", of=now.of, spent_usd=spent_usd)
        text = "the budget of the %s is spent, the call ends" if is_spent else "the budget of the %s is nearly spent"
        log.warning(text, now.of, extra={"call_sid": self._events.sid})

    def report(self, now_s: float) -> None:
        """Send control what the stream used so far, if that is news."""
        self._reported_s = now_s
        if self._usage.tokens == self._reported_tokens:
            return
        self._reported_tokens, self._reported_usd = self._usage.tokens, self._usage.spent_usd
        used = self.used()
        self._events.emit(bus.Usage(self._events.sid, self._stream_sid, time.time(), self._agent_name, self._caller, used))

    def used(self) -> list[Used]:
        """Return what the stream used so far."""
        return self._usage.used()
