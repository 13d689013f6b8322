"""HTTP/1.1 requests: bytes in, a checked head and body out, or one RequestError.

Strict, since a gateway and the proxy before it must agree where a request ends: each line ends in CRLF, a body has one
Content-Length of digits or the transfer coding `chunked`, never both, and every bound is below what a slice of the hub may cost.
Any split of the same bytes gives the same result. No step is slower than linear: octets are checked by `bytes.translate`, so no
input makes a regular expression search again and again. The dearest head of 16 KiB costs 0.1 ms.

A webhook's head costs 20 us, with h11 0.16 38; with its form and the WSGI environment 27, with pywsgi's own parser 54. Of the 161
requests that `tests/wire/http_requests.py` has refused, h11 refuses 87 and pywsgi 38.

Source: RFC 9112 (syntax and framing), RFC 9110 (fields), RFC 3986 (targets).
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, get_args

from gw.errors import GatewayError

RequestFault = Literal[
    "bad_octet",  # a control character, NUL, a bare CR or a bare LF
    "bad_request_line",  # not METHOD SP target SP version
    "bad_version",  # neither HTTP/1.1 nor HTTP/1.0
    "bad_field",  # a field line that is folded, unnamed or repeated where one is permitted
    "bad_host",  # not exactly one host, or another than that of the target
    "bad_framing",  # the end of the body is unclear
    "bad_expectation",  # an Expect other than 100-continue
    "bad_chunk",  # a body that is not valid chunked coding
    "line_too_long",  # the request line is over MAX_LINE_BYTES
    "head_too_long",  # over MAX_HEAD_BYTES or MAX_FIELDS
    "body_too_long",  # over MAX_BODY_BYTES, or MAX_FRAMING_BYTES around the chunks
    "cut_off",  # the peer ended within a request
]
FAULTS: Final[tuple[str, ...]] = get_args(RequestFault)
#: Why a server gives a request up that is not complete.
GivenUp = Literal["head_timeout", "body_timeout", "displaced", "address_limit"]

#: Longest head, request line and field lines together.
MAX_HEAD_BYTES: Final = 16 << 10
#: Longest request line. RFC 9112 3 recommends support for at least 8000 octets.
MAX_LINE_BYTES: Final = 8192
MAX_FIELDS: Final = 64
#: Options of one Connection field, empty ones included (RFC 9110 5.6.1.2: a reasonable number).
MAX_OPTIONS: Final = 32
#: Largest body. Twilio's forms are below 4 KiB; a caller's name beyond ASCII comes twice, each byte in three. Read in 0.2 ms.
MAX_BODY_BYTES: Final = 32 << 10
#: Chunk sizes, their extensions and trailers of one body together: about 200 chunks, which cost 0.3 ms.
MAX_FRAMING_BYTES: Final = 1 << 10

_STATUSES: Final[dict[str, str]] = {
    "bad_version": "505 HTTP Version Not Supported",
    "bad_expectation": "417 Expectation Failed",
    "line_too_long": "414 URI Too Long",
    "head_too_long": "431 Request Header Fields Too Large",
    "body_too_long": "413 Content Too Large",
    "head_timeout": "408 Request Timeout",
    "body_timeout": "408 Request Timeout",
    "displaced": "503 Service Unavailable",
    "address_limit": "503 Service Unavailable",
}
_TOO_LONG: Final[dict[str, str]] = {
    "line_too_long": f"the request line is over {MAX_LINE_BYTES} bytes",
    "head_too_long": f"the head is over {MAX_HEAD_BYTES} bytes",
    "body_too_long": f"the sizes and trailers of the chunks are over {MAX_FRAMING_BYTES} bytes",
}
_ALNUM: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: RFC 9110 5.6.2, `tchar`.
_TOKEN: Final = _ALNUM + b"!#$%&'*+-.^_`|~"
#: RFC 9110 5.5: visible characters, obs-text, space and tab.
FIELD_OCTETS: Final = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
#: RFC 3986 3.3 and 3.4: the characters of a path and a query, escapes included.
_TARGET: Final = _ALNUM + b"-._~!$&'()*+,;=:@/?%"
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]++)(.*+)", re.IGNORECASE)
#: RFC 9110 7.2, without commas and escapes, which no name in use has: two hosts merged into one field are refused.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}+|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
#: RFC 9112 7.1 and 7.1.1: a size, then extensions, which are checked and ignored.
_SIZE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,8}+)"
    rb"(?:[ \t]*+;[ \t]*+[!#-'*+.^-z|~A-Z0-9-]++(?:[ \t]*+=[ \t]*+(?:[!#-'*+.^-z|~A-Z0-9-]++|\"(?:[^\"\\]|\\.)*+\"))?+)*+"
)
#: Fields that a request may have once. Two of them would be read differently by two programs.
_SINGLE: Final[dict[bytes, RequestFault]] = {
    b"host": "bad_host",
    b"content-length": "bad_framing",
    b"transfer-encoding": "bad_framing",
    b"authorization": "bad_field",
    b"content-type": "bad_field",
    b"expect": "bad_field",
    b"origin": "bad_field",
    b"sec-websocket-key": "bad_field",
    b"sec-websocket-version": "bad_field",
    b"x-twilio-signature": "bad_field",
}
#: Methods whose content has no meaning (RFC 9110 9.3): with a body they are refused, since it may be a smuggled request.
_WITHOUT_BODY: Final = (b"GET", b"HEAD", b"TRACE")
_MAX_LENGTH_DIGITS: Final = 16


class RequestError(GatewayError):
    """A request that is refused. `status`: that of the answer, after which the connection closes."""

    def __init__(self, fault: RequestFault | GivenUp, detail: str) -> None:
        super().__init__(detail)
        self.code: RequestFault | GivenUp = fault
        self.status = _STATUSES.get(fault, "400 Bad Request")


class Head(NamedTuple):
    """One valid request head."""

    method: str
    target: str  # path and query as sent, also of an absolute target; or `*`
    version: str
    fields: list[tuple[str, str]]  # in sequence, names as sent, values decoded from latin-1
    length: int  # of the body; 0 if it is chunked
    is_chunked: bool
    is_last: bool  # the connection closes after this request
    expects_continue: bool


class _Lines:
    """Received bytes, taken line by line."""

    __slots__ = ("_at", "_data")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    @property
    def rest(self) -> bytes:
        """Bytes behind what has been taken."""
        return self._data[self._at :]

    def _line(self, room: int, too_long: RequestFault) -> bytes | None:
        """Take the next line, None if it is not complete. `room`: its bytes at most, CRLF included."""
        at = self._at
        end = self._data.find(b"\r\n", at, at + max(room, 0))
        line = self._data[at : end if end >= 0 else at + max(room, 0)]
        if (strange := line.translate(None, FIELD_OCTETS)) and (end >= 0 or strange != b"\r" or line[-1:] != b"\r"):
            raise RequestError("bad_octet", "a control character, or a line that does not end in CRLF")
        if end < 0:
            if len(line) >= room:
                raise RequestError(too_long, _TOO_LONG[too_long])
            return None
        self._at = end + 2
        return line


class HeadReader(_Lines):
    """Reads one request head."""

    __slots__ = ("_counts", "_fields", "_start")

    def __init__(self) -> None:
        super().__init__()
        self._start: list[bytes] | None = None  # method, target, version, host of an absolute target
        self._fields: list[tuple[bytes, bytes]] = []

    @property
    def has_begun(self) -> bool:
        return bool(self._data)

    @property
    def method(self) -> str:
        """The method, also of a head that is refused behind its first line; else empty."""
        return self._start[0].decode("ascii") if self._start else ""

    def feed(self, data: bytes) -> Head | None:
        """Return the head once it is complete; bytes behind it are in `rest`. Raises RequestError."""
        self._data += data
        while self._start is None:
            line = self._line(MAX_LINE_BYTES, "line_too_long")
            if line is None:
                return None
            if line or self._at > 2:  # one empty line before a request is ignored (RFC 9112 2.2)
                self._start = _request_line(line)
        while (line := self._line(MAX_HEAD_BYTES - self._at, "head_too_long")) is not None:
            if not line:
                return _head(self._start, self._fields)
            if len(self._fields) == MAX_FIELDS:
                raise RequestError("head_too_long", f"more than {MAX_FIELDS} fields")
            self._fields.append(parse_field(line))
        return None


class ChunkedReader(_Lines):
    """Reads one chunked body, and ignores its extensions and trailers."""

    __slots__ = ("_body", "_framing", "_is_last", "_size", "_total")

    def __init__(self) -> None:
        super().__init__()
        self._body: list[bytes] = []
        self._framing = 0  # bytes that are not content
        self._total = 0  # bytes of content announced
        self._size = 0  # of the chunk that comes next
        self._is_last = False

    def feed(self, data: bytes) -> bytes | None:
        """Return the body once it is complete; bytes behind it are in `rest`. Raises RequestError."""
        self._data += data
        while True:
            if self._size:
                end = self._at + self._size
                if len(self._data) < end + 2:
                    return None
                if self._data[end : end + 2] != b"\r\n":
                    raise RequestError("bad_chunk", "a chunk is longer than its size")
                self._body.append(self._data[self._at : end])
                self._at, self._size = end + 2, 0
            line = self._line(MAX_FRAMING_BYTES - self._framing, "body_too_long")
            if line is None:
                return None
            self._framing += len(line) + 4  # both CRLF of a chunk
            if not self._is_last:
                self._take_size(line)
            elif line:
                parse_field(line)
            else:
                return b"".join(self._body)

    def _take_size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise RequestError("bad_chunk", "a chunk's first line is not its size in hexadecimal digits")
        self._size = int(found[1], 16)
        self._total += self._size
        self._is_last = not self._size
        if self._total > MAX_BODY_BYTES:
            raise too_long_body()


def too_long_body() -> RequestError:
    return RequestError("body_too_long", f"a body may have at most {MAX_BODY_BYTES} bytes")


def _request_line(line: bytes) -> list[bytes]:
    """Check a request line. Returns method, path with query, version, and an absolute target's host."""
    parts = line.split(b" ")
    if len(parts) != 3 or not parts[0] or parts[0].translate(None, _TOKEN):
        raise RequestError("bad_request_line", "the request line is not `METHOD target HTTP/1.1`")
    method, target, version = parts
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        if _VERSION.fullmatch(version):
            raise RequestError("bad_version", "use HTTP/1.1")
        raise RequestError("bad_request_line", "the request line is not `METHOD target HTTP/1.1`")
    host = b""
    if absolute := _ABSOLUTE.fullmatch(target):
        host, target = absolute.groups()
        target = target if target[:1] == b"/" else b"/" + target
    is_path = target[:1] == b"/" and not target.translate(None, _TARGET) and not _BROKEN_ESCAPE.search(target)
    if not is_path and not (target == b"*" and method == b"OPTIONS"):
        raise RequestError("bad_request_line", "the target is not a path")
    return [method, target, version, host]


