"""Where each series stands in a page: derived from the declarations, the same in every process.

A page is a header and an array of 8-byte floats, native byte order. Floats count exactly up to 2^53.

    0          8          16                     32
    | magic    | bytes    | hash of the layout   | values ...
    counter, gauge:   | value |
    histogram:        | bucket 0 | ... | bucket n (+Inf) | sum |      buckets are not cumulative

The hash is made of what the places depend on: two processes of different versions do not misread each other's pages.
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
    """A family that is not declared, or labels it does not have."""


def width_of(family: Family) -> int:
    """How many values one series of `family` takes."""
    return len(family.bounds) + 2 if isinstance(family, Histogram) else 1


class Layout:
    """The places of all series of some families."""

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
        """Index of the series' first value. Raises UnknownSeriesError."""
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
