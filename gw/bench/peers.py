"""Other designs in the same bench: each a server under `tests/bench/peers`, in an environment of its own, behind the same load.

Decides which designs there are, how their environments come to be and what a growing number of calls makes of each. A design is
measured like the gateway: the same telephones and AI, a core of its own, CPU and memory as the kernel counts them. It has no
metrics of ours, so lateness is the caller's in every comparison, the gateway's too. All designs take each step one after the
other, and one that a caller would have noticed twice leaves; so ratios are of neighbours in time.

Environments are built once, from pinned requirements, and again when those change.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import subprocess

from gw import ROOT
from gw.bench.gateway_process import free_ports
from gw.bench.result import Measured, holds
from gw.bench.run import Load, Tell, measure_floor, measure_gateway, measure_subject
from gw.bench.subject import BenchError, compiler

SOURCES: Final = ROOT / "tests" / "bench" / "peers"
ENVIRONMENTS: Final = Path("out/peers")
#: Numbers of calls: close together where the designs that hold fewest end.
STEPS: Final = (5, 10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 250, 300, 400, 500)
_BUILD_S: Final = 900.0
#: Importing is slow when nothing is in the file cache.
_START_S: Final = 60.0
_STOP_S: Final = 3.0
#: A step that a caller would have noticed, or that was void, is measured once more.
_TRIES: Final = 2


@dataclass(frozen=True)
class Design:
    """One of the others. `marked`: audio leaves it bit by bit as it came, so every frame can be told."""

    name: str
    marked: bool


PEERS: Final = (Design("pipecat", marked=False), Design("threads", marked=True))


def environment(design: Design, tell: Tell, folder: Path = ENVIRONMENTS, sources: Path = SOURCES) -> Path:
    """The design's interpreter, its environment built if it is not there or its requirements changed. Raises BenchError."""
    wanted = sources / f"requirements-{design.name}.txt"
    if not wanted.exists():
        raise BenchError(f"the peers' sources are not here ({sources}); measuring them needs the repository")
    home = folder.resolve() / design.name
    python, built_from = home / "env" / "bin" / "python", home / "built-from.txt"
    if python.exists() and built_from.exists() and built_from.read_text() == wanted.read_text():
        return python
    shutil.rmtree(home / "env", ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    made = _run([sys.executable, "-m", "venv", str(home / "env")], lambda _: tell(f"{design.name}: making an environment"))
    if made:
        raise BenchError(f"no environment for {design.name} (on Debian: apt-get install python3-venv):\n{_end(made)}")
    install = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--retries", "2", "--timeout", "20"]
    failed = _run([str(python), *install, "-r", str(wanted)], lambda line: tell(f"{design.name}: {_doing(line)}"))
    if failed:
        raise BenchError(_unreachable(design, wanted, failed))
    built_from.write_text(wanted.read_text())
    return python


def _run(command: Sequence[str], on_line: Callable[[str], None]) -> list[str]:
    """Run it, each line told as it comes. Returns what it said when it failed, nothing when it did not."""
    said: list[str] = []
    with gevent.Timeout(_BUILD_S, BenchError(f"{command[0]} took longer than {_BUILD_S:g} s")):
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
        )
        try:
            assert process.stdout is not None
            on_line("")
            for line in process.stdout:
                said.append(line.decode(errors="replace").rstrip())
                on_line(said[-1])
            failed = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
    return [*said, f"exit code {failed}"] if failed else []


def _doing(line: str) -> str:
    """pip's line in short: what it collects, else that it goes on."""
    words = line.split()
    return f"collecting {words[1]}" if words[:1] == ["Collecting"] else "installing"


def _end(said: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in said[-6:])


def _unreachable(design: Design, wanted: Path, said: Sequence[str]) -> str:
    return (
        f"pip could not install {design.name}. It needs a package index: with one of your own, set PIP_INDEX_URL; without any, "
        f"fill a folder elsewhere with `pip download -r {wanted.name}` and set PIP_NO_INDEX=1 PIP_FIND_LINKS=<folder>. "
        f"pip said:\n{_end(said)}"
    )


class Peer:
    """A design's server, one process."""

    def __init__(self, design: Design, python: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = design.name
        self.marked = design.marked
        self._python = python
        self._log = folder / f"{design.name}.log"
        (self._port,) = free_ports(1)
        self._process: Any = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self, *, account_sid: str, auth_token: str, ai_url: str) -> None:
        """Run it and wait until it listens. Neither design looks at who calls. Raises BenchError with the end of its log."""
        command = [str(self._python), str(SOURCES / f"{self.name}_server.py"), "--port", str(self._port), "--ai-url", ai_url]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TWILIO_", "OPENAI_"))}
        with self._log.open("wb") as log:
            # its stdin is never written: its end is how it learns that we are gone
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environ, process_group=0)
        deadline_s = time.monotonic() + _START_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                said = self._log.read_text(errors="replace").splitlines()
                raise BenchError(f"{self.name} did not start; {self._log} ends with:\n{_end(said)}")
            gevent.sleep(0.1)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), 1.0).close()
        except OSError:
            return False
        return True

    def processes(self) -> dict[int, str]:
        return {} if self._process is None else {self._process.pid: self.name}

    def metrics(self) -> str:
        """None: what there is to know of it is seen from outside."""
        return ""

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdin.close()


