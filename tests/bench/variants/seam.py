"""What variants have in common: how one says that it cannot be applied."""

from __future__ import annotations

from typing import Any


class NotHereError(Exception):
    """The variant does not fit this gateway, or this machine does not allow it; the text says which."""


def swap(owner: Any, name: str, new: Any) -> None:
    """Put `new` where `owner` has something of that name. Raises NotHereError where it has not."""
    if not hasattr(owner, name):
        raise NotHereError(f"{getattr(owner, '__name__', owner)} has no {name} any more")
    setattr(owner, name, new)
