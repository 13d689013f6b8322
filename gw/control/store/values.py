"""Makes the values of events fit their columns, and counts the changed ones.

A value that is too long is cut, one out of range is moved to the limit: a column would otherwise refuse the whole event. Pure
except for the counter.
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
    """Fits values. `cut` counts the changed ones."""

    __slots__ = ("cut",)

    def __init__(self) -> None:
        self.cut = 0

    def text(self, value: str, chars: int) -> str:
        """Return the first `chars` characters."""
        if len(value) <= chars:
            return value
        self.cut += 1
        return value[:chars]

    def word(self, value: str, chars: int) -> str | None:
        """Return the first `chars` characters; None if empty, for a later event to fill."""
        return self.text(value, chars) or None

    def integer(self, value: int) -> int:
        """Return the nearest signed 32-bit integer."""
        return self._within(value, _INT_MAX)

    def big(self, value: int) -> int:
        """Return the nearest signed 64-bit integer."""
        return self._within(value, _BIG_MAX)

    def moment(self, value: float) -> float:
        """Return the nearest epoch time from 1970 to 9999; 0.0 for NaN."""
        if 0.0 <= value <= _MOMENT_MAX:
            return value
        self.cut += 1
        return _MOMENT_MAX if value > _MOMENT_MAX else 0.0

    def measured(self, value: float) -> float | None:
        """Return a measurement; None if negative (unmeasured), which averages in SQL skip."""
        return value if math.isfinite(value) and value >= 0 else None

    def measured_int(self, value: int) -> int | None:
        """Return a measured integer; None for a negative value."""
        return self.big(value) if value >= 0 else None

    def data(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return a bounded JSON object: _JSON_KEYS keys, _JSON_TEXT_CHARS characters a text, finite numbers."""
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
