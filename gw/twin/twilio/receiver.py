"""Receiving half of a media stream: checks the gateway's messages, plays them, echoes marks.

Invalid messages are recorded with the debugger's codes. A mark is echoed by the player's clock, from a greenlet of the call.
All arrivals are kept; the stream is never closed from here.

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

#: Bound on the audio of one call: over two hours, far beyond the ten minutes that Twilio buffers.
MAX_RECEIVED_BYTES: Final = 64 << 20
KEPT_WARNINGS: Final = 1000
KEPT_MARKS: Final = 100_000


class DebuggerEntry(NamedTuple):
    """Entry of Twilio's debugger."""

    at_s: float
    code: int
    detail: str


class MarkTime(NamedTuple):
    """A mark or its echo."""

    at_s: float
    name: str


class Cleared(NamedTuple):
    """A `clear`, the audio it dropped, and the marks it returned."""

    at_s: float
    dropped_ms: float
    marks: tuple[str, ...]


class StreamReceiver:
    """Receiver of one stream. `echo` sends a mark back, returns whether it was sent, and must not raise."""

    def __init__(self, stream_sid: str, echo: Callable[[str], bool], echoing: Group) -> None:
        self._stream_sid = stream_sid
        self._send_echo = echo
        self._echoing = echoing
        self._overflowed = False
        self.echo_after_s = 0.0  # from a mark's playout, or a clear, to its echo
        self.slow_echo_s = 0.0  # the same for the first echo
        self.player = Player()
        self.received = bytearray()
        self.messages = 0
        self.marks: list[MarkTime] = []
        self.echoes: list[MarkTime] = []
        self.clears: list[Cleared] = []
        self.warnings: list[DebuggerEntry] = []

    @property
    def is_full(self) -> bool:
        """True once more arrived than any call should hold."""
        return len(self.received) > MAX_RECEIVED_BYTES or len(self.marks) + len(self.clears) > KEPT_MARKS

    def restart(self, stream_sid: str, now_s: float) -> None:
        """Switch to the call's next stream; drop buffered audio and pending marks."""
        self._stream_sid = stream_sid
        self.player.clear(now_s)

    def warn(self, code: int, detail: str) -> None:
        """Record a mistake in the gateway's messages."""
        if len(self.warnings) < KEPT_WARNINGS:
            self.warnings.append(DebuggerEntry(time.monotonic(), code, detail))

    def on_message(self, data: bytes, is_text: bool, now_s: float) -> None:
        """Handle one message from the gateway."""
        self.messages += 1
        try:
            message, audio = messages.parse(data, is_text, self._stream_sid)
        except InvalidMessageError as error:
            self.warn(error.code, str(error))
            return
        if isinstance(message, Media):
            self.received += audio
            if self.player.push(now_s, audio) and not self._overflowed:
                self._overflowed = True  # one entry per stream, as in the debugger
                self.warn(31931, "more than ten minutes of audio are buffered")
        elif isinstance(message, Mark):
            self._on_mark(message.mark.name, now_s)
        else:
            self._on_clear(now_s)

    def _on_mark(self, name: str, now_s: float) -> None:
        self.marks.append(MarkTime(now_s, name))
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
        after_s, self.slow_echo_s = max(self.echo_after_s, self.slow_echo_s), 0.0
        if after_s:
            self._echoing.add(gevent.spawn_later(after_s, self._send, name, self._stream_sid))
        else:
            self._send(name, self._stream_sid)

    def _send(self, name: str, stream_sid: str) -> None:
        """Send an echo, unless the call is on another stream by now."""
        if stream_sid == self._stream_sid and self._send_echo(name):
            self.echoes.append(MarkTime(time.monotonic(), name))
