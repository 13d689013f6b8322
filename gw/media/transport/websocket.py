"""One websocket over one transport: `gw.protocol.frames` cuts and builds the frames, the transport moves the bytes.

Gives whole messages, or says how the peer ended: by one `LegClosedError` or one ProtocolError. Pings are answered here. What
comes while the reader waits may be handled in the hub's callback, beside the sleeping greenlet, which saves the switch to it and
back. Never waits for a writer, never decides what a message means.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import gevent
from websockets.exceptions import InvalidStatus, PayloadTooBig
from websockets.protocol import Protocol, Side, State

from gw.errors import GatewayError, ProtocolCode, ProtocolError
from gw.media.transport.plain import Transport
from gw.media.transport.tls import TlsTransport
from gw.protocol.frames import Message, MessageCutter, masked_text_message, text_message

#: How long a peer may take to answer our close before the socket goes.
CLOSE_TIMEOUT_S: Final = 1.0

#: RFC 6455 5.5: a control frame carries 125 bytes, two of them the code; our reasons are ASCII.
MAX_REASON_CHARS: Final = 123

#: The core logs each frame at debug level when asked: it is never asked, and never pays for a formatter.
QUIET: Final = logging.getLogger("gw.websocket.core")
QUIET.setLevel(logging.ERROR)


class LegClosedError(GatewayError):
    """The peer ended the websocket, or its socket. `clean`: with a close frame. `failure`: what broke the transport, if it did."""

    code = "leg_closed"

    def __init__(self, *, clean: bool, close_code: int, close_reason: str, failure: str, why: str) -> None:
        super().__init__(why or f"closed with {close_code} {close_reason}".rstrip())
        self.clean = clean
        self.close_code = close_code
        self.close_reason = close_reason
        self.failure = failure


class _Keys:
    """Masking keys nobody can foretell (RFC 6455 §10.3), a thousand from one system call."""

    __slots__ = ("_at", "_drawn")

    def __init__(self) -> None:
        self._drawn = b""
        self._at = 0

    def next(self) -> bytes:
        at = self._at
        if at == len(self._drawn):
            self._drawn, at = os.urandom(4096), 0
        self._at = at + 4
        return self._drawn[at : at + 4]


_keys: Final = _Keys()


class WebSocket:
    """A websocket that is open: `core` has done its handshake, and nothing else; `first` is what was read behind it."""

    __slots__ = ("_cutter", "_declined", "_first", "_is_client", "_offer", "core", "transport")

    def __init__(self, transport: Transport | TlsTransport, core: Protocol, first: bytes = b"") -> None:
        self.transport = transport
        self.core = core
        self._cutter = MessageCutter(core)
        self._is_client = core.side is Side.CLIENT
        self._first = first
        self._offer: Callable[[list[Message]], bool] | None = None
        self._declined: list[Message] = []

    def read(self) -> list[Message]:
        """Wait for messages. Returns [] when nothing whole has come, or the transport was woken.

        Raises: LegClosedError when the peer ended; ProtocolError when it broke RFC 6455 or a size limit (the close frame is
        sent). What came before the end is returned first.
        """
        return self._read(None)

    def read_beside(self, offer: Callable[[list[Message]], bool]) -> list[Message]:
        """The same, for a plain transport, and what comes while the greenlet waits is offered in the hub's own callback: where `offer`
        says True the greenlet sleeps on. What `offer` was shown is not returned. It never waits; what it raises, this raises."""
        assert isinstance(self.transport, Transport)
        self._offer = offer
        try:
            return self._read(self._on_bytes)
        finally:
            self._offer = None

    def _read(self, take: Callable[[bytes], bool] | None) -> list[Message]:
        messages: list[Message] = []
        if self.core.state is State.OPEN:
            if self._first:
                data: bytes | None = self._first
                self._first = b""
            elif take is None:
                data = self.transport.read()
            else:
                assert isinstance(self.transport, Transport)
                data = self.transport.read(take)
            messages, self._declined = self._declined, []
            if data:
                messages += self._receive(data)
            elif data is not None:
                self._cutter.receive_end()
                self.flush()
        if not messages and self.core.state is not State.OPEN:
            self._raise_end()
        return messages

    def _on_bytes(self, data: bytes) -> bool:
        """The hub calls this while the reader waits."""
        messages = self._receive(data)
        if self.core.state is State.OPEN and self._offer is not None:
            return self._offer(messages)
        self._declined = messages
        return False

    def _receive(self, data: bytes) -> list[Message]:
        """The whole messages; the core's answers (pong, close) go out."""
        messages = self._cutter.receive(data)
        self.flush()
        return messages

    def _raise_end(self) -> None:
        error = self.core.parser_exc
        if isinstance(error, PayloadTooBig):
            raise ProtocolError("oversize_message", str(error))
        if error is not None and not isinstance(error, EOFError):
            raise ProtocolError("bad_websocket", str(error))
        close = self.core.close_rcvd
        raise LegClosedError(
            clean=close is not None,
            close_code=close.code if close else 1006,
            close_reason=close.reason if close else "",
            failure=self.transport.failure,
            why=self.transport.why,
        )

    def send_text(self, data: bytes) -> bool:
        """Build one text message and write it. True: the kernel has it. False as well when the websocket is closing."""
        if self.core.state is not State.OPEN:
            return False
        return self.transport.write(masked_text_message(data, _keys.next()) if self._is_client else text_message(data))

    def ping(self) -> None:
        """Make a peer that is there answer, at least with a pong."""
        if self.core.state is State.OPEN:
            self.core.send_ping(b"")
            self.flush()

    def flush(self) -> bool:
        """Write what the core has to say. True: the kernel has it all."""
        taken = True
        for data in self.core.data_to_send():
            if data:  # b"" asks for a half-close: the transport is shut as a whole
                taken = self.transport.write(data)
        return taken

    def close(self, code: int, reason: str) -> None:
        """Say goodbye with a close frame, give the peer CLOSE_TIMEOUT_S to answer, then shut the transport. Idempotent. To be called
        by the greenlet that reads."""
        if not self.transport.failure:
            if self.core.state is State.OPEN:
                self.core.send_close(code, reason[:MAX_REASON_CHARS])
                self.flush()
            with gevent.Timeout(CLOSE_TIMEOUT_S, False):  # type: ignore[arg-type]  # False: leave the block silently
                self._linger()
        self.transport.shut()
        release(self.core)

    def _linger(self) -> None:
        """Read, and drop, until the peer answered the close or ended."""
        self._cutter.receive(self._first)  # its last message may be half there: what is read goes on from it
        self._first = b""
        while self.core.state is State.CLOSING and self.core.close_rcvd is None:
            data = self.transport.read()
            if data is None:
                continue
            if not data:
                return
            self._cutter.receive(data)


