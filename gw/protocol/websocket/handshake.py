"""Opening handshake of a websocket (RFC 6455 §4): a client's request, the check of its answer, the proof of its key.

The answer's head is bounded, and the body of a refusal is not read. Pure: the nonce is passed in.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from hashlib import sha1
from typing import Final

from gw.errors import GatewayError
from gw.protocol.http import FIELD_OCTETS, MAX_FIELDS, MAX_HEAD_BYTES, RequestError, parse_field

#: Options of the answer's Connection that are read.
_MAX_OPTIONS: Final = 16
_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?", re.DOTALL)
#: RFC 9110 10.2.3, as seconds; a date, the other form, needs a clock.
_RETRY_AFTER: Final = re.compile(rb"\r\nretry-after:[ \t]*([0-9]{1,6})[ \t]*(?:\r\n|$)", re.IGNORECASE)


class HandshakeError(GatewayError):
    """The answer does not open a websocket. `status`: of an HTTP refusal, else 0. `retry_after_s`: its Retry-After; 0: none."""

    code = "bad_handshake"

    def __init__(self, status: int, detail: str, retry_after_s: int = 0) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after_s = retry_after_s


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that proves a Sec-WebSocket-Key was read."""
    return base64.b64encode(sha1((key + _GUID).encode("ascii")).digest()).decode("ascii")


class ClientHandshake:
    """One client's handshake. `request` is to be sent first."""

    __slots__ = ("_key", "_received", "request")

    def __init__(self, host: str, target: str, fields: Iterable[tuple[str, str]], nonce: bytes) -> None:
        """`fields`: more header fields. `nonce`: 16 random bytes."""
        self._key = base64.b64encode(nonce).decode("ascii")
        self._received = b""
        own = (
            ("Host", host),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", self._key),
            ("Sec-WebSocket-Version", "13"),
        )
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in (*own, *fields))]
        self.request = ("\r\n".join(lines) + "\r\n\r\n").encode()

    def receive(self, data: bytes) -> bytes | None:
        """Return the bytes behind the answer; None while it is incomplete. Raises HandshakeError."""
        self._received += data
        head, is_whole, behind = self._received.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD_BYTES:
            raise HandshakeError(0, f"a head over {MAX_HEAD_BYTES} bytes")
        status_line, has_line, fields = head.partition(b"\r\n")
        found = _STATUS_LINE.fullmatch(status_line)
        if found is None and (has_line or is_whole):
            raise HandshakeError(0, "no HTTP status line")
        if found is None or not is_whole:
            return None
        if found[1] != b"101":
            wait = _RETRY_AFTER.search(head)
            raise HandshakeError(int(found[1]), f"HTTP {int(found[1])}", int(wait[1]) if wait else 0)
        if head.replace(b"\r\n", b"").translate(None, FIELD_OCTETS):
            raise HandshakeError(0, "a control character in the head")
        self._check(fields.split(b"\r\n", MAX_FIELDS))
        return behind

    def _check(self, lines: list[bytes]) -> None:
        """Check the fields of a 101 (RFC 6455 4.1). No extension and no subprotocol was offered."""
        if len(lines) > MAX_FIELDS:
            raise HandshakeError(0, f"more than {MAX_FIELDS} fields")
        fields: dict[bytes, list[bytes]] = {}
        for line in lines:
            try:
                name, value = parse_field(line)
            except RequestError as error:
                raise HandshakeError(0, str(error)) from None
            fields.setdefault(name.lower(), []).append(value)
        options = b",".join(fields.get(b"connection", ())).lower().split(b",", _MAX_OPTIONS)
        upgrade = [value.lower() for value in fields.get(b"upgrade", ())]
        if upgrade != [b"websocket"] or b"upgrade" not in [option.strip(b" \t") for option in options]:
            raise HandshakeError(0, "a 101 to another protocol")
        if fields.get(b"sec-websocket-accept") != [accept_key(self._key).encode("ascii")]:
            raise HandshakeError(0, "Sec-WebSocket-Accept does not match the key")
        if b"sec-websocket-extensions" in fields or b"sec-websocket-protocol" in fields:
            raise HandshakeError(0, "an extension or a subprotocol that was not offered")
