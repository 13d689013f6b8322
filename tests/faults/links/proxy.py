"""Proxy of the fault bench: forwards bytes between two parts of the world with the faults of a network.

    python -m tests.faults.links.proxy ORDERS_SOCKET

A separate process, so that it neither delays other hubs nor is delayed by them. A link is a listener and a target, TCP
(`host:port`) or a Unix socket (`/path`). Each direction of a link has a weather that orders change at run time: latency, jitter,
a rate, a stall, silence, an end after a number of bytes. An open passage can get its own weather, or be reset. Up is from the
client to the target, down the way back. Bytes are never changed or reordered. A direction queues a bounded number of pieces; when
the queue is full, the sender has to wait, as on a wire.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import socket
from gevent.server import StreamServer

from tests.faults.links.bus_tap import BusTap, as_rows
from tests.faults.links.orders import serve_until_stopped
from tests.faults.links.passage import DOWN, RESET, UP, Passage, Weather

MAX_PASSAGES: Final = 4096
CONNECT_S: Final = 5.0
#: Tick of the canary. Its lateness is time in which the machine did not run this process.
_CANARY_S: Final = 0.01
_CANARY_LATE_S: Final = 0.02
_CANARY_KEPT: Final = 100_000


class Link:
    """A listener, its target, and the passages between them."""

    def __init__(self, name: str, listen: str, target: str, seed: str, tap: BusTap | None) -> None:
        """Open the listener. Raises OSError when the address is in use."""
        self.name = name
        self.seed = seed
        self.tap = tap
        self.target = target
        self.weather = {UP: Weather(), DOWN: Weather()}
        self.refusing = False
        self.count = 0
        self.passed = {UP: 0, DOWN: 0}  # by ended passages
        self.passages: dict[int, Passage] = {}
        self._server = StreamServer(_listener(listen), self._on_connection, spawn=MAX_PASSAGES)
        self._server.start()

    @property
    def address(self) -> str:
        """Address for clients."""
        name = self._server.socket.getsockname()
        return name if isinstance(name, str) else f"{name[0]}:{name[1]}"

    def _on_connection(self, client: socket.socket, _: object) -> None:
        self.count += 1
        number = self.count
        if self.refusing:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return
        try:
            server = _connect(self.target)
        except OSError:
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return
        for sock in (client, server):
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        chance = random.Random(f"{self.seed}/{self.name}/{number}")
        tapped = self.tap.connection() if self.tap is not None else None
        passage = self.passages[number] = Passage(number, client, server, self.weather, chance, tapped)
        try:
            passage.run()
        finally:
            for direction, count in passage.passed.items():
                self.passed[direction] += count
            del self.passages[number]

    def chosen(self, opening: str, pick: float | None) -> list[Passage]:
        """Return the passages that began with these bytes, oldest first.

        `pick` selects one of them: 0.0 the oldest, below 1.0; None selects all.
        """
        oldest_first = [passage for _, passage in sorted(self.passages.items())]  # a target may answer a later connection first
        found = [passage for passage in oldest_first if passage.opening.startswith(opening.encode())]
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
    """All links, and their orders."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._tap = BusTap()
        self._late: list[tuple[float, float]] = []

    def orders(self) -> dict[str, Callable[..., Any]]:
        """Return the orders by name, for `serve_orders`."""
        return {
            "link": self.link,
            "weather": self.change,
            "refuse": self.refuse,
            "reset": self.reset,
            "clear": self.clear,
            "view": self.view,
            "tapped": lambda: as_rows(self._tap),
            "stalls": lambda: self._late,
        }

    def link(self, name: str, listen: str, target: str, seed: str = "", tapped: bool = False) -> str:
        """Open a link. Returns its address."""
        link = self._links[name] = Link(name, listen, target, seed, self._tap if tapped else None)
        return link.address

    def change(
        self, link: str, direction: str, opening: str = "", pick: float | None = None, alone: bool = False, **changes: Any
    ) -> list[dict[str, Any]]:
        """Change the weather of a link, or with `alone` of its open passages. Returns these."""
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
        """Reset every new connection; open ones stay."""
        self._links[link].refusing = on

    def reset(self, link: str, opening: str = "", pick: float | None = None) -> list[dict[str, Any]]:
        """Reset open connections. Returns them."""
        chosen = self._links[link].chosen(opening, pick)
        met = [passage.view() for passage in chosen]
        for passage in chosen:
            passage.reset()
        return met

    def clear(self, link: str) -> int:
        """Remove all faults of a link. Half-open passages are reset; returns their number."""
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
        """Return a summary of links, passages and bytes."""
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
        """Record when the machine did not run this mostly idle process; body of a greenlet."""
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
    serve_until_stopped(orders, proxy.orders())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
