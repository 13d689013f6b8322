"""Gateway whose control looks for lost calls sooner: a test of control's start would wait ten seconds for it.

One difference from `gateway.py`: the grace of `gw.control.calls.lost_calls`.
"""

import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gateway  # noqa: F401  patches the standard library
from gw.cli import main
from gw.cli.context import Settings

#: Time the workers have to connect. They do so within 0.2 s of control's start.
GRACE_S: Final = 3.0


def program(self: Settings) -> list[str]:
    """Return this file: children start from it too."""
    return [sys.executable, __file__]


if __name__ == "__main__":
    Settings.program = program  # type: ignore[method-assign]
    if "control" in sys.argv:
        from gw.control.calls import lost_calls

        lost_calls.GRACE_S = GRACE_S  # type: ignore[misc]
    main()
