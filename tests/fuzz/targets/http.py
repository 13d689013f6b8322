"""Laws of gw.protocol.http.

Any cut of the same bytes gives the same result, within its bounds. An accepted request, written anew in the plainest form, is
read the same; so it is by the standard library's lenient reader.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from io import BytesIO

from gw.protocol.http import (
    FAULTS,
    MAX_BODY_BYTES,
    MAX_FIELDS,
    MAX_FRAMING_BYTES,
    MAX_HEAD_BYTES,
    ChunkedReader,
    Head,
    HeadReader,
    RequestError,
)
from tests.fuzz.targets.cuts import cuts


def _read(reader: HeadReader | ChunkedReader, pieces: list[bytes]) -> tuple[Head | bytes | None, bytes, str]:
    """Feed pieces until the reader has its result. Returns the result, the bytes behind it, the fault."""
    for at, piece in enumerate(pieces):
        try:
            result = reader.feed(piece)
        except RequestError as error:
            assert error.code in FAULTS and error.status[0] in "45" and len(str(error)) <= 200
            return None, b"", error.code
        if result is not None:
            return result, reader.rest + b"".join(pieces[at + 1 :]), ""
    return None, reader.rest, ""


def _same_in_any_cut(make: Callable[[], HeadReader | ChunkedReader], data: bytes) -> tuple[Head | bytes | None, bytes]:
    result, rest, fault = _read(make(), [data])
    for pieces in cuts(data):
        apart = _read(make(), pieces)
        assert apart[0] == result and apart[2] == fault, (apart, result, fault)
        assert result is None or apart[1] == rest
    return result, rest


def head(data: bytes) -> None:
    found, rest = _same_in_any_cut(HeadReader, data)
    if not isinstance(found, Head):
        return
    taken = data[: len(data) - len(rest)]
    assert data.endswith(rest) and taken.endswith(b"\r\n\r\n") and len(taken) <= MAX_HEAD_BYTES
    assert len(found.fields) <= MAX_FIELDS and 0 <= found.length <= MAX_BODY_BYTES
    assert not (found.is_chunked and found.length)
    assert found.target[0] == "/" or (found.target == "*" and found.method == "OPTIONS")
    lines = [f"{found.method} {found.target} {found.version}", *(f"{name}: {value}" for name, value in found.fields), "", ""]
    plain = "\r\n".join(lines).encode("latin-1")
    if len(plain) <= MAX_HEAD_BYTES and not taken.split(b" ")[1].lower().startswith(b"http"):  # spaces added; a host removed
        assert HeadReader().feed(plain) == found
    theirs = http.client.parse_headers(BytesIO(taken.lstrip(b"\r\n").partition(b"\r\n")[2]))
    assert [(name, value.strip(" \t")) for name, value in theirs.items()] == found.fields


def chunked_body(data: bytes) -> None:
    body, rest = _same_in_any_cut(ChunkedReader, data)
    if not isinstance(body, bytes):
        return
    taken = len(data) - len(rest)
    assert data.endswith(rest) and len(body) <= MAX_BODY_BYTES and taken - len(body) <= 2 * MAX_FRAMING_BYTES
    assert ChunkedReader().feed((b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n") == body
    answer = http.client.HTTPResponse(_Socket(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data))  # type: ignore[arg-type]
    answer.begin()
    assert answer.read() == body


class _Socket:
    """A socket, as far as HTTPResponse uses one."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> BytesIO:
        return BytesIO(self._data)
