"""Websocket over one transport: whole messages in, messages and close out.

`gw.protocol.frames` cuts and builds the frames, the transport moves the bytes. The end of a connection is one `LegClosedError`
or one `ProtocolError`. Pings are answered here. Messages that come while the reader waits can be handled in the hub's callback,
which saves a switch to the reader and back. Never waits for a write, never interprets a message.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

from websockets.exceptions import InvalidStatus, PayloadTooBig
from websockets.protocol import Protocol, Side, State

from gw.bounded import OutOfTimeError, within
from gw.errors import GatewayError, ProtocolCode, ProtocolError
from gw.media.transport.plain import Transport
from gw.media.transport.tls import TlsTransport
from gw.protocol.frames import Message, MessageCutter, masked_text_message, text_message

#: Time a peer has to answer a close frame before the socket is closed.
CLOSE_TIMEOUT_S: Final = 1.0

#: RFC 6455 5.5: a control frame carries 125 bytes, two of them the code; the reasons are ASCII.
MAX_REASON_CHARS: Final = 123

#: The library's core logs each frame at debug level. That level is never on here, so no record is formatted.
QUIET: Final = logging.getLogger("gw.websocket.core")
QUIET.setLevel(logging.ERROR)


class LegClosedError(GatewayError):
    """The peer ended the websocket or its socket. `clean`: by a close frame. `failure`: the transport's, if it failed."""

    code = "leg_closed"

    def __init__(self, *, clean: bool, close_code: int, close_reason: str, failure: str, why: str) -> None:
        super().__init__(why or f"closed with {close_code} {close_reason}".rstrip())
        self.clean = clean
        self.close_code = close_code
        self.close_reason = close_reason
        self.failure = failure


class _Keys:
    """Unpredictable masking keys (RFC 6455 §10.3), a thousand from one system call."""

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
    """Open websocket. `core` has done the handshake and nothing else; `first`: bytes read behind the handshake."""

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
        """Wait for messages. Returns [] when no whole message came, or the transport was woken.

        Raises: LegClosedError when the peer ended; ProtocolError when the peer violated RFC 6455 or a size limit (the close frame
        is sent). Messages that came before the end are returned first.
        """
        return self._read(None)

    def read_beside(self, offer: Callable[[list[Message]], bool]) -> list[Message]:
        """Read from a plain transport, and offer messages that come meanwhile in the hub's callback.

        `offer`: must not wait. True: the greenlet keeps waiting. Messages offered are not returned.
        Raises: as `read`, and what `offer` raises.
        """
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
        """Offer messages; the hub calls this while the reader waits."""
        messages = self._receive(data)
        if self.core.state is State.OPEN and self._offer is not None:
            return self._offer(messages)
        self._declined = messages
        return False

    def _receive(self, data: bytes) -> list[Message]:
        """Cut whole messages, and send the core's answers (pong, close)."""
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
        """Send one text message. True: the kernel has it. False: it waits, or the websocket is closing."""
        if self.core.state is not State.OPEN:
            return False
        return self.transport.write(masked_text_message(data, _keys.next()) if self._is_client else text_message(data))

    def ping(self) -> None:
        """Send a ping, which the peer must answer."""
        if self.core.state is State.OPEN:
            self.core.send_ping(b"")
            self.flush()

    def flush(self) -> bool:
        """Send what the core has queued. True: the kernel has all of it."""
        taken = True
        for data in self.core.data_to_send():
            if data:  # b"" requests a half-close: the transport closes both ways
                taken = self.transport.write(data)
        return taken

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, wait for the answer, bounded, then shut the transport.

        Idempotent. Called by the greenlet that reads.
        """
        if not self.transport.failure:
            if self.core.state is State.OPEN:
                self.core.send_close(code, reason[:MAX_REASON_CHARS])
                self.flush()
            with suppress(OutOfTimeError), within(CLOSE_TIMEOUT_S):
                self._linger()
        self.transport.shut()
        release(self.core)

    def _linger(self) -> None:
        """Read and drop until the peer answered the close or ended."""
        self._cutter.receive(self._first)  # the start of a message that the next read continues
        self._first = b""
        while self.core.state is State.CLOSING and self.core.close_rcvd is None:
            data = self.transport.read()
            if data is None:
                continue
            if not data:
                return
            self._cutter.receive(data)


def release(core: Protocol) -> None:
    """Break the object cycles of a core that is no longer used.

    Its parser is a generator that refers to it, and so does the traceback of the error it keeps. Only the collector would free
    them.
    """
    core.parser.close()
    refusal = core.handshake_exc
    if refusal is not None:
        refusal.__traceback__ = None
        if isinstance(refusal, InvalidStatus):  # error and response refer to each other
            refusal.args = ()
            del refusal.response
    core.parser_exc = core.handshake_exc = None


T = TypeVar("T")


class MessageReader(Generic[T]):
    """Reader of a websocket of JSON text, as typed events.

    Events before a broken message are returned first.
    """

    __slots__ = ("_broken", "_left", "_parse", "_socket", "_take")

    def __init__(self, web_socket: WebSocket, parse: Callable[[bytes], T]) -> None:
        self._socket = web_socket
        self._parse = parse
        self._broken: tuple[ProtocolCode, str] | None = None  # a broken message; an error object would keep its traceback
        self._left: list[T] = []  # events that `take` left
        self._take: Callable[[T], bool] | None = None

    def read(self) -> list[T]:
        """Wait for events. Returns [] when no whole message came, or the transport was woken.

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
        """Read events, passing each that comes meanwhile to `take`, in the hub's callback.

        `take`: must not wait. True: the event is done. The first event left, and all behind it, are returned in order.
        Raises: as `read`, and what `take` raises.
        """
        self._take = take
        events: list[T] = []
        try:
            if self._broken is None and not self._left:
                for message in self._socket.read_beside(self._offer):
                    events.append(self._event(message))
        except LegClosedError:
            if not self._left:
                raise  # else the next read raises it again
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
            raise ProtocolError("binary_message", "a binary message instead of JSON text")
        return self._parse(message.data)
