"""Run the whole suite as several pytest processes side by side: most tests mainly wait.

A lane is one process with its own MariaDB, its own temporary folders and its own part of the tests. `calls` and `outages` have
those that judge when audio arrives, and run at normal priority; the other lanes run at a lower one and fill the time in which
these wait. `outages` is the nicer of the two: the processes that it starts would delay the audio of `calls`. `verify budget`
measures the machine and therefore runs last, alone.

Every lane writes a record of each test to `out/test/LANE.jsonl` and its output to `out/test/LANE.log`; `out/test/durations.tsv`
lists seconds and CPU seconds of each file. Failures are printed in full at the end, then one summary in pytest's form.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.timing import scaled

if TYPE_CHECKING:
    import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
OUT: Final = ROOT / "out" / "test"
#: Names the file to which a lane's pytest process appends its records.
RECORDS_VARIABLE: Final = "SUBMILLI_TEST_RECORDS"
#: A lane that takes longer is killed.
_LANE_S: Final = 1500.0
#: Bound on the end of a lane after SIGINT: its tests stop their gateways and databases.
_STOP_S: Final = 30.0
_LOOK_S: Final = 0.2
_PROGRESS_S: Final = 15.0
_PR_SET_PDEATHSIG: Final = 1
#: With more failures than this, none runs again: chance does not explain them.
_UNSTEADY_AT_MOST: Final = 5
_ALONE_TIMES: Final = 3
_ALONE_S: Final = 300.0
#: A command that needs the machine for itself and failed runs so often again.
_AGAIN_TIMES: Final = 2
INTERRUPTED: Final = 2


class Lane(NamedTuple):
    """One process beside others. `paths` are pytest's; without any the lane runs every test that no other lane has.

    A path inside another lane's path leaves that lane.
    A lane of real-time tests takes a core from the others whenever it needs one; `nice` orders such lanes among themselves.
    """

    name: str
    paths: tuple[str, ...] = ()
    real_time: bool = False
    nice: int = 0


def _calls(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/calls/test_{name}.py" for name in names)


#: Calls whose tests judge no time.
_UNTIMED_CALLS: Final = _calls("accounts", "two_gateways")
#: Calls during which a process, the AI or Twilio's API goes away: as long as all others together.
_OUTAGES: Final = _calls(
    "reload", "restart", "resume", "transfer_restart", "digits_restart", "resumed_tools", "ai_lost", "bad_rest", "stalls"
)
#: In the order they start, the longest first.
LANES: Final = (
    Lane("calls", ("tests/calls",), real_time=True),
    Lane("outages", _OUTAGES, real_time=True, nice=5),
    Lane("machines", ("tests/faults", "tests/dashboards", "tests/browser", "tests/deploy", "tests/vms")),
    Lane("control", ("tests/gw/control", "tests/gw/supervise", "tests/gw/cli", "tests/gw/demo", *_UNTIMED_CALLS)),
    Lane("proofs", ("tests/gw/verify",)),
    Lane("others"),
)
#: Commands that run beside the lanes, and those that need the machine for themselves.
BESIDE: Final = {
    "guard": ("gateway.py", "verify", "guard"),
    "conversation": ("gateway.py", "verify", "conversation"),
}
ALONE: Final = {"budget": ("gateway.py", "verify", "budget", "--quick")}


class Recorder:
    """pytest plugin of a lane: appends one JSON line for each phase of each test."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._cpu_s = _cpu_s()

    def _write(self, **record: Any) -> None:
        self._file.write(json.dumps(record) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write(collected=len(session.items))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(test=report.nodeid, when="collect", outcome="failed", text=report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        cpu_s, self._cpu_s = self._cpu_s, _cpu_s()
        text = ""
        if report.failed:
            text = "\n".join([report.longreprtext, *(f"--- {name} ---\n{content}" for name, content in report.sections)])
        outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        self._write(
            test=report.nodeid,
            when=report.when,
            outcome=outcome,
            duration_s=round(report.duration, 3),
            cpu_s=round(self._cpu_s - cpu_s, 3),
            text=text,
        )

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._write(exit=int(exitstatus))


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of its ended children."""
    return sum(os.times()[:4])


class Running:
    """A lane's process, and the records it has written so far."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.collected = 0
        self.exit: int | None = None  # pytest's exit code; None until it reports one
        self.outcomes: Counter[str] = Counter()
        self.failures: dict[str, str] = {}  # node id -> text, the first of each test
        self.setups: set[str] = set()  # files whose setup failed
        self.files: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])  # seconds, CPU seconds, tests
        self.began_s = time.monotonic()
        self.took_s = 0.0
        self.log = OUT / f"{lane.name}.log"
        records = OUT / f"{lane.name}.jsonl"
        records.write_text("")
        self._reader = records.open()
        self._rest = ""
        self.process = _start(lane.name, _command(lane), real_time=lane.real_time, nice=lane.nice)

    @property
    def done(self) -> int:
        """Number of tests that have ended."""
        return self.outcomes.total()

    def look(self) -> bool:
        """Read new records; return whether the process still runs."""
        running = self.process.poll() is None
        *lines, self._rest = (self._rest + self._reader.read()).split("\n")
        for line in lines:
            self._take(json.loads(line))
        if not running and not self.took_s:
            self.took_s = time.monotonic() - self.began_s
        if running and time.monotonic() - self.began_s > scaled(_LANE_S):
            self.process.kill()
        return running

    def _take(self, record: dict[str, Any]) -> None:
        if "collected" in record:
            self.collected = record["collected"]
        elif "exit" in record:
            self.exit = record["exit"]
        else:
            test, when, outcome = record["test"], record["when"], record["outcome"]
            file = self.files[test.partition("::")[0]]
            file[0] += record.get("duration_s", 0.0)
            file[1] += record.get("cpu_s", 0.0)
            file[2] += when == "call"
            if outcome == "failed":
                self.outcomes["failed" if when == "call" else "error"] += 1
                self._fail(test, when, record["text"])
            elif when == "call" or outcome != "passed":
                self.outcomes[outcome] += 1

    def _fail(self, test: str, when: str, text: str) -> None:
        """Record a failure. A setup that failed in a file counts once: the tests of the file share it."""
        file = test.partition("::")[0]
        if test in self.failures or (when == "setup" and file in self.setups):
            return
        if when == "setup":
            self.setups.add(file)
        self.failures[test] = text
        print(f"{self.lane.name}: {test} failed", flush=True)

    @property
    def broken(self) -> str:
        """Why the lane has no result; empty if it has one."""
        if self.exit is None:
            tail = self.log.read_text(errors="replace")[-3000:]
            return f"lane {self.lane.name} ended with {self.process.returncode} before its last test:\n{tail}"
        if self.exit not in (0, 1):
            return f"lane {self.lane.name}: pytest's exit code {self.exit}:\n{self.log.read_text(errors='replace')[-3000:]}"
        return ""


