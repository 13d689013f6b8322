"""Measure other designs with the bench's load: the servers in this folder, each in a separate environment.

    .venv/bin/python tests/bench/peers/run.py [--from 5] [--to 200] [--seconds 10] [--json]
    .venv/bin/python tests/bench/peers/run.py --from 40 --to 40 --seconds 8     # one number of calls

Floor, gateway and peers (pipecat, and a bridge of threads and queues) take each number of calls one after the other, so ratios
are of neighbours in time; a design that a caller would have noticed twice leaves. A design is measured like the gateway: the
same telephones and AI, its own core, CPU and memory as the kernel counts them. Only the gateway has metrics, so lateness
is the caller's in every comparison. Writes peers.json and peers.png: CPU, lateness and memory of a call against the number of
calls.

Environments are built under out/peers, once, from pinned requirements, and again when those change: pip must reach a package
index.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import click
import gevent
from gevent import subprocess

from gw.bench.gateway_process import end_process, free_ports
from gw.bench.result import Measured, holds
from gw.bench.run import Load, OnStep, measure_floor, measure_gateway, measure_subject
from gw.bench.subject import BenchError, compiler
from gw.cli.bench.steps import between, step_load, step_options, take_steps
from gw.cli.context import Settings
from tests.bench.peers import report

SOURCES: Final = Path(__file__).resolve().parent
ENVIRONMENTS: Final = Path("out/peers")
#: Numbers of calls: close together where the weakest designs end.
STEPS: Final = (5, 10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 250, 300, 400, 500)
_BUILD_S: Final = 900.0
#: Importing is slow when nothing is in the file cache.
_START_S: Final = 60.0
_STOP_S: Final = 3.0
#: A step that a caller would have noticed, or that was void, is measured again.
_TRIES: Final = 2


@dataclass(frozen=True)
class Design:
    """One peer. `marked`: audio passes through unchanged, so every frame keeps its number."""

    name: str
    marked: bool


PEERS: Final = (Design("pipecat", marked=False), Design("threads", marked=True))


def environment(design: Design, on_step: OnStep, folder: Path = ENVIRONMENTS, sources: Path = SOURCES) -> Path:
    """Return the design's interpreter, building its environment if missing or outdated. Raises BenchError."""
    wanted = sources / f"requirements-{design.name}.txt"
    home = folder.resolve() / design.name
    python, built_from = home / "env" / "bin" / "python", home / "built-from.txt"
    if python.exists() and built_from.exists() and built_from.read_text() == wanted.read_text():
        return python
    shutil.rmtree(home / "env", ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    made = _run([sys.executable, "-m", "venv", str(home / "env")], lambda _: on_step(f"{design.name}: making an environment"))
    if made:
        raise BenchError(f"no environment for {design.name} (on Debian: apt-get install python3-venv):\n{_end(made)}")
    install = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--retries", "2", "--timeout", "20"]
    failed = _run([str(python), *install, "-r", str(wanted)], lambda line: on_step(f"{design.name}: {_doing(line)}"))
    if failed:
        raise BenchError(_unreachable(design, wanted, failed))
    built_from.write_text(wanted.read_text())
    return python


def _run(command: Sequence[str], on_line: Callable[[str], None]) -> list[str]:
    """Run a command, passing on each output line. Returns the output of a failure, nothing of a success."""
    output: list[str] = []
    with gevent.Timeout(_BUILD_S, BenchError(f"{command[0]} took longer than {_BUILD_S:g} s")):
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
        )
        try:
            assert process.stdout is not None
            on_line("")
            for line in process.stdout:
                output.append(line.decode(errors="replace").rstrip())
                on_line(output[-1])
            failed = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
    return [*output, f"exit code {failed}"] if failed else []


def _doing(line: str) -> str:
    """Shorten a line of pip's output."""
    words = line.split()
    return f"collecting {words[1]}" if words[:1] == ["Collecting"] else "installing"


def _end(output: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in output[-6:])


