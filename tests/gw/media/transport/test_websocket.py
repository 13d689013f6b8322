"""gw.media.transport.websocket: whole messages, answers to control frames, and every end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent import socket
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Frame, Opcode
from websockets.protocol import Side

from gw.errors import ProtocolError
from gw.media.transport import websocket
from gw.media.transport.plain import Transport
from gw.media.transport.websocket import LegClosedError, Message, MessageReader, WebSocket
from gw.protocol import twilio
from gw.protocol.websocket.frames import FLOOD_BURST, MAX_FRAMES, MAX_PONGS, text_message
from tests.gw.media.support import WAIT_S, Peer, connected, masked, media, pair, tcp_pair, until
from tests.gw.media.transport.test_plain import RESET, read_all

LIMIT_BYTES = 4096
TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10

Ends = tuple[WebSocket, Peer]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The gateway's end, a server, and a client at the other."""
    ours, theirs = pair()
    web_socket = WebSocket(Transport(ours, 1 << 20), LIMIT_BYTES, is_client=False)
    peer = Peer(theirs)
    yield web_socket, peer
    web_socket.transport.shut()
    peer.close()


def messages(web_socket: WebSocket, count: int) -> list[Message]:
    """Read the next `count` messages."""
    got: list[Message] = []
    with gevent.Timeout(WAIT_S):
        while len(got) < count:
            got += web_socket.read()
    assert len(got) == count
    return got


def end_of(read: Callable[[], object]) -> Exception:
    """Read until the end. Returns the error."""
    with gevent.Timeout(WAIT_S):
        while True:
            try:
                assert not read(), "a message instead of the end"
            except (LegClosedError, ProtocolError) as error:
                return error


def closes(web_socket: WebSocket, peer: Peer) -> tuple[int, str]:
    """Close while the peer reads. Returns the code and reason that the peer reads, and that nothing is left to wait for."""
    closing = gevent.spawn(web_socket.close, 1000, "why")
    end = peer.read_to_end()
    closing.get(timeout=WAIT_S)
    assert web_socket.transport.failure == "shut"
    return end


def test_a_text_and_a_binary_message(ends: Ends):
    web_socket, peer = ends
    peer.raw(masked(TEXT, "grüß".encode()) + masked(BINARY, b"\x00\xff"))
    assert messages(web_socket, 2) == [Message(True, "grüß".encode()), Message(False, b"\x00\xff")]


def test_a_message_in_single_bytes(ends: Ends):
    web_socket, peer = ends
    reader = gevent.spawn(messages, web_socket, 1)
    for byte in masked(TEXT, b"slowly"):
        peer.raw(bytes([byte]))
        gevent.sleep(0)
    assert reader.get(timeout=WAIT_S) == [Message(True, b"slowly")]


@pytest.mark.parametrize(("opcode", "is_text"), [(TEXT, True), (BINARY, False)])
def test_fragments_are_put_together_around_a_ping(ends: Ends, opcode: int, is_text: bool):
    web_socket, peer = ends
    peer.raw(masked(opcode, b"one ", fin=False) + masked(PING, b"!") + masked(CONT, b"two ", fin=False) + masked(CONT, b"three"))
    assert messages(web_socket, 1) == [Message(is_text, b"one two three")]
    assert peer.frame() == Frame(Opcode.PONG, b"!")
    peer.raw(masked(TEXT, b"next"))
    assert messages(web_socket, 1) == [Message(True, b"next")]


def test_endless_empty_fragments_take_no_memory_and_end(ends: Ends):
    web_socket, peer = ends
    peer.raw(masked(TEXT, b"", fin=False) + masked(CONT, b"", fin=False) * 1000)
    error = end_of(web_socket.read)
    assert isinstance(error, ProtocolError) and error.code == "frame_flood"
    assert len(web_socket._cutter._assembled) == 0
    assert closes(web_socket, peer) == (1008, "why")


def test_a_ping_is_answered(ends: Ends):
    web_socket, peer = ends
    peer.raw(masked(PING, b"are you there"))
    assert web_socket.read() == []
    assert peer.frame() == Frame(Opcode.PONG, b"are you there")
    peer.raw(masked(PONG, b"unasked"))
    assert web_socket.read() == []
    assert web_socket.is_open


