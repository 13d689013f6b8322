"""gw.media.http.server: refusals come before the 101 and are counted, connections are shared."""

from __future__ import annotations

import json
import os
import resource
import struct
from collections import Counter
from pathlib import Path
from time import monotonic

import gevent
import pytest
from gevent import socket

from gw import strict_http
from gw.media.admission.slots import DELAY_S, SHORT_DELAY_S, AdmissionSlots
from gw.media.http import server as server_module
from gw.media.http.server import MANY_SILENT, MediaServer
from gw.protocol.http import RequestError
from gw.protocol.signature import SigningSecrets, sign
from gw.scoreboard import ProcessState, Scoreboard
from gw.strangers import Closed, Stage
from gw.strict_http import SWEEP_MOST, StrictHandler
from metrics.declare import REQUESTS_REFUSED, STREAMS_REFUSED
from tests.gw.media.support import (
    ACCOUNT,
    CALL,
    WAIT_S,
    ContextMaker,
    Peer,
    connected,
    descriptors,
    greenlets,
    masked,
    start,
    stop,
    until,
)
from tests.wire.http_requests import ACCEPTED, REFUSED, REFUSED_CHUNKS

CHUNKED = b"POST /twilio/status HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
GOOD = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def request(headers: dict[str, str], *, line: str = "GET /media HTTP/1.1") -> bytes:
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode("latin-1")


class Answer:
    """A server's answer to one request: the headers, and without an upgrade the rest of the connection."""

    def __init__(self, address: tuple[str, int], sent: bytes) -> None:
        self.socket = socket.create_connection(address)
        self.socket.settimeout(WAIT_S)
        self.socket.sendall(sent)
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(65536)
            assert piece, data
            data += piece
        head, _, self.body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if self.status != 101:
            while piece := self.socket.recv(65536):
                self.body += piece
            self.socket.close()


def refused(server: MediaServer, reason: str) -> float:
    return server.context.page.counter(STREAMS_REFUSED, reason=reason).value


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in GOOD.items() if key != name}