def parse_field(line: bytes) -> tuple[bytes, bytes]:
    """Split a field line. A folded line has no name, nor has one with a space before its colon. Raises RequestError."""
    name, colon, value = line.partition(b":")
    if not colon or not name or name.translate(None, _TOKEN):
        raise RequestError("bad_field", "a field line is not `Name: value`")
    return name, value.strip(b" \t")


def _head(start: list[bytes], fields: list[tuple[bytes, bytes]]) -> Head:
    """Check the fields that say where a request ends and what follows it."""
    method, target, version, host = start
    is_1_1 = version == b"HTTP/1.1"
    found: dict[bytes, bytes] = {}
    connection: list[bytes] = []
    for name, value in fields:
        name = name.lower()
        if name in _SINGLE:
            if name in found:
                raise RequestError(_SINGLE[name], f"more than one {name.decode('ascii')}")
            found[name] = value
        elif name == b"connection":
            options = value.split(b",", MAX_OPTIONS)
            if len(options) > MAX_OPTIONS:
                raise RequestError("bad_field", f"more than {MAX_OPTIONS} options of Connection")
            connection += [option.strip(b" \t").lower() for option in options]
    named = found.get(b"host")
    if named is None:
        if is_1_1:
            raise RequestError("bad_host", "Host is missing")
    elif not _HOST.fullmatch(named):
        raise RequestError("bad_host", "Host is not a name or an address with a port")
    if host and (not _HOST.fullmatch(host) or (named is not None and named.lower() != host.lower())):
        raise RequestError("bad_host", "Host is not that of the target")
    is_chunked, length = _framing(found, is_1_1=is_1_1)
    if (is_chunked or length) and method in _WITHOUT_BODY:
        raise RequestError("bad_framing", f"a {method.decode('ascii')} has no body")
    if length > MAX_BODY_BYTES:
        raise too_long_body()
    expected = found.get(b"expect", b"").lower()
    if is_1_1 and expected not in (b"", b"100-continue"):
        raise RequestError("bad_expectation", "Expect is not 100-continue")
    return Head(
        method.decode("ascii"),
        target.decode("ascii"),
        version.decode("ascii"),
        [(name.decode("ascii"), value.decode("latin-1")) for name, value in fields],
        length,
        is_chunked,
        b"close" in connection or (not is_1_1 and b"keep-alive" not in connection),
        is_1_1 and bool(expected),
    )


def _framing(found: dict[bytes, bytes], *, is_1_1: bool) -> tuple[bool, int]:
    """Return True for a chunked body, and the length of another. Source: RFC 9112 6.3."""
    coding, length = found.get(b"transfer-encoding"), found.get(b"content-length")
    if coding is not None:
        if length is not None or not is_1_1 or coding.lower() != b"chunked":
            raise RequestError("bad_framing", "Transfer-Encoding is not exactly `chunked`, or beside a Content-Length")
        return True, 0
    if length is None:
        return False, 0
    if not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS:
        raise RequestError("bad_framing", "Content-Length is not a decimal number")
    return False, int(length)
