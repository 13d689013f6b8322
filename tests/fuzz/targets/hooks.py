"""Laws of requests to a user's endpoints: URLs, signatures, arguments of tools, answers.

A URL has parts that no other parser could read differently, or is refused; nothing forged is valid; arguments are sent
unchanged; any bytes of an endpoint are an answer or one BrokenError, within the bounds.
"""

from __future__ import annotations

import json
import socket
from typing import Final
from urllib.parse import urlsplit

from gw.config.hook_url import parse_hook_url
from gw.config.json_schema import Schema
from gw.control.hooks.wire import BrokenError, Wire
from gw.errors import ProtocolError
from gw.protocol.hooks import signature as submilli_signature
from gw.protocol.hooks import tool_call

_SECRETS: Final = ("a secret of the fuzzer", "another")
_NOW_S: Final = 1_700_000_000
_MAX_BYTES: Final = 100
#: Divides every number by a double.
_ANY_HALVES: Final = Schema('{"type":"object","additionalProperties":{"multipleOf":0.5}}')
_URL: Final = parse_hook_url("http://api.example.com/x")


def url(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        parts = parse_hook_url(text)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    split = urlsplit(text)
    assert (parts.scheme, split.username, split.fragment) == (split.scheme, None, "")
    assert parts.host and not set(parts.host) & set("@/\\?#[]% \t\r\n")
    assert parts.target.startswith("/") and parts.target.isascii() and parts.target.isprintable()
    again = f"{parts.scheme}://{parts.authority}{parts.target}"
    assert parse_hook_url(again) == parts


def signature(data: bytes) -> None:
    """Take the data as a header and a body, and as a body alone."""
    header, _, body = data.partition(b"\0")
    assert submilli_signature.verify(_SECRETS, header.decode("latin-1"), body, _NOW_S) in ("malformed", "expired", "forged")
    made = submilli_signature.sign(_SECRETS, data, _NOW_S)
    assert [submilli_signature.verify([secret], made, data, _NOW_S + 300) for secret in _SECRETS] == ["", ""]
    assert submilli_signature.verify(_SECRETS, made, data + b"\0", _NOW_S) == "forged"


def arguments(data: bytes) -> None:
    try:
        read = tool_call.read_arguments(data.decode("utf-8", "surrogateescape"))
    except ProtocolError as error:
        assert error.detail and len(error.detail) <= 200
        return
    sent = json.loads(read.json)
    _ANY_HALVES.problem(read.value)
    assert tool_call.read_arguments(read.json.decode()).json == read.json
    assert sent == read.value or "\ufffd" in read.json.decode()


def answer(data: bytes) -> None:
    """Take the data as all that an endpoint sends before it closes."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data[:20_000])
        theirs.shutdown(socket.SHUT_WR)
        wire = Wire(ours, 10_000)
        try:
            status, _, body = wire.exchange(_URL, {}, b"{}", _MAX_BYTES)
        except BrokenError as error:
            assert len(str(error)) <= 400
            return
        finally:
            wire.close()
    assert 100 <= status <= 999
    assert len(body) <= _MAX_BYTES + 1
    found = tool_call.read_answer(status, body, max_bytes=_MAX_BYTES)
    assert found.status in ("ok", "too_large", "refused", "unavailable")
    found.output.encode()