REFUSALS = {
    "another path": (request(GOOD, line="GET /medium HTTP/1.1"), 404, ""),
    "a path below": (request(GOOD, line="GET /media/x HTTP/1.1"), 404, ""),
    "a post": (request({**GOOD, "Content-Length": "0"}, line="POST /media HTTP/1.1"), 426, "bad_request"),
    "http/1.0": (request(GOOD, line="GET /media HTTP/1.0"), 426, "bad_request"),
    "no upgrade": (request(without("Upgrade")), 426, "bad_request"),
    "another upgrade": (request({**GOOD, "Upgrade": "h2c"}), 426, "bad_request"),
    "no host": (request(without("Host")), 400, ""),
    "no connection": (request(without("Connection")), 400, "bad_request"),
    "a connection that only contains it": (request({**GOOD, "Connection": "no-upgrade"}), 400, "bad_request"),
    "no version": (request(without("Sec-WebSocket-Version")), 426, "bad_request"),
    "version 8": (request({**GOOD, "Sec-WebSocket-Version": "8"}), 426, "bad_request"),
    "no key": (request(without("Sec-WebSocket-Key")), 400, "bad_request"),
    "a key that is no base64": (request({**GOOD, "Sec-WebSocket-Key": "a"}), 400, "bad_request"),
    "a key of 15 bytes": (request({**GOOD, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAA"}), 400, "bad_request"),
    "a key beyond ascii": (request({**GOOD, "Sec-WebSocket-Key": "\xfc" * 24}), 400, "bad_request"),
}


@pytest.mark.parametrize(("sent", "status", "reason"), REFUSALS.values(), ids=REFUSALS.keys())
def test_an_upgrade_is_refused_before_the_101(contexts: ContextMaker, sent: bytes, status: int, reason: str):
    server, address = contexts.server(contexts.context()[0])
    if status == 404:
        sent = sent.replace(b"Connection: Upgrade", b"Connection: close")
    answer = Answer(address, sent)
    assert answer.status == status
    assert answer.body
    assert answer.headers["content-type"].startswith("text/plain")
    if "content-length" in answer.headers:
        assert int(answer.headers["content-length"]) == len(answer.body)
    if reason:
        assert refused(server, reason) == 1
    if "version" in answer.body.decode():
        assert answer.headers["sec-websocket-version"] == "13"
    assert server.context.streams == 0
    assert not server.sessions


def test_the_handshake_is_that_of_rfc_6455(contexts: ContextMaker):
    server, address = contexts.server(contexts.context()[0])
    answer = Answer(address, request(GOOD))
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == ACCEPT
    assert answer.headers["upgrade"] == "websocket"
    assert answer.headers["connection"] == "Upgrade"
    assert "sec-websocket-protocol" not in answer.headers
    assert "sec-websocket-extensions" not in answer.headers
    assert "content-length" not in answer.headers
    assert "transfer-encoding" not in answer.headers
    assert answer.body == b""
    until(lambda: server.context.streams == 1)
    answer.socket.close()
    until(lambda: server.context.streams == 0)


@pytest.mark.parametrize(
    ("offered", "chosen"), [("audio.twilio.com", "audio.twilio.com"), ("x, audio.twilio.com", "audio.twilio.com"), ("x", None)]
)
def test_a_subprotocol_only_when_offered(contexts: ContextMaker, offered: str, chosen: str | None):
    _, address = contexts.server(contexts.context()[0])
    answer = Answer(address, request({**GOOD, "Sec-WebSocket-Protocol": offered}))
    assert answer.headers.get("sec-websocket-protocol") == chosen
    answer.socket.close()


def test_headers_in_another_case_and_with_more_tokens(contexts: ContextMaker):
    _, address = contexts.server(contexts.context()[0])
    headers = {**GOOD, "Upgrade": "WebSocket", "Connection": "keep-alive, UPGRADE"}
    answer = Answer(address, request(headers))
    assert answer.status == 101
    answer.socket.close()


@pytest.mark.parametrize(
    "spelling", ["wss://voice.example.com/media", "https://voice.example.com/media", "wss://voice.example.com:443/media/"]
)
def test_a_valid_signature_of_twilio(contexts: ContextMaker, spelling: str):
    context, _ = contexts.context(signed=True, public_url="https://voice.example.com")
    _, address = contexts.server(context)
    answer = Answer(address, request({**GOOD, "X-Twilio-Signature": sign("secret", spelling)}))
    assert answer.status == 101
    answer.socket.close()


@pytest.mark.parametrize("name", ["here", "there"])
def test_among_machines_the_path_ends_in_a_machines_name(contexts: ContextMaker, name: str):
    """Also in another machine's: a balancer sends its requests here when it is gone. The signature covers the whole path."""
    context, _ = contexts.context(signed=True, public_url="https://voice.example.com", machine="here")
    _, address = contexts.server(context)
    for spelling, status in ((f"wss://voice.example.com/media/{name}", 101), ("wss://voice.example.com/media", 403)):
        signed = {**GOOD, "Connection": "Upgrade", "X-Twilio-Signature": sign("secret", spelling)}
        answer = Answer(address, request(signed, line=f"GET /media/{name} HTTP/1.1"))
        assert answer.status == status
        answer.socket.close()


@pytest.mark.parametrize("signature", [None, "", "x" * 28, sign("other", "wss://voice.example.com/media"), "\xff"])
def test_an_invalid_signature_is_403(contexts: ContextMaker, signature: str | None):
    context, _ = contexts.context(signed=True, public_url="https://voice.example.com")
    server, address = contexts.server(context)
    answer = Answer(address, request(GOOD if signature is None else {**GOOD, "X-Twilio-Signature": signature}))
    assert answer.status == 403
    assert refused(server, "bad_signature") == 1


def test_a_stream_belongs_to_the_account_that_signed(contexts: ContextMaker):
    """The upgrade names no account; the start message does, and may not name another one."""
    other = "AC" + "2" * 32
    context, _ = contexts.context(signed=True, public_url="https://voice.example.com")
    context.signing_secrets[other] = SigningSecrets(("another secret", ""))
    server, address = contexts.server(context)
    for secret, account, reason in (
        ("secret", ACCOUNT, "token_missing"),
        ("another secret", other, "token_missing"),
        ("secret", other, "wrong_account"),
        ("another secret", ACCOUNT, "wrong_account"),
    ):
        peer = Peer.connect(address, X_Twilio_Signature=sign(secret, "wss://voice.example.com/media"))
        peer.send(connected())
        peer.send(start(account=account))
        before = refused(server, reason)
        until(lambda reason=reason, before=before: refused(server, reason) == before + 1)  # type: ignore[misc]
        peer.close()
    assert Answer(address, request({**GOOD, "X-Twilio-Signature": sign("third", "wss://voice.example.com/media")})).status == 403


@pytest.mark.parametrize("header", [{"Origin": "http://evil.example.com"}, {"Host": "evil.example.com"}])
def test_without_credentials_no_web_page_opens_a_stream(contexts: ContextMaker, header: dict[str, str]):
    context, _ = contexts.context()
    _, address = contexts.server(context)
    answer = Answer(address, request({**GOOD, **header}))
    assert (answer.status, context.streams) == (403, 0)
    assert Answer(address, request(GOOD)).status == 101


@pytest.mark.parametrize("why", ["full", "draining"])
def test_without_a_free_slot_the_answer_is_503(contexts: ContextMaker, why: str):
    context, _ = contexts.context(max_calls=1)
    server, address = contexts.server(context)
    first = Answer(address, request(GOOD)) if why == "full" else None
    context.draining = why == "draining"
    answer = Answer(address, request(GOOD))
    assert answer.status == 503
    assert refused(server, "busy") == 1
    if first is not None:
        first.socket.close()
        until(lambda: context.streams == 0)
        second = Answer(address, request(GOOD))
        assert second.status == 101, "a slot is free again"
        second.socket.close()


def test_many_upgrades_at_the_same_time_get_no_more_than_the_free_slots(contexts: ContextMaker):
    context, _ = contexts.context(max_calls=5)
    _, address = contexts.server(context)
    answers = gevent.joinall([gevent.spawn(Answer, address, request(GOOD)) for _ in range(30)], timeout=WAIT_S)
    statuses = [greenlet.get().status for greenlet in answers]
    assert sorted(statuses) == [101] * 5 + [503] * 25
    for greenlet in answers:
        greenlet.get().socket.close()


def test_a_message_right_behind_the_handshake_is_read(contexts: ContextMaker):
    context, emitted = contexts.context()
    _, address = contexts.server(context)
    sent = request(GOOD) + masked(1, json.dumps(connected()).encode()) + masked(1, json.dumps(start()).encode())
    answer = Answer(address, sent)
    until(lambda: CALL in context.calls)
    answer.socket.sendall(masked(1, json.dumps(stop()).encode()))
    until(lambda: not context.calls)
    answer.socket.close()
    assert emitted


def test_a_message_split_between_handshake_and_later(contexts: ContextMaker):
    context, _ = contexts.context()
    _, address = contexts.server(context)
    message = masked(1, json.dumps(start()).encode())
    for cut in (1, 3, 9, len(message) - 1):
        answer = Answer(address, request(GOOD) + message[:cut])
        assert answer.status == 101
        answer.socket.sendall(message[cut:])
        until(lambda: CALL in context.calls)
        answer.socket.close()
        until(lambda: not context.calls)


def test_a_peer_that_resets_right_after_the_handshake(contexts: ContextMaker):
    context, _ = contexts.context()
    server, address = contexts.server(context)
    for _ in range(10):
        sock = socket.create_connection(address)
        sock.sendall(request(GOOD))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    gevent.sleep(0.05)
    until(lambda: context.streams == 0)
    assert not server.sessions
    answer = Answer(address, request(GOOD))
    assert answer.status == 101, "the server still serves"
    answer.socket.close()


def test_a_hundred_calls_leave_nothing_behind(contexts: ContextMaker):
    context, emitted = contexts.context()
    server, address = contexts.server(context)

    def call(n: int) -> None:
        name = f"CA{n:032d}"
        peer = Peer.connect(address)
        peer.send(connected())
        peer.send(start(call=name))
        peer.send(stop(call=name))
        assert peer.read_to_end()[0] == 1000
        peer.close()

    call(0)
    until(lambda: context.streams == 0)
    gevent.sleep(0.05)
    before = descriptors(), greenlets()
    for batch in range(10):
        gevent.joinall([gevent.spawn(call, batch * 10 + n) for n in range(1, 11)], timeout=WAIT_S, raise_error=True)
    until(lambda: context.streams == 0 and not server.sessions and not context.calls)
    until(lambda: descriptors() <= before[0], "descriptors are left")
    until(lambda: greenlets() <= before[1], "greenlets are left")
    assert sum(type(event).__name__ == "CallEnded" for event in emitted) == 101


@pytest.mark.parametrize("cut", [b"Call", b""])
def test_a_form_that_breaks_off_is_one_log_line(contexts: ContextMaker, caplog: pytest.LogCaptureFixture, cut: bytes):
    _, address = contexts.server(contexts.context()[0])
    sock = socket.create_connection(address)
    sock.sendall(b"POST /twilio/status HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 20\r\n\r\n" + cut)
    sock.close()
    until(lambda: caplog.records)
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("WARNING", None)]
    assert "cut_off" in caplog.text


def test_no_request_that_breaks_http_reaches_a_webhook(contexts: ContextMaker, capfd: pytest.CaptureFixture[str]):
    context, emitted = contexts.context()
    _, address = contexts.server(context)
    bodies = {name: sample._replace(sent=CHUNKED + sample.sent) for name, sample in REFUSED_CHUNKS.items()}
    samples = {**REFUSED, **bodies}
    for name, sample in samples.items():
        answer = Answer(address, sample.sent + b"POST /twilio/status HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
        assert answer.status == int(RequestError(sample.fault, "").status[:3]), name  # type: ignore[arg-type]
        assert answer.headers["connection"] == "close", name
        assert len(answer.body) == (0 if sample.sent.startswith(b"HEAD") else int(answer.headers["content-length"])), name
    assert emitted == []
    counted = {
        reason: context.page.counter(REQUESTS_REFUSED, reason=reason).value for reason in REQUESTS_REFUSED.labels["reason"]
    }
    assert {reason: count for reason, count in counted.items() if count} == Counter(sample.fault for sample in samples.values())
    assert capfd.readouterr() == ("", "")


def test_odd_requests_are_served(contexts: ContextMaker):
    _, address = contexts.server(contexts.context()[0])
    for name, sample in ACCEPTED.items():
        sent = (
            sample.sent
            if sample.is_last
            else sample.sent + b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        )
        answer = Answer(address, sent)
        assert answer.status in (200, 204, 404) or answer.body == b"CallSid is missing\n", name


def test_a_worker_that_leaves_closes_after_the_answer(contexts: ContextMaker):
    context, _ = contexts.context()
    _, address = contexts.server(context)
    context.leaving = True
    answer = Answer(address, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 2)
    assert (answer.status, answer.headers["connection"], answer.body) == (200, "close", b"a worker answers\n")


def counted(server: MediaServer) -> dict[str, float]:
    return {reason: cell.value for reason, cell in server.context.cells.requests_refused.items() if cell.value}


def test_a_request_for_nothing_that_is_here_is_counted(contexts: ContextMaker):
    server, address = contexts.server(contexts.context()[0])
    head = b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert Answer(address, (b"GET /nothing" + head) * 2).status == 404
    assert Answer(address, b"GET /twilio/voice" + head).status == 405
    assert counted(server) == {"not_found": 1, "bad_method": 1}


def silent(address: tuple[str, int], count: int, sent: bytes = b"") -> list[socket.socket]:
    """Open connections that send no complete head."""
    socks = []
    for _ in range(count):
        socks.append(socket.create_connection(address))
        socks[-1].sendall(sent)
        gevent.sleep(0)
    return socks


def test_a_stream_on_a_connection_that_was_given_up_is_refused(contexts: ContextMaker):
    """Its head came at the last moment. A balancer tries another worker; a stream would end immediately."""
    server, address = contexts.server(contexts.context()[0])
    (sock,) = silent(address, 1)
    until(lambda: server.strangers.count(Stage.HEAD) == 1)
    sock.send(request(GOOD))
    server.close_one(server.strangers.give_way(monotonic()))  # before the server reads the head
    sock.settimeout(WAIT_S)
    assert sock.recv(1000).startswith(b"HTTP/1.1 503 ")
    sock.close()


@pytest.mark.parametrize("sent", [b"", b"POST /twilio/voice HTTP/1.1\r\nHo"])
def test_more_silent_connections_than_places_delay_no_caller(
    contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch, sent: bytes
):
    """All come from loopback, as behind a proxy: the oldest give way, and are counted."""
    monkeypatch.setattr(server_module, "PLACES", 100)
    context, _ = contexts.context(signed=True, public_url="https://voice.example.com")
    server, address = contexts.server(context)
    socks = silent(address, 150, sent)
    answer = Answer(address, request({**GOOD, "X-Twilio-Signature": sign("secret", "wss://voice.example.com/media")}))
    assert answer.status == 101
    until(lambda: counted(server) == {"displaced": 51})
    assert server.strangers.count(Stage.HEAD) == 99
    for sock in socks[:51]:
        sock.settimeout(WAIT_S)
        assert sock.recv(100)[:12] in ((b"HTTP/1.1 503",) if sent else (b"",))
    for sock in (*socks, answer.socket):
        sock.close()
    until(lambda: not context.pending and not context.streams)
    assert server.strangers.count(Stage.HEAD) + server.strangers.count(Stage.CLOSING) == 0
    assert counted(server).get("cut_off", 0) == (99 if sent else 0), "what was half sent is cut off"


def test_an_address_displaces_only_its_own_connections(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_module, "PER_ADDRESS", 3)
    monkeypatch.setattr(strict_http, "address_groups", lambda shared: lambda address: address)
    server, address = contexts.server(contexts.context()[0])
    socks = silent(address, 5)
    until(lambda: counted(server) == {"address_limit": 2})
    for sock in socks:
        sock.close()


def test_hundreds_that_time_out_together_end_a_few_at_a_time(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_module, "HEAD_S", 0.5)
    server, address = contexts.server(contexts.context()[0])
    batches: list[int] = []
    due = server.strangers.due

    def noted(now_s: float, most: int) -> list[Closed[StrictHandler]]:
        closed = due(now_s, most)
        batches.append(len(closed))
        return closed

    monkeypatch.setattr(server.strangers, "due", noted)
    socks = silent(address, 60, b"GET / HTTP/1.1\r\nHost: ") + silent(address, 40)
    until(lambda: counted(server) == {"head_timeout": 100})
    assert max(batches) <= SWEEP_MOST
    assert socks[0].recv(100).startswith(b"HTTP/1.1 408 ")
    for sock in socks:
        sock.close()


def test_a_slow_body_has_its_own_time(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_module, "BODY_S", 0.1)
    server, address = contexts.server(contexts.context()[0])
    answer = Answer(address, b"POST /twilio/status HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 20\r\n\r\nCallSid")
    assert answer.status == 408
    assert counted(server) == {"body_timeout": 1}


def test_without_descriptors_the_oldest_stranger_gives_way(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    server, address = contexts.server(contexts.context()[0])
    socks = silent(address, 3)
    until(lambda: server.strangers.count(Stage.HEAD) == 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    caller = socket.create_connection(address)
    until(lambda: server.strangers.count(Stage.HEAD) == 4)
    try:
        fillers = fill_descriptors(but=1)  # the newcomer's own, and none to accept it
        newcomer = socket.create_connection(address)
        newcomer.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        newcomer.settimeout(WAIT_S)
        assert newcomer.recv(100).startswith(b"HTTP/1.1 200 ")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for descriptor in fillers:
        os.close(descriptor)
    assert counted(server)["displaced"] >= 1
    for sock in (*socks, caller, newcomer):
        sock.close()


def fill_descriptors(but: int) -> list[int]:
    """Open all descriptors below a limit above the highest open one, but for `but`. Returns those opened."""
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + but, hard))
    opened: list[int] = []
    try:
        while True:
            opened.append(os.dup(0))
    except OSError:
        pass
    for _ in range(but):
        os.close(opened.pop())
    return opened


def test_what_is_refused_is_counted(contexts: ContextMaker):
    server, address = contexts.server(contexts.context()[0])
    for name, sample in REFUSED.items():
        before = counted(server).get(sample.fault, 0)
        Answer(address, sample.sent)
        assert counted(server).get(sample.fault, 0) == before + 1, name
    before = sum(counted(server).values())
    Answer(address, request({"Host": "127.0.0.1"}, line="GET /media HTTP/1.1"))
    assert counted(server)["bad_upgrade"] == 1
    assert sum(counted(server).values()) == before + 1


def workers(contexts: ContextMaker, count: int, *, deaf: bool = False) -> tuple[list[MediaServer], tuple[str, int]]:
    """Start servers on one listening socket, as workers of a machine do.

    The last may be deaf: it accepts no connection.
    """
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    scoreboard, servers = Scoreboard.private(), []
    for index in range(count):
        context, _ = contexts.context()
        row = scoreboard.take_row(index)
        row.state = ProcessState.UP
        context.slots = AdmissionSlots(scoreboard, row, 100)
        server, _ = contexts.server(context, socket.socket(fileno=os.dup(listener.fileno())))
        servers.append(server)
    if deaf:
        servers[-1].stop_accepting()
    address = listener.getsockname()
    listener.close()
    return servers, address


@pytest.mark.parametrize("callers", [10, 31])
def test_callers_at_the_same_time_are_shared(contexts: ContextMaker, callers: int):
    servers, address = workers(contexts, 2)
    answers = gevent.joinall([gevent.spawn(Answer, address, request(GOOD)) for _ in range(callers)], timeout=WAIT_S)
    assert [greenlet.get().status for greenlet in answers] == [101] * callers
    one, other = (server.context.streams for server in servers)
    assert one + other == callers
    assert abs(one - other) <= 2
    for greenlet in answers:
        greenlet.get().socket.close()
    until(lambda: not any(server.context.streams or server.context.pending for server in servers))


def test_a_connection_left_to_a_deaf_worker_is_accepted_in_time(contexts: ContextMaker):
    """The deaf worker seems less loaded and its loop turns: a connection is left to it within the bound, and only once."""
    servers, address = workers(contexts, 2, deaf=True)
    began_s = monotonic()
    answers = gevent.joinall([gevent.spawn(Answer, address, request(GOOD)) for _ in range(8)], timeout=WAIT_S)
    assert [greenlet.get().status for greenlet in answers] == [101] * 8
    assert servers[0].context.streams == 8
    assert monotonic() - began_s >= DELAY_S
    for greenlet in answers:
        greenlet.get().socket.close()
    until(lambda: servers[0].context.streams == 0)


def test_a_busy_hub_does_not_make_the_delay_endless(contexts: ContextMaker):
    """Each turn of the loop is longer than the pause between two checks: the delay still ends in time."""

    def hold() -> None:
        while True:
            until_s = monotonic() + 4 * MediaServer.LEFT_S
            while monotonic() < until_s:
                pass
            for server in servers:
                server.context.slots.heartbeat(0.0, 0.0)  # both loops turn, so no worker counts as stalled
            gevent.sleep(0)

    servers, address = workers(contexts, 2, deaf=True)
    servers[0].context.streams = 5
    servers[0].context.publish()
    holding = gevent.spawn(hold)
    try:
        answer = gevent.spawn(Answer, address, request(GOOD)).get(timeout=WAIT_S)
    finally:
        holding.kill()
    assert answer.status == 101
    answer.socket.close()
    until(lambda: servers[0].context.streams == 5)


def test_connections_without_a_request_delay_no_caller(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    """Two silent connections at each worker: once they are overdue, the next connection is accepted without delay."""
    servers, address = workers(contexts, 2)
    silent = [socket.create_connection(address) for _ in range(4)]
    until(lambda: [server.context.pending for server in servers] == [2, 2])
    gevent.sleep(SHORT_DELAY_S)
    checks: list[MediaServer] = []
    monkeypatch.setattr(MediaServer, "on_pause_over", lambda self: checks.append(self))
    answer = Answer(address, request(GOOD))
    assert answer.status == 101
    assert checks == []
    assert sorted(server.context.pending - server.context.overdue for server in servers) in ([0, 0], [0, 2])
    for sock in (*silent, answer.socket):
        sock.close()
    until(lambda: not any(server.context.streams or server.context.pending or server.context.overdue for server in servers))


def test_a_flood_of_silent_connections_does_not_delay_accepting(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    """With many silent connections, also young ones are no longer counted as future media sockets."""
    servers, address = workers(contexts, 2)
    socks = silent(address, 2 * MANY_SILENT + 10)
    until(lambda: sum(server.context.pending for server in servers) == len(socks))
    for server in servers:
        until(lambda server=server: server.context.overdue == server.context.pending > MANY_SILENT)
    checks: list[MediaServer] = []
    monkeypatch.setattr(MediaServer, "on_pause_over", lambda self: checks.append(self))
    socks += silent(address, 20)
    answer = Answer(address, request(GOOD))
    assert answer.status == 101
    assert checks == []
    for sock in (*socks, answer.socket):
        sock.close()


@pytest.mark.parametrize("sent", [b"", b"GET /med", request(GOOD, line="GET /medium HTTP/1.1")])
def test_a_connection_is_pending_until_its_request_is_complete(contexts: ContextMaker, sent: bytes):
    server, address = contexts.server(contexts.context()[0])
    sock = socket.create_connection(address)
    until(lambda: server.context.pending == 1)
    sock.sendall(sent)
    if sent.endswith(b"\r\n\r\n"):
        until(lambda: server.context.pending == 0)
        assert server.context.streams == 0
    sock.close()
    until(lambda: server.context.pending == 0)
