"""Orders to a process of the fault bench: a JSON line and its JSON answer over a Unix socket.

Orders break links at run time and collect the records afterwards. A failed order is answered with its error. A process that does
not answer within the bound raises an error in the caller.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gevent import signal_handler, sleep, socket
from gevent.event import Event
from gevent.server import StreamServer

from gw.supervise.child import PARENT_VARIABLE, end_with_parent
from tests.timing import scaled

#: Bounds of an order and of an answer, which may have every event of a soak.
MAX_ORDER_BYTES: Final = 1 << 20
MAX_ANSWER_BYTES: Final = 1 << 28
ANSWER_S: Final = 20.0
_START_S: Final = 20.0

Order = Callable[..., Any]


def serve_orders(path: Path, orders: Mapping[str, Order]) -> StreamServer:
    """Start a server on `path` that answers orders in greenlets of this process."""

    def on_connection(sock: socket.socket, _: object) -> None:
        with sock:
            asked = json.loads(_line(sock, MAX_ORDER_BYTES))
            try:
                answer = {"answer": orders[asked.pop("order")](**asked)}
            except Exception as error:  # noqa: BLE001 - a boundary: the caller gets the error and raises it
                answer = {"error": f"{type(error).__name__}: {error}"}
            sock.sendall(json.dumps(answer).encode() + b"\n")

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    server = StreamServer(listener, on_connection)
    server.start()
    return server


def ask(path: Path, order: str, **arguments: Any) -> Any:
    """Send an order and wait for its answer. Raises RuntimeError with its error, OSError without an answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(scaled(ANSWER_S))
        sock.connect(str(path))
        sock.sendall(json.dumps({"order": order, **arguments}).encode() + b"\n")
        answer = json.loads(_line(sock, MAX_ANSWER_BYTES))
    if "error" in answer:
        raise RuntimeError(f"{order}: {answer['error']}")
    return answer["answer"]


def _line(sock: socket.socket, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while not parts or not parts[-1].endswith(b"\n"):
        data = sock.recv(1 << 20)
        size += len(data)
        if not data or size > limit:
            raise OSError(f"an order ended after {size} bytes")
        parts.append(data)
    return b"".join(parts)


class Helper:
    """A process of the bench: `python -m MODULE ORDERS_SOCKET ARGUMENT...`; it ends with this process."""

    def __init__(self, module: str, orders: Path, *arguments: str) -> None:
        self.orders = orders
        root = Path(__file__).parents[3]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(orders), *arguments],
            cwd=root,
            env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        until_s = time.monotonic() + scaled(_START_S)
        while not orders.exists():
            if self._process.poll() is not None or time.monotonic() > until_s:
                self.stop()
                raise RuntimeError(f"{module} did not start")
            sleep(0.02)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, order: str, **arguments: Any) -> Any:
        return ask(self.orders, order, **arguments)

    def stop(self) -> None:
        """End the process. Idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(scaled(3.0))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.orders.unlink(missing_ok=True)


def serve_until_stopped(orders: Path, table: Mapping[str, Order]) -> None:
    """Answer orders until SIGTERM or the end of the bench; main function of a helper."""
    end_with_parent(os.environ)
    done = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal_handler(number, done.set)
    making = orders.with_name(f"{orders.name}.new")
    making.unlink(missing_ok=True)
    server = serve_orders(making, table)
    making.rename(orders)  # the path appears once the server answers
    done.wait()
    server.stop(timeout=0)