def test_answered_pings_are_counted() -> None:
    ours, theirs = pair()
    counted: list[float] = []
    web_socket, peer = WebSocket(Transport(ours, 1 << 20), LIMIT_BYTES, is_client=False, on_pongs=counted.append), Peer(theirs)
    peer.raw(masked(PING, b"1") + masked(PONG, b"") + masked(PING, b"2"))
    assert web_socket.read() == []
    assert counted == [2]
    web_socket.transport.shut()
    peer.close()


def test_a_client_masks_each_frame_with_another_key():
    ours, theirs = pair()
    web_socket, peer = WebSocket(Transport(ours, 1 << 20), LIMIT_BYTES, is_client=True), Peer(theirs, Side.SERVER)
    for _ in range(1100):  # more than the keys of one system call
        web_socket.ping()
    web_socket.send_text(b"text")
    sent = read_all(theirs, 1100 * 6 + 10)
    assert len({sent[at + 2 : at + 6] for at in range(0, 1100 * 6, 6)}) > 1000
    peer.protocol.receive_data(sent)
    assert peer.protocol.events_received() == [Frame(Opcode.PING, b"")] * 1100 + [Frame(Opcode.TEXT, b"text")]
    web_socket.transport.shut()
    peer.close()


def test_a_wake_returns_nothing(ends: Ends):
    web_socket, peer = ends
    web_socket.transport.wake()
    assert web_socket.read() == []
    peer.send({"still": "open"})
    assert len(messages(web_socket, 1)) == 1


def test_bytes_behind_the_handshake_are_read_without_a_wait(ends: Ends):
    open_one, _ = ends
    web_socket = WebSocket(open_one.transport, LIMIT_BYTES, is_client=False, first=masked(TEXT, b"early"))
    with gevent.Timeout(WAIT_S):
        assert web_socket.read() == [Message(True, b"early")]


def test_send_text_returns_whether_the_kernel_took_it(ends: Ends):
    web_socket, peer = ends
    assert web_socket.send_text(b'{"a":1}') is True
    assert peer.text() == {"a": 1}
    while web_socket.send_text(b"x" * 1000):
        pass
    assert web_socket.transport.waiting_bytes > 0
    web_socket.close(1000, "")
    assert web_socket.send_text(b"late") is False


# -- violations -------------------------------------------------------------------------------------------------------

VIOLATIONS = {
    "unmasked": b"\x81\x02hi",
    "reserved bit": b"\xc1\x80" + bytes(4),
    "reserved opcode": masked(3, b""),
    "a long ping": masked(PING, b"x" * 126),
    "a fragmented ping": masked(PING, b"", fin=False),
    "a continuation of nothing": masked(CONT, b"x"),
    "a text inside a text": masked(TEXT, b"a", fin=False) + masked(TEXT, b"b"),
    "a close of one byte": masked(CLOSE, b"x"),
    "a close with a reserved code": masked(CLOSE, (1005).to_bytes(2, "big")),
}


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_violation_is_named_and_closes_with_1002(ends: Ends, data: bytes):
    web_socket, peer = ends
    peer.raw(data)
    error = end_of(web_socket.read)
    assert isinstance(error, ProtocolError)
    assert error.code == "bad_websocket"
    assert closes(web_socket, peer) == (1002, "why")


def test_a_close_reason_that_is_not_utf8(ends: Ends):
    web_socket, peer = ends
    peer.raw(masked(CLOSE, (1000).to_bytes(2, "big") + b"\xff"))
    error = end_of(web_socket.read)
    assert isinstance(error, ProtocolError)
    assert error.code == "bad_utf8"
    assert closes(web_socket, peer) == (1007, "why")


def long_header(opcode: int, length: int) -> bytes:
    return bytes([0x80 | opcode, 0xFF]) + length.to_bytes(8, "big") + bytes(4)


OVERSIZE = {
    "one message": masked(TEXT, b"x" * (LIMIT_BYTES + 1)),
    "fragments": masked(TEXT, b"x" * LIMIT_BYTES, fin=False) + masked(CONT, b"x"),
    "a promise of 8 GiB": long_header(TEXT, 8 << 30),
}


