"""The two load processes of a bench: how they are started, told what to do, and ended.

Each is a plain Python without gevent that takes orders on stdin and answers on stdout, a JSON line each. It ends by itself when
its stdin does, so none is left behind, however the bench ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import os as gevent_os

from gw import ROOT
from gw.bench.subject import BenchError

_READY_S: Final = 15.0
ANSWER_S: Final = 30.0
_STOP_S: Final = 3.0


class LoadProcess:
    """One load process. Construct starts it."""

    def __init__(self, module: str, *arguments: str, first_line: str = "", log: Path) -> None:
        """`first_line`: what it reads before any order. Raises BenchError when it does not get ready."""
        self.name = module.rpartition(".")[2]
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                process_group=0,
            )
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
        """Give an order and wait for its answer. Raises BenchError."""
        self._write(json.dumps({"do": do, **more}).encode() + b"\n")
        answer = self._read(timeout_s)
        if "error" in answer:
            raise BenchError(f"the {self.name} twin: {answer['error']}")
        return answer

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), data)
        except BrokenPipeError as error:
            raise BenchError(self._why("ended")) from error

    def _read(self, timeout_s: float) -> dict[str, Any]:
        bound = gevent.Timeout.start_new(timeout_s)
        try:
            while b"\n" not in self._rest:
                data = gevent_os.nb_read(self._out, 1 << 16)
                if not data:
                    raise BenchError(self._why("ended"))
                self._rest += data
        except gevent.Timeout as passed:
            if passed is not bound:
                raise
            raise BenchError(self._why(f"did not answer within {timeout_s:g} s")) from None
        finally:
            bound.close()
        line, _, self._rest = self._rest.partition(b"\n")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def _why(self, what: str) -> str:
        said = self._log.read_text(errors="replace").strip().splitlines()
        return f"the {self.name} twin {what}" + ("".join(f"\n  {line}" for line in said[-8:]))

    def stop(self) -> None:
        """End it: by the end of its stdin, else by a signal."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
