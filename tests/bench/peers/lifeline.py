"""A peer's life hangs on its standard input: when whoever started it is gone, however that came, so is the peer."""

from __future__ import annotations

import os
import sys
import threading


def hold() -> None:
    """End this process when its standard input does."""
    threading.Thread(target=_wait, daemon=True, name="lifeline").start()


def _wait() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)
