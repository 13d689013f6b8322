"""A transport that speaks TLS: memory buffers in front of a plain transport, which does all the waiting and all the writing.

For the AI leg alone. What is said of a transport holds here too: a write never waits and never raises.
"""

from __future__ import annotations

import ssl
from typing import final

from gevent.socket import socket

from gw.media.transport.plain import READ_BYTES, Transport


@final
class TlsTransport:
    """A connected socket; `start_tls` comes before all else."""

    __slots__ = ("_incoming", "_outgoing", "_tls", "_transport")

    def __init__(self, sock: socket, limit_bytes: int) -> None:
        """`limit_bytes`: how much, encrypted, may wait for a peer that does not read."""
        self._transport = Transport(sock, limit_bytes)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None

    def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Do the handshake, with certificate and name checked. Raises ssl.SSLError, or ConnectionError when the peer ends it. The
        caller bounds the time."""
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
        """Hand bytes to the kernel, never wait, never raise. True: the kernel has them all, and all before them."""
        assert self._tls is not None
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self._transport.fail("broken", error.reason or str(error))
            return False
        return self._push()

    def read(self) -> bytes | None:
        """Wait for bytes. Returns b"" when the peer ended its side or the transport broke, None when it was woken."""
        tls, transport = self._tls, self._transport
        assert tls is not None
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
        """The transport does not work any more: "stalled", "broken", "shut"; or nothing."""
        return self._transport.failure

    @property
    def why(self) -> str:
        """The failure in words."""
        return self._transport.why

    @property
    def waiting_bytes(self) -> int:
        """Bytes the kernel has not taken."""
        return self._transport.waiting_bytes

    def wake(self) -> None:
        """Make one read return None: the waiting one or, if none waits, the next."""
        self._transport.wake()

    def shut(self) -> None:
        """Close the socket for good, both ways. What the kernel has not taken is lost. Idempotent."""
        self._transport.shut()
