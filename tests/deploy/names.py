"""Names of series: those of a gateway's metrics page, and those in a PromQL expression."""

from __future__ import annotations

import re

from metrics.declare import BESIDE_PAGES, FAMILIES, ConfiguredHistogram, Histogram
from metrics.exposition import PAGES_NAME, WORKER_FAMILIES

_NAME = re.compile(r"(?<![:\w])gw_\w+")
_RECORDED = re.compile(r"\b\w+:gw_\w+:\w+")


def exposed() -> set[str]:
    """Return every sample name of the page."""
    names = {PAGES_NAME, *(name for _, name, _ in WORKER_FAMILIES)}
    for family in (*FAMILIES, *BESIDE_PAGES):
        suffixes = ("_bucket", "_count", "_sum") if isinstance(family, Histogram | ConfiguredHistogram) else ("",)
        names.update(family.name + suffix for suffix in suffixes)
    return names


def read(expression: str) -> set[str]:
    """Return the gateway's series that an expression reads."""
    return set(_NAME.findall(expression))


def recorded(expression: str) -> set[str]:
    """Return the recorded series that an expression reads."""
    return set(_RECORDED.findall(expression))
