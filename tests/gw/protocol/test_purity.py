"""gw.protocol and gw.call work where gevent is not installed: they neither wait nor read a clock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gw.protocol

FOLDER = Path(gw.protocol.__file__).parent
PROGRAM = """
import sys
sys.modules.update({name: None for name in ("gevent", "geventwebsocket", "greenlet", "twilio.rest")})
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_every_module_loads_where_gevent_is_not_installed() -> None:
    names = [f"gw.protocol.{path.stem}" for path in sorted(FOLDER.glob("*.py")) if path.stem != "__init__"]
    assert "gw.protocol.twilio" in names and "gw.protocol.parrot" in names
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names], cwd=FOLDER.parent.parent, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
