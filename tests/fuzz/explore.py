"""Runs one target under atheris: `explore.py TARGET [OPTION OF LIBFUZZER...]`. `tests/fuzz/run.py` starts it."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).resolve().parent.parent.parent)]

with atheris.instrument_imports(include=["gw.protocol", "gw.bus", "gw.config", "gw.media.forms", "gw.control.store.events"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    script, name, *options = sys.argv
    # libFuzzer starts itself again by this text, for a merge.
    atheris.Setup([f"{sys.executable} {script} {name}", *options], TARGETS[name])
    atheris.Fuzz()
