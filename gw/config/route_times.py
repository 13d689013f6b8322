"""Grammar of a route's weekdays and hours."""

from __future__ import annotations

import re
from typing import Final

_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS: Final = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")
_DAY_MINUTES: Final = 24 * 60


def parse_weekdays(text: str) -> frozenset[int]:
    """Parse `mon`, `mon-fri`, `fri-mon` or a list of these; empty: every day. Raises ValueError."""
    days: set[int] = set()
    for part in _parts(text):
        first, dash, last = part.partition("-")
        names = (first, last) if dash else (first, first)
        if not set(names) <= set(_WEEKDAYS):
            raise ValueError(f'"{part[:20]}" is neither a weekday nor a range of them, for example mon-fri')
        start, end = map(_WEEKDAYS.index, names)
        days.update((start + n) % 7 for n in range((end - start) % 7 + 1))
    return frozenset(days or range(7))


def parse_hours(text: str) -> tuple[tuple[int, int], ...]:
    """Parse `09:00-17:00`, `22:00-06:00` or a list of these; empty: the whole day. Raises ValueError."""
    spans = []
    for part in _parts(text):
        found = _HOURS.fullmatch(part)
        start, end = (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])) if found else (0, 0)
        if start == end or start >= _DAY_MINUTES or end > _DAY_MINUTES:
            raise ValueError(f'"{part[:20]}" is not a range of hours, for example 09:00-17:00 or 22:00-06:00')
        spans.append((start, end))
    return tuple(spans) or ((0, _DAY_MINUTES),)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []
