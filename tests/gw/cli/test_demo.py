"""`demo` as a user runs it: a whole run with its files, and no process left, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

from gw.twin import speech
from tests.program import program
from tests.timing import scaled

COMMAND = program()
#: Environment variable that a run and all its processes inherit.
MARK = "RUN_UNDER_TEST"


def started(out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "demo", "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: str(out)},
    )


def processes_of(out: Path) -> list[int]:
    """Return every process of the run, found by its inherited variable."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={out}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass
    return found


def until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    deadline_s = time.monotonic() + scaled(within_s)
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.02)


def test_a_run_keeps_its_promises_and_leaves_its_files(tmp_path: Path) -> None:
    run = started(tmp_path, "--calls", "2", "--seconds", "5", "--json")
    printed, errors = run.communicate(timeout=60)
    summary = json.loads(printed)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["calls"]) == 2
    frames = (len(speech.load("hello-world")) + len(speech.load("thanks"))) // 160
    for call in summary["calls"]:
        assert call["audio_exact"] is True
        assert call["frames_sent"] == call["frames_expected"] == frames
        assert (call["recordings_started"], call["ended"]) == (1, "ai_hangup")
    plain, asks = summary["calls"]
    assert (plain["tools"], plain["tools_wanted"], asks["tools_wanted"]) == ([], 0, 1)
    (tool,) = asks["tools"]
    assert tool.startswith("find_party ok, ")
    assert summary["processes_left"] == 0
    assert run.returncode == (0 if summary["ok"] else 1), errors
    for number in (1, 2):  # the goodbye of the second comes only with the result of its tool
        with wave.open(str(tmp_path / f"call-{number}.wav")) as heard:
            assert heard.getnframes() >= 160 * frames
    if "SUBMILLI_BINARY" not in os.environ:  # the file has no matplotlib
        assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "children"), [(signal.SIGTERM, 1), (signal.SIGINT, 2), (signal.SIGINT, 4), (signal.SIGTERM, 4)]
)
def test_nothing_is_left_when_it_is_interrupted(tmp_path: Path, number: signal.Signals, children: int) -> None:
    """Interrupt at the very start, between control and worker, and with everything running."""
    run = started(tmp_path)
    until(lambda: len(processes_of(tmp_path)) >= children)
    run.send_signal(number)
    _, errors = run.communicate(timeout=20)
    assert processes_of(tmp_path) == []
    assert run.returncode != 0
    assert "Traceback" not in errors


def test_nothing_is_left_when_it_is_killed(tmp_path: Path) -> None:
    run = started(tmp_path)
    until(lambda: len(processes_of(tmp_path)) >= 4)
    run.kill()
    run.communicate(timeout=10)
    until(lambda: processes_of(tmp_path) == [])
