"""The attacks, one function each, and the process that runs them.

Run as `python -m tests.hostile.attacks`: attacks and their targets come as JSON on stdin, then the order `run`. The process has a
lower priority, so that it uses what the load and the gateway leave.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

from gw.bench.load.wire import PING
from gw.twin.twilio.messages import MessageWriter
from tests.hostile.attacker import Attacker, Target, event, frame, masked

Run = Callable[[Attacker], None]

_PONG: Final = 10
_CHUNK: Final = 32 << 10
_HOST: Final = b"Host: 127.0.0.1\r\n"
_FORM: Final = b"Content-Type: application/x-www-form-urlencoded\r\n"
_WRONG: Final = b"X-Twilio-Signature: " + base64.b64encode(b"\0" * 20) + b"\r\n"
_UPGRADE: Final = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)
_HALF: Final = b"GET /healthz HTTP/1.1\r\n" + _HOST + b"X-Half: "
_SILENCE: Final = base64.b64encode(b"\xff" * 160).decode()


# -- strangers ------------------------------------------------------------------------------------------------------------


def half_open(a: Attacker) -> None:
    """Send half a head on 400 connections, and wait for the time limit."""
    a.hold(a.many(400), _HALF)


def half_reset(a: Attacker) -> None:
    """Send half heads in groups of 100, and reset the whole group together."""
    for _ in a.paced(4.0):
        group = []
        for _ in range(a.many(100)):
            sock = a.connect()
            sock.sendall(_HALF)
            group.append(sock)
        time.sleep(0.05)
        for sock in group:
            a.reset(sock)
        a.note("refused", len(group))


def half_closed(a: Attacker) -> None:
    """End each head in its middle with an orderly close."""
    for _ in a.paced(200.0):
        with a.connect() as sock:
            sock.sendall(_HALF)
        a.note("refused")


def slowloris(a: Attacker) -> None:
    """Send one byte of a head every half second, on 300 connections."""
    a.hold(a.many(300), _HALF, drip=b"a")


def idle(a: Attacker) -> None:
    """Open 3,000 connections and send nothing."""
    a.hold(a.many(3000), b"")


def idle_spread(a: Attacker) -> None:
    """Open 3,000 silent connections from 250 addresses."""
    a.hold(a.many(3000), b"", spread=True)


def idle_ops(a: Attacker) -> None:
    """Hold 100 silent connections at the operator's port."""
    a.hold(a.many(100), b"", port=a.target.ops_port)


def slow_body(a: Attacker) -> None:
    """Announce a form, and send one byte of it every half second."""
    head = b"POST /twilio/voice HTTP/1.1\r\n" + _HOST + _FORM + _WRONG + b"Content-Length: 4000\r\n\r\n"
    a.hold(a.many(200), head, drip=b"a")


def churn(a: Attacker) -> None:
    """Connect and close immediately, 500 times a second."""
    for _ in a.paced(500.0):
        a.connect().close()
        a.note("connected")


def header_bomb(a: Attacker) -> None:
    """Send 1,000 fields, or one of 60 KB."""
    many = b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(1000))
    long = b"X-Long: " + b"a" * (60 << 10) + b"\r\n"
    for n in a.paced(100.0):
        a.request(b"GET /healthz HTTP/1.1\r\n" + _HOST + (many, long)[n % 2] + b"\r\n")


def long_target(a: Attacker) -> None:
    """Ask for a path of 30 KB."""
    for _ in a.paced(100.0):
        a.request(b"GET /" + b"a" * (30 << 10) + b" HTTP/1.1\r\n" + _HOST + b"\r\n")


