"""One factor for every timeout of the suite, SUBMILLI_TEST_TIMEOUT_SCALE, for slow or busy machines."""

from __future__ import annotations

import os


def timeout_scale() -> float:
    """Return the factor; 1.0 by default."""
    return float(os.environ.get("SUBMILLI_TEST_TIMEOUT_SCALE", "1"))


def scaled(seconds: float) -> float:
    """Return a bound on a wait, multiplied by the factor."""
    return seconds * timeout_scale()
