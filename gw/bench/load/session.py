"""One websocket of the gateway's at the bench's AI: the handshake, and what is heard.

Every frame the callers sent carries when it left, so each append is an uplink latency; in a session that is not mu-law none
arrives as it was, and the latency is what is beyond the earliest.
"""

from __future__ import annotations

import binascii
import json
import socket
from time import monotonic
from typing import TYPE_CHECKING, Final

from websockets.speedups import apply_mask

from gw.bench.load import audio
from gw.bench.load.ear import Ear
from gw.bench.load.voice import Voice
from gw.bench.load.wire import CLOSE, MAGIC, MARK, MARK_CHARS, TEXT, Line, WireError, audio_bytes, spans, upgrade_answer

if TYPE_CHECKING:
    from gw.bench.load.ai import Studio

_REQUEST_BYTES: Final = 16 << 10
_AUDIO_KEY: Final = b'"audio":'
_APPEND: Final = b"input_audio_buffer.append"
_HEAD_CHARS: Final = 160


class Session(Line):
    """One websocket of the gateway's."""

    def __init__(self, number: int, studio: Studio, sock: socket.socket) -> None:
        super().__init__(studio.loop, sock)
        self._number = number
        self._studio = studio
        self.voice = Voice(number, studio.loop, studio.pattern, self.send)
        self._open = False
        self._pcm: Ear | None = None  # of a session that is not mu-law
        self.call = -1  # whose frames come here
        self._next = -1
        self.lost = 0
        self.disorder = 0

    def begin(self) -> None:
        """A window begins; so does the clock of audio that is told by its length."""
        self.voice.interruptions.clear()
        if self._pcm is not None:
            self._pcm.on_clear()

    def take(self, data: bytes) -> None:
        """Bytes from the gateway."""
        now_s = monotonic()
        if not self._open:
            data = self._shake_hands(data)
        found, at = spans(data) if self._open else ([], 0)
        self.plug.put_back(data[at:])
        for opcode, mask_at, start, end in found:
            if opcode == 0x80 | TEXT:
                self._take_message(apply_mask(data[start:end], data[mask_at : mask_at + 4]), now_s)
            elif opcode & 0x0F == CLOSE:
                self.end("closed by the gateway")

    def _shake_hands(self, data: bytes) -> bytes:
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
        self.voice.say({"type": "session.created", "session": audio.session({})})
        return rest

    def _take_message(self, body: bytes, now_s: float) -> None:
        if body.find(_APPEND, 0, _HEAD_CHARS) >= 0:
            self._hear(body, now_s)
            return
        message = json.loads(body)
        kind = message.get("type")
        if kind == "session.update":
            session = audio.session(message["session"])
            if not audio.is_pcmu(session):
                self._pcm = Ear()
                self.voice.in_pcm = True
                self.call = self._number  # calls are placed one after the other, and so their sessions come
            self.voice.say({"type": "session.updated", "session": session})
        elif kind == "response.create":
            self.voice.talk()

    def _hear(self, body: bytes, now_s: float) -> None:
        studio = self._studio
        at = body.index(b'"', body.index(_AUDIO_KEY) + len(_AUDIO_KEY)) + 1
        if self._pcm is not None:
            frames = audio_bytes(body, at, body.index(b'"', at)) / audio.PCM_FRAME_BYTES
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

    def end(self, why: str) -> None:
        super().end(why)
        self.voice.over = True
