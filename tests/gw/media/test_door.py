"""The door: nothing waits in a write, nothing is lost or reordered, and whoever reads learns how it ended."""

from __future__ import annotations

import gc
import os
import ssl
import struct
from pathlib import Path

import gevent
import pytest
from gevent import socket

from gw.media.door import READ_BYTES, Door
from gw.media.tls_door import TlsDoor
from tests.gw.media.certificates import contexts
from tests.gw.media.support import WAIT_S, descriptors, door_and_peer, pair, tcp_pair, until

RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, no time: close() sends a reset


def read_all(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(65536)
        assert piece, f"ended after {len(data)} bytes"
        data += piece
    return data


def fill(door: Door, *, piece: bytes = b"x" * 1024) -> int:
    """Write until the kernel takes no more. Returns the bytes written."""
    written = 0
    while door.write(piece):
        written += len(piece)
    return written + len(piece)


def test_what_the_kernel_takes_is_gone_at_once():
    door, peer = door_and_peer()
    assert door.write(b"hello") is True
    assert door.waiting_bytes == 0
    assert peer.recv(100) == b"hello"
    door.shut()


def test_a_full_kernel_buffer_is_flushed_in_order_when_the_peer_reads():
    door, peer = door_and_peer(limit_bytes=8 << 20)
    blob = bytes(n % 251 for n in range(1 << 20))
    assert door.write(blob) is False
    assert door.write(b"then this") is False, "not before what is waiting"
    assert 0 < door.waiting_bytes < len(blob) + 9
    assert read_all(peer, len(blob) + 9) == blob + b"then this"
    until(lambda: door.waiting_bytes == 0)
    assert door.failure == ""
    assert door.write(b"again") is True
    assert peer.recv(100) == b"again"
    door.shut()


def test_overflow_stalls_the_door_and_wakes_its_reader():
    door, peer = door_and_peer(limit_bytes=4096)
    reader = gevent.spawn(door.read)
    gevent.sleep(0)
    fill(door)
    while not door.failure:
        door.write(b"y" * 1024)
    assert door.failure == "stalled"
    assert door.waiting_bytes == 0, "nothing more is kept"
    assert door.write(b"z") is False
    assert reader.get(timeout=WAIT_S) == b""
    assert door.read() == b""
    peer.close()
    door.shut()
    assert door.failure == "stalled", "the first failure stands"


def test_up_to_the_limit_nothing_stalls():
    door, peer = door_and_peer(limit_bytes=4096)
    fill(door)
    door.write(b"y" * (4096 - door.waiting_bytes))
    assert door.waiting_bytes == 4096
    assert door.failure == ""
    door.write(b"y")
    assert door.failure == "stalled"
    peer.close()
    door.shut()


def test_a_reset_breaks_the_door_for_reader_and_writer():
    ours, theirs = tcp_pair()
    door = Door(ours, 1 << 16)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    theirs.close()
    assert door.read() == b""
    assert door.failure.startswith("broken")
    assert door.write(b"x") is False
    door.shut()


def test_a_write_to_a_broken_peer_wakes_the_reader():
    ours, theirs = pair()
    door = Door(ours, 1 << 16)
    theirs.shutdown(socket.SHUT_RD)  # the peer still stands, so only our write learns of it
    reader = gevent.spawn(door.read)
    gevent.sleep(0)
    assert door.write(b"x") is False
    assert door.failure.startswith("broken")
    assert reader.get(timeout=WAIT_S) == b""
    door.shut()


def test_a_flush_that_fails_breaks_the_door():
    door, peer = door_and_peer()
    fill(door)
    reader = gevent.spawn(door.read)
    peer.close()
    assert reader.get(timeout=WAIT_S) == b""
    until(lambda: door.failure.startswith("broken"))
    assert door.waiting_bytes == 0
    door.shut()


def test_the_peers_end_is_no_failure():
    door, peer = door_and_peer()
    peer.sendall(b"last words")
    peer.close()
    assert door.read() == b"last words"
    assert door.read() == b""
    assert door.failure == ""
    door.shut()


def test_wake_while_waiting():
    door, peer = door_and_peer()
    reader = gevent.spawn(door.read)
    gevent.sleep(0)
    door.wake()
    door.wake()
    assert reader.get(timeout=WAIT_S) is None
    peer.sendall(b"later")
    assert door.read() == b"later", "two wakes make one read return"
    door.shut()


def test_wake_before_waiting():
    door, peer = door_and_peer()
    peer.sendall(b"later")
    door.wake()
    assert door.read() is None
    assert door.read() == b"later"
    door.shut()


def test_wake_and_data_at_once_lose_nothing():
    door, peer = door_and_peer()
    for n in range(50):
        reader = gevent.spawn(door.read)
        gevent.sleep(0)
        peer.sendall(b"%d" % n)
        door.wake()
        seen = [reader.get(timeout=WAIT_S)]
        while seen[-1] is None:
            seen.append(door.read())
        assert seen[-1] == b"%d" % n
    door.shut()


def test_a_peer_that_never_stops_talking_does_not_hold_the_hub():
    door, peer = door_and_peer()
    ticks: list[int] = []
    reading = True

    def talk() -> None:
        while reading:
            peer.send(b"x" * (4 * READ_BYTES))

    def tick() -> None:
        while reading:
            ticks.append(0)
            gevent.sleep(0)

    others = [gevent.spawn(talk), gevent.spawn(tick)]
    gevent.sleep(0)
    got = 0
    for _ in range(200):
        before = len(ticks)
        got += len(door.read() or b"")
        assert len(ticks) > before, "a read let nobody else run"
    reading = False
    assert got > 100 * READ_BYTES
    door.shut()
    peer.close()
    gevent.joinall(others, timeout=WAIT_S)


def test_the_first_bytes_come_first():
    ours, theirs = pair()
    theirs.sendall(b"second")
    door = Door(ours, 1024, first=b"first")
    assert [door.read(), door.read()] == [b"first", b"second"]
    door.shut()


def test_a_timeout_leaves_the_door_whole():
    door, peer = door_and_peer()
    with gevent.Timeout(0.01, False):
        door.read()
        pytest.fail("there was nothing to read")
    peer.sendall(b"here")
    assert door.read() == b"here"
    door.shut()


def test_shut_wakes_the_reader_is_idempotent_and_leaves_no_descriptor():
    gevent.get_hub()
    before = descriptors()
    for _ in range(20):
        door, peer = door_and_peer()
        fill(door)
        reader = gevent.spawn(door.read)
        gevent.sleep(0)
        door.shut()
        door.shut()
        assert reader.get(timeout=WAIT_S) == b""
        assert door.failure == "shut"
        assert door.write(b"x") is False
        assert door.read() == b""
        door.wake()
        peer.close()
    until(lambda: descriptors() <= before, "descriptors are left")


def test_a_shut_door_is_freed():
    door, peer = door_and_peer()
    door.write(b"x")
    door.shut()
    kept = len([thing for thing in gc.get_objects() if isinstance(thing, Door)])
    del door
    gc.collect()
    assert len([thing for thing in gc.get_objects() if isinstance(thing, Door)]) == kept - 1
    peer.close()


# -- TLS --------------------------------------------------------------------------------------------------------------


def tls_pair(folder: Path, limit_bytes: int = 16 << 20) -> tuple[TlsDoor, ssl.SSLSocket]:
    """A door that speaks TLS, and the server's socket at its other end."""
    server, client = contexts(folder)
    ours, theirs = tcp_pair()
    accepting = gevent.spawn(server.wrap_socket, theirs, server_side=True)
    door = TlsDoor(ours, limit_bytes)
    door.start_tls(client, "localhost")
    peer: ssl.SSLSocket = accepting.get(timeout=WAIT_S)
    peer.settimeout(WAIT_S)
    return door, peer


def test_tls_both_ways(tmp_path: Path):
    door, peer = tls_pair(tmp_path)
    assert door.write(b"to the server") is True
    assert peer.recv(100) == b"to the server"
    peer.sendall(b"to the client")
    assert door.read() == b"to the client"
    peer.sendall(b"z" * 100_000)
    got = b""
    while len(got) < 100_000:
        got += door.read() or b""
    assert got == b"z" * 100_000
    door.shut()
    peer.close()


def test_large_tls_writes_under_back_pressure_arrive_whole(tmp_path: Path):
    door, peer = tls_pair(tmp_path)
    blob = os.urandom(1 << 20)
    pieces = [blob[start : start + 100_000] for start in range(0, len(blob), 100_000)] * 8
    taken = [door.write(piece) for piece in pieces]
    assert not taken[-1], "the kernel took 8 MB: this test needs a peer that is slower"
    assert door.waiting_bytes > 0
    assert read_all(peer, len(blob) * 8) == blob * 8
    until(lambda: door.waiting_bytes == 0)
    assert door.write(b"more") is True
    assert peer.recv(100) == b"more"
    door.shut()
    peer.close()


def test_tls_overflow_stalls(tmp_path: Path):
    door, peer = tls_pair(tmp_path, limit_bytes=4096)
    for _ in range(1000):
        door.write(b"x" * 65536)
    assert door.failure == "stalled"
    assert door.write(b"x") is False
    assert door.read() == b""
    door.shut()
    peer.close()


def test_tls_for_another_name_is_refused(tmp_path: Path):
    server, client = contexts(tmp_path)
    ours, theirs = tcp_pair()
    accepting = gevent.spawn(_accept_and_fail, server, theirs)
    door = TlsDoor(ours, 1024)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        door.start_tls(client, "other.example")
    door.shut()
    assert accepting.get(timeout=WAIT_S), "the server saw no alert or end"


def test_tls_with_an_unknown_certificate_is_refused(tmp_path: Path):
    server, _ = contexts(tmp_path)
    ours, theirs = tcp_pair()
    accepting = gevent.spawn(_accept_and_fail, server, theirs)
    door = TlsDoor(ours, 1024)
    with pytest.raises(ssl.SSLCertVerificationError):
        door.start_tls(ssl.create_default_context(), "localhost")
    door.shut()
    assert accepting.get(timeout=WAIT_S)


def _accept_and_fail(context: ssl.SSLContext, sock: socket.socket) -> bool:
    try:
        return context.wrap_socket(sock, server_side=True).recv(1) == b""
    except OSError:
        return True
    finally:
        sock.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_tls_with_a_peer_that_speaks_none(tmp_path: Path, answer: bytes):
    _, client = contexts(tmp_path)
    ours, theirs = tcp_pair()
    door = TlsDoor(ours, 1024)
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        door.start_tls(client, "localhost")
    door.shut()
    theirs.close()


def test_the_end_of_tls_is_the_end(tmp_path: Path):
    door, peer = tls_pair(tmp_path)
    peer.sendall(b"bye")
    ending = gevent.spawn(peer.unwrap)
    assert door.read() == b"bye"
    assert door.read() == b""
    assert door.failure == ""
    door.shut()
    ending.join(timeout=WAIT_S)
    peer.close()


def test_broken_tls_records_break_the_door(tmp_path: Path):
    door, peer = tls_pair(tmp_path)
    os.write(peer.fileno(), b"\x17\x03\x03\x00\x05hello")
    assert door.read() == b""
    assert door.failure.startswith("broken")
    door.shut()
    peer.close()


def test_wake_reaches_a_tls_reader(tmp_path: Path):
    door, peer = tls_pair(tmp_path)
    reader = gevent.spawn(door.read)
    gevent.sleep(0.01)
    door.wake()
    assert reader.get(timeout=WAIT_S) is None
    peer.sendall(b"later")
    assert door.read() == b"later"
    door.shut()
    peer.close()
