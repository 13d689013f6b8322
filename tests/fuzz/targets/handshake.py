"""Laws of gw.protocol.websocket.handshake: the same in any cut, one HandshakeError, and stricter than websockets' client."""

from __future__ import annotations

from typing import Final

from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

from gw.protocol.http import MAX_HEAD_BYTES
from gw.protocol.websocket.handshake import ClientHandshake, HandshakeError
from tests.fuzz.targets.cuts import cuts

_NONCE: Final = bytes(16)
#: About the longest line that websockets reads.
_LINE_BYTES: Final = 8000


def answer(data: bytes) -> None:
    whole = _read([data])
    for pieces in cuts(data):
        assert _read(pieces) == whole
    if not isinstance(whole, bytes):
        return
    assert data.endswith(whole) and len(data) - len(whole) <= MAX_HEAD_BYTES + 4
    fields = data[: len(data) - len(whole)].split(b"\r\n")[1:]
    if any(len(field) > _LINE_BYTES for field in fields):
        return
    theirs = ClientProtocol(parse_uri("ws://example.com/"))
    theirs.key = "A" * 22 + "=="
    theirs.send_request(theirs.connect())
    theirs.receive_data(b"\r\n".join((b"HTTP/1.1 101 x", *fields)))  # it refuses a line without a reason, and HTTP/1.0
    # The other options of Connection do not matter here.
    assert theirs.state is State.OPEN or "Connection header" in str(theirs.handshake_exc), theirs.handshake_exc


def _read(pieces: list[bytes]) -> bytes | int | None:
    """Return the bytes behind the answer, the status of a refusal, or None without a whole answer."""
    handshake = ClientHandshake("example.com", "/", (), _NONCE)
    for at, piece in enumerate(pieces):
        try:
            behind = handshake.receive(piece)
        except HandshakeError as error:
            assert len(str(error)) <= 200
            return error.status
        if behind is not None:
            return behind + b"".join(pieces[at + 1 :])
    return None
