"""gw.media.transport.tls: no byte is lost, wrong names are refused, readers see the end."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import gevent
import pytest
from gevent import socket

from gw.media.transport.tls import TlsTransport
from tests.gw.media.certificates import contexts
from tests.gw.media.support import WAIT_S, tcp_pair, until
from tests.gw.media.transport.test_plain import RESET, read_all


def tls_pair(folder: Path, limit_bytes: int = 16 << 20) -> tuple[TlsTransport, ssl.SSLSocket]:
    """Make a TLS transport, and the server's socket at its other end."""
    server, client = contexts(folder)
    ours, theirs = tcp_pair()
    accepting = gevent.spawn(server.wrap_socket, theirs, server_side=True)
    transport = TlsTransport(ours, limit_bytes)
    transport.start_tls(client, "localhost")
    peer: ssl.SSLSocket = accepting.get(timeout=WAIT_S)
    peer.settimeout(WAIT_S)
    return transport, peer


def test_tls_both_ways(tmp_path: Path):
    transport, peer = tls_pair(tmp_path)
    assert transport.write(b"to the server") is True
    assert peer.recv(100) == b"to the server"
    peer.sendall(b"to the client")
    assert transport.read() == b"to the client"
    peer.sendall(b"z" * 100_000)
    got = b""
    while len(got) < 100_000:
        got += transport.read() or b""
    assert got == b"z" * 100_000
    transport.shut()
    peer.close()


def test_the_peer_reads_every_byte_and_then_a_clean_end(tmp_path: Path):
    transport, peer = tls_pair(tmp_path)
    peer.suppress_ragged_eofs = False  # an end without close_notify is an error
    transport.write(b"last words")
    transport.end_writing()
    assert peer.recv(100) == b"last words"
    assert peer.recv(100) == b""
    peer.sendall(b"not read any more")
    dropping = gevent.spawn(transport.drop_rest)
    gevent.sleep(0.01)
    assert not dropping.dead
    peer.close()
    dropping.get(timeout=WAIT_S)
    transport.shut()


def test_every_read_lets_the_hub_turn_also_within_one_record(tmp_path: Path):
    transport, peer = tls_pair(tmp_path)
    peer.sendall(b"z" * 16384)  # one record
    turns: list[int] = []
    got = 0
    while got < 16384:
        waiting = gevent.spawn(turns.append, got)
        got += len(transport.read() or b"")
        assert waiting.dead
    assert len(turns) > 1, "this record needs several reads"
    transport.shut()
    peer.close()


def test_every_read_lets_the_hub_turn_also_between_small_records(tmp_path: Path):
    """A few bytes in each record: 8 KiB of them would otherwise be one slice of over 1 ms."""
    transport, peer = tls_pair(tmp_path)
    for n in range(100):
        peer.sendall(b"%d" % (n % 10))
    for n in range(100):
        waiting = gevent.spawn(lambda: None)
        assert transport.read() == b"%d" % (n % 10)
        assert waiting.dead
    transport.shut()
    peer.close()


def test_large_tls_writes_under_back_pressure_arrive_whole(tmp_path: Path):
    transport, peer = tls_pair(tmp_path)
    blob = os.urandom(1 << 20)
    pieces = [blob[start : start + 100_000] for start in range(0, len(blob), 100_000)] * 8
    taken = [transport.write(piece) for piece in pieces]
    assert not taken[-1], "the kernel took 8 MB: this test needs a slower peer"
    assert transport.waiting_bytes > 0
    assert read_all(peer, len(blob) * 8) == blob * 8
    until(lambda: transport.waiting_bytes == 0)
    assert transport.write(b"more") is True
    assert peer.recv(100) == b"more"
    transport.shut()
    peer.close()


def test_bytes_before_the_connection_broke_are_still_read(tmp_path: Path):
    transport, peer = tls_pair(tmp_path)
    said = b"why I go" * 2000
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # not delayed behind its unread session tickets
    peer.sendall(said)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()
    assert transport.write(b"x") is False
    assert transport.failure == "broken"
    got = b""
    while piece := transport.read():
        got += piece
    assert got == said
    transport.shut()


def test_tls_overflow_stalls(tmp_path: Path):
    transport, peer = tls_pair(tmp_path, limit_bytes=4096)
    for _ in range(1000):
        transport.write(b"x" * 65536)
    assert transport.failure == "stalled"
    assert transport.write(b"x") is False
    assert transport.read() == b""
    transport.shut()
    peer.close()


def test_tls_for_another_name_is_refused(tmp_path: Path):
    server, client = contexts(tmp_path)
    ours, theirs = tcp_pair()
    accepting = gevent.spawn(_accept_and_fail, server, theirs)
    transport = TlsTransport(ours, 1024)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        transport.start_tls(client, "other.example")
    transport.shut()
    assert accepting.get(timeout=WAIT_S), "the server saw no alert or end"


def test_tls_with_an_unknown_certificate_is_refused(tmp_path: Path):
    server, _ = contexts(tmp_path)
    ours, theirs = tcp_pair()
    accepting = gevent.spawn(_accept_and_fail, server, theirs)
    transport = TlsTransport(ours, 1024)
    with pytest.raises(ssl.SSLCertVerificationError):
        transport.start_tls(ssl.create_default_context(), "localhost")
    transport.shut()
    assert accepting.get(timeout=WAIT_S)


def _accept_and_fail(context: ssl.SSLContext, sock: socket.socket) -> bool:
    try:
        return context.wrap_socket(sock, server_side=True).recv(1) == b""
    except OSError:
        return True
    finally:
        sock.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_tls_with_a_peer_without_tls(tmp_path: Path, answer: bytes):
    _, client = contexts(tmp_path)
    ours, theirs = tcp_pair()
    transport = TlsTransport(ours, 1024)
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        transport.start_tls(client, "localhost")
    transport.shut()
    theirs.close()


def test_the_end_of_tls_is_the_end(tmp_path: Path):
    transport, peer = tls_pair(tmp_path)
    peer.sendall(b"bye")
    ending = gevent.spawn(peer.unwrap)
    assert transport.read() == b"bye"
    assert transport.read() == b""
    assert transport.failure == ""
    transport.shut()
    ending.join(timeout=WAIT_S)
    peer.close()


def test_broken_tls_records_break_the_door(tmp_path: Path):
    transport, peer = tls_pair(tmp_path)
    os.write(peer.fileno(), b"\x17\x03\x03\x00\x05hello")
    assert transport.read() == b""
    assert transport.failure.startswith("broken")
    transport.shut()
    peer.close()


def test_wake_reaches_a_tls_reader(tmp_path: Path):
    transport, peer = tls_pair(tmp_path)
    reader = gevent.spawn(transport.read)
    gevent.sleep(0.01)
    transport.wake()
    assert reader.get(timeout=WAIT_S) is None
    peer.sendall(b"later")
    assert transport.read() == b"later"
    transport.shut()
    peer.close()