def release(core: Protocol) -> None:
    """Undo the circles a core that is used no more makes of itself, or only the collector would free it: its parser is a
    generator that holds it, and so does the traceback of the error it keeps."""
    core.parser.close()
    refusal = core.handshake_exc
    if refusal is not None:
        refusal.__traceback__ = None
        if isinstance(refusal, InvalidStatus):  # it has the response twice, and the response has it
            refusal.args = ()
            del refusal.response
    core.parser_exc = core.handshake_exc = None


T = TypeVar("T")


class MessageReader(Generic[T]):
    """Reads a websocket whose every message is JSON text, as typed events. What came before a broken message is given first."""

    __slots__ = ("_broken", "_left", "_parse", "_socket", "_take")

    def __init__(self, web_socket: WebSocket, parse: Callable[[bytes], T]) -> None:
        self._socket = web_socket
        self._parse = parse
        self._broken: tuple[ProtocolCode, str] | None = None  # what came is no event; an error would keep its traceback
        self._left: list[T] = []  # what `take` did not take
        self._take: Callable[[T], bool] | None = None

    def read(self) -> list[T]:
        """Wait for events. Returns [] when nothing whole has come, or the transport was woken.

        Raises: LegClosedError, ProtocolError.
        """
        if self._broken is not None:
            raise ProtocolError(*self._broken)
        events: list[T] = []
        try:
            for message in self._socket.read():
                events.append(self._event(message))
        except ProtocolError as error:
            if not events:
                raise
            self._broken = error.code, error.detail
        return events

    def read_beside(self, take: Callable[[T], bool]) -> list[T]:
        """The same, and each event that comes while the greenlet waits is shown to `take` in the hub's callback, without a switch
        of greenlets. It says True where it is done with it; the first it leaves, and all behind, are returned, in order.

        `take` never waits. What it raises, this raises.
        """
        self._take = take
        events: list[T] = []
        try:
            if self._broken is None and not self._left:
                for message in self._socket.read_beside(self._offer):
                    events.append(self._event(message))
        except LegClosedError:
            if not self._left:
                raise  # else the socket says it again
        except ProtocolError as error:
            self._broken = error.code, error.detail
        finally:
            self._take = None
        events, self._left = self._left + events, []
        if self._broken is not None and not events:
            raise ProtocolError(*self._broken)
        return events

    def _offer(self, messages: list[Message]) -> bool:
        take = self._take
        assert take is not None
        try:
            for message in messages:
                event = self._event(message)
                if self._left or not take(event):
                    self._left.append(event)
        except ProtocolError as error:
            self._broken = error.code, error.detail
        return not self._left and self._broken is None

    def _event(self, message: Message) -> T:
        if not message.is_text:
            raise ProtocolError("binary_message", "a binary message where JSON text is spoken")
        return self._parse(message.data)
