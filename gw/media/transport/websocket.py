"""Websocket over one transport: whole messages in, messages and close out.

`gw.protocol.websocket.frames` cuts and builds the frames, the transport moves the bytes. The end of a connection is one
`LegClosedError` or one `ProtocolError`. Pings are answered here. Messages that come while the reader waits can be handled in the
hub's callback, which saves a switch to the reader and back. Never waits for a write, never interprets a message.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from time import monotonic
from typing import Final, Generic, TypeVar

from gw.bounded import OutOfTimeError, within
from gw.errors import GatewayError, ProtocolCode, ProtocolError, close_code
from gw.media.hub.clock import turn_loop
from gw.media.transport.plain import Transport
from gw.media.transport.tls import TlsTransport
from gw.protocol.websocket.frames import CLOSE, LOST, NORMAL, PING, PONG, TEXT, Message, MessageCutter, close_payload, frame

#: Time a peer has to end the connection after a close frame, before the socket is closed.
CLOSE_TIMEOUT_S: Final = 1.0
#: Messages above this are split, if the protocol can: decoding as much takes 0.3 ms.
LONG_BYTES: Final = 64 << 10


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
    """Open websocket. `limit_bytes`: of the longest message. `first`: bytes read behind the handshake.

    `may_skip`: see MessageCutter. `on_pongs`: receives the number of pings answered in a read.
    """

    __slots__ = ("_cutter", "_declined", "_is_client", "_is_closing", "_offer", "_on_pongs", "transport")

    def __init__(
        self,
        transport: Transport | TlsTransport,
        limit_bytes: int,
        *,
        is_client: bool,
        first: bytes = b"",
        may_skip: Callable[[bytearray], bool] | None = None,
        on_pongs: Callable[[float], None] = lambda count: None,
    ) -> None:
        self.transport = transport
        self._cutter = MessageCutter(limit_bytes, is_client=is_client, first=first, may_skip=may_skip)
        self._is_client = is_client
        self._on_pongs = on_pongs
        self._is_closing = False
        self._offer: Callable[[list[Message]], bool] | None = None
        self._declined: list[Message] = []

    @property
    def is_open(self) -> bool:
        """True until the peer's messages, or this end's, are over."""
        return self._cutter.end is None and not self._is_closing

    @property
    def has_begun(self) -> bool:
        """True while a message of the peer's has begun and is not complete."""
        return self._cutter.has_begun

    def read(self) -> list[Message]:
        """Wait for messages. Returns [] when no whole message came, or the transport was woken.

        Raises: LegClosedError when the peer ended; ProtocolError when the peer violated RFC 6455 or a limit. Messages that came
        before the end are returned first. `close` sends or answers the close frame.
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
        if self._cutter.has_more:
            turn_loop()
            messages = self._receive(b"")
        elif self._cutter.end is None:
            if take is None:
                data = self.transport.read()
            else:
                assert isinstance(self.transport, Transport)
                data = self.transport.read(take)
            messages, self._declined = self._declined, []
            if data:
                messages += self._receive(data)
            elif data is not None:
                self._cutter.receive_end()
        if not messages and self._cutter.end is not None:
            self._raise_end()
        return messages

    def _on_bytes(self, data: bytes) -> bool:
        """Offer messages; the hub calls this while the reader waits."""
        messages = self._receive(data)
        if self._cutter.end is None and self._offer is not None:
            return self._offer(messages) and not self._cutter.has_more
        self._declined = messages
        return False

    def _receive(self, data: bytes) -> list[Message]:
        """Cut whole messages, and answer pings in one write."""
        messages = self._cutter.receive(data, monotonic())
        if self._cutter.pings:
            self.transport.write(b"".join([self._frame(PONG, payload) for payload in self._cutter.pings]))
            self._on_pongs(len(self._cutter.pings))
        return messages

    def _raise_end(self) -> None:
        end = self._cutter.end
        assert end is not None
        if end.error is not None:
            raise ProtocolError(end.error, end.text)
        raise LegClosedError(
            clean=end.code != LOST,
            close_code=end.code,
            close_reason=end.text,
            failure=self.transport.failure,
            why=self.transport.why,
        )

    def _frame(self, opcode: int, payload: bytes) -> bytes:
        return frame(opcode, payload, _keys.next() if self._is_client else b"")

    def send_text(self, data: bytes) -> bool:
        """Send one text message. True: the kernel has it. False: it waits, or the websocket is closing."""
        return self.is_open and self.transport.write(self._frame(TEXT, data))

    def ping(self) -> None:
        """Send a ping, which the peer must answer."""
        if self.is_open:
            self.transport.write(self._frame(PING, b""))

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, wait until the peer ends, bounded, then shut the transport.

        After a violation the code is the violation's. NORMAL answers a close of the peer with the peer's own code and reason.
        Idempotent. Called by the greenlet that reads.
        """
        end = self._cutter.end
        if end is not None and end.error is not None:
            code = close_code(end.error)
        elif end is not None and code == NORMAL:
            code, reason = end.code, end.text
        self._is_closing = True
        if code != LOST and not self.transport.failure:
            self.transport.write(self._frame(CLOSE, close_payload(code, reason)))
            self.transport.end_writing()
            with suppress(OutOfTimeError), within(CLOSE_TIMEOUT_S):
                self.transport.drop_rest()
        self.transport.shut()


T = TypeVar("T")


class MessageReader(Generic[T]):
    """Reader of a websocket of JSON text, as typed events.

    Events before a broken message are returned first.
    """

    __slots__ = ("_broken", "_left", "_parse", "_pieces", "_socket", "_split", "_take")

    def __init__(
        self,
        web_socket: WebSocket,
        parse: Callable[[bytes], T],
        split: Callable[[bytes | bytearray], Iterator[bytes]] | None = None,
    ) -> None:
        """`split`: yields a long message as shorter ones, each parsed in a separate slice. Used by `read`."""
        self._socket = web_socket
        self._parse = parse
        self._split = split
        self._pieces: Iterator[Message] = iter(())  # of a long message, and the messages behind it
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
            for message in self._next_messages():
                events.append(self._event(message))
        except ProtocolError as error:
            if not events:
                raise
            self._broken = error.code, error.detail
        return events

    def _next_messages(self) -> list[Message]:
        """Return the next messages of one slice: those of a read, or one piece of a long message."""
        for piece in self._pieces:
            turn_loop()
            return [piece]
        messages = self._socket.read()
        for at, message in enumerate(messages):
            if len(message.data) > LONG_BYTES and self._split is not None:
                pieces = (Message(message.is_text, piece) for piece in self._split(message.data))
                self._pieces = chain(pieces, messages[at + 1 :])
                return messages[:at]
        return messages

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
        data = message.data
        return self._parse(data if isinstance(data, bytes) else bytes(data))
