"""AI of the bench: one process with hundreds of Realtime sessions that talk all the time.

Run as `python -m gw.bench.load.ai`; orders come on stdin: begin, end, report, stop. Every caller frame carries its send time,
so each append gives an uplink latency; in a session that is not mu-law no frame survives resampling, and the latency is the
delay beyond the earliest append. With `--tool-every` each session calls the tool `lookup`, and times its output. Sessions speak
just enough of the GA shape for a correct client: the AI twin checks clients.
"""

from __future__ import annotations

import argparse
import binascii
import json
import socket
import ssl
import sys
from collections import Counter
from time import monotonic
from typing import Any, Final

from websockets.speedups import apply_mask

from gw.bench.load import audio
from gw.bench.load.jitter_buffer import JitterBuffer
from gw.bench.load.loop import Loop, OrderChannel, Samples
from gw.bench.load.voice import PATTERNS, Voice
from gw.bench.load.wire import CLOSE, MAGIC, MARK, MARK_CHARS, TEXT, Connection, WireError, audio_bytes, upgrade_answer

#: The tool that sessions call, and how often at most: a gateway carries out 100 calls in one telephone call.
TOOL: Final = "lookup"
MAX_TOOL_CALLS: Final = 100
_REQUEST_BYTES: Final = 16 << 10
_AUDIO_KEY: Final = b'"audio":'
_APPEND: Final = b"input_audio_buffer.append"
_HEAD_CHARS: Final = 160


