"""Runs the suite as the gateway runs: patched for gevent before anything else is imported. Arguments go to pytest.

Without arguments, as `make test` calls it, a test or two that failed among nearly four thousand are tried again, each alone in a
new process: the tests run real processes on a machine that may be busy with others'. One that fails again fails the run; one that
then passes AGAIN times in a row is named as unsteady at the end, and wants mending all the same.

With `SUBMILLI_BINARY` the gateway and its libraries are those in that file, in the tests' own process as well.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from tests import program  # noqa: E402

if unpacked := program.unpacked():
    sys.path[:0] = [str(unpacked)]

from gevent import monkey  # noqa: E402

monkey.patch_all()

import signal  # noqa: E402
import subprocess  # noqa: E402
from typing import Final  # noqa: E402

import pytest  # noqa: E402

#: More failures than this are no accident.
UNSTEADY_AT_MOST: Final = 3
AGAIN: Final = 3
_ALONE_S: Final = 300.0


class Failures:
    """Remembers which tests failed, in whichever phase, and whether something else did. Of those in a file whose setup failed,
    the first stands for all: they have it in common."""

    def __init__(self) -> None:
        self.tests: list[str] = []
        self.broken = False
        self._set_up: set[str] = set()  # files with a setup that failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.partition("::")[0]
        if not report.failed or report.nodeid in self.tests or (report.when == "setup" and file in self._set_up):
            return
        if report.when == "setup":
            self._set_up.add(file)
        self.tests.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.broken = self.broken or report.failed


def passes_alone(test: str) -> bool:
    """Whether a test passes AGAIN times in a row, each time in a process of its own; else what it printed is shown."""
    for _ in range(AGAIN):
        command = [sys.executable, __file__, test, "-q"]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=_ALONE_S, check=False)
        except subprocess.TimeoutExpired:
            print(f"{test}: alone it took over {_ALONE_S:.0f} s")
            return False
        if run.returncode != 0:
            print(run.stdout)
            return False
    return True


def main(arguments: list[str]) -> int:
    """The exit code."""
    failures = Failures()
    code = int(pytest.main([*(["--import-mode=append"] if unpacked else []), *arguments], plugins=[failures]))
    if arguments or code != pytest.ExitCode.TESTS_FAILED or failures.broken or len(failures.tests) > UNSTEADY_AT_MOST:
        return code
    steady = True
    for test in failures.tests:
        print(f"\nAgain, alone: {test}", flush=True)
        if passes_alone(test):
            print(f"UNSTEADY: {test} failed among the others and passed {AGAIN} times alone.")
        else:
            steady = False
    return 0 if steady else code


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job's, which every child would inherit
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
