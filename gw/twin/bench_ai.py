"""The bench's AI: hundreds of Realtime sessions in one process that talk all the time and time what they hear.

Decides in which pieces audio comes. `steady`: 200 ms each 200 ms, 600 ms ahead. `bursty`: responses of 5 s, each at ten times
real time in uneven pieces, the next before the last was heard. `bargein`: steady, and every two seconds the caller is said to
have spoken. Every frame the callers sent carries when it left, so each append is an uplink latency; in a session that is not
mu-law none arrives as it was, and the latency is what is beyond the earliest. Run as `python -m gw.twin.bench_ai`; orders come on
stdin: begin, end, report, stop.

Speaks just enough of the GA shape for a client that behaves; whether one does is the AI twin's part, in the tests.
"""

from __future__ import annotations

import argparse
import binascii
import json
import random
import socket
import sys
from time import monotonic
from typing import Any, Final

from websockets.speedups import apply_mask

from gw.twin import bench_audio
from gw.twin.bench_ear import Ear
from gw.twin.bench_loop import TICKS_PER_S, Desk, Loop, Samples
from gw.twin.bench_wire import (
    CLOSE,
    FRAME_BYTES,
    MAGIC,
    MARK,
    MARK_CHARS,
    NOISE,
    TEXT,
    Plug,
    WireError,
    audio_bytes,
    spans,
    text,
    upgrade_answer,
)

PATTERNS: Final = ("steady", "bursty", "bargein")
PIECE_S: Final = 0.2
AHEAD_S: Final = 0.6
RESPONSE_S: Final = 5.0
#: How much faster than real time a bursty response comes.
SPEED: Final = 10.0
BARGEIN_S: Final = 2.0
#: From the caller's first word to the answer.
ANSWER_S: Final = 0.3
_BYTES_PER_S: Final = 8000
_REQUEST_BYTES: Final = 16 << 10
_AUDIO_KEY: Final = b'"audio":'
_APPEND: Final = b"input_audio_buffer.append"
_HEAD_CHARS: Final = 160