def _command(lane: Lane) -> list[str]:
    """Return the arguments of Python for a lane."""
    paths = lane.paths or ("tests",)
    others = [path for other in LANES if other is not lane for path in other.paths]
    inside = [path for path in others if any(Path(path).is_relative_to(own) for own in paths)]
    return ["tests/run.py", *paths, *(f"--ignore={path}" for path in inside)]


def _show_progress(lanes: Sequence[Running], began_s: float) -> None:
    now_s = time.monotonic() - began_s
    parts = [
        f"{one.lane.name} {one.done}/{one.collected or '?'}" + (f" in {one.took_s:.0f} s" if one.took_s else "") for one in lanes
    ]
    print(f"{int(now_s) // 60}:{int(now_s) % 60:02}  " + "   ".join(parts), flush=True)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    until_s = time.monotonic() + _STOP_S
    for process in processes:
        try:
            process.wait(max(0.1, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _write_durations(lanes: Sequence[Running]) -> None:
    rows = [(*counted, file, one.lane.name) for one in lanes for file, counted in one.files.items()]
    lines = [
        f"{took:.1f}\t{cpu:.1f}\t{tests:.0f}\t{file}\t{lane}\n" for took, cpu, tests, file, lane in sorted(rows, reverse=True)
    ]
    (OUT / "durations.tsv").write_text("seconds\tcpu_s\ttests\tfile\tlane\n" + "".join(lines))


def passes_alone(test: str) -> bool:
    """Run a test several times, each in a new process; print a failure's output."""
    for _ in range(_ALONE_TIMES):
        command = [sys.executable, str(ROOT / "tests" / "run.py"), test]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=scaled(_ALONE_S), check=False)
        except subprocess.TimeoutExpired:
            print(f"{test}: took over {scaled(_ALONE_S):.0f} s alone")
            return False
        if run.returncode != 0:
            print(run.stdout)
            return False
    return True


def _holds_alone(name: str, command: Sequence[str]) -> bool:
    """Run a command. After a failure it must succeed twice: disturbances of the machine pass, faults of the gateway do not."""
    if _succeeds(command):
        return True
    for _ in range(_AGAIN_TIMES):
        print(f"\nAgain: {' '.join(command)}", flush=True)
        if not _succeeds(command):
            return False
    print(f"UNSTEADY: {name} failed and then held {_AGAIN_TIMES} times.")
    return True


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode == 0


def _summary(lanes: Sequence[Running], took_s: float) -> str:
    """Return the closing line, in pytest's form."""
    outcomes = sum((one.outcomes for one in lanes), Counter[str]())
    names = {"failed": "failed", "passed": "passed", "skipped": "skipped", "xfailed": "xfailed", "error": "errors"}
    counted = ", ".join(f"{outcomes[name]} {shown}" for name, shown in names.items() if outcomes[name])
    return f"{counted} in {took_s:.2f}s ({int(took_s) // 60}:{int(took_s) % 60:02})"


def _judge(lanes: Sequence[Running]) -> bool:
    """Print every failure in full; run a few failed tests again, each alone. Returns whether the tests pass."""
    failures = {test: text for one in lanes for test, text in one.failures.items()}
    for test, text in failures.items():
        print(f"\n{f' {test} ':_^120}\n{text}")
    broken = [one.broken for one in lanes if one.broken]
    print(*broken, sep="\n", end="\n" if broken else "")
    if broken or not failures or len(failures) > _UNSTEADY_AT_MOST:
        return not broken and not failures
    passed = True
    for test in failures:
        print(f"\nAgain, alone: {test}", flush=True)
        if passes_alone(test):
            print(f"UNSTEADY: {test} failed among the others and passed {_ALONE_TIMES} times alone.")
        else:
            passed = False
    return passed


def _start(name: str, command: Sequence[str], *, real_time: bool = False, nice: int = 0) -> subprocess.Popen[bytes]:
    """Start a process beside the others; its output goes to the log of that name."""

    def before() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it, and its children would
        os.nice(nice)
        if not real_time:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # sched(7): any other process goes first

    with (OUT / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, RECORDS_VARIABLE: str(OUT / f"{name}.jsonl")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,  # Ctrl-C reaches this process through `_stop`
            preexec_fn=before,
        )


def main() -> int:
    """Run everything. Returns the exit code."""
    OUT.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    lanes = [Running(lane) for lane in LANES]
    beside = {name: _start(name, command) for name, command in BESIDE.items()}
    try:
        shown_s = began_s
        while any([one.look() for one in lanes] + [process.poll() is None for process in beside.values()]):
            if time.monotonic() - shown_s > _PROGRESS_S:
                shown_s = time.monotonic()
                _show_progress(lanes, began_s)
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        print("\ninterrupted: stopping every lane", flush=True)
        _stop([*(one.process for one in lanes), *beside.values()])
        return INTERRUPTED
    took_s = time.monotonic() - began_s
    _show_progress(lanes, began_s)
    _write_durations(lanes)
    passed = _judge(lanes)
    failed = [] if passed else ["tests"]
    for name, process in beside.items():
        print(f"\n{' '.join(BESIDE[name])}\n{(OUT / f'{name}.log').read_text()}", end="")
        failed += [name] if process.returncode else []
    for name, command in ALONE.items():
        print(f"\n{' '.join(command)}", flush=True)
        failed += [] if _holds_alone(name, command) else [name]
    print(_summary(lanes, took_s) + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0
