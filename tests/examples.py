"""Number of examples a property test tries, scaled by SUBMILLI_TEST_EXAMPLES: 0.1 in `make unit`, 50 in `make fuzz`."""

from __future__ import annotations

import os
from typing import Final

#: Fewer examples find nothing that a plain test would not.
_LEAST: Final = 5
_FACTOR: Final = float(os.environ.get("SUBMILLI_TEST_EXAMPLES", "1"))


def examples(count: int) -> int:
    """Return `count` stretched by the factor."""
    return max(_LEAST, round(count * _FACTOR))
