"""The fault bench's proxy: stands between two parts of the gateway's world and does to their bytes what networks do.

    python -m tests.faults.proxy ORDERS_SOCKET

A process of its own, so that it holds nobody's hub and nobody holds its. Each link is a listener and a target, TCP (`host:port`)
or a Unix socket (`/path`). Each direction of a link has its weather, changed at run time by an order: latency, jitter, a rate, a
stall, silence, an end after so many bytes; a passage that stands may be given a weather of its own, or be reset. Up is from who
connects to the target, down the way back. Bytes are never changed nor reordered. A direction holds a bounded number of pieces;
when it is full its sender feels it, as on a wire.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import Greenlet, socket
from gevent.queue import Queue
from gevent.server import StreamServer

from tests.faults.bus_tap import BusTap, TappedWorker, as_rows
from tests.faults.orders import live_until_told

UP: Final = "up"
DOWN: Final = "down"
READ_BYTES: Final = 1 << 16
#: Pieces under way in one direction: 100 messages a second with two seconds of latency fit.
MAX_PIECES: Final = 256
MAX_PASSAGES: Final = 4096
CONNECT_S: Final = 5.0
#: How often a stalled direction looks whether it may go on.
LOOK_S: Final = 0.01
#: A rate is kept in steps of this.
RATE_STEP_S: Final = 0.02
#: SO_LINGER on with no time: close(2) sends RST. Source: socket(7).
_RESET: Final = struct.pack("ii", 1, 0)
_OPENING_BYTES: Final = 64
#: A tick of the canary; what it is late the machine did not run this process.
_CANARY_S: Final = 0.01
_CANARY_LATE_S: Final = 0.02
_CANARY_KEPT: Final = 100_000


@dataclass(slots=True)
class Weather:
    """What happens to bytes in one direction."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0  # give or take, evenly
    rate_bytes_s: float = 0.0  # 0: as fast as it goes
    stalled: bool = False  # nothing moves, nothing is lost: the sender's buffer fills
    silent: bool = False  # what is sent vanishes, and so does the end of the connection: half open
    end_after_bytes: int = -1  # so many more bytes, then the connection is closed in the middle; -1: never


class Passage:
    """One connection through a link."""

    def __init__(self, link: Link, number: int, client: socket.socket, server: socket.socket) -> None:
        self.link = link
        self.number = number
        self.opening = b""
        self.passed = {UP: 0, DOWN: 0}
        self.weather = dict(link.weather)  # the link's own, until an order is for this passage alone
        self.tapped: TappedWorker | None = link.tap.connection() if link.tap is not None else None
        self._sockets = (client, server)
        self._chance = random.Random(f"{link.seed}/{link.name}/{number}")
        self._lanes: list[Greenlet[..., None]] = []
        self._closed = False

    def run(self) -> None:
        """Carry both directions until both ended."""
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
                if self.tapped is not None:
                    self.tapped.feed(data, time.monotonic())
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
        """One piece. False when this direction is over."""
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
        """From now on this passage has a weather of its own."""
        self.weather[direction] = replace(self.weather[direction], **changes)

    def reset(self) -> None:
        """Both ends see the connection broken."""
        if not self._closed:
            for sock in self._sockets:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                except OSError:
                    pass  # it is closed: its end saw that
        self.end()

    def end(self) -> None:
        """Both ends see the connection closed, wherever a message stood."""
        self._close()
        gevent.killall([lane for lane in self._lanes if lane is not gevent.getcurrent()], block=False)

    def _close(self) -> None:
        self._closed = True
        for sock in self._sockets:
            sock.close()

    def view(self) -> dict[str, Any]:
        """Who it is: `from_port` is the client's, `to_port` what the target sees as its peer's."""
        client, server = self._sockets
        return {
            "number": self.number,
            "opening": self.opening.decode(errors="replace"),
            "from_port": _port(client.getpeername) if not self._closed else 0,
            "to_port": _port(server.getsockname) if not self._closed else 0,
            **self.passed,
        }


def _port(ask: Callable[[], Any]) -> int:
    """A port of a connection; 0 where there is none or the connection is broken."""
    try:
        name = ask()
    except OSError:
        return 0
    return 0 if isinstance(name, str | bytes) else int(name[1])


class Link:
    """A listener, its target and everything that passes between."""

    def __init__(self, name: str, listen: str, target: str, seed: str, tap: BusTap | None) -> None:
        """Listens. Raises OSError when the address is taken."""
        self.name = name
        self.seed = seed
        self.tap = tap
        self.target = target
        self.weather = {UP: Weather(), DOWN: Weather()}
        self.refusing = False
        self.count = 0
        self.passed = {UP: 0, DOWN: 0}  # of passages that are over
        self.passages: dict[int, Passage] = {}
        self._server = StreamServer(_listener(listen), self._on_connection, spawn=MAX_PASSAGES)
        self._server.start()

    @property
    def address(self) -> str:
        """What a client connects to."""
        name = self._server.socket.getsockname()
        return name if isinstance(name, str) else f"{name[0]}:{name[1]}"

    def _on_connection(self, client: socket.socket, _: object) -> None:
        self.count += 1
        number = self.count
        if self.refusing:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        try:
            server = _connect(self.target)
        except OSError:
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        for sock in (client, server):
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        passage = self.passages[number] = Passage(self, number, client, server)
        try:
            passage.run()
        finally:
            for direction, count in passage.passed.items():
                self.passed[direction] += count
            del self.passages[number]

    def chosen(self, opening: str, pick: float | None) -> list[Passage]:
        """The passages that began with these bytes, oldest first; all, or the one at `pick` (0.0 the oldest, below 1.0)."""
        found = [passage for passage in list(self.passages.values()) if passage.opening.startswith(opening.encode())]
        return found if pick is None else found[int(pick * len(found)) :][:1]


