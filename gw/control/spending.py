"""Sums the usage of AI models: for the metrics, and for the limits of a day, which workers are sent once a second.

A day is UTC's, and the store's: the sum of all machines that share it. The store is read every READ_S; reports that were on their
way to it by then are added from memory. So a restart loses nothing that is stored, and while the store is away the sum continues
with this machine's calls alone. Reports only grow, so a repeated one changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import gevent

from gw import bus
from gw.call.cost.budget import Level, level_of
from gw.call.cost.usage import KINDS, Used, day_of
from gw.config import Config
from gw.control.bus.server import BusServer
from gw.control.store import Store, StoreError
from gw.latest import Latest
from metrics.declare import AI_COST, AI_TOKENS, BUDGET_DAY, ConfiguredFamily
from metrics.page import Page

log = logging.getLogger(__name__)

#: Interval of the messages to the workers.
SEND_S: Final = 1.0
#: Interval of reads of the store, where there is a limit of a day: other machines' calls count this late.
READ_S: Final = 10.0
#: Callers of a day, those that spent most; the others are within their limit.
MAX_CALLERS: Final = 10_000
#: Callers in one message to a worker, which decodes them in one slice.
MESSAGE_CALLERS: Final = 500
#: Time for which an ended call is kept: it may resume.
KEEP_S: Final = 60.0
#: Calls in memory.
MAX_CALLS: Final = 20_000
#: The label of names that are not configured.
OTHER: Final = "other"

_Key = tuple[str, str, str]  # stream, day, model


class _Part:
    """Usage of one model by one stream on one day. Costs in USD: reported, stored, and part of the store's last sum."""

    __slots__ = ("cost", "in_sum", "stored", "tokens")

    def __init__(self) -> None:
        self.tokens = [0] * len(KINDS)
        self.cost = self.stored = self.in_sum = 0.0


class _Call:
    """A call with its parts. `begun`: its streams whose start this process saw."""

    __slots__ = ("begun", "caller", "ended_s", "parts")

    def __init__(self) -> None:
        self.begun: set[str] = set()
        self.caller = ""
        self.ended_s: float | None = None
        self.parts: dict[_Key, _Part] = {}


