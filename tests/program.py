"""Which gateway the tests run: this source, or what `SUBMILLI_BINARY` names, the one-file binary.

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
    """The command line of tests that run the gateway in processes of its own, without options."""
    binary = os.environ.get("SUBMILLI_BINARY")
    return [str(ROOT / binary)] if binary else [sys.executable, str(ROOT / "gateway.py")]


def unpacked() -> Path | None:
    """The binary's packages and libraries, for tests that run the gateway in their own process; None where there is no binary."""
    if not os.environ.get("SUBMILLI_BINARY"):
        return None
    cache = ROOT / "out" / "binary"
    os.environ["SUBMILLI_CACHE"] = str(cache)
    subprocess.run([*program(), "--version"], check=True, stdout=subprocess.DEVNULL, timeout=_UNPACK_S)
    with Path(program()[0]).open("rb") as file:
        (name,) = (line.decode().strip() for line in itertools.islice(file, 10) if line.startswith(b"app=$cache/"))
    return cache / name.removeprefix("app=$cache/")