def _unreachable(design: Design, wanted: Path, output: Sequence[str]) -> str:
    return (
        f"pip could not install {design.name}. It needs a package index: with one of your own, set PIP_INDEX_URL; without any, "
        f"fill a folder elsewhere with `pip download -r {wanted.name}` and set PIP_NO_INDEX=1 PIP_FIND_LINKS=<folder>. "
        f"pip's output ends with:\n{_end(output)}"
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
        """Run the server and wait until it listens. Neither design checks signatures.

        Raises: BenchError with the end of its log.
        """
        command = [str(self._python), str(SOURCES / f"{self.name}_server.py"), "--port", str(self._port), "--ai-url", ai_url]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TWILIO_", "OPENAI_"))}
        with self._log.open("wb") as log:
            # stdin is never written: the server ends when it closes, with this process
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environ, process_group=0)
        deadline_s = time.monotonic() + _START_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                lines = self._log.read_text(errors="replace").splitlines()
                raise BenchError(f"{self.name} did not start; {self._log} ends with:\n{_end(lines)}")
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
        """Empty: a peer has no metrics page."""
        return ""

    def stop(self) -> None:
        if self._process is not None:
            end_process(self._process, _STOP_S)


Measure = Callable[[Load], Measured]


def measures(command: Sequence[str], out: Path, on_step: OnStep) -> dict[str, Measure]:
    """Return how each subject is measured: floor, gateway and peers, without the floor if there is no compiler.

    Builds the floor's program and the peers' environments.
    """
    found: dict[str, Measure] = {}
    if compiler() is not None:
        found["floor"] = lambda load: measure_floor(out, load, on_step)
    found["gateway"] = lambda load: measure_gateway(command, out, load, on_step)

    def measure(design: Design, python: Path) -> Measure:
        return lambda load: measure_subject(Peer(design, python, out / "peers"), out, load, on_step)

    return {**found, **{design.name: measure(design, environment(design, on_step)) for design in PEERS}}


def climb(load: Load, steps: Sequence[int], found: Mapping[str, Measure], made: list[dict[str, Any]]) -> None:
    """Measure every subject at every number of calls until it breaks.

    Rows are added to `made` as they come.
    """
    left = dict(found)
    for calls in steps:
        floor_ms = 0.0
        for name, measure in list(left.items()):
            row = _step(replace(load, calls=calls), measure, floor_ms)
            made.append(row)
            if name == "floor":
                floor_ms = row["far_lateness_ms"]["p99.9"] or 0.0
            elif row["broken"] and not row["void"]:
                del left[name]
        if not left.keys() - {"floor"}:
            break


def _step(load: Load, measure: Measure, floor_ms: float) -> dict[str, Any]:
    """Measure one subject at one number of calls: the first try that held, else the last."""
    found: dict[str, Any] = {}
    for _ in range(_TRIES):
        found = _row(measure(load), floor_ms)
        if not found["void"] and not found["beyond"]:
            break
    return found


def _row(measured: Measured, floor_ms: float) -> dict[str, Any]:
    beyond = holds(measured, floor_ms, at_caller=True)
    return {**measured.summary(), "core": round(measured.measured_share, 3), "beyond": beyond}


def further_kb(rows: Sequence[Mapping[str, Any]], subject: str) -> float | None:
    """Return the memory of one more call, between the fewest and the most calls."""
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
    """Return the verdict: calls held by either rule, memory of one more call, ratios, rows."""
    subjects = sorted({row["subject"] for row in rows})
    return {
        "held": {name: held(rows, name) for name in subjects},
        "held_without_underrun": {name: held(rows, name, "broken") for name in subjects},
        "further_call_kb": {name: further_kb(rows, name) for name in subjects},
        "ratios": ratios(rows),
        "rows": list(rows),
    }


def held(rows: Sequence[Mapping[str, Any]], subject: str, why_not: str = "beyond") -> int:
    """Return the largest number of calls this subject held. `broken`: by the weaker rule, no fault at a caller."""
    return max((row["calls"] for row in rows if row["subject"] == subject and not row[why_not] and not row["void"]), default=0)


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each peer's CPU in gateways.

    At the peer's largest number of calls, and each at its own largest.
    """
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


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@step_options(5, 200)
def main(seconds: float, first: int, last: int, pattern: str, patience: float, out: Path, as_json: bool) -> None:
    steps = between(first, last, STEPS)
    load = step_load(seconds, pattern, patience)
    rows: list[dict[str, Any]] = []
    take_steps(
        "peers",
        out,
        as_json,
        measure=lambda on_step: climb(load, steps, measures(Settings(None).command_line(), out, on_step), rows),
        results=rows,
        document=lambda: document(rows),
        draw=lambda path: report.draw(rows, path),
        parts=lambda found: (report.table(rows), "", *report.sentences(found)),
    )


if __name__ == "__main__":
    main()
