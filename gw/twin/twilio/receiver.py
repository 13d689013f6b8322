"""The receiving half of a call: judges what the gateway sends, plays it, echoes its marks.

Decides which messages Twilio would drop, with the debugger's codes, and when a mark is echoed: by the player's clock, in a
greenlet of its own. Keeps everything that arrived. Never closes the stream.

Source: Twilio Media Streams; debugger codes 31931, 31950, 31951.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

import gevent
from gevent.pool import Group

from gw.twin.sound import BYTES_PER_MS
from gw.twin.twilio import messages
from gw.twin.twilio.messages import InvalidMessageError, Mark, Media
from gw.twin.twilio.player import Player

#: More than this from the gateway in one call is no speech: three times the ten minutes Twilio buffers, and then some hours.
MAX_RECEIVED_BYTES: Final = 64 << 20
KEPT_WARNINGS: Final = 1000
KEPT_MARKS: Final = 100_000


class Warned(NamedTuple):
    """An entry of Twilio's debugger."""

    at_s: float
    code: int
    detail: str


class Named(NamedTuple):
    """A mark, or its echo."""

    at_s: float
    name: str


class Cleared(NamedTuple):
    """A `clear`: what it threw away and which marks it gave back."""

    at_s: float
    dropped_ms: float
    marks: tuple[str, ...]


class StreamReceiver:
    """One stream's far end. `echo` sends a mark back and may raise nothing."""

    def __init__(self, stream_sid: str, echo: Callable[[str], bool], echoing: Group) -> None:
        self._stream_sid = stream_sid
        self._send_echo = echo
        self._echoing = echoing
        self._overflowed = False
        self.player = Player()
        self.received = bytearray()
        self.messages = 0
        self.marks: list[Named] = []
        self.echoes: list[Named] = []
        self.clears: list[Cleared] = []
        self.warnings: list[Warned] = []

    @property
    def is_full(self) -> bool:
        """Whether more came than any call holds."""
        return len(self.received) > MAX_RECEIVED_BYTES or len(self.marks) + len(self.clears) > KEPT_MARKS

    def begin_again(self, stream_sid: str, now_s: float) -> None:
        """The call has another stream; what the old one had buffered is gone with it, its marks too."""
        self._stream_sid = stream_sid
        self.player.clear(now_s)

    def warn(self, code: int, detail: str) -> None:
        """Note a mistake of the gateway's."""
        if len(self.warnings) < KEPT_WARNINGS:
            self.warnings.append(Warned(time.monotonic(), code, detail))

    def on_message(self, data: bytes, is_text: bool, now_s: float) -> None:
        """One message from the gateway."""
        self.messages += 1
        try:
            message, audio = messages.parse(data, is_text, self._stream_sid)
        except InvalidMessageError as error:
            self.warn(error.code, str(error))
            return
        if isinstance(message, Media):
            self.received += audio
            if self.player.push(now_s, audio) and not self._overflowed:
                self._overflowed = True  # the debugger names it once a stream
                self.warn(31931, "more than ten minutes of audio are buffered")
        elif isinstance(message, Mark):
            self._on_mark(message.mark.name, now_s)
        else:
            self._on_clear(now_s)

    def _on_mark(self, name: str, now_s: float) -> None:
        self.marks.append(Named(now_s, name))
        due_s, number = self.player.mark(now_s, name)
        if due_s <= now_s:
            self._echo_due(number)
        else:
            self._echoing.add(gevent.spawn_later(due_s - now_s, self._echo_due, number))

    def _on_clear(self, now_s: float) -> None:
        before = self.player.cleared_bytes
        names = self.player.clear(now_s)
        self.clears.append(Cleared(now_s, (self.player.cleared_bytes - before) / BYTES_PER_MS, tuple(names)))
        for name in names:
            self._echo(name)

    def _echo_due(self, number: int) -> None:
        name = self.player.take_mark(number)
        if name is not None:
            self._echo(name)

    def _echo(self, name: str) -> None:
        if self._send_echo(name):
            self.echoes.append(Named(time.monotonic(), name))
