"""gw.media.ai.openai_leg against the AI twin and broken peers: each failure has its own reason."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer
from websockets.protocol import Side

from gw.call.limits import AI_BURST_BYTES, AI_BYTES_PER_S
from gw.call.state import Reason
from gw.config import MAX_RESULT_BYTES, Agent
from gw.errors import ProtocolError
from gw.media.ai import openai_leg
from gw.media.ai.leg import AiLegError
from gw.media.ai.openai_leg import (
    MAX_MESSAGE_BYTES,
    MAX_WAITING_BYTES,
    OpenAiLeg,
    _parse,
)
from gw.media.transport.plain import READ_BYTES
from gw.protocol import ai
from gw.protocol.websocket.frames import CLOSE, close_payload, frame, text_message
from gw.twin.ai.script import AiScript, Fault
from gw.twin.ai.server import AiTwin
from tests.gw.media.certificates import contexts
from tests.gw.media.support import EARLY_AUDIO, WAIT_S, Peer, descriptors, until, upgrade, upgrade_and_send

SOUND = bytes(n % 255 for n in range(40_000))
NO_TLS = ssl.create_default_context()


def leg_to(url: str, **changes: str) -> OpenAiLeg:
    return OpenAiLeg(Agent(base_url=url, **changes), "sk-test", NO_TLS)  # type: ignore[arg-type]


def read_until(leg: OpenAiLeg, kind: type) -> list[ai.AiEvent]:
    """Read events up to the first of a kind."""
    got: list[ai.AiEvent] = []
    with gevent.Timeout(WAIT_S):
        while not any(isinstance(event, kind) for event in got):
            got += leg.read()
    return got


def test_a_session_with_a_response_as_both_ends_see_it():
    with AiTwin(AiScript(answers=(SOUND,), speed=1000.0)) as twin:
        leg = leg_to(twin.url, model="some-model")
        leg.connect()
        assert isinstance(read_until(leg, ai.SessionReady)[0], ai.SessionCreated)
        leg.send_audio(base64.b64encode(b"\x00" * 160).decode())
        leg.say("caller", "Hello?", "item_of_ours")
        leg.say("system", "Greet.")
        leg.create_response()
        events = read_until(leg, ai.ResponseDone)
        assert b"".join(event.audio for event in events if isinstance(event, ai.AudioDelta)) == SOUND
        item = next(event.item_id for event in events if isinstance(event, ai.AudioDelta))
        leg.truncate(item, 20)
        leg.send_keys("512")
        leg.delete_item("item_of_ours")
        leg.cancel()
        error = next(event for event in read_until(leg, ai.AiError) if isinstance(event, ai.AiError))
        assert (error.code, error.trouble, error.fatal) == ("response_cancel_not_active", "", False)
        leg.tool_output("call_1", "{}")
        leg.close()
        until(lambda: twin.sessions[0].closed_s)
        ledger = twin.sessions[0]
        assert ledger.model == "some-model"
        assert bytes(ledger.uplink) == b"\x00" * 160
        assert ledger.truncates[0].accepted
        assert ledger.closed_by == "peer"
        assert ledger.close_code == 1000


def test_close_is_idempotent_and_leaves_no_descriptor():
    with AiTwin(AiScript()) as twin:
        before = descriptors()
        for _ in range(5):
            leg = leg_to(twin.url)
            leg.connect()
            leg.close()
            leg.close()
        until(lambda: all(ledger.closed_s for ledger in twin.sessions))
        until(lambda: descriptors() <= before, "descriptors are left")


def test_close_before_connect():
    leg = leg_to("ws://127.0.0.1:1/")
    leg.wake()
    leg.send_audio("AAAA")
    assert not leg.is_congested
    leg.close()


def test_wake_makes_the_reader_return():
    with AiTwin(AiScript()) as twin:
        leg = leg_to(twin.url)
        leg.connect()
        read_until(leg, ai.SessionReady)
        reader = gevent.spawn(leg.read)
        gevent.sleep(0.01)
        leg.wake()
        assert reader.get(timeout=WAIT_S) == []
        leg.close()


# -- connections that fail ------------------------------------------------------------------------------------


def error_of(act: Callable[[], object]) -> AiLegError:
    with gevent.Timeout(WAIT_S), pytest.raises(AiLegError) as raised:
        while True:
            act()
    return raised.value


def test_a_port_without_a_listener():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    leg = leg_to(f"ws://127.0.0.1:{sock.getsockname()[1]}/")
    error = error_of(leg.connect)
    assert error.reason is Reason.AI_UNREACHABLE
    assert "127.0.0.1" in error.detail
    leg.close()
    sock.close()


def test_a_name_that_dns_cannot_carry():
    leg = leg_to(f"ws://{'a' * 70}.example/")
    assert error_of(leg.connect).reason is Reason.AI_UNREACHABLE


@pytest.mark.parametrize(("fault", "status"), [("refuse_401", 401), ("refuse_403", 403), ("refuse_500", 500)])
def test_an_http_refusal(fault: Fault, status: int):
    with AiTwin(AiScript(fault=fault)) as twin:
        leg = leg_to(twin.url)
        error = error_of(leg.connect)
        assert error.reason is Reason.AI_REFUSED
        assert str(status) in error.detail
        leg.close()


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """Starts servers that answer any request with fixed bytes and close; returns their URLs."""
    servers = []

    def serve(answer: bytes) -> str:
        def handle(sock: socket.socket, address: tuple[str, int]) -> None:
            sock.recv(65536)
            sock.sendall(answer)
            sock.shutdown(socket.SHUT_WR)
            with gevent.Timeout(WAIT_S, False):
                while sock.recv(65536):
                    pass
            sock.close()

        server = StreamServer(("127.0.0.1", 0), handle)
        server.start()
        servers.append(server)
        return f"ws://127.0.0.1:{server.server_port}/"

    yield serve
    for server in servers:
        server.stop(timeout=0.1)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", Reason.AI_REFUSED),
        (b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n<html>away</html>", Reason.AI_REFUSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Reason.AI_REFUSED),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", Reason.AI_REFUSED),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Reason.AI_REFUSED),
        (b"\x00" * 100 + b"\r\n", Reason.AI_REFUSED),
        (b"HTTP/1.1 101 Swi", Reason.AI_LOST),
        (b"", Reason.AI_LOST),
    ],
    ids=["with a length", "up to the end", "200", "no accept key", "ssh", "zeros", "cut off", "nothing"],
)
def test_an_answer_that_does_not_upgrade(answering: Callable[[bytes], str], answer: bytes, reason: Reason):
    leg = leg_to(answering(answer))
    assert error_of(leg.connect).reason is reason
    leg.close()


def test_a_connection_given_up_during_the_handshake():
    with AiTwin(AiScript(fault="mute")) as twin:
        leg = leg_to(twin.url)
        connecting = gevent.spawn(error_of, leg.connect)
        until(lambda: leg.transport is not None)
        gevent.sleep(0.01)
        leg.wake()
        assert connecting.get(timeout=WAIT_S).reason is Reason.AI_LOST
        leg.close()


def test_over_tls_with_a_certificate_that_is_trusted_or_not(tmp_path: Path):
    server_context, client_context = contexts(tmp_path)
    with AiTwin(AiScript()) as twin:
        host, port = twin.address

        def relay(sock: ssl.SSLSocket, address: tuple[str, int]) -> None:
            """Relay TLS connections to the twin."""
            behind = socket.create_connection((host, port))

            def pump(source: socket.socket, target: socket.socket) -> None:
                try:
                    while data := source.recv(65536):
                        target.sendall(data)
                    target.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # the other side closed first

            gevent.joinall([gevent.spawn(pump, sock, behind), gevent.spawn(pump, behind, sock)])
            behind.close()

        tls = StreamServer(("127.0.0.1", 0), relay, ssl_context=server_context)
        tls.start()
        agent = Agent(base_url=f"wss://localhost:{tls.server_port}/v1")
        leg = OpenAiLeg(agent, "sk-test", client_context)
        leg.connect()
        read_until(leg, ai.SessionReady)
        leg.close()
        stranger = OpenAiLeg(agent, "sk-test", ssl.create_default_context())
        error = error_of(stranger.connect)
        assert error.reason is Reason.AI_UNREACHABLE
        assert "TLS" in error.detail
        stranger.close()
        tls.stop(timeout=0.1)


# -- sessions that fail ----------------------------------------------------------------------------------------

RESPONSE_FAULTS: dict[Fault, Reason] = {
    "close": Reason.AI_CLOSED,
    "reset": Reason.AI_LOST,
    "bad_utf8": Reason.AI_BAD_UTF8,
    "binary_message": Reason.AI_BINARY_MESSAGE,
    "oversize_message": Reason.AI_OVERSIZE_MESSAGE,
    "bad_websocket": Reason.AI_BAD_WEBSOCKET,
}


@pytest.mark.parametrize(("fault", "reason"), RESPONSE_FAULTS.items())
def test_a_fault_in_a_response(fault: Fault, reason: Reason):
    with AiTwin(AiScript(answers=(SOUND,), speed=1000.0).with_fault(fault)) as twin:
        leg = leg_to(twin.url)
        leg.connect()
        read_until(leg, ai.SessionReady)
        leg.create_response()
        heard: list[ai.AiEvent] = []
        assert error_of(lambda: heard.extend(leg.read())).reason is reason
        audio = b"".join(event.audio for event in heard if isinstance(event, ai.AudioDelta))
        assert audio, "audio before the fault was returned"
        assert SOUND.startswith(audio)
        leg.close()


@pytest.mark.parametrize(
    ("fault", "reason"), [("close_first", Reason.AI_CLOSED), ("wrong_format", Reason.AI_WRONG_FORMAT)], ids=str
)
def test_a_session_that_never_opens(fault: Fault, reason: Reason):
    with AiTwin(AiScript(fault=fault)) as twin:
        leg = leg_to(twin.url)
        leg.connect()
        assert error_of(leg.read).reason is reason
        leg.close()


@pytest.mark.parametrize("char", ["x", '"', "\x00"])
def test_the_longest_output_of_a_tool_fits(char: str):
    with AiTwin(AiScript()) as twin:
        leg = leg_to(twin.url)
        leg.connect()
        leg.state_call("call_1", "lookup", "{}")
        leg.tool_output("call_1", char * MAX_RESULT_BYTES)
        until(lambda: twin.sessions[0].tool_outputs)
        assert twin.sessions[0].tool_outputs[0]["output"] == char * MAX_RESULT_BYTES
        leg.close()


def test_an_ai_that_does_not_read_is_congested_then_stalled():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.listen(1)
    answered = gevent.spawn(upgrade_and_send, listener, b"")
    leg = leg_to(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
    leg.connect()
    frame = base64.b64encode(b"\xff" * 160).decode()
    while not leg.is_congested:
        leg.send_audio(frame)
    assert leg.transport is not None
    assert leg.transport.failure == ""
    while not leg.transport.failure:
        assert leg.transport.waiting_bytes <= MAX_WAITING_BYTES
        leg.send_audio(frame)
    assert error_of(leg.read).reason is Reason.AI_LEG_STALLED
    assert not leg.is_congested
    leg.send_audio(frame)
    leg.close()
    answered.kill()
    listener.close()


@pytest.mark.parametrize(
    ("data", "reason", "code"),
    [
        (b"\x81\x80" + bytes(4), Reason.AI_BAD_WEBSOCKET, 1002),
        (b"\x82\x02{}", Reason.AI_BINARY_MESSAGE, 1003),
        (b"\x81\x02\xff\xff", Reason.AI_BAD_UTF8, 1007),
        (b'\x81\x1f{"type":"response.audio.delta"}', Reason.AI_WRONG_FORMAT, 1007),
        (b"\x89\x00" * 200, Reason.AI_FRAME_FLOOD, 1008),
        (b"\x81\x7f" + (MAX_MESSAGE_BYTES + 1).to_bytes(8), Reason.AI_OVERSIZE_MESSAGE, 1009),
        (b"\x88\x02\x0f\xa0", Reason.AI_CLOSED, 4000),
    ],
    ids=["masked", "binary", "no UTF-8", "beta", "pings", "too long", "a close"],
)
def test_the_ai_reads_why_the_leg_closes(data: bytes, reason: Reason, code: int):
    listener = socket.create_server(("127.0.0.1", 0))
    leg = leg_to(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
    connecting = gevent.spawn(leg.connect)
    sock, _ = listener.accept()
    upgrade(sock)
    connecting.get(timeout=WAIT_S)
    peer = Peer(sock, Side.SERVER)
    peer.raw(data)
    assert error_of(leg.read).reason is reason
    closing = gevent.spawn(leg.close)
    assert peer.read_to_end() == (code, "")
    closing.get(timeout=WAIT_S)
    peer.close()
    listener.close()


@pytest.mark.parametrize(
    ("code", "text", "permanent", "expired"),
    [
        (1000, "", False, False),
        (1001, "", False, False),
        (1001, "Your session hit the maximum duration of 60 minutes.", False, True),
        (1011, "internal error", False, False),
        (4000, "invalid_request_error.beta_api_shape_disabled", True, False),
        (4001, "session_expired", False, True),
    ],
)
def test_a_close_is_final_or_another_session_may_last(code: int, text: str, permanent: bool, expired: bool):
    listener = socket.create_server(("127.0.0.1", 0))
    leg = leg_to(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
    connecting = gevent.spawn(leg.connect)
    sock, _ = listener.accept()
    upgrade(sock)
    sock.sendall(frame(CLOSE, close_payload(code, text)))
    connecting.get(timeout=WAIT_S)
    error = error_of(leg.read)
    assert (error.reason, error.permanent, error.expired) == (Reason.AI_CLOSED, permanent, expired)
    sock.close()
    leg.close()
    listener.close()


def test_a_refusal_for_now_names_the_pause():
    listener = socket.create_server(("127.0.0.1", 0))
    leg = leg_to(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
    connecting = gevent.spawn(error_of, leg.connect)
    sock, _ = listener.accept()
    sock.sendall(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\n\r\n")
    error = connecting.get(timeout=WAIT_S)
    assert (error.reason, error.permanent, error.wait_ms) == (Reason.AI_RATE_LIMITED, False, 3000)
    sock.close()
    leg.close()
    listener.close()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"{", "bad_json"),
        (b'{"type":5}', "bad_type"),
        (b'{"type":"response.output_item.done"}', "missing_field"),
        (b'{"type":"response.output_audio.delta","item_id":"i","delta":"?"}', "bad_base64"),
    ],
)
def test_an_unreadable_event_costs_itself(data: bytes, code: str):
    for _ in range(20):
        event = _parse(data)
        assert isinstance(event, ai.Unreadable) and event.code == code


def test_another_format_is_never_skipped():
    with pytest.raises(ProtocolError) as raised:
        _parse(b'{"type":"response.audio.delta"}')
    assert raised.value.code == "wrong_format"


def test_a_long_delta_arrives_in_pieces():
    sound = SOUND * 16
    delta = {"type": "response.output_audio.delta", "response_id": "r", "item_id": "i", "delta": base64.b64encode(sound).decode()}
    listener = socket.create_server(("127.0.0.1", 0))
    answered = gevent.spawn(upgrade_and_send, listener, json.dumps(delta).encode())
    leg = leg_to(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
    leg.connect()
    heard: list[bytes] = []
    with gevent.Timeout(WAIT_S):
        while sum(map(len, heard)) < len(sound):
            heard += [event.audio for event in leg.read() if isinstance(event, ai.AudioDelta)]
    assert b"".join(heard) == sound
    assert max(map(len, heard)) < 40_000
    answered.kill()
    leg.close()
    listener.close()


def test_a_very_long_event_is_skipped_and_a_sign_of_life(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(openai_leg, "ai_reads", lambda: None)  # it would take a quarter of a minute
    item = {"id": "i", "type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "A" * (15 << 20)}]}
    listener = socket.create_server(("127.0.0.1", 0))
    leg = leg_to(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
    connecting = gevent.spawn(leg.connect)
    sock, _ = listener.accept()
    upgrade(sock)
    connecting.get(timeout=WAIT_S)
    behind = b'{"type":"input_audio_buffer.speech_stopped","item_id":"i"}'
    long = json.dumps({"type": "conversation.item.added", "item": item}).encode()
    sending = gevent.spawn(sock.sendall, text_message(long) + text_message(behind))
    events: list[ai.AiEvent] = []
    with gevent.Timeout(WAIT_S):
        while ai.SpeechStopped("i") not in events:
            events += leg.read()
    *alive, _ = events
    assert len(alive) > 1
    assert set(alive) == {ai.ResponseAlive("")}
    sending.get(timeout=WAIT_S)
    sock.close()
    leg.close()
    listener.close()


def test_an_event_right_behind_the_upgrade_is_read():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    answered = gevent.spawn(upgrade_and_send, listener, EARLY_AUDIO)
    leg = leg_to(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
    leg.connect()
    assert read_until(leg, ai.AudioDelta) == [ai.AudioDelta("r", "i", bytes(3))]
    answered.kill()
    leg.close()
    listener.close()


def test_an_ai_without_tls_is_read_at_the_same_rate():
    delta = {"type": "response.output_audio.delta", "response_id": "r", "item_id": "i", "delta": base64.b64encode(SOUND).decode()}
    message = text_message(json.dumps(delta).encode())
    surplus = AI_BYTES_PER_S // 4
    n_messages = (AI_BURST_BYTES + surplus) // len(message) + 1

    def flood(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        upgrade(sock)
        sock.sendall(message * n_messages)
        gevent.sleep(WAIT_S)

    listener = socket.create_server(("127.0.0.1", 0))
    flooding = gevent.spawn(flood, listener)
    leg = leg_to(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
    leg.connect()
    n_bytes, began_s = 0, time.monotonic()
    with gevent.Timeout(WAIT_S):
        while n_bytes < n_messages * len(SOUND):
            n_bytes += sum(len(event.audio) for event in leg.read() if isinstance(event, ai.AudioDelta))
    assert time.monotonic() - began_s > (surplus - READ_BYTES) / AI_BYTES_PER_S
    flooding.kill()
    leg.close()
    listener.close()