def big_form(a: Attacker) -> None:
    """Send forms of 15 KB and 60 KB of escapes with a wrong signature."""
    forms = [b"Body=" + quote("\u00e9" * (size // 6)).encode() for size in (15 << 10, 60 << 10)]
    for n in a.paced(60.0):
        body = forms[n % 2]
        head = b"POST /twilio/status HTTP/1.1\r\n" + _HOST + _FORM + _WRONG
        a.request(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def unsigned(a: Attacker) -> None:
    """Post webhooks without a signature, 200 a second."""
    body = b"CallSid=CA" + b"0" * 32 + b"&AccountSid=AC" + b"0" * 32
    head = b"POST /twilio/voice HTTP/1.1\r\n" + _HOST + _FORM + b"Content-Length: %d\r\n\r\n" % len(body)
    for _ in a.paced(200.0):
        a.request(head + body)


def chunked(a: Attacker) -> None:
    """Send chunked bodies of one-byte chunks that never end."""
    head = b"POST /twilio/status HTTP/1.1\r\n" + _HOST + _FORM + _WRONG + b"Transfer-Encoding: chunked\r\n\r\n"
    for _ in a.paced(60.0):
        a.request(head + b"1\r\na\r\n" * 10_000)


def smuggled(a: Attacker) -> None:
    """Send requests with two lengths, two hosts, or none."""
    heads = (
        _HOST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        _HOST + b"Content-Length: 4\r\nContent-Length: 5\r\n",
        _HOST + b"Host: other\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\n",
        _HOST + b"Content-Length: +4\r\n",
        _HOST + b"X: a\r\n b\r\n",
    )
    for n in a.paced(200.0):
        a.request(b"POST /twilio/status HTTP/1.1\r\n" + heads[n % len(heads)] + b"\r\nabcd")


def pipelined(a: Attacker) -> None:
    """Send 500 requests for unknown paths together on one connection."""
    one = b"GET /nothing HTTP/1.1\r\n" + _HOST + b"\r\n"
    for _ in a.paced(10.0):
        a.request(one * 500)


def unread(a: Attacker) -> None:
    """Ask again and again without reading the answers, on 50 connections."""
    one = b"GET /healthz HTTP/1.1\r\n" + _HOST + b"\r\n"
    sockets = []
    for _ in range(a.many(50)):
        sock = a.connect()
        sock.setblocking(False)
        sockets.append(sock)
    for _ in a.paced(20.0):
        for sock in sockets:
            try:
                a.note("bytes", sock.send(one * 100))
            except BlockingIOError:
                a.note("full")
            except OSError:
                a.note("closed")
    for sock in sockets:
        sock.close()


def bad_upgrade(a: Attacker) -> None:
    """Ask for the media websocket without a signature, key, version or host."""
    media = b"GET /media HTTP/1.1\r\n"
    requests = (
        media + _HOST + _UPGRADE,
        media + _HOST + _UPGRADE + _WRONG,
        media + _UPGRADE + _WRONG,
        media + _HOST + _UPGRADE.replace(b"Version: 13", b"Version: 8"),
        media + _HOST + _UPGRADE.replace(b"MDEyMzQ1Njc4OWFiY2RlZg==", b"short"),
        media + _HOST + b"Connection: Upgrade\r\n",
    )
    for n in a.paced(200.0):
        a.request(requests[n % len(requests)] + b"\r\n")


def tls_hello(a: Attacker) -> None:
    """Speak TLS to the plain port, and go when no TLS comes back."""
    hello = bytes.fromhex("16030100c8010000c40303") + b"\x5a" * 194
    for _ in a.paced(200.0):
        with a.connect() as sock:
            sock.sendall(hello)
            sock.settimeout(0.1)
            with suppress(OSError):
                sock.recv(100)
        a.note("refused")


def garbage(a: Attacker) -> None:
    """Send 8 KB of random bytes."""
    for _ in a.paced(100.0):
        a.request(os.urandom(8192))


# -- telephones -----------------------------------------------------------------------------------------------------------


def _same(chunk: bytes) -> Callable[[Any], Iterator[bytes]]:
    """Return a flood that repeats one chunk."""

    def flood(_: Any = None) -> Iterator[bytes]:
        while True:
            yield chunk

    return flood


def _frames(one: bytes) -> bytes:
    return one * max(1, _CHUNK // len(one))


def phone_pings(a: Attacker) -> None:
    """Send empty pings without a pause."""
    a.telephones(a.many(5), _same(_frames(masked(b"", PING))))


def phone_pongs(a: Attacker) -> None:
    """Send empty pongs without a pause."""
    a.telephones(a.many(5), _same(_frames(masked(b"", _PONG))))


def phone_fragments(a: Attacker) -> None:
    """Send one message in empty fragments."""

    def flood(_: MessageWriter) -> Iterator[bytes]:
        yield masked(b"{", 1, fin=False)
        while True:
            yield _frames(masked(b"", 0, fin=False))

    a.telephones(a.many(5), flood)


def phone_marks(a: Attacker) -> None:
    """Echo marks that were never sent."""
    a.telephones(a.many(5), lambda writer: _repeat(lambda: masked(writer.mark("never-sent"))))


def phone_keys(a: Attacker) -> None:
    """Press keys without a pause."""
    a.telephones(a.many(5), lambda writer: _repeat(lambda: masked(writer.dtmf("7"))))


def _repeat(build: Callable[[], bytes]) -> Iterator[bytes]:
    while True:
        yield b"".join(build() for _ in range(100))


def phone_surplus(a: Attacker) -> None:
    """Send audio as fast as the gateway takes it."""
    a.telephones(a.many(5), lambda writer: _repeat(lambda: masked(writer.media(b"\xff" * 160, 0))))


def phone_depth(a: Attacker) -> None:
    """Send JSON that is 30,000 levels deep."""
    a.telephones(a.many(5), _same(masked(b'{"event":"media","media":' + b"[" * 30_000)))


def phone_base64(a: Attacker) -> None:
    """Send payloads of 60 KB of base64, every second one invalid at its end."""
    good = base64.b64encode(b"\xff" * 45_000)

    def flood(writer: MessageWriter) -> Iterator[bytes]:
        whole = writer.media(b"\xff" * 160, 0)
        for payload in (good, good, good[:-1] + b"!"):
            yield masked(whole.replace(_SILENCE.encode(), payload))

    a.telephones(a.many(5), flood)


def phone_bytes(a: Attacker) -> None:
    """Send messages in frames of one byte."""

    def flood(writer: MessageWriter) -> Iterator[bytes]:
        while True:
            body = writer.mark("never-sent")
            parts = [masked(body[n : n + 1], 0 if n else 1, fin=n == len(body) - 1) for n in range(len(body))]
            yield b"".join(parts) * 20

    a.telephones(a.many(5), flood)


# -- AIs ------------------------------------------------------------------------------------------------------------------

_IDS: Final = {"response_id": "resp_h", "item_id": "item_h", "output_index": 0, "content_index": 0}
_CREATED: Final = event("response.created", response={"id": "resp_h", "status": "in_progress"})


def _delta(audio: bytes) -> bytes:
    return event("response.output_audio.delta", delta=base64.b64encode(audio).decode(), **_IDS)


def _answering(*chunks: bytes) -> Callable[[], Iterator[bytes]]:
    """Return a flood that begins a response and then repeats the last chunk."""

    def flood() -> Iterator[bytes]:
        yield _CREATED
        yield from chunks[:-1]
        while True:
            yield chunks[-1]

    return flood


def ai_minutes(a: Attacker) -> None:
    """Answer with ten minutes of audio in one second."""

    def flood() -> Iterator[bytes]:
        yield _CREATED
        for _ in range(600):
            yield _delta(b"\x5a" * 8000)

    a.artificial(a.many(5), flood)


def ai_bytes(a: Attacker) -> None:
    """Answer in deltas of one byte."""
    a.artificial(a.many(5), _answering(_frames(_delta(b"\x5a"))))


def ai_big_delta(a: Attacker) -> None:
    """Answer with deltas of 1 MB."""
    a.artificial(a.many(3), _answering(_delta(b"\x5a" * (700 << 10))))


def ai_clears(a: Attacker) -> None:
    """Report the caller's speech thousands of times, with audio in between."""
    started = event("input_audio_buffer.speech_started", item_id="caller_h", audio_start_ms=0)
    a.artificial(a.many(5), _answering((started + _delta(b"\x5a" * 160)) * 50))


def ai_pings(a: Attacker) -> None:
    """Send empty pings without a pause."""
    a.artificial(a.many(5), _answering(_frames(frame(b"", PING))))


def ai_pongs(a: Attacker) -> None:
    """Send empty pongs without a pause."""
    a.artificial(a.many(5), _answering(_frames(frame(b"", _PONG))))


def ai_fragments(a: Attacker) -> None:
    """Send one message in empty fragments."""
    a.artificial(a.many(5), _answering(frame(b"{", 1, fin=False), _frames(frame(b"", 0, fin=False))))


def ai_events(a: Attacker) -> None:
    """Send unknown events and errors without a pause."""
    error = event("error", error={"type": "invalid_request_error", "code": "nothing", "message": "a" * 200})
    a.artificial(a.many(5), _answering(_frames(event("response.unknown") + error)))


def ai_depth(a: Attacker) -> None:
    """Send JSON that is 100,000 levels deep."""
    deep = frame(b'{"type":"response.output_audio.delta","delta":' + b"[" * 100_000, 1)
    a.artificial(a.many(5), _answering(deep))


#: All attacks, strangers first.
ATTACKS: Final[dict[str, Run]] = {
    run.__name__.replace("_", "-"): run
    for run in (
        half_open,
        half_reset,
        half_closed,
        slowloris,
        idle,
        idle_spread,
        idle_ops,
        slow_body,
        churn,
        header_bomb,
        long_target,
        big_form,
        unsigned,
        chunked,
        smuggled,
        pipelined,
        unread,
        bad_upgrade,
        tls_hello,
        garbage,
        phone_pings,
        phone_pongs,
        phone_fragments,
        phone_bytes,
        phone_marks,
        phone_keys,
        phone_surplus,
        phone_depth,
        phone_base64,
        ai_minutes,
        ai_bytes,
        ai_big_delta,
        ai_clears,
        ai_pings,
        ai_pongs,
        ai_fragments,
        ai_events,
        ai_depth,
    )
}


def main() -> int:
    """Run the process: answer `ready`, then each order with a report of each attack, until stdin ends."""
    os.nice(10)
    attackers = {name: Attacker(Target(**target)) for name, target in json.loads(sys.stdin.readline()).items()}
    _answer({"ready": True})
    for line in sys.stdin:
        seconds = json.loads(line)["seconds"]
        with ThreadPoolExecutor(len(attackers)) as pool:
            runs = [pool.submit(_attack, name, attacker, seconds) for name, attacker in attackers.items()]
        _answer({"reports": [run.result() for run in runs]})
    return 0


def _attack(name: str, attacker: Attacker, seconds: float) -> dict[str, Any]:
    attacker.until_s = time.monotonic() + seconds
    stopped = ""
    try:
        ATTACKS[name](attacker)
    except OSError as error:  # the gateway takes no connection any more
        stopped = str(error)
        time.sleep(max(0.0, attacker.until_s - time.monotonic()))
    return {"seen": dict(attacker.seen), "stopped": stopped}


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
