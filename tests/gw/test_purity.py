"""gw.protocol and gw.call load where gevent and the twilio REST client are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import timing

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
sys.modules.update({name: None for name in ("gevent", "geventwebsocket", "greenlet", "twilio.rest")})
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


@pytest.mark.parametrize("package", ["protocol", "call"])
def test_every_module_loads_without_gevent(package: str) -> None:
    names = [f"gw.{package}.{path.stem}" for path in sorted((ROOT / "gw" / package).glob("*.py")) if path.stem != "__init__"]
    assert len(names) > 8
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names], cwd=ROOT, capture_output=True, text=True, timeout=timing.scaled(60), check=False
    )
    assert done.returncode == 0, done.stderr
