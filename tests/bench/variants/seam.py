"""Shared parts of the variants: the swap, and the error when it is impossible."""

from __future__ import annotations

from typing import Any


class NotHereError(Exception):
    """The variant does not fit this gateway, or the machine does not permit it."""


def swap(owner: Any, name: str, new: Any) -> None:
    """Replace the attribute `name` of `owner`. Raises NotHereError if it does not exist."""
    if not hasattr(owner, name):
        raise NotHereError(f"{getattr(owner, '__name__', owner)} has no {name} any more")
    setattr(owner, name, new)
