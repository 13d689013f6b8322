"""A call's usage of AI models, and its cost by the configured prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import msgspec

from gw.config import Price
from gw.protocol.ai import NO_TOKENS, Tokens

#: The kinds of tokens: the fields of `Tokens`, of `Price` and of `Used`.
KINDS: Final = Tokens._fields
_PER_PRICE: Final = 1_000_000
_DAY_S: Final = 86_400


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of one model by one stream of a call on one day. It only grows. `cost_usd`: None without a price.

    `*_in` is without the cached tokens.
    """

    day: str  # UTC, such as 2026-11-28
    model: str
    text_in: int = 0
    text_cached: int = 0
    text_out: int = 0
    audio_in: int = 0
    audio_cached: int = 0
    audio_out: int = 0
    cost_usd: float | None = None


class Counted(Protocol):
    """Tokens by kind, with their cost; the kinds are attributes too."""

    @property
    def cost_usd(self) -> float | None: ...


def day_of(at: float) -> str:
    """Return the day of an epoch time, in UTC.

    Counts years from March, so that a leap day is the last of its year. Source: the proleptic Gregorian calendar, whose 400 years
    have 146,097 days; 719,468 days lie between 0000-03-01 and 1970-01-01.
    """
    era, day = divmod(int(at // _DAY_S) + 719_468, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    march = (5 * day + 2) // 153  # months since March
    month = march + 3 if march < 10 else march - 9
    return f"{400 * era + year + (month <= 2):04}-{month:02}-{day - (153 * march + 2) // 5 + 1:02}"


def cost_of(tokens: Tokens, price: Price) -> float:
    """Return a cost in USD."""
    prices: list[float] = [getattr(price, kind) for kind in KINDS]
    return sum(count * usd for count, usd in zip(tokens, prices, strict=True)) / _PER_PRICE


def rounded(cost_usd: float | None) -> float | None:
    """Round a cost to a millionth of a dollar."""
    return None if cost_usd is None else round(cost_usd, 6)


class CallUsage:
    """Usage of one stream of a call."""

    __slots__ = ("_model", "_prices", "_used", "spent_usd", "tokens")

    def __init__(self, model: str, prices: Mapping[str, Price]) -> None:
        """`model`: the agent's. Where it has no price the call's cost is unknown."""
        self._model = model
        self._prices = prices
        self._used: dict[tuple[str, str], Tokens] = {}  # by day and model
        self.spent_usd = 0.0
        self.tokens = 0

    def add(self, model: str, tokens: Tokens, now_at: float) -> None:
        """Add the usage of a response or of a transcription. `now_at`: epoch seconds."""
        key = (day_of(now_at), model)
        self._used[key] = Tokens(*map(sum, zip(self._used.get(key, NO_TOKENS), tokens, strict=True)))
        self.tokens += sum(tokens)
        if self._model in self._prices and model in self._prices:
            self.spent_usd += cost_of(tokens, self._prices[model])

    def used(self) -> list[Used]:
        """Return the usage by day and model. A model without a price adds nothing to the cost of a priced agent."""
        return [
            Used(day=day, model=model, cost_usd=self._cost_of(model, tokens), **tokens._asdict())
            for (day, model), tokens in self._used.items()
        ]

    def _cost_of(self, model: str, tokens: Tokens) -> float | None:
        price = self._prices.get(model)
        return None if price is None or self._model not in self._prices else cost_of(tokens, price)


def total(used: Iterable[Counted]) -> tuple[Tokens, float | None]:
    """Return the sum over days and models, and the cost; None without a priced part."""
    parts = list(used)
    costs = [one.cost_usd for one in parts if one.cost_usd is not None]
    tokens = Tokens(*(sum(getattr(one, kind) for one in parts) for kind in KINDS))
    return tokens, rounded(sum(costs)) if costs else None
