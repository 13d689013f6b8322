"""Which series a gateway's page has, and which a PromQL expression speaks of."""

from __future__ import annotations

import re

from metrics.declare import FAMILIES, Histogram
from metrics.exposition import PAGES_NAME, WORKER_FAMILIES

_NAME = re.compile(r"(?<![:\w])gw_\w+")
_RECORDED = re.compile(r"\b\w+:gw_\w+:\w+")


def exposed() -> set[str]:
    """Every sample name of the page."""
    names = {PAGES_NAME, *(name for _, name, _ in WORKER_FAMILIES)}
    for family in FAMILIES:
        suffixes = ("_bucket", "_count", "_sum") if isinstance(family, Histogram) else ("",)
        names.update(family.name + suffix for suffix in suffixes)
    return names


def read(expression: str) -> set[str]:
    """The gateway's series an expression reads."""
    return set(_NAME.findall(expression))


def recorded(expression: str) -> set[str]:
    """The recorded series an expression reads."""
    return set(_RECORDED.findall(expression))