@pytest.mark.parametrize("data", OVERSIZE.values(), ids=OVERSIZE.keys())
def test_an_oversize_message_closes_with_1009(ends: Ends, data: bytes):
    web_socket, peer = ends
    peer.raw(data)
    error = end_of(web_socket.read)
    assert isinstance(error, ProtocolError)
    assert error.code == "oversize_message"
    assert closes(web_socket, peer) == (1009, "why")


def test_a_message_of_exactly_the_limit(ends: Ends):
    web_socket, peer = ends
    peer.raw(masked(TEXT, b"x" * LIMIT_BYTES))
    assert len(messages(web_socket, 1)[0].data) == LIMIT_BYTES


@pytest.mark.parametrize("ending", [masked(CLOSE, b""), b"\x81\x02hi", b""], ids=["close", "violation", "eof"])
def test_messages_before_the_end_come_first(ends: Ends, ending: bytes):
    web_socket, peer = ends
    peer.raw(masked(TEXT, b"one") + masked(TEXT, b"two") + ending)
    if not ending:
        peer.socket.shutdown(socket.SHUT_WR)
    assert [message.data for message in messages(web_socket, 2)] == [b"one", b"two"]
    assert isinstance(end_of(web_socket.read), LegClosedError if ending != b"\x81\x02hi" else ProtocolError)


# -- ends -------------------------------------------------------------------------------------------------------------


def test_a_clean_close_carries_code_and_reason_and_is_echoed(ends: Ends):
    web_socket, peer = ends
    peer.protocol.send_close(1001, "moving on")
    peer._flush()
    error = end_of(web_socket.read)
    assert isinstance(error, LegClosedError)
    assert (error.clean, error.close_code, error.close_reason, error.failure) == (True, 1001, "moving on", "")
    assert closes(web_socket, peer) == (1001, "moving on")


def test_a_close_without_a_code(ends: Ends):
    web_socket, peer = ends
    peer.raw(masked(CLOSE, b""))
    error = end_of(web_socket.read)
    assert isinstance(error, LegClosedError)
    assert (error.clean, error.close_code) == (True, 1005)
    closes(web_socket, peer)
    assert peer.frames == [Frame(Opcode.CLOSE, b"")]


def test_an_end_of_the_socket_is_not_a_clean_close(ends: Ends):
    web_socket, peer = ends
    peer.close()
    error = end_of(web_socket.read)
    assert isinstance(error, LegClosedError)
    assert (error.clean, error.close_code, error.failure) == (False, 1006, "")
    assert end_of(web_socket.read).args == error.args, "every later read raises the same"


def test_a_broken_transport_is_named(ends: Ends):
    web_socket, _ = ends
    web_socket.transport._limit_bytes = 10
    while not web_socket.transport.failure:
        web_socket.transport.write(b"x" * 1000)
    error = end_of(web_socket.read)
    assert isinstance(error, LegClosedError)
    assert (error.clean, error.failure) == (False, "stalled")


def test_a_close_is_read_although_a_write_found_the_connection_broken_first():
    ours, theirs = tcp_pair()
    web_socket, peer = (
        WebSocket(Transport(ours, 1 << 20), LIMIT_BYTES, is_client=False),
        Peer(theirs),
    )
    peer.raw(masked(TEXT, b"stop") + masked(CLOSE, b"\x03\xe8over"))
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()
    assert web_socket.send_text(b"a frame") is False
    assert web_socket.transport.failure == "broken"
    assert messages(web_socket, 1) == [Message(True, b"stop")]
    error = end_of(web_socket.read)
    assert isinstance(error, LegClosedError)
    assert (error.clean, error.close_code, error.close_reason) == (True, 1000, "over")
    web_socket.close(1000, "")


def test_close_sends_the_reason_and_waits_for_the_answer(ends: Ends):
    web_socket, peer = ends
    closing = gevent.spawn(web_socket.close, 1008, "start_timeout")
    assert peer.read_to_end() == (1008, "start_timeout")
    closing.get(timeout=WAIT_S)
    assert web_socket.transport.failure == "shut"
    web_socket.close(1000, "")


def test_close_drops_messages_before_the_answer(ends: Ends):
    web_socket, peer = ends
    for n in range(10):
        peer.send(media(n))
    closing = gevent.spawn(web_socket.close, 1000, "caller_hangup")
    assert peer.read_to_end() == (1000, "caller_hangup")
    closing.get(timeout=WAIT_S)


