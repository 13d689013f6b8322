"""Time limits for blocks of code that wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gevent import Timeout

from gw.errors import GatewayError


class OutOfTimeError(GatewayError):
    """A block did not end within its limit."""

    code = "out_of_time"


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the `with` block to `seconds` of waiting.

    The limit reaches the block as a `gevent.Timeout`, which `except Exception` does not catch.
    Raises: OutOfTimeError when this limit passed; the limit of an outer block passes through unchanged.
    """
    limit = Timeout.start_new(seconds)
    try:
        yield
        return
    except Timeout as passed:
        if passed is not limit:
            raise
    finally:
        limit.close()
        del limit  # it has a traceback with this frame: an object cycle
    raise OutOfTimeError(f"not done within {seconds:g} s")
