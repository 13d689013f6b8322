"""One connection to an endpoint, as urllib3 uses it.

urllib3 is given a connected socket and never connects, so it talks to the address that was checked. Reading is bounded
in bytes: an endpoint could send interim answers, headers or chunk lengths without end. Each further read lets the hub run: a
socket that always has data would never let a timer expire.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import time
from collections.abc import Sequence
from http.client import CONTINUE, SWITCHING_PROTOCOLS, HTTPException, HTTPResponse
from typing import Any, Final

import gevent
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from gw.bounded import OutOfTimeError, within
from gw.config.hook_url import Address, HookUrl
from gw.errors import GatewayError

#: Bytes of an answer's head.
HEAD_BYTES: Final = 64 << 10
#: Bytes received for one of the body: the shortest chunk is `1 CR LF x CR LF`.
CHUNK_COST: Final = 6
#: Longest attempt to connect to one of several addresses.
ADDRESS_S: Final = 3.0


class UnconnectedError(GatewayError):
    """No connection: nothing was sent."""

    code = "unavailable"


class BrokenError(GatewayError):
    """A connection ended, or carried something else than an answer."""

    code = "unavailable"


class Wire:
    """A connected socket. `sent`: a byte of the request may have left. `ended`: the peer's side has ended."""

    def __init__(self, sock: socket.socket, limit_bytes: int) -> None:
        self._sock = sock
        self._request = b""
        self._left = limit_bytes
        self.sent = False
        self.ended = False

    def exchange(self, url: HookUrl, headers: dict[str, str], body: bytes, max_bytes: int) -> tuple[int, Any, bytes]:
        """Send a request. Returns status, headers, and at most `max_bytes` + 1 of the answer's body. Raises BrokenError."""
        connection = HTTPConnection(url.host, url.port, timeout=None)
        connection.auto_open = 0
        connection.sock = self
        connection.response_class = _Answer
        try:
            connection.request("POST", url.target, body, headers, preload_content=False, decode_content=False)
            response = connection.getresponse()
            try:
                if self.ended:  # http.client takes the end of the connection for the end of the head
                    raise BrokenError("the connection ended within the answer's head")
                body = b""
                while len(body) <= max_bytes and (piece := response.read(max_bytes + 1 - len(body), decode_content=False)):
                    body += piece
                return response.status, response.headers, body
            finally:
                response.close()
        except (HTTPException, HTTPError, OSError, ValueError) as error:
            raise BrokenError(f"no answer that can be read: {type(error).__name__}: {error}"[:300]) from error
        finally:
            connection.close()

    # -- the part of a socket that urllib3 uses -----------------------------------------------------------------------

    def sendall(self, data: bytes) -> None:
        """Add bytes to the request, which is sent whole: http.client sends head and body in two packets."""
        self._request += data

    def makefile(self, mode: str) -> io.BufferedReader:
        """Send the request. Returns the file from which the answer is read."""
        assert mode == "rb"
        self.sent = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered without reading all of it
            self._sock.sendall(self._request)
        return io.BufferedReader(_Bounded(self, self._sock.makefile("rb", buffering=0)))

    def settimeout(self, _timeout_s: float | None) -> None:
        """Do nothing: the deadline of the request bounds each wait."""

    def shutdown(self, how: int) -> None:
        """End one side, or both."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._sock.close()

    def on_read(self, count: int) -> None:
        """Count received bytes; 0 is the end. Raises BrokenError beyond the bound."""
        self.ended = self.ended or not count
        self._left -= count
        if self._left < 0:
            raise BrokenError("the answer has more bytes around its body than any should")


class _Answer(HTTPResponse):
    """A final answer: http.client takes an interim one other than 100 for it, such as 103 (RFC 9110 15.2)."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        interim = CONTINUE < status < 200 and status != SWITCHING_PROTOCOLS
        return version, CONTINUE if interim else status, reason


class _Bounded(io.RawIOBase):
    def __init__(self, wire: Wire, raw: Any) -> None:
        super().__init__()
        self._wire = wire
        self._raw = raw
        self._reads = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._reads:  # the first one waits for the endpoint
            gevent.sleep(0)
        self._reads += 1
        count = self._raw.readinto(buffer) or 0
        self._wire.on_read(count)
        return int(count)

    def close(self) -> None:
        self._raw.close()
        super().close()


def connect(url: HookUrl, addresses: Sequence[Address], tls: ssl.SSLContext | None, *, deadline_s: float) -> socket.socket:
    """Connect to the first address that accepts. `tls`: for the host's name.

    The caller bounds the time too. Raises: UnconnectedError.
    """
    problem = f"{url.host} has no address"
    name = url.host.rstrip(".")  # certificates have no final dot
    for number, address in enumerate(addresses):
        left_s = (deadline_s - time.monotonic()) / (len(addresses) - number)
        bound_s = left_s if number == len(addresses) - 1 else min(left_s, ADDRESS_S)
        sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            with within(max(0.001, bound_s)):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect((str(address), url.port))
                if tls is not None:
                    sock = secure = tls.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
                    secure.do_handshake()
                return sock
        except ssl.SSLError as error:
            problem = f"TLS with {url.host} at {address}: {error.reason or error}"
            if isinstance(error, ssl.SSLCertVerificationError):
                problem = f"the certificate of {url.host} at {address}: {error.verify_message}"
        except OutOfTimeError:
            problem = f"{address} does not answer"
        except OSError as error:
            problem = f"{address}: {error.strerror or error}"
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise UnconnectedError(problem)
