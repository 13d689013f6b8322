"""One factor for every time-out of the suite: SUBMILLI_TEST_TIMEOUT_SCALE, for machines slower than the one it was written on."""

from __future__ import annotations

import os


def timeout_scale() -> float:
    """The factor, 1.0 unless the environment says otherwise."""
    return float(os.environ.get("SUBMILLI_TEST_TIMEOUT_SCALE", "1"))


def scaled(seconds: float) -> float:
    """A bound on a wait, stretched by the factor."""
    return seconds * timeout_scale()