def test_the_peer_reads_the_end_right_behind_the_close_frame(ends: Ends, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT_S", WAIT_S)
    web_socket, peer = ends
    closing = gevent.spawn(web_socket.close, 1000, "over")
    assert peer.socket.recv(100) == b"\x88\x06\x03\xe8over"
    assert peer.socket.recv(100) == b""
    assert not closing.dead, "and is read until its own end"
    for _ in range(3):
        peer.raw(masked(TEXT, b"x" * 1000))
        gevent.sleep(0)
    peer.raw(masked(CLOSE, b"\x03\xe8"))
    peer.close()
    closing.get(timeout=WAIT_S)


def test_the_end_comes_behind_bytes_that_wait(ends: Ends):
    web_socket, peer = ends
    n_sent = 0
    while not web_socket.transport.waiting_bytes:
        web_socket.send_text(b"x" * 1000)
        n_sent += 1
    closing = gevent.spawn(web_socket.close, 1001, "")
    assert peer.read_to_end() == (1001, "")
    assert len(peer.frames) == n_sent + 1
    closing.get(timeout=WAIT_S)


def test_nothing_is_sent_behind_a_close_frame(ends: Ends):
    web_socket, peer = ends
    closing = gevent.spawn(web_socket.close, 1000, "")
    gevent.sleep(0)
    assert web_socket.send_text(b"late") is False
    web_socket.ping()
    assert peer.read_to_end() == (1000, "")
    assert len(peer.frames) == 1
    closing.get(timeout=WAIT_S)


def test_close_of_a_peer_that_never_answers_is_bounded(ends: Ends, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT_S", 0.05)
    web_socket, peer = ends
    with gevent.Timeout(WAIT_S):
        web_socket.close(1000, "")
    assert web_socket.transport.failure == "shut"
    assert peer.socket.recv(100), "the close frame"


def test_close_of_a_peer_that_sends_without_pause_is_bounded(ends: Ends, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT_S", 0.05)
    web_socket, peer = ends

    def talk() -> None:
        while True:
            peer.raw(masked(TEXT, b"x" * 1000) * 60)

    talking = gevent.spawn(talk)
    with gevent.Timeout(WAIT_S):
        web_socket.close(1000, "")
    assert web_socket.transport.failure == "shut"
    talking.kill()


def test_close_is_not_stopped_by_wakes(ends: Ends):
    web_socket, peer = ends
    web_socket.transport.wake()
    closing = gevent.spawn(web_socket.close, 1000, "")
    gevent.sleep(0)
    web_socket.transport.wake()
    gevent.sleep(0)
    assert not closing.dead
    assert peer.read_to_end()[0] == 1000
    closing.get(timeout=WAIT_S)


def test_a_long_reason_is_cut_to_what_a_close_frame_holds(ends: Ends):
    web_socket, peer = ends
    closing = gevent.spawn(web_socket.close, 1000, "x" * 500)
    assert peer.read_to_end() == (1000, "x" * 123)
    closing.get(timeout=WAIT_S)


def test_the_close_after_a_violation_is_sent_once(ends: Ends, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT_S", 0.05)
    web_socket, peer = ends
    peer.raw(VIOLATIONS["unmasked"])
    end_of(web_socket.read)
    closes(web_socket, peer)
    web_socket.close(1000, "")
    assert [frame.opcode for frame in peer.frames] == [Opcode.CLOSE]
    with pytest.raises(ConnectionClosedError):
        raise peer.protocol.close_exc


# -- floods -----------------------------------------------------------------------------------------------------------


def turns_of(web_socket: WebSocket, count: int) -> int:
    """Read `count` messages. Returns how often another greenlet ran meanwhile."""
    n_turns = 0

    def turn() -> None:
        nonlocal n_turns
        while True:
            n_turns += 1
            gevent.sleep(0)

    turning = gevent.spawn(turn)
    messages(web_socket, count)
    turning.kill()
    return n_turns


def test_the_hub_turns_within_a_read_of_small_messages(ends: Ends):
    web_socket, peer = ends
    count = 8192 // len(masked(TEXT, b""))
    peer.raw(masked(TEXT, b"") * count)
    assert turns_of(web_socket, count) >= count // MAX_FRAMES


def test_a_flood_of_pings_ends_the_connection(ends: Ends):
    web_socket, peer = ends
    peer.raw(masked(TEXT, b"before") + masked(PING, b"?") * 1000 + masked(TEXT, b"behind"))
    assert messages(web_socket, 1) == [Message(True, b"before")]
    error = end_of(web_socket.read)
    assert isinstance(error, ProtocolError) and error.code == "frame_flood"
    assert closes(web_socket, peer) == (1008, "why")
    full, rest = divmod(1 + FLOOD_BURST, MAX_FRAMES)  # slices with "before" in the first
    assert [frame.opcode for frame in peer.frames[:-1]] == [Opcode.PONG] * (MAX_PONGS * full + min(MAX_PONGS, rest))


def test_a_flood_of_small_messages_in_the_hub_continues_in_the_greenlet(ends: Ends):
    web_socket, peer = ends
    beside = Beside(web_socket, lambda event: False)
    sent = masked(TEXT, json.dumps(connected()).encode())
    count = 2 * MAX_FRAMES + 5
    whole = sent * count
    peer.raw(whole)
    until(lambda: len(beside.taken) + len(beside.returned) == count)
    assert len(beside.taken) >= MAX_FRAMES
    assert beside.error is None
    beside.greenlet.kill()


# -- typed messages ---------------------------------------------------------------------------------------------------


def test_the_reader_returns_typed_events(ends: Ends):
    web_socket, peer = ends
    reader = MessageReader(web_socket, twilio.parse)
    peer.send(connected())
    assert reader.read() == [twilio.Connected()]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (masked(TEXT, b"{"), "bad_json"),
        (masked(TEXT, b"\xff"), "bad_utf8"),
        (masked(BINARY, b"{}"), "binary_message"),
        (masked(TEXT, b'{"event":"media"}'), "missing_field"),
    ],
)
def test_events_before_a_broken_message_come_first(ends: Ends, broken: bytes, code: str):
    web_socket, peer = ends
    reader = MessageReader(web_socket, twilio.parse)
    good = masked(TEXT, b'{"event":"connected"}')
    peer.raw(good + good + broken + good)
    with gevent.Timeout(WAIT_S):
        assert reader.read() == [twilio.Connected(), twilio.Connected()]
        for _ in range(2):
            with pytest.raises(ProtocolError) as raised:
                reader.read()
            assert raised.value.code == code, "and no later message is read"


def test_a_broken_message_alone_is_raised_immediately(ends: Ends):
    web_socket, peer = ends
    peer.raw(masked(TEXT, b"[]"))
    with gevent.Timeout(WAIT_S), pytest.raises(ProtocolError) as raised:
        MessageReader(web_socket, twilio.parse).read()
    assert raised.value.code == "bad_json"


# -- in the hub, while the reader waits ---------------------------------------------------------------------------------------


class Beside:
    """Reader whose events are offered in the hub's callback first."""

    def __init__(self, web_socket: WebSocket, leaves: Callable[[twilio.TwilioEvent], bool]) -> None:
        self.reader = MessageReader(web_socket, twilio.parse)
        self._leaves = leaves
        self.taken: list[twilio.TwilioEvent] = []
        self.in_greenlet: list[bool] = []
        self.returned: list[twilio.TwilioEvent] = []
        self.error: Exception | None = None
        self.greenlet = gevent.spawn(self._run)
        gevent.sleep(0)

    def _run(self) -> None:
        try:
            while True:
                self.returned += self.reader.read_beside(self._take)
        except (LegClosedError, ProtocolError, ZeroDivisionError) as error:
            self.error = error

    def _take(self, event: twilio.TwilioEvent) -> bool:
        self.in_greenlet.append(gevent.getcurrent() is not gevent.get_hub())
        if self._leaves(event):
            return False
        self.taken.append(event)
        return True

    def end(self) -> Exception:
        self.greenlet.join(timeout=WAIT_S)
        assert self.error is not None
        return self.error


def is_connected(event: twilio.TwilioEvent) -> bool:
    return isinstance(event, twilio.Connected)


def test_events_taken_in_the_hub_do_not_reach_the_greenlet(ends: Ends):
    web_socket, peer = ends
    beside = Beside(web_socket, is_connected)
    for n in range(30):
        peer.send(media(n))
    until(lambda: len(beside.taken) == 30)
    assert beside.returned == []
    assert not any(beside.in_greenlet)
    beside.greenlet.kill()


def test_a_long_message_is_parsed_in_pieces_and_the_hub_turns_between_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(websocket, "LONG_BYTES", 10)
    ours, theirs = pair()

    def split(data: bytes | bytearray) -> Iterator[bytes]:
        for at in range(0, len(data), 4):
            yield bytes(data[at : at + 4])

    reader = MessageReader(WebSocket(Transport(ours, 1 << 20), LIMIT_BYTES, is_client=True), bytes.upper, split)
    theirs.sendall(b"".join(map(text_message, (b"short", b"a long message", b"next"))) + b"\x88\x00")
    reads: list[list[bytes]] = []
    n_turns = []
    with gevent.Timeout(WAIT_S), pytest.raises(LegClosedError):
        while True:
            waiting = gevent.spawn(n_turns.append, 1)
            reads.append(reader.read())
            assert waiting.dead
    assert reads == [[b"SHORT"], [b"A LO"], [b"NG M"], [b"ESSA"], [b"GE"], [b"NEXT"]]
    theirs.close()


def test_events_keep_their_sequence_from_the_first_that_is_left(ends: Ends):
    web_socket, peer = ends
    beside = Beside(web_socket, is_connected)
    peer.raw(b"".join(masked(TEXT, json.dumps(message).encode()) for message in (media(1), connected(), media(2))))
    until(lambda: len(beside.returned) == 2)
    assert [type(event) for event in beside.taken] == [twilio.Media]
    assert [type(event) for event in beside.returned] == [twilio.Connected, twilio.Media]
    beside.greenlet.kill()


def test_a_broken_message_ends_the_reader_after_earlier_events(ends: Ends):
    web_socket, peer = ends
    beside = Beside(web_socket, is_connected)
    peer.raw(masked(TEXT, json.dumps(connected()).encode()) + masked(TEXT, b"{"))
    error = beside.end()
    assert isinstance(error, ProtocolError) and error.code == "bad_json"
    assert len(beside.returned) == 1


def test_an_error_of_take_is_raised_by_the_reader(ends: Ends):
    web_socket, peer = ends
    beside = Beside(web_socket, lambda event: 1 // 0 == 0)
    peer.send(media(1))
    assert isinstance(beside.end(), ZeroDivisionError)


def test_a_take_that_would_wait_is_stopped(ends: Ends):
    """gevent refuses to switch away from the hub: the mistake is an error of this reader alone."""
    web_socket, peer = ends

    def wait(event: twilio.TwilioEvent) -> bool:
        try:
            gevent.sleep(0.001)
        except AssertionError as error:
            raise ZeroDivisionError from error
        return True

    beside = Beside(web_socket, wait)
    peer.send(media(1))
    assert isinstance(beside.end(), ZeroDivisionError)


def test_a_close_and_messages_in_one_read(ends: Ends):
    web_socket, peer = ends
    beside = Beside(web_socket, is_connected)
    peer.raw(masked(TEXT, json.dumps(media(1)).encode()) + masked(CLOSE, b"\x03\xe8"))
    error = beside.end()
    assert isinstance(error, LegClosedError) and error.clean
    assert len(beside.returned) == 1, "messages before the close are returned"


def test_a_ping_is_answered_without_the_greenlet(ends: Ends):
    web_socket, peer = ends
    beside = Beside(web_socket, is_connected)
    peer.raw(masked(PING, b"?"))
    assert peer.frame() == Frame(Opcode.PONG, b"?")
    beside.greenlet.kill()


def test_a_wake_and_a_transport_that_breaks_lose_no_event(ends: Ends):
    web_socket, peer = ends

    def leave_and_break(event: twilio.TwilioEvent) -> bool:
        web_socket.transport.fail("broken", "just now")
        return True

    beside = Beside(web_socket, leave_and_break)
    peer.send(connected())
    error = beside.end()
    assert isinstance(error, LegClosedError) and error.failure == "broken"
    assert len(beside.returned) == 1
