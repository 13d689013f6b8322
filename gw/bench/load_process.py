"""Load process of a bench: a plain Python child that takes orders on stdin and answers on stdout.

Orders and answers are JSON, one line each. The child runs without gevent and ends when its stdin closes, so none is left
behind, however the bench ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from gevent import os as gevent_os

from gw import ROOT
from gw.bench.gateway_process import end_process, start_process
from gw.bench.subject import BenchError
from gw.bounded import OutOfTimeError, within

_READY_S: Final = 15.0
ANSWER_S: Final = 30.0
_STOP_S: Final = 3.0


class LoadProcess:
    """One load process. Construct starts it."""

    def __init__(self, module: str, *arguments: str, first_line: str = "", log: Path) -> None:
        """Start the process and wait for its first answer; `first_line` goes to its stdin first. Raises BenchError."""
        self.name = module.rpartition(".")[2]
        self._log = log
        with log.open("wb") as errors:
            command = [sys.executable, "-m", module, *arguments]
            self._process = start_process(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=errors)
        assert self._process.stdout is not None and self._process.stdin is not None
        self._out = self._process.stdout.fileno()
        gevent_os.make_nonblocking(self._out)
        self._rest = b""
        try:
            if first_line:
                self._write(first_line.encode() + b"\n")
            self.ready = self._read(_READY_S)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def order(self, do: str, timeout_s: float = ANSWER_S, **more: Any) -> dict[str, Any]:
        """Send an order and wait for its answer. Raises BenchError."""
        self._write(json.dumps({"do": do, **more}).encode() + b"\n")
        answer = self._read(timeout_s)
        if "error" in answer:
            raise BenchError(f"load process {self.name}: {answer['error']}")
        return answer

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), data)
        except BrokenPipeError as error:
            raise BenchError(self._failed("ended")) from error

    def _read(self, timeout_s: float) -> dict[str, Any]:
        try:
            with within(timeout_s):
                while b"\n" not in self._rest:
                    data = gevent_os.nb_read(self._out, 1 << 16)
                    if not data:
                        raise BenchError(self._failed("ended"))
                    self._rest += data
        except OutOfTimeError:
            raise BenchError(self._failed(f"did not answer within {timeout_s:g} s")) from None
        line, _, self._rest = self._rest.partition(b"\n")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def _failed(self, how: str) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"load process {self.name} {how}" + ("".join(f"\n  {line}" for line in lines[-8:]))

    def stop(self) -> None:
        """Close its stdin and wait for its end; after a bound, kill it."""
        end_process(self._process, _STOP_S)
