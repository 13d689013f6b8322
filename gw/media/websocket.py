"""One websocket over one door: websockets' sans-I/O core reads and builds the frames, the door moves the bytes.

Gives whole messages, or says how the peer ended: by one `LegClosedError` or one ProtocolError. Pings are answered here.
Never waits for a writer, never decides what a message means.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

import gevent
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, State

from gw.errors import GatewayError, ProtocolError
from gw.media.door import Door
from gw.media.tls_door import TlsDoor

#: How long a peer may take to answer our close before the socket goes.
CLOSE_TIMEOUT_S: Final = 1.0

#: RFC 6455 5.5: a control frame carries 125 bytes, two of them the code; our reasons are ASCII.
MAX_REASON_CHARS: Final = 123

#: The core logs each frame at debug level when asked: it is never asked, and never pays for a formatter.
QUIET: Final = logging.getLogger("gw.websocket.core")
QUIET.setLevel(logging.ERROR)


class LegClosedError(GatewayError):
    """The peer ended the websocket, or its socket. `clean`: with a close frame. `failure`: what broke the door, if it did."""

    code = "leg_closed"

    def __init__(self, *, clean: bool, close_code: int, close_reason: str, failure: str, why: str) -> None:
        super().__init__(why or f"closed with {close_code} {close_reason}".rstrip())
        self.clean = clean
        self.close_code = close_code
        self.close_reason = close_reason
        self.failure = failure


class Message(NamedTuple):
    """One whole websocket message."""

    is_text: bool
    data: bytes


class WebSocket:
    """A websocket that is open. `protocol` comes out of its handshake, or fresh for a handshake done elsewhere."""

    __slots__ = ("_opcode", "_parts", "door", "protocol")

    def __init__(self, door: Door | TlsDoor, protocol: Protocol) -> None:
        self.door = door
        self.protocol = protocol
        self._parts = bytearray()  # of a fragmented message; the core bounds their sum, not their number
        self._opcode = Opcode.TEXT

    def read(self) -> list[Message]:
        """Wait for messages. Returns [] when nothing whole has come, or the door was woken.

        Raises: LegClosedError when the peer ended; ProtocolError when it broke RFC 6455 or a size limit (the close frame is
        sent). What came before the end is returned first.
        """
        protocol = self.protocol
        if protocol.state is State.OPEN and not protocol.events:  # some may have come right behind the handshake
            data = self.door.read()
            if data is None:
                return []
            if data:
                protocol.receive_data(data)
            else:
                protocol.receive_eof()
        messages = self._take()
        if messages or protocol.state is State.OPEN:
            return messages
        self._raise_end()
        return messages

    def _take(self) -> list[Message]:
        """The whole messages now in the core; its answers (pong, close) go out."""
        messages = []
        for event in self.protocol.events_received():
            if isinstance(event, Frame) and (message := self._assemble(event)) is not None:
                messages.append(message)
        self.flush()
        return messages

    def _assemble(self, frame: Frame) -> Message | None:
        if frame.opcode is Opcode.CONT:
            self._parts += frame.data
            if not frame.fin:
                return None
            data, self._parts = bytes(self._parts), bytearray()
            return Message(self._opcode is Opcode.TEXT, data)
        if frame.opcode is not Opcode.TEXT and frame.opcode is not Opcode.BINARY:
            return None
        if frame.fin:
            return Message(frame.opcode is Opcode.TEXT, bytes(frame.data))
        self._opcode = frame.opcode
        self._parts += frame.data
        return None

    def _raise_end(self) -> None:
        error = self.protocol.parser_exc
        if isinstance(error, PayloadTooBig):
            raise ProtocolError("oversize_message", str(error))
        if error is not None and not isinstance(error, EOFError):
            raise ProtocolError("bad_websocket", str(error))
        close = self.protocol.close_rcvd
        raise LegClosedError(
            clean=close is not None,
            close_code=close.code if close else 1006,
            close_reason=close.reason if close else "",
            failure=self.door.failure,
            why=self.door.why,
        )

    def send_text(self, data: bytes) -> bool:
        """Build one text message and write it. True: the kernel has it. False as well when the websocket is closing."""
        if self.protocol.state is not State.OPEN:
            return False
        self.protocol.send_text(data)
        return self.flush()

    def flush(self) -> bool:
        """Write what the core has to say. True: the kernel has it all."""
        taken = True
        for data in self.protocol.data_to_send():
            if data:  # b"" asks for a half-close: the door is shut as a whole
                taken = self.door.write(data)
        return taken

    def close(self, code: int, reason: str) -> None:
        """Say goodbye with a close frame, give the peer CLOSE_TIMEOUT_S to answer, then shut the door. Idempotent. To be called
        by the greenlet that reads."""
        if not self.door.failure:
            if self.protocol.state is State.OPEN:
                self.protocol.send_close(code, reason[:MAX_REASON_CHARS])
                self.flush()
            with gevent.Timeout(CLOSE_TIMEOUT_S, False):  # type: ignore[arg-type]  # False: leave the block silently
                self._linger()
        self.door.shut()

    def _linger(self) -> None:
        """Read, and drop, until the peer answered the close or ended."""
        while self.protocol.state is State.CLOSING and self.protocol.close_rcvd is None:
            data = self.door.read()
            if data is None:
                continue
            if not data:
                return
            self.protocol.receive_data(data)
            self.protocol.events_received()


T = TypeVar("T")


class MessageReader(Generic[T]):
    """Reads a websocket whose every message is JSON text, as typed events. What came before a broken message is given first."""

    __slots__ = ("_broken", "_parse", "_socket")

    def __init__(self, web_socket: WebSocket, parse: Callable[[bytes], T]) -> None:
        self._socket = web_socket
        self._parse = parse
        self._broken: ProtocolError | None = None

    def read(self) -> list[T]:
        """Wait for events. Returns [] when nothing whole has come, or the door was woken.

        Raises: LegClosedError, ProtocolError.
        """
        if self._broken is not None:
            raise self._broken
        events: list[T] = []
        try:
            for message in self._socket.read():
                if not message.is_text:
                    raise ProtocolError("binary_message", "a binary message where JSON text is spoken")
                events.append(self._parse(message.data))
        except ProtocolError as error:
            if not events:
                raise
            self._broken = error
        return events
