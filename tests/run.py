"""Run tests as the gateway runs: the standard library is patched for gevent before any other import.

    tests/run.py                   the whole suite, several processes side by side (tests/lanes.py)
    tests/run.py PATH [OPTION...]  some tests in this process; the arguments go to pytest

With `SUBMILLI_BINARY` the gateway and its libraries are those in that file, in the tests' own process as well.
"""

import os
import signal
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from tests import lanes, program  # noqa: E402


def main(arguments: list[str]) -> int:
    """Run these tests in this process. Returns pytest's exit code."""
    unpacked = program.unpacked()
    if unpacked:
        sys.path[:0] = [str(unpacked)]
    from gevent import monkey

    monkey.patch_all()
    import pytest

    records = os.environ.pop(lanes.RECORDS_VARIABLE, "")
    plugins = [lanes.Recorder(Path(records))] if records else []
    return int(pytest.main([*(["--import-mode=append"] if unpacked else []), *arguments], plugins=plugins))


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job's, which every child would inherit
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else lanes.main())