class Session:
    """One websocket of the gateway's."""

    def __init__(self, number: int, studio: Studio, sock: socket.socket) -> None:
        self._number = number
        self._studio = studio
        self._loop = studio.loop
        self.plug = Plug(sock)
        self._fd = sock.fileno()
        self._chance = random.Random(number)
        self._open = False
        self._pcm: Ear | None = None  # of a session that is not mu-law
        self._talking = False
        self._response = 0
        self._events = 0
        self._prefix = b""
        self._frame = 0
        self._left = b""  # audio that was made and not yet sent
        self._due_tick = 0
        self.over = ""
        self.call = -1  # whose frames come here
        self._next = -1
        self.lost = 0
        self.disorder = 0
        self.interruptions: list[float] = []

    def begin(self) -> None:
        """A window begins; so does the clock of audio that is told by its length."""
        self.interruptions.clear()
        if self._pcm is not None:
            self._pcm.on_clear()

    # -- hearing --------------------------------------------------------------------------------------------------------

    def on_readable(self) -> None:
        try:
            data = self.plug.receive()
        except WireError as error:
            self.end(str(error))
            return
        if not data:
            return
        now_s = monotonic()
        if not self._open:
            data = self._shake_hands(data)
        found, at = spans(data) if self._open else ([], 0)
        self.plug.put_back(data[at:])
        for opcode, mask_at, start, end in found:
            if opcode == 0x80 | TEXT:
                self._take(apply_mask(data[start:end], data[mask_at : mask_at + 4]), now_s)
            elif opcode & 0x0F == CLOSE:
                self.end("closed by the gateway")

    def _shake_hands(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            if len(data) > _REQUEST_BYTES:
                self.end("no request")
            return data
        try:
            self._write_raw(upgrade_answer(head))
        except WireError as error:
            self.end(str(error))
            return b""
        self._open = True
        self._say({"type": "session.created", "session": bench_audio.session({})})
        return rest

    def _take(self, body: bytes, now_s: float) -> None:
        if body.find(_APPEND, 0, _HEAD_CHARS) >= 0:
            self._hear(body, now_s)
            return
        message = json.loads(body)
        kind = message.get("type")
        if kind == "session.update":
            session = bench_audio.session(message["session"])
            if not bench_audio.is_pcmu(session):
                self._pcm = Ear()
                self.call = self._number  # calls are placed one after the other, and so their sessions come
            self._say({"type": "session.updated", "session": session})
        elif kind == "response.create" and not self._talking:
            self._talk()

    def _hear(self, body: bytes, now_s: float) -> None:
        studio = self._studio
        at = body.index(b'"', body.index(_AUDIO_KEY) + len(_AUDIO_KEY)) + 1
        if self._pcm is not None:
            frames = audio_bytes(body, at, body.index(b'"', at)) / bench_audio.PCM_FRAME_BYTES
            late_s = self._pcm.hear_next(frames, now_s)
            if late_s is not None:
                self._note(late_s, now_s)
            return
        magic, call, number, stamp = MARK.unpack(binascii.a2b_base64(body[at : at + MARK_CHARS]))
        if magic != MAGIC:
            studio.foreign += 1
            return
        self.call = call
        if number != self._next and self._next >= 0:
            if number > self._next:
                self.lost += number - self._next
            else:
                self.disorder += 1
        self._next = number + 1
        self._note((int(now_s * 1e6) - stamp & 0xFFFFFFFF) / 1e6, now_s)

    def _note(self, took_s: float, now_s: float) -> None:
        studio = self._studio
        if studio.loop.measuring:
            studio.uplink.values_s.append(took_s)
            studio.uplink.at_s.append(now_s - studio.loop.since_s)

    # -- talking --------------------------------------------------------------------------------------------------------

    def _talk(self) -> None:
        """Begin a response, and all that follow from it."""
        self._talking = True
        self._due_tick = self._loop.tick
        self._begin_response()
        if self._studio.pattern == "bursty":
            self._burst(0.0)
            return
        for _ in range(round(AHEAD_S / PIECE_S)):
            self._say_audio(PIECE_S)
        self._plan(PIECE_S, self._piece)
        if self._studio.pattern == "bargein":
            self._loop.after(BARGEIN_S * self._chance.uniform(1.0, 2.0), self._interrupt)

    def _plan(self, delay_s: float, action: Any) -> None:
        """The next step of an absolute schedule."""
        self._due_tick += round(delay_s * TICKS_PER_S)
        self._loop.at(self._due_tick, action)

    def _piece(self, _: float) -> None:
        if self.over or not self._talking:
            return
        self._say_audio(PIECE_S)
        self._plan(PIECE_S, self._piece)

    def _burst(self, said_s: float) -> None:
        """One piece of a response at SPEED; behind the last the next response, so that its audio never runs out."""
        if self.over:
            return
        piece_s = min(self._chance.choice((0.013, 0.05, 0.2, 0.35, 0.6)), RESPONSE_S - said_s)
        self._say_audio(piece_s)
        said_s += piece_s
        if said_s < RESPONSE_S - 1e-6:
            self._plan(piece_s / SPEED, lambda _: self._burst(said_s))
            return
        self._end_response("completed")
        ahead_s = AHEAD_S if self._response == 1 else 0.0  # once: from then on each comes that much before it is needed
        self._plan(RESPONSE_S * (1 - 1 / SPEED) - ahead_s, self._next_burst)

    def _next_burst(self, _: float) -> None:
        if not self.over:
            self._begin_response()
            self._burst(0.0)

    def _interrupt(self, _: float) -> None:
        """The caller spoke: what is being said is cut, an answer follows."""
        if self.over:
            return
        if self._loop.measuring:
            self.interruptions.append(monotonic())
        self._say({"type": "input_audio_buffer.speech_started", "item_id": f"caller_{self._response}", "audio_start_ms": 0})
        self._talking = False
        self._end_response("cancelled")
        self._loop.after(ANSWER_S, self._answer)

    def _answer(self, _: float) -> None:
        if self.over:
            return
        event = {"type": "input_audio_buffer.speech_stopped", "item_id": f"caller_{self._response}", "audio_end_ms": 0}
        self._say(event)
        self._frame += -len(self._left) // FRAME_BYTES  # a whole frame is begun anew
        self._left = b""
        self._talking = True
        self._due_tick = self._loop.tick
        self._begin_response()
        for _ in range(round(AHEAD_S / PIECE_S)):
            self._say_audio(PIECE_S)
        self._plan(PIECE_S, self._piece)
        self._loop.after(BARGEIN_S * self._chance.uniform(0.8, 1.2), self._interrupt)

    def _begin_response(self) -> None:
        self._response += 1
        name = f"{self._number:04}_{self._response:06}"
        self._say({"type": "response.created", "response": {"id": f"resp_{name}", "status": "in_progress"}})
        self._prefix = (
            f'{{"type":"response.output_audio.delta","event_id":"event_{name}","response_id":"resp_{name}",'
            f'"item_id":"item_{name}","output_index":0,"content_index":0,"delta":"'
        ).encode()

    def _end_response(self, status: str) -> None:
        name = f"resp_{self._number:04}_{self._response:06}"
        self._say({"type": "response.done", "response": {"id": name, "status": status}})

    def _say_audio(self, seconds: float) -> None:
        """One delta of any length; frames are numbered through all responses."""
        if self._pcm is not None:
            self._write_raw(text(self._prefix + bench_audio.noise(seconds) + b'"}'))
            return
        wanted = round(seconds * _BYTES_PER_S)
        audio = bytearray(self._left)
        while len(audio) < wanted:
            audio += MARK.pack(MAGIC, self._number & 0xFFFF, self._frame, 0)
            audio += NOISE
            self._frame += 1
        self._left = bytes(audio[wanted:])
        self._write_raw(text(self._prefix + binascii.b2a_base64(audio[:wanted], newline=False) + b'"}'))

    def _say(self, event: dict[str, Any]) -> None:
        """Every event has an id; there are clients that insist."""
        self._events += 1
        self._write_raw(text(json.dumps({"event_id": f"event_{self._number:04}_{self._events:06}", **event}).encode()))

    def _write_raw(self, data: bytes) -> None:
        if self.over:
            return
        try:
            self.plug.send(data)
        except (OSError, WireError) as error:
            self.end(f"write: {error}")

    def end(self, why: str) -> None:
        if not self.over:
            self.over = why
            self._loop.forget(self._fd)
            self.plug.sock.close()


class Studio:
    """The listener and all sessions."""

    def __init__(self, loop: Loop, pattern: str) -> None:
        self.loop = loop
        self.pattern = pattern
        self.sessions: list[Session] = []
        self.uplink = Samples()
        self.foreign = 0
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
        session = Session(len(self.sessions), self, sock)
        self.sessions.append(session)
        self.loop.watch(sock.fileno(), session.on_readable)

    def begin(self, _: dict[str, Any]) -> dict[str, Any]:
        """The window begins."""
        self.uplink.clear()
        self.foreign = 0
        for session in self.sessions:
            session.begin()
        self._before = {id(session): (session.lost, session.disorder) for session in self.sessions}
        self.loop.begin()
        return {"standing": self._standing()}

    def end(self, _: dict[str, Any]) -> dict[str, Any]:
        """The window ends; the sessions go on."""
        self.loop.measuring = False
        before = self._before
        self._ended = {
            "standing": self._standing(),
            "ended": sorted({session.over for session in self.sessions if session.over}),
            "foreign": self.foreign,
            "lost": sum(session.lost - before.get(id(session), (0, 0))[0] for session in self.sessions),
            "disorder": sum(session.disorder - before.get(id(session), (0, 0))[1] for session in self.sessions),
            "stalls": sum(session.plug.stalls for session in self.sessions),
        }
        return {}

    def report(self, _: dict[str, Any]) -> dict[str, Any]:
        """What came in the window. Counting takes a second, in which nothing is sent or read."""
        return {
            **self._ended,
            "uplink": self.uplink.summary(),
            "own": self.loop.late.summary(),
            "interruptions": {str(session.call): session.interruptions for session in self.sessions if session.interruptions},
        }

    def stop(self, _: dict[str, Any]) -> dict[str, Any]:
        for session in self.sessions:
            session.end("bench")
        return {"stopped": len(self.sessions)}

    def _standing(self) -> int:
        return sum(not session.over for session in self.sessions)


def main() -> int:
    """This process's body."""
    options = argparse.ArgumentParser(description="An AI for the bench; orders on stdin.")
    options.add_argument("--pattern", choices=PATTERNS, default="steady")
    given = options.parse_args()
    loop = Loop()
    studio = Studio(loop, given.pattern)
    desk = Desk(loop, {"begin": studio.begin, "end": studio.end, "report": studio.report, "stop": studio.stop})
    desk.say({"ready": True, "port": studio.port})
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