class LoadSession(Connection):
    """One websocket from the gateway."""

    def __init__(self, number: int, server: AiServer, sock: socket.socket) -> None:
        super().__init__(server.loop, sock)
        self._number = number
        self._server = server
        self.voice = Voice(number, server.loop, server.pattern, self.send)
        self._open = False
        self._pcm: JitterBuffer | None = None  # set in a session that is not mu-law
        self.call = -1  # the caller's number, from its frames
        self._next = -1
        self.lost = 0
        self.disorder = 0
        self._tools: dict[str, float] = {}  # calls without an output, and when they were sent
        self._tool_calls = 0

    def begin(self) -> None:
        """Start a window, and a new clock for audio measured by its length."""
        self.voice.interruptions.clear()
        if self._pcm is not None:
            self._pcm.on_clear()

    def on_data(self, data: bytes) -> None:
        if not self._open:
            data = self._handshake(data)
        if self._open:
            super().on_data(data)
        else:
            self._unread = data

    def on_message(self, data: bytes, opcode: int, mask_at: int, start: int, end: int, now_s: float) -> None:
        if opcode == 0x80 | TEXT:
            self._on_event(apply_mask(data[start:end], data[mask_at : mask_at + 4]), now_s)
        elif opcode & 0x0F == CLOSE:
            self.end("closed by the gateway")

    def _handshake(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            if len(data) > _REQUEST_BYTES:
                self.end("no request")
            return data
        try:
            answer = upgrade_answer(head)
        except WireError as error:
            self.end(str(error))
            return b""
        self.send(answer)
        self._open = True
        self.voice.send_event({"type": "session.created", "session": audio.session({})})
        return rest

    def _on_event(self, body: bytes, now_s: float) -> None:
        if body.find(_APPEND, 0, _HEAD_CHARS) >= 0:
            self._on_audio(body, now_s)
            return
        message = json.loads(body)
        kind = message.get("type")
        if kind == "session.update":
            session = audio.session(message["session"])
            if not audio.is_pcmu(session):
                self._pcm = JitterBuffer()
                self.voice.in_pcm = True
                self.call = self._number  # calls are placed one by one, so sessions come in the same sequence
            self.voice.send_event({"type": "session.updated", "session": session})
        elif kind == "response.create":
            self.voice.start()
            if self._server.tool_every_s and not self._tool_calls:
                self._server.loop.after(self._server.tool_every_s * (1 + self._number % 10 / 10), self._call_tool)
        elif kind == "conversation.item.create" and message["item"]["type"] == "function_call_output":
            self._on_output(message["item"], now_s)

    def _call_tool(self, _: float) -> None:
        if self.end_reason or self._tool_calls == MAX_TOOL_CALLS:
            return
        self._tool_calls += 1
        call_id = f"call_{self._number:04}_{self._tool_calls:03}"
        item = {"id": f"item_{call_id}", "type": "function_call", "status": "completed", "name": TOOL, "call_id": call_id}
        self._tools[call_id] = monotonic()
        self.voice.send_event(
            {
                "type": "response.output_item.done",
                "response_id": self.voice.response_id,
                "output_index": 1,
                "item": {**item, "arguments": "{}"},
            }
        )
        self._server.loop.after(self._server.tool_every_s, self._call_tool)

    def _on_output(self, item: dict[str, Any], now_s: float) -> None:
        sent_s = self._tools.pop(item["call_id"], None)
        if sent_s is None or not self._server.loop.measuring:
            return
        self._server.loop.record(self._server.tools, now_s - sent_s, now_s)
        try:
            error = json.loads(item["output"]).get("error", "")
        except (ValueError, AttributeError):
            error = ""
        self._server.outputs[error or "ok"] += 1

    def _on_audio(self, body: bytes, now_s: float) -> None:
        server = self._server
        at = body.index(b'"', body.index(_AUDIO_KEY) + len(_AUDIO_KEY)) + 1
        if self._pcm is not None:
            frames = audio_bytes(body, at, body.index(b'"', at)) / audio.PCM_FRAME_BYTES
            late_s = self._pcm.push_next(frames, now_s)
            if late_s is not None:
                server.loop.record(server.uplink, late_s, now_s)
            return
        magic, call, number, stamp = MARK.unpack(binascii.a2b_base64(body[at : at + MARK_CHARS]))
        if magic != MAGIC:
            server.unexpected += 1
            return
        self.call = call
        if number != self._next and self._next >= 0:
            if number > self._next:
                self.lost += number - self._next
            else:
                self.disorder += 1
        self._next = number + 1
        server.loop.record(server.uplink, (int(now_s * 1e6) - stamp & 0xFFFFFFFF) / 1e6, now_s)

    def end(self, why: str) -> None:
        super().end(why)
        self.voice.stopped = True


class AiServer:
    """Listener and all sessions."""

    def __init__(self, loop: Loop, pattern: str, tls: ssl.SSLContext | None, tool_every_s: float = 0.0) -> None:
        """`tool_every_s`: between two tool calls of a session; 0: none."""
        self.loop = loop
        self.tool_every_s = tool_every_s
        self.tools = Samples()  # from a tool's call to its output
        self.outputs: Counter[str] = Counter()  # by the error in them, or `ok`
        self._tls = tls
        self.pattern = pattern
        self.sessions: list[LoadSession] = []
        self.uplink = Samples()
        self.unexpected = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._before: dict[int, tuple[int, int]] = {}
        self._ended: dict[str, Any] = {}
        loop.watch(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.sessions.append(LoadSession(len(self.sessions), self, sock))

    def begin(self, _: dict[str, Any]) -> dict[str, Any]:
        """Start the measured window."""
        self.uplink.clear()
        self.tools.clear()
        self.outputs.clear()
        self.unexpected = 0
        for session in self.sessions:
            session.begin()
        self._before = {id(session): (session.lost, session.disorder) for session in self.sessions}
        self.loop.begin()
        return {"alive": self._alive()}

    def end(self, _: dict[str, Any]) -> dict[str, Any]:
        """End the measured window; the sessions continue."""
        self.loop.measuring = False
        before = self._before
        self._ended = {
            "alive": self._alive(),
            "ended": sorted({session.end_reason for session in self.sessions if session.end_reason}),
            "unexpected": self.unexpected,
            "lost": sum(session.lost - before.get(id(session), (0, 0))[0] for session in self.sessions),
            "disorder": sum(session.disorder - before.get(id(session), (0, 0))[1] for session in self.sessions),
            "stalls": sum(session.stalls for session in self.sessions),
        }
        return {}

    def report(self, _: dict[str, Any]) -> dict[str, Any]:
        """Return the window's figures. Counting takes a second, in which nothing is sent or read."""
        return {
            **self._ended,
            "uplink": self.uplink.summary(),
            "tools": {**self.tools.summary(), "outputs": dict(self.outputs)},
            "own": self.loop.late.summary(),
            "steps": self.loop.steps.summary(),
            "interruptions": {
                str(session.call): session.voice.interruptions for session in self.sessions if session.voice.interruptions
            },
        }

    def stop(self, _: dict[str, Any]) -> dict[str, Any]:
        for session in self.sessions:
            session.end("bench")
        return {"stopped": len(self.sessions)}

    def _alive(self) -> int:
        return sum(not session.end_reason for session in self.sessions)


def _context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def main() -> int:
    """Run the process."""
    options = argparse.ArgumentParser(description="An AI for the bench; orders on stdin.")
    options.add_argument("--pattern", choices=PATTERNS, default="steady")
    options.add_argument("--tool-every", type=float, default=0.0, help="seconds between two tool calls of a session; 0: none")
    options.add_argument("--certificate", help="speak TLS, and show this")
    options.add_argument("--key", help="the certificate's")
    given = options.parse_args()
    loop = Loop()
    tls = _context(given.certificate, given.key) if given.certificate else None
    server = AiServer(loop, given.pattern, tls, given.tool_every)
    orders = OrderChannel(loop, {"begin": server.begin, "end": server.end, "report": server.report, "stop": server.stop})
    orders.send({"ready": True, "port": server.port})
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
