"""End of a peer's process together with its parent, noticed by its closed stdin."""

from __future__ import annotations

import os
import sys
import threading


def hold() -> None:
    """Start a thread that ends this process when standard input closes."""
    threading.Thread(target=_wait, daemon=True, name="lifeline").start()


def _wait() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)
