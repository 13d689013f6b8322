"""How the suite's runner treats tests that failed: a small suite of its own, whose tests fail as often as they are told."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests import timing

HERE = Path(__file__).resolve().parent


def run(folder: Path, more: str = "", **failing: int) -> subprocess.CompletedProcess[str]:
    """Run a suite of one test for each name; it fails the given number of times, and then passes. `more` code of it."""
    tests = folder / "tests"
    tests.mkdir()
    for name in ("run.py", "program.py", "__init__.py"):
        shutil.copy(HERE / name, tests / name)
    (tests / "conftest.py").write_text("")
    (folder / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\ntestpaths = ["tests"]\naddopts = "-q -p no:cacheprovider"\n'
    )
    lines = ["from pathlib import Path"]
    for name, times in failing.items():
        lines += [
            f"def test_{name}():",
            f"    runs = Path({str(folder / name)!r})",
            "    runs.write_text(runs.read_text() + 'x' if runs.exists() else 'x')",
            f"    assert len(runs.read_text()) > {times}",
        ]
    (tests / "test_it.py").write_text("\n".join(lines) + "\n" + more)
    command = [sys.executable, str(tests / "run.py")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timing.scaled(60.0), check=False)


def test_a_test_that_failed_by_chance_is_named_and_fails_nobody(tmp_path):
    done = run(tmp_path, steady=0, once=1)
    assert done.returncode == 0, done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert "UNSTEADY: tests/test_it.py::test_once failed among the others and passed 3 times alone." in done.stdout
    assert len((tmp_path / "once").read_text()) == 4


def test_a_test_that_fails_again_alone_fails_the_run(tmp_path):
    done = run(tmp_path, once=1, twice=2)
    assert done.returncode == 1, done.stdout
    assert "UNSTEADY: tests/test_it.py::test_once" in done.stdout
    assert "UNSTEADY: tests/test_it.py::test_twice" not in done.stdout


def test_many_failures_are_no_accident(tmp_path):
    done = run(tmp_path, a=1, b=1, c=1, d=1)
    assert done.returncode == 1
    assert "Again" not in done.stdout
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
    done = run(tmp_path, fixture, a=0, b=0, c=0, d=0, e=0)
    assert done.returncode == 0, done.stdout
    assert "5 errors" in done.stdout
    assert done.stdout.count("UNSTEADY") == 1