class Spending:
    """Subscriber of the bus and of stored events.

    `run` and `run_reads` are the bodies of two greenlets, because a read may hang.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        bus_server: BusServer,
        page: Page,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget = config.budget
        self._store = store
        self._bus = bus_server
        self._share = page.gauge(BUDGET_DAY)
        self._clock = clock
        self._monotonic = monotonic
        self._agents = set(config.agents)
        models = {model for agent in config.agents.values() for model in (agent.model, agent.transcription_model) if model}
        self._models = models
        self._tokens: dict[tuple[str, ...], float] = {(model, kind): 0.0 for model in sorted(models | {OTHER}) for kind in KINDS}
        self._costs: dict[tuple[str, ...], float] = {(agent,): 0.0 for agent in sorted(self._agents | {OTHER})}
        self._calls: Latest[str, _Call] = Latest(MAX_CALLS)
        self._day = day_of(clock())
        self._sum_usd = 0.0  # of the day, by the store
        self._caller_sums: dict[str, float] = {}
        self._sent: dict[str, float] = {}  # left by caller, as last sent
        self._level = Level.FREE
        self._read_s = -READ_S
        self.problem = ""  # why the store could not be read

    # -- events -----------------------------------------------------------------------------------------------------------

    def on_event(self, event: bus.Event) -> None:
        """Subscriber of the bus: returns immediately."""
        match event:
            case bus.CallStarted():
                call = self._call(event.call_sid)
                call.begun.add(event.stream_sid)
                call.ended_s = None
            case bus.Usage():
                self._on_usage(event)
            case bus.CallEnded():
                self._end(event.call_sid)
            case _:
                pass

    def on_stored(self, event: bus.Event) -> None:
        """Subscriber of stored events: they may be part of the store's next sum."""
        if isinstance(event, bus.Usage) and (call := self._calls.get(event.call_sid)) is not None:
            for one in event.used:
                if (part := call.parts.get((event.stream_sid, one.day, one.model))) is not None:
                    part.stored = max(part.stored, one.cost_usd or 0.0)
        elif isinstance(event, bus.CallEnded):
            self._end(event.call_sid)  # also of a lost call, whose end the bus does not report

    def _call(self, call_sid: str) -> _Call:
        call = self._calls.get(call_sid)
        if call is None:
            call = self._calls[call_sid] = _Call()
        return call

    def _end(self, call_sid: str) -> None:
        if (call := self._calls.get(call_sid)) is not None:
            call.ended_s = self._monotonic()

    def _on_usage(self, event: bus.Usage) -> None:
        call = self._call(event.call_sid)
        call.caller = event.caller
        for one in event.used:
            key, cost = (event.stream_sid, one.day, one.model), one.cost_usd or 0.0
            part = call.parts.get(key)
            if part is None:
                part = call.parts[key] = _Part()
                if event.stream_sid not in call.begun:  # the store may have some of it, and so may former metrics
                    part.tokens, part.cost, part.in_sum, part.stored = _counts(one), cost, cost, cost
                    continue
            model = one.model if one.model in self._models else OTHER
            for n, (kind, count) in enumerate(zip(KINDS, _counts(one), strict=True)):
                self._tokens[model, kind] += max(0, count - part.tokens[n])
                part.tokens[n] = max(count, part.tokens[n])
            self._costs[(event.agent if event.agent in self._agents else OTHER,)] += max(0.0, cost - part.cost)
            part.cost = max(cost, part.cost)

    # -- sums -------------------------------------------------------------------------------------------------------------

    def counters(self) -> Mapping[ConfiguredFamily, Mapping[tuple[str, ...], tuple[float]]]:
        """Return the metrics that are counted here."""
        both = {AI_TOKENS: self._tokens, AI_COST: self._costs}
        return {family: {labels: (value,) for labels, value in counted.items()} for family, counted in both.items()}

    def spent_usd(self, call_sid: str) -> float:
        """Return the cost of a call that was reported to this process."""
        call = self._calls.get(call_sid)
        return 0.0 if call is None else sum(part.cost for part in call.parts.values())

    def day(self) -> dict[str, object]:
        """Return the state of the day's limit, for `status`."""
        limit = self._budget.day_usd or None
        return {"day": self._day, "spent_usd": round(self._day_usd(), 6) if limit else None, "limit_usd": limit}

    def _news(self) -> Iterator[tuple[str, float]]:
        """Yield what is not part of the store's sum: the caller and the cost."""
        for call in self._calls.values():
            for (_, day, _), part in call.parts.items():
                if day == self._day and part.cost != part.in_sum:
                    yield call.caller, part.cost - part.in_sum

    def _day_usd(self) -> float:
        return self._sum_usd + sum(cost for _, cost in self._news())

    def _callers_left(self) -> dict[str, float]:
        """Return what is left for each caller that spent something."""
        if not self._budget.caller_day_usd:
            return {}
        spent = dict(self._caller_sums)
        for caller, cost in self._news():
            if caller:
                spent[caller] = spent.get(caller, 0.0) + cost
        return {caller: round(self._budget.caller_day_usd - usd, 6) for caller, usd in spent.items()}

    # -- the greenlet -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Send what is left, until killed."""
        while True:
            self.step()
            gevent.sleep(SEND_S)

    def run_reads(self) -> None:
        """Read the store's sums when they are due, until killed."""
        while True:
            self.read_if_due()
            gevent.sleep(SEND_S)

    def read_if_due(self) -> None:
        """Read the store's sums if that is due."""
        if self._budget.has_days and self._monotonic() - self._read_s >= READ_S:
            self._read()

    def step(self) -> None:
        """Take one turn: a new day, and a message to the workers."""
        self._drop_ended()
        if not self._budget.has_days:
            return
        today = day_of(self._clock())
        if today != self._day:
            self._day, self._sum_usd, self._caller_sums, self._sent, self._level = today, 0.0, {}, {}, Level.FREE
            self._read_s = -READ_S
        self._judge_day()
        self._send()

    def _read(self) -> None:
        """Take the store's sums. What is stored meanwhile counts as not part of them: it may count twice until the next read."""
        self._read_s, day = self._monotonic(), self._day
        stored = {part: part.stored for call in self._calls.values() for part in call.parts.values()}
        try:
            sum_usd = self._store.spent_on(day) if self._budget.day_usd else 0.0
            callers = self._store.spent_by_callers(day, MAX_CALLERS) if self._budget.caller_day_usd else {}
        except StoreError as error:
            if not self.problem:
                log.warning("the day's cost of other machines is not known, its limit holds for this one: %s", error)
            self.problem = str(error)
            return
        self.problem = ""
        if day != self._day:
            return  # it ended meanwhile
        self._sum_usd, self._caller_sums = sum_usd, callers
        for call in self._calls.values():
            for part in call.parts.values():
                part.in_sum = stored.get(part, part.in_sum)

    def _judge_day(self) -> None:
        limit = self._budget.day_usd
        if not limit:
            return
        spent = self._day_usd()
        self._share.set(spent / limit)
        level = level_of(spent, limit)
        if level > self._level:
            state = "spent: calls end, and new ones hear the overflow" if level is Level.SPENT else "nearly spent"
            log.warning("the budget of the day is %s: %.2f of %.2f USD", state, spent, limit)
        self._level = level

    def _send(self) -> None:
        left_usd = self._budget.day_usd - self._day_usd() if self._budget.day_usd else None
        callers = self._callers_left()
        changed = {caller: usd for caller, usd in callers.items() if self._sent.get(caller) != usd}
        self._sent = callers
        self._bus.send_budget(self._messages(left_usd, changed), lambda: self._messages(left_usd, callers))

    def _messages(self, left_usd: float | None, callers: Mapping[str, float]) -> Sequence[bus.Budget]:
        items = list(callers.items())
        pages = [dict(items[at : at + MESSAGE_CALLERS]) for at in range(0, len(items), MESSAGE_CALLERS)] or [{}]
        return [bus.Budget(self._day, left_usd, page) for page in pages]

    def _drop_ended(self) -> None:
        """Drop calls that ended a while ago, once the store's sum has all of them."""
        before_s = self._monotonic() - KEEP_S
        waits = self._budget.has_days
        over = [
            call_sid
            for call_sid, call in self._calls.items()
            if call.ended_s is not None
            and call.ended_s < before_s
            and not (waits and any(part.cost != part.in_sum for (_, day, _), part in call.parts.items() if day == self._day))
        ]
        for call_sid in over:
            del self._calls[call_sid]


def _counts(used: Used) -> list[int]:
    return [getattr(used, kind) for kind in KINDS]
