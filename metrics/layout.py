"""Binary layout of a metrics page, derived from the declarations.

A page is a header and an array of 8-byte floats in native byte order, which count exactly up to 2^53.

    0          8          16                     32
    | magic    | bytes    | hash of the layout   | values ...
    counter, gauge:   | value |
    histogram:        | bucket 0 | ... | bucket n (+Inf) | sum |      buckets are not cumulative

The hash covers all inputs of the layout, so that processes of different versions cannot misread each other's pages.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Final

from metrics.declare import FAMILIES, Family, Gauge, Histogram

MAGIC: Final = b"gwpage1\0"
HEADER: Final = struct.Struct("=8sQ16s")
VALUE_BYTES: Final = 8


class UnknownSeriesError(ValueError):
    """The family is not declared, or does not have these labels."""


def width_of(family: Family) -> int:
    """Return the number of values in one series of `family`."""
    return len(family.bounds) + 2 if isinstance(family, Histogram) else 1


class Layout:
    """Places of all series of the given families."""

    def __init__(self, families: tuple[Family, ...]) -> None:
        self.families = families
        self.places: dict[str, dict[tuple[str, ...], int]] = {}
        self.gauges: list[int] = []
        place = 0
        for family in families:
            if family.name in self.places:
                raise ValueError(f"{family.name} is declared twice")
            series = self.places[family.name] = {}
            for values in family.series():
                series[values] = place
                if isinstance(family, Gauge):
                    self.gauges.append(place)
                place += width_of(family)
        self.length = place
        self.page_bytes = HEADER.size + place * VALUE_BYTES
        self.header = HEADER.pack(MAGIC, self.page_bytes, self._hash())

    def _hash(self) -> bytes:
        parts = [
            (family.kind, family.name, list(family.labels.items()), family.bounds if isinstance(family, Histogram) else ())
            for family in self.families
        ]
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()

    def place_of(self, family: Family, labels: Mapping[str, str]) -> int:
        """Return the index of the series' first value. Raises UnknownSeriesError."""
        if family not in self.families:
            raise UnknownSeriesError(f"{family.name} is not declared")
        if set(labels) != set(family.labels):
            raise UnknownSeriesError(f"{family.name} has the labels {sorted(family.labels)}, not {sorted(labels)}")
        values = tuple(labels[label] for label in family.labels)
        place = self.places[family.name].get(values)
        if place is None:
            raise UnknownSeriesError(f"{family.name} has no series {dict(labels)}; its values are {dict(family.labels)}")
        return place


#: The layout of every page of this version.
LAYOUT: Final = Layout(FAMILIES)
