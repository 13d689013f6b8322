"""Submilli: a gateway between telephone calls and realtime AI voices."""

from pathlib import Path
from typing import Final

#: The folder of gateway.py: the repository, or the unpacked binary.
ROOT: Final = Path(__file__).resolve().parents[1]
