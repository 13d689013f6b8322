"""Measure the longest slice of 8 KiB of each kind of frame, on both legs.

    .venv/bin/python tests/bench/operations/frames.py [--json] [--rounds 15]

Real sockets, readers and parsers, without a call. A slice is the CPU time of one greenlet, or of the hub, between two
switches. Exit code 1: the median of a kind is over 1 ms.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import base64
import gc
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import thread_time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import gevent
import greenlet
from gevent import socket

from gw.errors import GatewayError
from gw.media.ai.openai_leg import MAX_MESSAGE_BYTES as AI_BYTES
from gw.media.session import MAX_MESSAGE_BYTES as PHONE_BYTES
from gw.media.transport.plain import READ_BYTES, Transport
from gw.media.transport.websocket import MessageReader, WebSocket
from gw.protocol import openai_realtime, twilio
from gw.protocol.websocket.frames import CLOSE, PING, PONG, TEXT, frame

LIMIT_MS = 1.0
KEY = b"\x01\x80\xff\x37"
MEDIA = base64.b64encode(b"\xff" * 160).decode()
SID = "MZ" + "0" * 32
PHONE_TEXTS = {
    "media": {"event": "media", "sequenceNumber": "4", "streamSid": SID, "media": {"track": "inbound", "payload": MEDIA}},
    "marks": {"event": "mark", "streamSid": SID, "mark": {"name": "m"}},
    "keys": {"event": "dtmf", "streamSid": SID, "dtmf": {"digit": "1"}},
    "unknown events": {"event": ""},
    "deep JSON": {"event": "", "x": json.loads("[" * 300 + "]" * 300)},
}
AI_TEXTS: dict[str, Any] = {
    "deltas of one byte": {"type": "response.output_audio.delta", "response_id": "", "item_id": "", "delta": "AA=="},
    "speech started": {"type": "input_audio_buffer.speech_started", "item_id": "", "audio_start_ms": 1},
    "unknown events": {"type": ""},
    "errors": {"type": "error", "error": {}},
    "wrong types": {"type": "x", "delta": 1},
    "one long delta": {"type": "response.output_audio.delta", "response_id": "r", "item_id": "i", "delta": "AAAA" * 260_000},
    "one very long delta": {"type": "response.output_audio.delta", "item_id": "i", "delta": "AAAA" * 780_000},
    "one very long item": {"type": "conversation.item.added", "item": {"audio": "AAAA" * (3 << 20)}},
    "one long transcript": {"type": "response.output_audio_transcript.done", "transcript": "\n" * 500_000},
    "the longest event read": {
        "type": "response.output_item.done",
        "item": {"type": "function_call", "status": "completed", "call_id": "c", "name": "n", "arguments": "\n" * 65_000},
    },
}


def streams(texts: dict[str, Any], key: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each kind of frame with the bytes to send: one read, or one long message."""
    mask_bit = 0x80 if key else 0
    first, empty = bytes([TEXT, mask_bit]) + key, bytes([0, mask_bit]) + key
    one = bytes([0, mask_bit | 1]) + key + b"a"
    small = bytes([0, mask_bit | 64]) + key + b"a" * 64
    kinds = {
        "empty pings": frame(PING, b"", key),
        "long pings": frame(PING, b"x" * 125, key),
        "pongs": frame(PONG, b"", key),
        "texts of one byte": frame(TEXT, b"1", key),
        "empty texts": frame(TEXT, b"", key),
        "binary of one byte": frame(2, b"1", key),
        "closes": frame(CLOSE, b"\x03\xe8", key),
        "pings and media": frame(PING, b"", key) + frame(TEXT, b'{"event":"","type":""}', key),
        **{name: frame(TEXT, json.dumps(message, separators=(",", ":")).encode(), key) for name, message in texts.items()},
    }
    for name, data in kinds.items():
        yield name, (data * (READ_BYTES // len(data) + 1))[:READ_BYTES] if len(data) < READ_BYTES else data
    for name, data in (("empty fragments", empty), ("fragments of one byte", one), ("fragments of 64 bytes", small)):
        yield name, (first + data * READ_BYTES)[:READ_BYTES]


def longest_slice_ms(data: bytes, read: Callable[[Transport], Callable[[], object]]) -> float:
    """Send `data` to a new reader. Returns the CPU time of its longest slice."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    transport = Transport(ours, 1 << 20)
    step = read(transport)

    def run() -> None:
        try:
            while True:
                step()
        except GatewayError:
            pass

    slices: list[float] = []
    began_s = 0.0

    def on_switch(event: str, args: tuple[Any, Any]) -> None:
        nonlocal began_s
        now_s = thread_time()
        if args[0] is not sender:
            slices.append(now_s - began_s)
        began_s = thread_time()

    reader = gevent.spawn(run)
    gevent.sleep(0)
    gc.collect()
    gc.disable()
    sender = greenlet.getcurrent()
    greenlet.settrace(on_switch)
    theirs.sendall(data)
    theirs.shutdown(socket.SHUT_WR)
    reader.join()
    greenlet.settrace(None)
    gc.enable()
    transport.shut()
    theirs.close()
    return max(slices) * 1000


def phone(transport: Transport) -> Callable[[], object]:
    reader = MessageReader(WebSocket(transport, PHONE_BYTES, is_client=False), twilio.parse)
    return lambda: reader.read_beside(lambda event: type(event) is twilio.Media)


def ai(transport: Transport) -> Callable[[], object]:
    web_socket = WebSocket(transport, AI_BYTES, is_client=True, may_skip=openai_realtime.may_skip)
    return MessageReader(web_socket, openai_realtime.parse, openai_realtime.split).read


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    longest: dict[str, dict[str, float]] = {}
    for leg, read, texts, key in (("phone", phone, PHONE_TEXTS, KEY), ("ai", ai, AI_TEXTS, b"")):
        for kind, data in streams(texts, key):
            taken = [longest_slice_ms(data, read) for _ in range(options.rounds)]
            longest.setdefault(leg, {})[kind] = round(statistics.median(taken), 3)
    if options.json:
        print(json.dumps(longest, indent=2))
    else:
        for leg, kinds in longest.items():
            for kind, slice_ms in sorted(kinds.items(), key=lambda item: -item[1]):
                print(f"{leg:6} {slice_ms:6.3f} ms  {kind}")
    return int(any(slice_ms > LIMIT_MS for kinds in longest.values() for slice_ms in kinds.values()))


if __name__ == "__main__":
    sys.exit(main())
