"""Runs one target under atheris: `explore.py TARGET [OPTION OF LIBFUZZER...]`. `tests/fuzz/run.py` starts it."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).resolve().parent.parent.parent)]

with atheris.instrument_imports(include=["gw.protocol", "gw.bus", "gw.config", "gw.media.forms", "gw.control.store.events"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
