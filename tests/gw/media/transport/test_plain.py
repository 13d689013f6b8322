"""gw.media.transport.plain: writes never wait, bytes keep their sequence, readers see the end."""

from __future__ import annotations

import gc
import struct
import time

import gevent
import pytest
from gevent import socket

from gw.call.limits import Allowance
from gw.media.transport.plain import READ_BYTES, Transport
from tests.gw.media.support import WAIT_S, descriptors, pair, tcp_pair, transport_and_peer, until

RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, no time: close() sends a reset


def read_all(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(65536)
        assert piece, f"ended after {len(data)} bytes"
        data += piece
    return data


def fill(transport: Transport, *, piece: bytes = b"x" * 1024) -> int:
    """Write until the kernel takes no more. Returns the bytes written."""
    written = 0
    while transport.write(piece):
        written += len(piece)
    return written + len(piece)


def test_bytes_that_the_kernel_takes_are_not_kept():
    transport, peer = transport_and_peer()
    assert transport.write(b"hello") is True
    assert transport.waiting_bytes == 0
    assert peer.recv(100) == b"hello"
    transport.shut()


def test_kept_bytes_are_flushed_in_sequence_when_the_peer_reads():
    transport, peer = transport_and_peer(limit_bytes=8 << 20)
    blob = bytes(n % 251 for n in range(1 << 20))
    assert transport.write(blob) is False
    assert transport.write(b"then this") is False, "behind the waiting bytes"
    assert 0 < transport.waiting_bytes < len(blob) + 9
    assert read_all(peer, len(blob) + 9) == blob + b"then this"
    until(lambda: transport.waiting_bytes == 0)
    assert transport.failure == ""
    assert transport.write(b"again") is True
    assert peer.recv(100) == b"again"
    transport.shut()


def test_overflow_stalls_the_transport_and_wakes_its_reader():
    transport, peer = transport_and_peer(limit_bytes=4096)
    reader = gevent.spawn(transport.read)
    gevent.sleep(0)
    fill(transport)
    while not transport.failure:
        transport.write(b"y" * 1024)
    assert transport.failure == "stalled"
    assert transport.waiting_bytes == 0, "the kept bytes are dropped"
    assert transport.write(b"z") is False
    assert reader.get(timeout=WAIT_S) == b""
    assert transport.read() == b""
    peer.close()
    transport.shut()
    assert transport.failure == "stalled", "the first failure is kept"


def test_up_to_the_limit_nothing_stalls():
    transport, peer = transport_and_peer(limit_bytes=4096)
    fill(transport)
    transport.write(b"y" * (4096 - transport.waiting_bytes))
    assert transport.waiting_bytes == 4096
    assert transport.failure == ""
    transport.write(b"y")
    assert transport.failure == "stalled"
    peer.close()
    transport.shut()


def test_a_reset_breaks_the_transport_for_reader_and_writer():
    ours, theirs = tcp_pair()
    transport = Transport(ours, 1 << 16)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    theirs.close()
    assert transport.read() == b""
    assert transport.failure.startswith("broken")
    assert transport.write(b"x") is False
    transport.shut()


def test_bytes_before_the_connection_broke_are_still_read():
    """A write may find the end before the reader reads the peer's reason."""
    ours, theirs = tcp_pair()
    transport = Transport(ours, 1 << 16)
    said = b"why I go" * 2000
    theirs.sendall(said)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    theirs.close()
    assert transport.write(b"x") is False
    assert transport.failure == "broken"
    got = b""
    while piece := transport.read():
        assert len(piece) <= READ_BYTES
        got += piece
    assert got == said
    transport.shut()
    assert transport.read() == b""


def test_a_write_to_a_broken_peer_wakes_the_reader():
    ours, theirs = pair()
    transport = Transport(ours, 1 << 16)
    theirs.shutdown(socket.SHUT_RD)  # the peer is still connected, so only a write finds it
    reader = gevent.spawn(transport.read)
    gevent.sleep(0)
    assert transport.write(b"x") is False
    assert transport.failure.startswith("broken")
    assert reader.get(timeout=WAIT_S) == b""
    transport.shut()


def test_a_flush_that_fails_breaks_the_door():
    transport, peer = transport_and_peer()
    fill(transport)
    reader = gevent.spawn(transport.read)
    peer.close()
    assert reader.get(timeout=WAIT_S) == b""
    until(lambda: transport.failure.startswith("broken"))
    assert transport.waiting_bytes == 0
    transport.shut()


def test_the_peers_end_is_not_a_failure():
    transport, peer = transport_and_peer()
    peer.sendall(b"last words")
    peer.close()
    assert transport.read() == b"last words"
    assert transport.read() == b""
    assert transport.failure == ""
    transport.shut()


def test_wake_while_waiting():
    transport, peer = transport_and_peer()
    reader = gevent.spawn(transport.read)
    gevent.sleep(0)
    transport.wake()
    transport.wake()
    assert reader.get(timeout=WAIT_S) is None
    peer.sendall(b"later")
    assert transport.read() == b"later", "two wakes end one read"
    transport.shut()


def test_wake_before_waiting():
    transport, peer = transport_and_peer()
    peer.sendall(b"later")
    transport.wake()
    assert transport.read() is None
    assert transport.read() == b"later"
    transport.shut()


def test_wake_and_data_at_the_same_time_lose_nothing():
    transport, peer = transport_and_peer()
    for n in range(50):
        reader = gevent.spawn(transport.read)
        gevent.sleep(0)
        peer.sendall(b"%d" % n)
        transport.wake()
        seen = [reader.get(timeout=WAIT_S)]
        while seen[-1] is None:
            seen.append(transport.read())
        assert seen[-1] == b"%d" % n
    transport.shut()


def test_a_peer_that_sends_without_pause_does_not_hold_the_hub():
    transport, peer = transport_and_peer()
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
        got += len(transport.read() or b"")
        assert len(ticks) > before, "no other greenlet ran between two reads"
    reading = False
    assert got > 100 * READ_BYTES
    transport.shut()
    peer.close()
    gevent.joinall(others, timeout=WAIT_S)


@pytest.mark.parametrize("is_woken", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_beyond_its_allowance_a_peer_is_read_at_the_rate_and_loses_nothing(beside: bool, is_woken: bool):
    ours, theirs = pair()
    rate, burst, surplus = 64 * READ_BYTES, 128 * READ_BYTES, 32 * READ_BYTES
    transport = Transport(ours, 1 << 20, reads=Allowance(rate, burst))
    sent = bytes(range(256)) * ((burst + surplus) // 256)
    talking = gevent.spawn(theirs.sendall, sent)

    def wake() -> None:
        while is_woken:
            transport.wake()
            gevent.sleep(0.001)

    waking = gevent.spawn(wake)
    got, began_s = bytearray(), time.monotonic()

    def take(data: bytes) -> bool:
        got.extend(data)
        return len(got) % 5 != 0 and len(got) < len(sent)

    while len(got) < len(sent):
        got += transport.read(take if beside else None) or b""
    took_s = time.monotonic() - began_s
    assert bytes(got) == sent
    assert took_s > (surplus - READ_BYTES) / rate, "the last read's pause would come before the next"
    waking.kill()
    transport.shut()
    theirs.close()
    talking.get(timeout=WAIT_S)


@pytest.mark.parametrize("ends", ["wake", "shut", "fail"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_pause_ends_with_the_transport(ends: str, beside: bool):
    ours, theirs = pair()
    transport = Transport(ours, 1 << 20, reads=Allowance(1, 1))
    theirs.sendall(b"x")
    take = (lambda _data: True) if beside else None
    if not beside:
        assert transport.read() == b"x"  # 256 s ahead
    gevent.spawn_later(0.05, *{"wake": (transport.wake,), "shut": (transport.shut,), "fail": (transport.fail, "stalled")}[ends])
    with gevent.Timeout(WAIT_S):
        assert transport.read(take) == (None if ends == "wake" else b"")
    transport.shut()
    theirs.close()


def test_the_first_bytes_come_first():
    ours, theirs = pair()
    theirs.sendall(b"second")
    transport = Transport(ours, 1024, first=b"first")
    assert [transport.read(), transport.read()] == [b"first", b"second"]
    transport.shut()


def test_a_timeout_leaves_the_transport_whole():
    transport, peer = transport_and_peer()
    with gevent.Timeout(0.01, False):
        transport.read()
        pytest.fail("there was nothing to read")
    peer.sendall(b"here")
    assert transport.read() == b"here"
    transport.shut()


@pytest.mark.parametrize("waits", [False, True])
def test_the_peer_reads_every_byte_and_then_the_end(waits: bool):
    transport, peer = transport_and_peer()
    n_bytes = 0
    while n_bytes < 1000 or (waits and not transport.waiting_bytes):
        transport.write(b"x" * 1000)
        n_bytes += 1000
    transport.end_writing()
    assert len(read_all(peer, n_bytes)) == n_bytes
    assert peer.recv(100) == b""
    assert transport.failure == ""
    peer.sendall(b"still read")
    assert transport.read() == b"still read"
    transport.shut()
    peer.close()


def test_an_end_to_a_peer_that_has_gone():
    transport, peer = transport_and_peer()
    peer.close()
    transport.fail("broken")
    transport._raw.close()
    transport.end_writing()
    transport.shut()


def test_the_rest_is_dropped_up_to_the_peers_end():
    ours, theirs = pair()
    transport = Transport(ours, 1 << 20, first=b"read before")
    theirs.sendall(b"x" * 100_000)
    transport.wake()
    dropping = gevent.spawn(transport.drop_rest)
    gevent.sleep(0.01)
    assert not dropping.dead
    theirs.close()
    dropping.get(timeout=WAIT_S)
    transport.shut()


def test_shut_wakes_the_reader_is_idempotent_and_leaves_no_descriptor():
    gevent.get_hub()
    before = descriptors()
    for _ in range(20):
        transport, peer = transport_and_peer()
        fill(transport)
        reader = gevent.spawn(transport.read)
        gevent.sleep(0)
        transport.shut()
        transport.shut()
        assert reader.get(timeout=WAIT_S) == b""
        assert transport.failure == "shut"
        assert transport.write(b"x") is False
        assert transport.read() == b""
        transport.wake()
        peer.close()
    until(lambda: descriptors() <= before, "descriptors are left")


def test_a_shut_transport_is_freed():
    transport, peer = transport_and_peer()
    transport.write(b"x")
    transport.shut()
    kept = len([thing for thing in gc.get_objects() if isinstance(thing, Transport)])
    del transport
    gc.collect()
    assert len([thing for thing in gc.get_objects() if isinstance(thing, Transport)]) == kept - 1
    peer.close()