def _listener(listen: str) -> socket.socket:
    if listen.startswith("/"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(listen)
    else:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        host, _, port = listen.rpartition(":")
        listener.bind((host, int(port)))
    listener.listen(1024)
    return listener


def _connect(target: str) -> socket.socket:
    """Raises OSError."""
    if target.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(CONNECT_S)
        address: Any = target
    else:
        sock = socket.socket()
        sock.settimeout(CONNECT_S)
        host, _, port = target.rpartition(":")
        address = (host, int(port))
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    sock.settimeout(None)
    return sock


class Proxy:
    """Every link, and the orders about them."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._tap = BusTap()
        self._late: list[tuple[float, float]] = []

    def orders(self) -> dict[str, Callable[..., Any]]:
        """By name, for `serve_orders`."""
        return {
            "link": self.link,
            "weather": self.change,
            "refuse": self.refuse,
            "reset": self.reset,
            "clear": self.clear,
            "view": self.view,
            "tapped": lambda: as_rows(self._tap),
            "stood": lambda: self._late,
        }

    def link(self, name: str, listen: str, target: str, seed: str = "", tapped: bool = False) -> str:
        """Open a link; answers with the address it listens on."""
        link = self._links[name] = Link(name, listen, target, seed, self._tap if tapped else None)
        return link.address

    def change(
        self, link: str, direction: str, opening: str = "", pick: float | None = None, alone: bool = False, **changes: Any
    ) -> list[dict[str, Any]]:
        """Change the weather of a link, or with `alone` that of passages that stand now. Answers with those it is about."""
        unknown = set(changes) - {field.name for field in fields(Weather)}
        if unknown or direction not in (UP, DOWN, "both"):
            raise ValueError(f"no such weather: {sorted(unknown) or direction}")
        chosen = self._links[link].chosen(opening, pick)
        met = [passage.view() for passage in chosen]
        for one in (UP, DOWN) if direction == "both" else (direction,):
            if alone:
                for passage in chosen:
                    passage.own_weather(one, changes)
            else:
                for name, value in changes.items():
                    setattr(self._links[link].weather[one], name, value)
        return met

    def refuse(self, link: str, on: bool) -> None:
        """Reset every connection that comes, at once; those that stand stay."""
        self._links[link].refusing = on

    def reset(self, link: str, opening: str = "", pick: float | None = None) -> list[dict[str, Any]]:
        """Break connections that stand."""
        chosen = self._links[link].chosen(opening, pick)
        met = [passage.view() for passage in chosen]
        for passage in chosen:
            passage.reset()
        return met

    def clear(self, link: str) -> int:
        """Fair weather again. What was half open is reset now: the network forgot it. Answers with how many those were."""
        chosen = self._links[link]
        lost = [p for p in list(chosen.passages.values()) if any(weather.silent for weather in p.weather.values())]
        for direction in (UP, DOWN):
            for field in fields(Weather):
                setattr(chosen.weather[direction], field.name, field.default)
        chosen.refusing = False
        for passage in lost:
            passage.reset()
        for passage in chosen.passages.values():
            passage.weather = dict(chosen.weather)
        return len(lost)

    def view(self) -> dict[str, Any]:
        """What stands and what passed."""
        return {
            name: {
                "address": link.address,
                "connections": link.count,
                "passed": {d: link.passed[d] + sum(p.passed[d] for p in link.passages.values()) for d in (UP, DOWN)},
                "weather": {direction: asdict(weather) for direction, weather in link.weather.items()},
                "passages": [passage.view() for passage in link.passages.values()],
            }
            for name, link in self._links.items()
        }

    def watch_machine(self) -> None:
        """Note when this process, which has little to do, did not run in time: then nobody's figures count. A greenlet's body."""
        due_s = time.monotonic()
        while True:
            due_s = max(due_s + _CANARY_S, time.monotonic())
            gevent.sleep(max(0.0, due_s - time.monotonic()))
            late_s = time.monotonic() - due_s
            if late_s > _CANARY_LATE_S and len(self._late) < _CANARY_KEPT:
                self._late.append((due_s, late_s))


def main(orders: Path) -> None:
    proxy = Proxy()
    gevent.spawn(proxy.watch_machine)
    live_until_told(orders, proxy.orders())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