Measure = Callable[[Load], Measured]


def measures(command: Sequence[str], out: Path, tell: Tell) -> dict[str, Measure]:
    """How each subject is measured: the floor where there is a compiler, the gateway, the peers. Builds what they need."""
    found: dict[str, Measure] = {}
    if compiler() is not None:
        found["floor"] = lambda load: measure_floor(out, load, tell)
    found["gateway"] = lambda load: measure_gateway(command, out, load, tell)
    return {**found, **peer_measures(out, tell)}


def peer_measures(out: Path, tell: Tell) -> dict[str, Measure]:
    """How each peer is measured; their environments are built before anything is."""

    def measure(design: Design, python: Path) -> Measure:
        return lambda load: measure_subject(Peer(design, python, out / "peers"), out, load, tell)

    return {design.name: measure(design, environment(design, tell)) for design in PEERS}


def climb(load: Load, steps: Sequence[int], found: Mapping[str, Measure], made: list[dict[str, Any]]) -> None:
    """Every subject at every number of calls until it breaks; rows are put into `made` as they come."""
    standing = dict(found)
    for calls in steps:
        floor_ms = 0.0
        for name, measure in list(standing.items()):
            row = _step(replace(load, calls=calls), measure, floor_ms)
            made.append(row)
            if name == "floor":
                floor_ms = row["far_lateness_ms"]["p99.9"] or 0.0
            elif row["broken"] and not row["void"]:
                del standing[name]
        if not standing.keys() - {"floor"}:
            break


def _step(load: Load, measure: Measure, floor_ms: float) -> dict[str, Any]:
    """One subject at one number of calls: the first try that held, else the last."""
    found: dict[str, Any] = {}
    for _ in range(_TRIES):
        found = _row(measure(load), floor_ms)
        if not found["void"] and not found["beyond"]:
            break
    return found


def _row(measured: Measured, floor_ms: float) -> dict[str, Any]:
    beyond = holds(measured, floor_ms, at_caller=True)
    return {**measured.summary(), "core": round(measured.measured_share, 3), "beyond": beyond}


def beside(gateway: Measured, floor: Measured | None, load: Load, found: Mapping[str, Measure]) -> list[dict[str, Any]]:
    """The peers at the number of calls at which gateway and floor were measured, and these two."""
    floor_ms = (floor.far["lateness"]["p99.9"] or 0.0) if floor else 0.0
    known = [_row(measured, floor_ms) for measured in (gateway, floor) if measured is not None]
    return known + [_step(load, measure, floor_ms) for measure in found.values()]


def further_kb(rows: Sequence[Mapping[str, Any]], subject: str) -> float | None:
    """What one more call takes of memory, between the fewest and the most calls; what a process takes once is no part of it."""
    used_mb = {
        int(row["calls"]): sum(float(role["pss_mb"]) for role in row["processes"].values())
        for row in rows
        if row["subject"] == subject
    }
    if len(used_mb) < 2:
        return None
    first, last = min(used_mb), max(used_mb)
    return round((used_mb[last] - used_mb[first]) * 1024 / (last - first), 1)


def document(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything a growth amounts to: what each holds, by the rule of `ramp` and without an underrun, the ratios, the rows."""
    subjects = sorted({row["subject"] for row in rows})
    return {
        "held": {name: held(rows, name) for name in subjects},
        "held_without_underrun": {name: held(rows, name, "broken") for name in subjects},
        "further_call_kb": {name: further_kb(rows, name) for name in subjects},
        "ratios": ratios(rows),
        "rows": list(rows),
    }


def held(rows: Sequence[Mapping[str, Any]], subject: str, why_not: str = "beyond") -> int:
    """The largest number of calls this subject held; `broken` for the lesser claim that no caller would have noticed."""
    return max((row["calls"] for row in rows if row["subject"] == subject and not row[why_not] and not row["void"]), default=0)


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each other subject costs in gateways: at its own largest number of calls, and against the gateway at its own."""
    cost = {(row["subject"], row["calls"]): row["cpu_ms_per_call_s"] for row in rows if not row["void"]}
    best = held(rows, "gateway", "broken")
    found = []
    for name in sorted({row["subject"] for row in rows} - {"gateway", "floor"}):
        calls = held(rows, name) or held(rows, name, "broken")
        same, own = cost.get(("gateway", calls)), cost.get(("gateway", best))
        if calls and same and own:
            theirs = cost[(name, calls)]
            found.append(
                {
                    "peer": name,
                    "calls": calls,
                    "strictly": bool(held(rows, name)),
                    "at_the_same_calls": round(theirs / same, 2),
                    "gateway_calls": best,
                    "each_at_its_largest": round(theirs / own, 2),
                }
            )
    return found
