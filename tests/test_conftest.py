"""tests.conftest: plain pytest runs the tests patched for gevent, or refuses and names the command."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.timing import scaled

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("options", "code", "printed"),
    [((), 0, " passed in "), (("-p", "ssl"), 4, "run `make test TESTS=path` instead")],
    ids=["patched in time", "too late to patch"],
)
def test_plain_pytest(options, code, printed):
    command = [sys.executable, "-m", "pytest", *options, "tests/gw/media/transport/test_tls.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60.0), check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert printed in done.stdout + done.stderr
