"""tests.faults.links.proxy: the effect of each weather on bytes between real sockets."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from gw import bus
from tests.faults.links.orders import Helper
from tests.timing import scaled


def _echo(sock: socket.socket, _: object) -> None:
    try:
        while data := sock.recv(65536):
            sock.sendall(data)
    except OSError:
        pass  # a test broke the connection


class Rig:
    """An echo server behind the proxy."""

    def __init__(self, proxy: Helper, folder: Path) -> None:
        self.proxy = proxy
        self.folder = folder
        self.echo = StreamServer(("127.0.0.1", 0), _echo)
        self.echo.start()
        target = f"127.0.0.1:{self.echo.server_port}"
        self.address = str(proxy.ask("link", name="l", listen="127.0.0.1:0", target=target, seed="s"))

    def connect(self) -> socket.socket:
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=scaled(20.0))

    def weather(self, direction: str = "both", **changes: Any) -> Any:
        return self.proxy.ask("weather", link="l", direction=direction, **changes)

    def passages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.proxy.ask("view")["l"]["passages"]
        return found


@pytest.fixture(scope="module")
def helper() -> Iterator[tuple[Helper, Path]]:
    with tempfile.TemporaryDirectory(prefix="gw-proxy-") as folder:
        helper = Helper("tests.faults.links.proxy", Path(folder) / "p")
        yield helper, Path(folder)
        helper.stop()


@pytest.fixture
def rig(helper: tuple[Helper, Path]) -> Iterator[Rig]:
    rig = Rig(*helper)
    yield rig
    rig.proxy.ask("reset", link="l")
    rig.echo.stop(timeout=0)


def said(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    return read(sock, len(data))


def read(sock: socket.socket, size: int) -> bytes:
    """Read up to `count` bytes, fewer at the end of the stream."""
    got = b""
    while len(got) < size and (more := sock.recv(size - len(got))):
        got += more
    return got


def hears_nothing(sock: socket.socket) -> bool:
    sock.settimeout(0.3)
    try:
        return sock.recv(1) is None
    except TimeoutError:
        return True


def until(holds: Callable[[], object]) -> None:
    with gevent.Timeout(scaled(20.0)):
        while not holds():
            gevent.sleep(0.01)


def test_fair_weather_passes_bytes_and_ends(rig: Rig) -> None:
    blob = bytes(range(256)) * 2000
    with rig.connect() as sock:
        gevent.spawn(sock.sendall, blob)
        assert read(sock, len(blob)) == blob
        assert rig.passages()[0]["up"] == rig.passages()[0]["down"] == len(blob)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    until(lambda: not rig.passages())
    assert rig.proxy.ask("view")["l"]["passed"] == {"up": len(blob), "down": len(blob)}


def test_latency_and_jitter_delay_bytes_and_keep_their_sequence(rig: Rig) -> None:
    rig.weather("down", latency_ms=150, jitter_ms=50)
    with rig.connect() as sock:
        began_s = time.monotonic()
        for n in range(10):
            sock.sendall(bytes([n]))
            gevent.sleep(0.005)
        assert read(sock, 10) == bytes(range(10))
        assert time.monotonic() - began_s >= 0.1
        rig.proxy.ask("clear", link="l")
        assert said(sock, b"again") == b"again"


def test_a_stall_keeps_everything(rig: Rig) -> None:
    with rig.connect() as sock:
        assert said(sock, b"a") == b"a"
        rig.weather("up", stalled=True)
        sock.sendall(b"late")
        assert hears_nothing(sock)
        rig.proxy.ask("clear", link="l")
        sock.settimeout(scaled(20.0))
        assert read(sock, 4) == b"late"


def test_a_stall_blocks_the_sender(rig: Rig) -> None:
    rig.weather("up", stalled=True)
    with rig.connect() as sock:
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for _ in range(2000):
                sock.sendall(bytes(1 << 16))


def test_half_open_loses_what_is_sent_and_the_end(rig: Rig) -> None:
    with rig.connect() as sock, rig.connect() as other:
        assert said(sock, b"a") == said(other, b"a") == b"a"
        met = rig.weather("both", silent=True, alone=True, pick=0.0)
        assert len(met) == 1
        sock.sendall(b"lost")
        assert hears_nothing(sock)
        assert said(other, b"b") == b"b"
        rig.proxy.ask("clear", link="l")
        sock.settimeout(scaled(20.0))
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert said(other, b"c") == b"c"


def test_reset(rig: Rig) -> None:
    with rig.connect() as sock, rig.connect() as other:
        assert said(sock, b"GET /media") == b"GET /media"
        assert said(other, b"POST /") == b"POST /"
        assert rig.proxy.ask("reset", link="l", opening="GET /none") == []
        assert len(rig.proxy.ask("reset", link="l", opening="GET /media", pick=0.9)) == 1
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert said(other, b"b") == b"b"


def test_refused_and_a_target_that_is_gone(rig: Rig) -> None:
    with rig.connect() as before:
        assert said(before, b"a") == b"a"
        rig.proxy.ask("refuse", link="l", on=True)
        with pytest.raises(ConnectionResetError), rig.connect() as sock:  # at the connect or later
            said(sock, b"b")
        assert said(before, b"c") == b"c"
    rig.proxy.ask("clear", link="l")
    rig.echo.stop(timeout=0)
    with pytest.raises(ConnectionResetError), rig.connect() as sock:
        said(sock, b"d")


def test_cut_off_in_the_middle(rig: Rig) -> None:
    with rig.connect() as sock:
        assert said(sock, b"whole") == b"whole"
        rig.weather("down", alone=True, end_after_bytes=3)
        assert said(sock, b"message") == b"mes"
        assert sock.recv(1) == b""


def test_a_rate(rig: Rig) -> None:
    rig.weather("down", rate_bytes_s=20_000)
    with rig.connect() as sock:
        began_s = time.monotonic()
        assert said(sock, bytes(6000)) == bytes(6000)
        assert time.monotonic() - began_s >= 0.25


def test_invalid_orders(rig: Rig) -> None:
    with pytest.raises(RuntimeError, match="no such weather"):
        rig.weather("both", rain=True)
    with pytest.raises(RuntimeError, match="no such weather"):
        rig.weather("sideways", stalled=True)
    with pytest.raises(RuntimeError, match="KeyError"):
        rig.proxy.ask("reset", link="none")
    with pytest.raises(RuntimeError, match="KeyError"):
        rig.proxy.ask("dance")


def test_unix_sockets_and_the_tap(rig: Rig) -> None:
    """Numbered events of the bus are recorded once, in whatever pieces they arrive."""
    behind = socket.socket(socket.AF_UNIX)
    behind.bind(str(rig.folder / "real"))
    behind.listen(8)
    server = StreamServer(behind, _echo)
    server.start()
    front = str(rig.folder / "bus")
    rig.proxy.ask("link", name="bus", listen=front, target=str(rig.folder / "real"), tapped=True)
    hello = bus.Hello(1, "instance", 7, [])
    events = [bus.Numbered(n, bus.CallEvent("CA1", "dtmf", 0.0)) for n in (1, 2, 3)]
    wire = bus.pack(hello) + b"".join(bus.pack(one) for one in events)
    for times in (1, 2):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(front)
            for at in range(0, len(wire), 7):
                sock.sendall(wire[at : at + 7])
            assert read(sock, len(wire)) == wire
        tapped = rig.proxy.ask("tapped")
        assert [one[:6] for one in tapped["sent"]] == [["instance", n, "CallEvent", "CA1", "dtmf", 1] for n in (1, 2, 3)]
        assert (tapped["repeated"], tapped["unreadable"]) == ((times - 1) * 3, 0)
    server.stop(timeout=0)
