"""tests.lanes: lanes share out the tests, failures are shown, and a few failures run again; tried on a small suite."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import lanes
from tests.timing import scaled

HERE = Path(__file__).resolve().parent
#: What replaces the real lanes: one has a folder, the other the remaining tests; a command runs beside, one after them.
LANES = """
LANES = (Lane("slow", ("tests/slow",), nice=0), Lane("others"))
BESIDE = {"beside": ("-c", "print('I ran beside')")}
ALONE = {"alone": ("-c", "print('I ran last'); raise SystemExit(%d)")}


def main"""


class Suite:
    """A small suite in a folder, with the real runner."""

    def __init__(self, folder: Path, alone: int = 0) -> None:
        self.folder = folder
        self.tests = folder / "tests"
        (self.tests / "slow").mkdir(parents=True)
        for name in ("run.py", "program.py", "timing.py", "__init__.py"):
            shutil.copy(HERE / name, self.tests / name)
        source = (HERE / "lanes.py").read_text()
        assert source.count("\ndef main") == 1
        (self.tests / "lanes.py").write_text(source.replace("\ndef main", LANES % alone))
        (folder / "pyproject.toml").write_text(
            '[tool.pytest.ini_options]\ntestpaths = ["tests"]\naddopts = "-q -p no:cacheprovider"\n'
        )
        self.write("slow/test_slow.py", "def test_it():\n    pass\n")

    def write(self, name: str, code: str) -> None:
        (self.tests / name).write_text(code)

    def write_failing(self, more: str = "", **failing: int) -> None:
        """Write one test per name that fails this many times, and then passes.

        `more` is code before the tests.
        """
        lines = [more, "from pathlib import Path"]
        for name, times in failing.items():
            lines += [
                f"def test_{name}():",
                f"    runs = Path({str(self.folder / name)!r})",
                "    runs.write_text(runs.read_text() + 'x' if runs.exists() else 'x')",
                f"    assert len(runs.read_text()) > {times}",
            ]
        self.write("test_it.py", "\n".join(lines) + "\n")

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(self.tests / "run.py")]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self) -> tuple[int, str]:
        """Run the suite; return its exit code and what it printed."""
        with self.start() as process:
            printed, _ = process.communicate(timeout=scaled(60.0))
            return process.returncode, printed


def test_every_test_is_in_one_lane():
    paths = [path for lane in lanes.LANES for path in lane.paths]
    assert [path for path in paths if not (lanes.ROOT / path).is_dir()] == []
    assert [(one, other) for one in paths for other in paths if one != other and Path(one).is_relative_to(other)] == []
    assert [lane.name for lane in lanes.LANES if not lane.paths] == ["others"]


def test_lanes_and_commands_run_and_one_line_sums_them_up(tmp_path):
    suite = Suite(tmp_path)
    suite.write_failing("import pytest\n@pytest.mark.skip\ndef test_skipped():\n    pass\n", steady=0)
    code, printed = suite.run()
    assert code == 0, printed
    assert "I ran beside" in printed
    assert printed.index("I ran last") > printed.index("slow 1/1")
    assert "others 2/2" in printed
    assert printed.splitlines()[-1].startswith("2 passed, 1 skipped in ")
    durations = (tmp_path / "out" / "test" / "durations.tsv").read_text()
    assert "tests/slow/test_slow.py\tslow\n" in durations


def test_a_command_that_fails_fails_the_run(tmp_path):
    suite = Suite(tmp_path, alone=3)
    suite.write_failing(steady=0)
    code, printed = suite.run()
    assert code == 1, printed
    assert printed.splitlines()[-1].endswith("; failed: alone")


def test_a_test_that_failed_once_is_reported_as_unsteady_and_does_not_fail_the_run(tmp_path):
    suite = Suite(tmp_path)
    suite.write_failing(steady=0, once=1)
    code, printed = suite.run()
    assert code == 0, printed
    assert "1 failed, 2 passed" in printed
    assert "assert len(runs.read_text()) > 1" in printed
    assert "UNSTEADY: tests/test_it.py::test_once failed among the others and passed 3 times alone." in printed
    assert len((tmp_path / "once").read_text()) == 4


def test_a_test_that_fails_again_alone_fails_the_run(tmp_path):
    suite = Suite(tmp_path)
    suite.write_failing(once=1, twice=2)
    code, printed = suite.run()
    assert code == 1, printed
    assert "UNSTEADY: tests/test_it.py::test_once" in printed
    assert "UNSTEADY: tests/test_it.py::test_twice" not in printed


def test_many_failures_are_not_tried_again(tmp_path):
    suite = Suite(tmp_path)
    suite.write_failing(a=1, b=1, c=1, d=1)
    code, printed = suite.run()
    assert code == 1
    assert "Again" not in printed
    assert len((tmp_path / "a").read_text()) == 1


def test_a_setup_that_failed_is_one_failure(tmp_path):
    (tmp_path / "shared").write_text("")
    fixture = f"""
import pytest

@pytest.fixture(scope="module", autouse=True)
def shared():
    runs = __import__("pathlib").Path({str(tmp_path / "shared")!r})
    runs.write_text(runs.read_text() + "x")
    assert len(runs.read_text()) > 1
"""
    suite = Suite(tmp_path)
    suite.write_failing(fixture, a=0, b=0, c=0, d=0, e=0)
    code, printed = suite.run()
    assert code == 0, printed
    assert "5 errors" in printed
    assert printed.count("UNSTEADY") == 1


@pytest.mark.parametrize("body", ["import os; os._exit(7)", "import nothing_of_this_name"])
def test_a_lane_that_breaks_fails_the_run(tmp_path, body):
    suite = Suite(tmp_path)
    suite.write("test_it.py", f"{body}\n")
    code, printed = suite.run()
    assert code == 1
    assert "lane others" in printed
    assert "Again" not in printed


def test_ctrl_c_ends_every_lane(tmp_path):
    suite = Suite(tmp_path)
    suite.write(
        "test_it.py", "import os, time\ndef test_it():\n    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
    )
    with suite.start() as process:
        until_s = time.monotonic() + scaled(30.0)
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < until_s
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=scaled(60.0))
    assert process.returncode == lanes.INTERRUPTED, printed
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
