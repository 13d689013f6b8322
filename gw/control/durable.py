"""Puts a complete file in its place, so that it survives the loss of power."""

from __future__ import annotations

import os
from pathlib import Path


def put_in_place(part: Path, file: Path) -> None:
    """Sync `part`, rename it to `file` of the same folder, and sync the folder. Raises OSError."""
    _sync(part)
    part.rename(file)
    _sync(file.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
