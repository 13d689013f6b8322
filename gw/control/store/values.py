"""Makes any value of an event fit its column: what is too long is cut, what is out of range is moved to its edge, and counted.

An event that a column refuses would be lost over a detail; an event with a shortened text is not. Pure but for the counter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from gw.control.rows import Scalar

_INT_MAX: Final = 2**31 - 1
_BIG_MAX: Final = 2**63 - 1
#: The year 9999, the end of DATETIME and of Python's calendar.
_MOMENT_MAX: Final = 253_402_300_799.0
_JSON_KEYS: Final = 100
_JSON_KEY_CHARS: Final = 100
_JSON_TEXT_CHARS: Final = 4000


class Fit:
    """Fits values; `cut` counts those that had to change."""

    __slots__ = ("cut",)

    def __init__(self) -> None:
        self.cut = 0

    def text(self, value: str, chars: int) -> str:
        """At most `chars` characters, from the front."""
        if len(value) <= chars:
            return value
        self.cut += 1
        return value[:chars]

    def word(self, value: str, chars: int) -> str | None:
        """Like `text`, with nothing for an empty string: not known, so that a later event may say it."""
        return self.text(value, chars) or None

    def integer(self, value: int) -> int:
        """Within 32 bits, signed."""
        return self._within(value, _INT_MAX)

    def big(self, value: int) -> int:
        """Within 64 bits, signed."""
        return self._within(value, _BIG_MAX)

    def moment(self, value: float) -> float:
        """An epoch time that a calendar has; what is no number is the epoch."""
        if 0.0 <= value <= _MOMENT_MAX:
            return value
        self.cut += 1
        return _MOMENT_MAX if value > _MOMENT_MAX else 0.0

    def measured(self, value: float) -> float | None:
        """A measurement; nothing where none was made (below zero), so that SQL's averages are true."""
        return value if math.isfinite(value) and value >= 0 else None

    def measured_int(self, value: int) -> int | None:
        """The same for whole numbers."""
        return self.big(value) if value >= 0 else None

    def data(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What becomes a JSON object: so many keys, texts so long, numbers that JSON knows."""
        fitted: dict[str, Scalar] = {}
        for key in list(values)[:_JSON_KEYS]:
            fitted[self.text(key, _JSON_KEY_CHARS)] = self._scalar(values[key])
        if len(values) > _JSON_KEYS:
            self.cut += 1
        return fitted

    def _scalar(self, value: Scalar) -> Scalar:
        if isinstance(value, str):
            return self.text(value, _JSON_TEXT_CHARS)
        if isinstance(value, float) and not math.isfinite(value):
            self.cut += 1
            return str(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return self.big(value)
        return value

    def _within(self, value: int, edge: int) -> int:
        if -edge <= value <= edge:
            return value
        self.cut += 1
        return edge if value > 0 else -edge
