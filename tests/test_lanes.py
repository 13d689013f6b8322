"""tests.lanes on a small suite: lanes run beside each other, and a few failures run again."""

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
#: Lanes of the small suite: one has a folder, the other the remaining tests; a command runs beside them, another after them.
LANES = """
LANES = (Lane("slow", ("tests/slow",), real_time=True), Lane("inside", ("tests/slow/test_inside.py",)), Lane("others"))
BESIDE = {"beside": ("-c", "print('I ran beside')")}
ALONE = {"alone": ("-c", "print('I ran last'); open('ran', 'a').write('x'); raise SystemExit(len(open('ran').read()) <= %d)")}


def main"""


class Suite:
    """A small suite in a folder, with the real runner. The command after the tests fails `alone` times."""

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
        for name in ("slow", "inside"):
            self.write(f"slow/test_{name}.py", "def test_it():\n    pass\n")

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
        environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        return subprocess.Popen(
            command, cwd=self.folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self) -> tuple[int, str]:
        """Run the suite; return its exit code and what it printed."""
        with self.start() as process:
            printed, _ = process.communicate(timeout=scaled(60.0))
            return process.returncode, printed


def test_every_test_is_in_one_lane():
    paths = [path for lane in lanes.LANES for path in lane.paths]
    assert [path for path in paths if not (lanes.ROOT / path).exists()] == []
    assert len(set(paths)) == len(paths)
    commands = {lane.name: lanes._command(lane) for lane in lanes.LANES}
    for lane in lanes.LANES:  # a path inside another lane's path is ignored there
        for path in lane.paths:
            outer = [other for other in lanes.LANES if any(Path(path).is_relative_to(own) for own in other.paths or ("tests",))]
            assert [other.name for other in outer if f"--ignore={path}" not in commands[other.name]] == [lane.name]
    assert [lane.name for lane in lanes.LANES if not lane.paths] == ["others"]


def test_the_lanes_run_and_a_few_failures_run_again_alone(tmp_path):
    """One test that fails once, and one setup that fails once for several tests."""
    (tmp_path / "shared").write_text("")
    suite = Suite(tmp_path)
    suite.write_failing(steady=0, once=1)
    suite.write(
        "test_shared.py",
        f"""
import pytest

@pytest.fixture(scope="module", autouse=True)
def shared():
    runs = __import__("pathlib").Path({str(tmp_path / "shared")!r})
    runs.write_text(runs.read_text() + "x")
    assert len(runs.read_text()) > 1

def test_a():
    pass

def test_b():
    pass

@pytest.mark.skip
def test_skipped():
    pass
""",
    )
    code, printed = suite.run()
    assert code == 0, printed
    assert "I ran beside" in printed
    assert printed.index("I ran last") > printed.index("slow 1/1")
    assert "others 5/5" in printed
    assert printed.splitlines()[-1].startswith("1 failed, 3 passed, 1 skipped, 2 errors in ")
    assert "assert len(runs.read_text()) > 1" in printed
    assert "UNSTEADY: tests/test_it.py::test_once failed among the others and passed 3 times alone." in printed
    assert "UNSTEADY: tests/test_shared.py::test_a" in printed
    assert printed.count("UNSTEADY") == 2
    assert (tmp_path / "once").read_text() == (tmp_path / "shared").read_text() == "xxxx"
    assert "tests/slow/test_slow.py\tslow\n" in (tmp_path / "out" / "test" / "durations.tsv").read_text()


def test_a_test_that_fails_again_alone_fails_the_run_and_so_does_a_command(tmp_path):
    suite = Suite(tmp_path, alone=2)
    suite.write_failing(once=1, twice=2)
    code, printed = suite.run()
    assert code == 1, printed
    assert "UNSTEADY: tests/test_it.py::test_once" in printed
    assert "UNSTEADY: tests/test_it.py::test_twice" not in printed
    assert printed.splitlines()[-1].endswith("; failed: tests, alone")
    assert (tmp_path / "ran").read_text() == "xx", "a second failure decides"


def test_a_command_that_fails_once_must_succeed_twice(tmp_path):
    suite = Suite(tmp_path, alone=1)
    suite.write_failing(steady=0)
    code, printed = suite.run()
    assert code == 0, printed
    assert "UNSTEADY: alone failed and then held 2 times." in printed
    assert (tmp_path / "ran").read_text() == "xxx"


def test_many_failures_do_not_run_again(tmp_path):
    suite = Suite(tmp_path)
    suite.write_failing(a=1, b=1, c=1, d=1, e=1, f=1)
    code, printed = suite.run()
    assert code == 1
    assert "Again" not in printed
    assert (tmp_path / "a").read_text() == "x"


def test_a_lane_that_breaks_fails_the_run(tmp_path):
    """One lane's process ends early, the other cannot import a test."""
    suite = Suite(tmp_path)
    suite.write("test_it.py", "import os\ndef test_it():\n    os._exit(7)\n")
    suite.write("slow/test_slow.py", "import nothing_of_this_name\n")
    code, printed = suite.run()
    assert code == 1
    assert "lane others ended with 7 before its last test" in printed
    assert "lane slow: pytest's exit code 2" in printed
    assert "No module named 'nothing_of_this_name'" in printed
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
