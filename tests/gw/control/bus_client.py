"""A media worker's end of the bus, driven by a test."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from gw import bus
from gw.call.quality import Quality
from tests.timing import scaled

CALL = "CA" + "1" * 32
OTHER = "CA" + "2" * 32


def call_started(call_sid: str = CALL) -> bus.CallStarted:
    now = time.time()
    return bus.CallStarted(call_sid, "MZ" + call_sid[2:], "AC" + "0" * 32, "default", "inbound", "+1", "+2", now, now)


def call_ended(call_sid: str = CALL) -> bus.CallEnded:
    return bus.CallEnded(call_sid, time.time(), "caller_hangup", "success", "", Quality())


def hello_of(index: int, instance: str, pid: int, calls: list[str]) -> bus.Hello:
    return bus.Hello(index, instance, pid, calls, bus.VERSION)


class BusClient:
    """Connects as worker `index`. Every event gets the next number unless a test passes one."""

    def __init__(
        self,
        path: Path,
        *,
        instance: str = "w0-1",
        index: int = 0,
        pid: int | None = None,
        calls: list[str] | None = None,
        hello: bool = True,
    ) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(scaled(20.0))
        self.socket.connect(str(path))
        self._reader = bus.Reader.of_commands()
        self._commands: list[object] = []
        self._n = 0
        if hello:
            self.socket.sendall(bus.pack(hello_of(index, instance, os.getpid() if pid is None else pid, calls or [])))

    def send(self, *events: bus.Event, first: int | None = None) -> int:
        """Send events in one write. Returns the last number."""
        if first is not None:
            self._n = first - 1
        data = b""
        for event in events:
            self._n += 1
            data += bus.pack(bus.Numbered(self._n, event))
        self.socket.sendall(data)
        return self._n

    def confirm(self, call_sid: str, **kept: str) -> None:
        """Confirm that a stop is expected."""
        self.socket.sendall(bus.pack(bus.StopExpected(call_sid, kept)))

    def status(self, **fields: object) -> None:
        values = {"calls": 0, "draining": False, "unacked": 0, "lateness_p99_s": 0.0, "hold_max_s": 0.0, **fields}
        self.socket.sendall(bus.pack(bus.WorkerStatus(**values)))  # type: ignore[arg-type]

    def hold(self, at: float, kind: str = "rx", wall_s: float = 0.002) -> None:
        stack = [bus.StackFrame("gw/media/uplink.py", 40, "Uplink.push")]
        self.socket.sendall(bus.pack(bus.HubHold(at, kind, wall_s, wall_s / 2, stack)))

    def command(self) -> object:
        """Return the next command. Raises TimeoutError, or EOFError after the end of the connection."""
        while not self._commands:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self._commands += self._reader.feed(data)
        return self._commands.pop(0)

    def await_ack(self, n: int) -> None:
        """Wait until control has acknowledged every event up to `n`."""
        while True:
            command = self.command()
            if isinstance(command, bus.Ack) and command.n >= n:
                return

    def ended(self) -> bool:
        """Wait for the end of the connection. Returns True; raises TimeoutError if control keeps it open."""
        try:
            while True:
                self.command()
        except (EOFError, ConnectionError):
            return True

    def close(self) -> None:
        self.socket.close()
