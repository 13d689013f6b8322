"""The gateway under test: this source, or the one-file binary that `SUBMILLI_BINARY` names.

make test-binary
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_UNPACK_S = 60.0


def program() -> list[str]:
    """Return the gateway's command line, for tests that start it as a process."""
    binary = os.environ.get("SUBMILLI_BINARY")
    return [str(ROOT / binary)] if binary else [sys.executable, str(ROOT / "gateway.py")]


def unpacked() -> Path | None:
    """Return the folder of the binary's libraries, None without a binary.

    Tests that run the gateway in their own process import them from there.
    """
    if not os.environ.get("SUBMILLI_BINARY"):
        return None
    cache = ROOT / "out" / "binary"
    os.environ["SUBMILLI_CACHE"] = str(cache)
    subprocess.run([*program(), "--version"], check=True, stdout=subprocess.DEVNULL, timeout=_UNPACK_S)
    with Path(program()[0]).open("rb") as file:
        (name,) = (line.decode().strip() for line in itertools.islice(file, 10) if line.startswith(b"app=$cache/"))
    return cache / name.removeprefix("app=$cache/")
