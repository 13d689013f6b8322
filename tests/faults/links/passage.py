"""One connection through the fault bench's proxy, and the weather of its bytes.

Each direction has a greenlet that reads and one that writes, with a bounded queue of pieces between them. Each piece has a due
time, and none overtakes another. No byte is changed. Orders come from `proxy.py`.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import gevent
from gevent import Greenlet, socket
from gevent.queue import Queue

from tests.faults.links.bus_tap import TappedWorker

UP: Final = "up"
DOWN: Final = "down"
READ_BYTES: Final = 1 << 16
#: Bound on queued pieces per direction: enough for 100 messages a second with two seconds of latency.
MAX_PIECES: Final = 256
#: Interval in which a stalled direction checks for the end of the stall.
LOOK_S: Final = 0.01
#: Step in which a rate is applied.
RATE_STEP_S: Final = 0.02
#: SO_LINGER with a time of zero: close(2) sends RST. Source: socket(7).
RESET: Final = struct.pack("ii", 1, 0)
_OPENING_BYTES: Final = 64


@dataclass(slots=True)
class Weather:
    """Treatment of bytes in one direction."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0  # plus or minus, uniformly distributed
    rate_bytes_s: float = 0.0  # 0: unlimited
    stalled: bool = False  # no byte moves or is lost: the sender's buffer fills
    silent: bool = False  # bytes and the end of the connection are dropped: half open
    end_after_bytes: int = -1  # bytes until the connection is closed; -1: never


class Passage:
    """One connection through a link."""

    def __init__(
        self,
        number: int,
        client: socket.socket,
        server: socket.socket,
        weather: dict[str, Weather],
        chance: random.Random,
        tapped: TappedWorker | None,
    ) -> None:
        """`weather` is the link's, shared by its passages, until an order changes this passage's alone."""
        self.number = number
        self.opening = b""
        self.passed = {UP: 0, DOWN: 0}
        self.weather = dict(weather)
        self._sockets = (client, server)
        self._chance = chance
        self._tapped = tapped
        self._lanes: list[Greenlet[..., None]] = []
        self._closed = False

    def run(self) -> None:
        """Forward both directions until both have ended."""
        client, server = self._sockets
        for direction, source, target in ((UP, client, server), (DOWN, server, client)):
            pieces: Queue[tuple[float, bytes]] = Queue(MAX_PIECES)
            self._lanes.append(gevent.spawn(self._read, direction, source, pieces))
            self._lanes.append(gevent.spawn(self._write, direction, target, pieces))
        gevent.joinall(self._lanes)
        self._close()

    def _read(self, direction: str, source: socket.socket, pieces: Queue[tuple[float, bytes]]) -> None:
        due_s = 0.0
        while True:
            try:
                data = source.recv(READ_BYTES)
            except OSError:
                if not self.weather[direction].silent:
                    self.reset()
                return
            weather = self.weather[direction]
            if direction == UP:
                self.opening = (self.opening + data)[:_OPENING_BYTES]
                if self._tapped is not None:
                    self._tapped.feed(data, time.monotonic())
            if weather.silent and data:
                continue
            late_ms = weather.latency_ms + self._chance.uniform(-weather.jitter_ms, weather.jitter_ms)
            due_s = max(due_s, time.monotonic() + max(0.0, late_ms) / 1000)
            pieces.put((due_s, data))
            if not data:
                return

    def _write(self, direction: str, target: socket.socket, pieces: Queue[tuple[float, bytes]]) -> None:
        while True:
            due_s, data = pieces.get()
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                gevent.sleep(wait_s)
            while self.weather[direction].stalled or (self.weather[direction].silent and not data):
                gevent.sleep(LOOK_S)
            if not self._pass(direction, target, data):
                return

    def _pass(self, direction: str, target: socket.socket, data: bytes) -> bool:
        """Forward one piece. Returns False at the end of this direction."""
        weather = self.weather[direction]
        left = weather.end_after_bytes
        if 0 <= left <= len(data):
            data = data[:left]
        try:
            step = int(weather.rate_bytes_s * RATE_STEP_S) or len(data)
            for at in range(0, len(data), max(1, step)):
                target.sendall(data[at : at + step])
                if weather.rate_bytes_s:
                    gevent.sleep(RATE_STEP_S)
            if not data and left != 0:
                target.shutdown(socket.SHUT_WR)
        except OSError:
            self.reset()
            return False
        self.passed[direction] += len(data)
        if left >= 0:
            weather.end_after_bytes = left - len(data)
            if weather.end_after_bytes == 0:
                self.end()
                return False
        return bool(data)

    # -- orders -------------------------------------------------------------------------------------------------------

    def own_weather(self, direction: str, changes: dict[str, Any]) -> None:
        """Give this passage its own weather from now on."""
        self.weather[direction] = replace(self.weather[direction], **changes)

    def reset(self) -> None:
        """Reset the connection at both ends."""
        if not self._closed:
            for sock in self._sockets:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                except OSError:
                    pass  # already closed
        self.end()

    def end(self) -> None:
        """Close the connection at both ends, even in the middle of a message."""
        self._close()
        gevent.killall([lane for lane in self._lanes if lane is not gevent.getcurrent()], block=False)

    def _close(self) -> None:
        self._closed = True
        for sock in self._sockets:
            sock.close()

    def view(self) -> dict[str, Any]:
        """Return a summary: `from_port` is the client's port, `to_port` the target's view of the peer port."""
        client, server = self._sockets
        return {
            "number": self.number,
            "opening": self.opening.decode(errors="replace"),
            "from_port": _port(client.getpeername) if not self._closed else 0,
            "to_port": _port(server.getsockname) if not self._closed else 0,
            **self.passed,
        }


def _port(ask: Callable[[], Any]) -> int:
    """Return a port of a connection; 0 for a Unix socket or a broken connection."""
    try:
        name = ask()
    except OSError:
        return 0
    return 0 if isinstance(name, str | bytes) else int(name[1])
