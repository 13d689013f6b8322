"""How tests that run the gateway in processes of its own start it: from this source, or the one-file binary.

make binary && SUBMILLI_BINARY=dist/submilli .venv/bin/python tests/run.py tests/calls tests/gw/cli/test_serve.py
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def program() -> list[str]:
    """The command line, without options."""
    binary = os.environ.get("SUBMILLI_BINARY")
    return [str(ROOT / binary)] if binary else [sys.executable, str(ROOT / "gateway.py")]
