"""TLS transport: memory buffers in front of a plain transport, which does all waiting and writing.

Used by the AI leg only. Like a plain transport, `write` never waits and never raises.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import final

from gevent.socket import socket

from gw.call.limits import Allowance
from gw.media.hub.clock import turn_loop
from gw.media.transport.plain import READ_BYTES, Transport


@final
class TlsTransport:
    """TLS over a connected socket. `start_tls` comes before any other call."""

    __slots__ = ("_incoming", "_outgoing", "_tls", "_transport")

    def __init__(self, sock: socket, limit_bytes: int, reads: Allowance | None = None) -> None:
        """`limit_bytes`: encrypted bytes that may wait for a peer that does not read. `reads`: as of `Transport`."""
        self._transport = Transport(sock, limit_bytes, reads=reads)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None

    def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Do the handshake, with certificate and name checked. The caller bounds the time.

        Raises: ssl.SSLError; ConnectionError when the peer closes the connection.
        """
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._push()
                if not self._pull():
                    raise ConnectionError(self.why or "the peer closed the connection during the TLS handshake") from None
                continue
            self._push()
            break
        self._tls = tls

    def write(self, data: bytes) -> bool:
        """Send without waiting; never raises. True: the kernel has these bytes and all before them."""
        assert self._tls is not None
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self._transport.fail("broken", error.reason or str(error))
            return False
        return self._push()

    def end_writing(self) -> None:
        """End this side: the peer reads a TLS close_notify, and then the end of the connection."""
        assert self._tls is not None
        with suppress(ssl.SSLError):  # it would wait for the peer's answer
            self._tls.unwrap()
        self._push()
        self._transport.end_writing()

    def drop_rest(self) -> None:
        """Read and drop until the peer ends its side, without decrypting. Not bounded in time: the caller limits it."""
        self._transport.drop_rest()

    def read(self) -> bytes | None:
        """Wait for bytes. Returns b"" when the peer ended its side or the transport failed, None when woken.

        Every read lets the hub turn once, also when one record fills several reads, or one read of the socket has many records.
        """
        tls, transport = self._tls, self._transport
        assert tls is not None
        if tls.pending() or self._incoming.pending:
            turn_loop()
        while True:
            try:
                data = tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                pulled = self._pull()
                if not pulled:
                    return pulled
                continue
            except ssl.SSLError as error:
                transport.fail("broken", error.reason or str(error))
                return b""
            self._push()  # key updates and alerts
            return data

    def _push(self) -> bool:
        data = self._outgoing.read()
        return self._transport.write(data) if data else not self._transport.waiting_bytes

    def _pull(self) -> bytes | None:
        data = self._transport.read()
        if data:
            self._incoming.write(data)
        return data

    @property
    def failure(self) -> str:
        """One of "stalled", "broken", "shut"; empty while the transport works."""
        return self._transport.failure

    @property
    def why(self) -> str:
        """The failure with its detail, as text."""
        return self._transport.why

    @property
    def waiting_bytes(self) -> int:
        """Bytes the kernel has not taken."""
        return self._transport.waiting_bytes

    def wake(self) -> None:
        """Make the waiting read, or else the next one, return None."""
        self._transport.wake()

    def shut(self) -> None:
        """Close the socket permanently. Bytes the kernel has not taken are lost. Idempotent."""
        self._transport.shut()
