"""HTTP requests that must be refused, and odd ones that must be read.

Sources: RFC 9112 and RFC 9110, by section; smuggling tricks known from the issue trackers of gunicorn, aiohttp, h11, llhttp and
pywsgi, and from "HTTP Desync Attacks" (PortSwigger, 2019).
"""

from __future__ import annotations

from typing import Final, NamedTuple

_HOST: Final = b"Host: 127.0.0.1\r\n"
_GET: Final = b"GET /healthz HTTP/1.1\r\n"
_POST: Final = b"POST /twilio/status HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_CHUNKED: Final = _POST + b"Transfer-Encoding: chunked\r\n\r\n"


class Refused(NamedTuple):
    """A request, the fault that is counted, and the rule it breaks."""

    sent: bytes
    fault: str
    rule: str


def _line(line: bytes) -> bytes:
    return line + b"\r\n" + _HOST + b"\r\n"


def _with(*fields: bytes) -> bytes:
    return _GET + _HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def _body(*fields: bytes) -> bytes:
    """A POST whose body would be `a=b` under each reading of the fields."""
    return _POST + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + b"3\r\na=b\r\n0\r\n\r\n"


REFUSED: Final[dict[str, Refused]] = {
    # -- the request line
    "no version": Refused(b"GET /healthz\r\n\r\n", "bad_request_line", "HTTP/0.9 is no HTTP/1 message"),
    "no version, with fields": Refused(_line(b"GET /healthz"), "bad_request_line", "9112 3"),
    "no target": Refused(_line(b"GET HTTP/1.1"), "bad_request_line", "9112 3"),
    "an empty method": Refused(_line(b" /healthz HTTP/1.1"), "bad_request_line", "9112 3"),
    "two spaces before the target": Refused(_line(b"GET  /healthz HTTP/1.1"), "bad_request_line", "9112 3: one SP"),
    "two spaces before the version": Refused(_line(b"GET /healthz  HTTP/1.1"), "bad_request_line", "9112 3: one SP"),
    "a space behind the version": Refused(_line(b"GET /healthz HTTP/1.1 "), "bad_request_line", "9112 3"),
    "tabs for spaces": Refused(_line(b"GET\t/healthz\tHTTP/1.1"), "bad_request_line", "9112 3: one SP"),
    "a space in the target": Refused(_line(b"GET /heal thz HTTP/1.1"), "bad_request_line", "9112 3.2"),
    "a method with a delimiter": Refused(_line(b"G(ET) /healthz HTTP/1.1"), "bad_request_line", "9110 9.1: a token"),
    "a method with a colon": Refused(_line(b"GET: /healthz HTTP/1.1"), "bad_request_line", "9110 9.1: a token"),
    "a method beyond ascii": Refused(_line(b"G\xcbT /healthz HTTP/1.1"), "bad_request_line", "9110 9.1: a token"),
    "lower-case http": Refused(_line(b"GET /healthz http/1.1"), "bad_request_line", "9112 2.3: case-sensitive"),
    "another protocol": Refused(_line(b"GET /healthz ICAP/1.0"), "bad_request_line", "9112 2.3"),
    "version 1.10": Refused(_line(b"GET /healthz HTTP/1.10"), "bad_request_line", "9112 2.3: single digits"),
    "version 01.1": Refused(_line(b"GET /healthz HTTP/01.1"), "bad_request_line", "9112 2.3: single digits"),
    "version 1": Refused(_line(b"GET /healthz HTTP/1"), "bad_request_line", "9112 2.3"),
    "version +1.1": Refused(_line(b"GET /healthz HTTP/+1.1"), "bad_request_line", "9112 2.3; int() accepts the sign"),
    "version 1_1": Refused(_line(b"GET /healthz HTTP/1.1_1"), "bad_request_line", "9112 2.3; int() accepts the underscore"),
    "version 0.9": Refused(_line(b"GET /healthz HTTP/0.9"), "bad_version", "9110 15.6.6"),
    "version 1.2": Refused(_line(b"GET /healthz HTTP/1.2"), "bad_version", "9110 15.6.6: no such version"),
    "version 2.0": Refused(_line(b"GET /healthz HTTP/2.0"), "bad_version", "9110 15.6.6"),
    "the preface of HTTP/2": Refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_version", "9113 3.4"),
    "a TLS handshake": Refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "bad_octet", "no HTTP"),
    "two empty lines first": Refused(b"\r\n\r\n" + _with(), "bad_request_line", "9112 2.2: at least one is ignored, here one"),
    "a space before the method": Refused(_line(b" GET /healthz HTTP/1.1"), "bad_request_line", "9112 3"),
    "a line over its bound": Refused(_line(b"GET /" + b"a" * 9000 + b" HTTP/1.1"), "line_too_long", "9112 3: 414"),
    "a line that never ends": Refused(b"GET /" + b"a" * 9000, "line_too_long", "9112 3: 414"),
    # -- the target
    "a target without a slash": Refused(_line(b"GET healthz HTTP/1.1"), "bad_request_line", "9112 3.2"),
    "a fragment": Refused(_line(b"GET /healthz#x HTTP/1.1"), "bad_request_line", "9112 3.2: no fragment"),
    "a backslash": Refused(_line(b"GET /\\healthz HTTP/1.1"), "bad_request_line", "3986 3.3"),
    "a quotation mark": Refused(_line(b'GET /"healthz" HTTP/1.1'), "bad_request_line", "3986 3.3"),
    "braces in a query": Refused(_line(b"GET /healthz?{x} HTTP/1.1"), "bad_request_line", "3986 3.4"),
    "a path beyond ascii": Refused(_line(b"GET /health\xc3\xbc HTTP/1.1"), "bad_request_line", "3986 3.3"),
    "an escape of one digit": Refused(_line(b"GET /%4 HTTP/1.1"), "bad_request_line", "3986 2.1"),
    "an escape that is no number": Refused(_line(b"GET /%zz HTTP/1.1"), "bad_request_line", "3986 2.1"),
    "an escape at the end": Refused(_line(b"GET /healthz?a=% HTTP/1.1"), "bad_request_line", "3986 2.1"),
    "DEL in a path": Refused(_line(b"GET /\x7f HTTP/1.1"), "bad_octet", "3986 3.3"),
    "NUL in a path": Refused(_line(b"GET /\0 HTTP/1.1"), "bad_octet", "3986 3.3"),
    "an asterisk for a GET": Refused(_line(b"GET * HTTP/1.1"), "bad_request_line", "9112 3.2.4: OPTIONS only"),
    "an asterisk with more": Refused(_line(b"OPTIONS *x HTTP/1.1"), "bad_request_line", "9112 3.2.4"),
    "a tunnel": Refused(_line(b"CONNECT x:443 HTTP/1.1"), "bad_request_line", "9112 3.2.3: a proxy's"),
    "another scheme": Refused(_line(b"GET ftp://x/healthz HTTP/1.1"), "bad_request_line", "9112 3.2.2"),
    "an absolute target without a host": Refused(_line(b"GET http:///healthz HTTP/1.1"), "bad_request_line", "9110 4.2.1"),
    "an absolute target with a user": Refused(_line(b"GET http://u@x/healthz HTTP/1.1"), "bad_host", "9110 4.2.4"),
    "an absolute target of another host": Refused(_line(b"GET http://y/healthz HTTP/1.1"), "bad_host", "9112 3.2: identical"),
    # -- the host
    "no host": Refused(_GET + b"\r\n", "bad_host", "9112 3.2: MUST 400"),
    "two hosts": Refused(_with(b"Host: x"), "bad_host", "9112 3.2: MUST 400"),
    "two hosts in different case": Refused(_with(b"hOST: y"), "bad_host", "9112 3.2: MUST 400"),
    "two hosts of HTTP/1.0": Refused(b"GET / HTTP/1.0\r\n" + _HOST + b"Host: y\r\n\r\n", "bad_host", "9112 3.2"),
    "two hosts in one": Refused(_GET + b"Host: x, y\r\n\r\n", "bad_host", "9110 7.2"),
    "an empty host": Refused(_GET + b"Host:\r\n\r\n", "bad_host", "9110 4.2.1"),
    "a host with a user": Refused(_GET + b"Host: u@x\r\n\r\n", "bad_host", "9110 7.2"),
    "a host with a path": Refused(_GET + b"Host: x/y\r\n\r\n", "bad_host", "9110 7.2"),
    "a host with a space": Refused(_GET + b"Host: x y\r\n\r\n", "bad_host", "9110 7.2"),
    "a host with two ports": Refused(_GET + b"Host: x:1:2\r\n\r\n", "bad_host", "9110 7.2"),
    "a host with a named port": Refused(_GET + b"Host: x:http\r\n\r\n", "bad_host", "9110 7.2"),
    "a host beyond ascii": Refused(_GET + b"Host: x\xfc\r\n\r\n", "bad_host", "9110 7.2"),
    "an open bracket": Refused(_GET + b"Host: [::1\r\n\r\n", "bad_host", "3986 3.2.2"),
    # -- lines and fields
    "lines that end in LF": Refused(b"GET /healthz HTTP/1.1\nHost: x\n\n", "bad_octet", "9112 2.2: bare LF"),
    "one line that ends in LF": Refused(_GET + b"Host: x\nA: b\r\n\r\n", "bad_octet", "9112 2.2: bare LF"),
    "a head that ends in LF": Refused(_GET + _HOST + b"\n", "bad_octet", "9112 2.2: bare LF"),
    "a LF first": Refused(b"\n" + _with(), "bad_octet", "9112 2.2: bare LF"),
    "a bare CR in a value": Refused(_with(b"A: b\rc"), "bad_octet", "9112 2.2: bare CR"),
    "a bare CR before a line's end": Refused(_with(b"A: b\r"), "bad_octet", "9112 2.2: bare CR"),
    "a bare CR that hides a field": Refused(_body(b"A: b\rContent-Length: 13"), "bad_octet", "9112 2.2: bare CR"),
    "CR CR LF CR CR LF": Refused(_GET + _HOST + b"\r\r\n\r\r\n", "bad_octet", "9112 2.2: bare CR"),
    "NUL in a value": Refused(_with(b"A: b\0c"), "bad_octet", "9110 5.5"),
    "NUL in a name": Refused(_with(b"A\0: b"), "bad_octet", "9110 5.1"),
    "a control character in a value": Refused(_with(b"A: \x01"), "bad_octet", "9110 5.5"),
    "a vertical tab in a value": Refused(_body(b"Transfer-Encoding: \x0bchunked"), "bad_octet", "9110 5.5"),
    "DEL in a value": Refused(_with(b"A: \x7f"), "bad_octet", "9110 5.5"),
    "a folded line": Refused(_with(b"A: b", b" c"), "bad_field", "9112 5.2: obs-fold"),
    "a line folded by a tab": Refused(_with(b"A: b", b"\tc"), "bad_field", "9112 5.2: obs-fold"),
    "a folded framing": Refused(_body(b"Transfer-Encoding:", b" chunked"), "bad_field", "9112 5.2: obs-fold"),
    "a space before the first field": Refused(_GET + b" Host: x\r\n\r\n", "bad_field", "9112 2.2"),
    "a space before the colon": Refused(_with(b"A : b"), "bad_field", "9112 5.1: MUST 400"),
    "a space before the length's colon": Refused(_body(b"Content-Length : 13"), "bad_field", "9112 5.1: MUST 400"),
    "a tab before the coding's colon": Refused(_body(b"Transfer-Encoding\t: chunked"), "bad_field", "9112 5.1: MUST 400"),
    "no colon": Refused(_with(b"A b"), "bad_field", "9112 5"),
    "no name": Refused(_with(b": b"), "bad_field", "9110 5.1"),
    "a space in a name": Refused(_with(b"A b: c"), "bad_field", "9110 5.1"),
    "a delimiter in a name": Refused(_with(b"A(b): c"), "bad_field", "9110 5.1"),
    "a name in quotes": Refused(_with(b'"A": c'), "bad_field", "9110 5.1"),
    "a name beyond ascii": Refused(_with(b"\xc4: c"), "bad_field", "9110 5.1"),
    "a second request line": Refused(_with(b"GET / HTTP/1.1"), "bad_field", "9112 5"),
    "two signatures": Refused(_with(b"X-Twilio-Signature: a", b"x-twilio-signature: b"), "bad_field", "one decides"),
    "two origins": Refused(_with(b"Origin: a", b"Origin: b"), "bad_field", "9110 5.3"),
    "two keys": Refused(_with(b"Sec-WebSocket-Key: a", b"Sec-WebSocket-Key: b"), "bad_field", "6455 11.3.1: once"),
    "two versions of websocket": Refused(
        _with(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"), "bad_field", "6455 11.3.5: once"
    ),
    "two authorizations": Refused(_with(b"Authorization: a", b"Authorization: b"), "bad_field", "9110 11.6.2"),
    "two expectations": Refused(_body(b"Expect: 100-continue", b"Expect: 100-continue"), "bad_field", "one decides"),
    "two content types": Refused(_with(b"Content-Type: a/b", b"Content-Type: c/d"), "bad_field", "9110 8.3"),
    "65 fields": Refused(_with(*[b"A: b"] * 64), "head_too_long", "9110 5.4: 431"),
    "a field of 16 KiB": Refused(_with(b"A: " + b"b" * (16 << 10)), "head_too_long", "9110 5.4: 431"),
    "a field that never ends": Refused(_GET + _HOST + b"A: " + b"b" * (17 << 10), "head_too_long", "9110 5.4: 431"),
    "hundreds of options": Refused(_with(b"Connection: " + b"," * 300), "bad_field", "9110 5.6.1.2: a reasonable number"),
    "another expectation": Refused(
        _body(b"Content-Length: 13", b"Expect: the impossible"), "bad_expectation", "9110 10.1.1: 417"
    ),
    # -- the length
    "two lengths": Refused(_body(b"Content-Length: 3", b"Content-Length: 13"), "bad_framing", "9112 6.3: MUST 400"),
    "two equal lengths": Refused(_body(b"Content-Length: 13", b"content-length: 13"), "bad_framing", "9112 6.3: may be refused"),
    "two lengths in one": Refused(_body(b"Content-Length: 13, 3"), "bad_framing", "9112 6.3"),
    "two equal lengths in one": Refused(_body(b"Content-Length: 13, 13"), "bad_framing", "9112 6.3: may be refused"),
    "an empty length": Refused(_body(b"Content-Length:"), "bad_framing", "9110 8.6"),
    "a signed length": Refused(_body(b"Content-Length: +13"), "bad_framing", "9110 8.6: digits"),
    "a negative length": Refused(_body(b"Content-Length: -1"), "bad_framing", "9110 8.6: digits"),
    "a hexadecimal length": Refused(_body(b"Content-Length: 0xd"), "bad_framing", "9110 8.6: digits"),
    "a length with a point": Refused(_body(b"Content-Length: 13.0"), "bad_framing", "9110 8.6: digits"),
    "a length with an exponent": Refused(_body(b"Content-Length: 1e1"), "bad_framing", "9110 8.6: digits"),
    "a length with an underscore": Refused(_body(b"Content-Length: 1_3"), "bad_framing", "9110 8.6; int() accepts it"),
    "a length with a space": Refused(_body(b"Content-Length: 1 3"), "bad_framing", "9110 8.6: digits"),
    "a length in quotes": Refused(_body(b'Content-Length: "13"'), "bad_framing", "9110 8.6: digits"),
    "a length in other digits": Refused(_body(b"Content-Length: \xb2"), "bad_framing", "9110 8.6; str.isdigit() accepts it"),
    "a length over 64 bits": Refused(_body(b"Content-Length: 18446744073709551629"), "bad_framing", "9110 8.6: overflow"),
    "a length of 5000 digits": Refused(_body(b"Content-Length: " + b"1" * 5000), "bad_framing", "9110 8.6; int() raises"),
    "a length over the bound": Refused(_body(b"Content-Length: 32769"), "body_too_long", "9110 15.5.14: 413"),
    "a GET with a body": Refused(_with(b"Content-Length: 5") + b"abcde", "bad_framing", "9110 9.3.1: may be smuggled"),
    "a HEAD with a body": Refused(b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde", "bad_framing", "9110 9.3.2"),
    "a TRACE with a body": Refused(b"TRACE / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na", "bad_framing", "9110 9.3.8"),
    # -- the coding
    "length and coding": Refused(_body(b"Content-Length: 13", b"Transfer-Encoding: chunked"), "bad_framing", "9112 6.1"),
    "coding and length": Refused(_body(b"Transfer-Encoding: chunked", b"Content-Length: 3"), "bad_framing", "9112 6.1"),
    "two codings": Refused(_body(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"), "bad_framing", "9112 6.1"),
    "chunked twice": Refused(_body(b"Transfer-Encoding: chunked, chunked"), "bad_framing", "9112 6.1: once"),
    "gzip, chunked": Refused(_body(b"Transfer-Encoding: gzip, chunked"), "bad_framing", "9112 6.1: not understood"),
    "chunked, gzip": Refused(_body(b"Transfer-Encoding: chunked, gzip"), "bad_framing", "9112 6.3: chunked last"),
    "chunked, identity": Refused(_body(b"Transfer-Encoding: chunked, identity"), "bad_framing", "9112 7"),
    "identity": Refused(_body(b"Transfer-Encoding: identity"), "bad_framing", "9112 7: removed"),
    "an unknown coding": Refused(_body(b"Transfer-Encoding: xchunked"), "bad_framing", "9112 6.1"),
    "chunked with a parameter": Refused(_body(b"Transfer-Encoding: chunked;a=b"), "bad_framing", "9112 7.1: none defined"),
    "chunked with a comma": Refused(_body(b"Transfer-Encoding: chunked,"), "bad_framing", "9112 6.1"),
    "chunked in quotes": Refused(_body(b'Transfer-Encoding: "chunked"'), "bad_framing", "9112 7"),
    "an empty coding": Refused(_body(b"Transfer-Encoding:"), "bad_framing", "9112 6.1"),
    "chunked in HTTP/1.0": Refused(
        b"POST /twilio/status HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "bad_framing", "9112 6.1: faulty"
    ),
    "a GET with chunks": Refused(_with(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", "bad_framing", "9110 9.3.1"),
}

#: Bodies behind a valid head with `Transfer-Encoding: chunked`.
REFUSED_CHUNKS: Final[dict[str, Refused]] = {
    "no size": Refused(b"\r\na\r\n0\r\n\r\n", "bad_chunk", "9112 7.1"),
    "a signed size": Refused(b"+1\r\na\r\n0\r\n\r\n", "bad_chunk", "9112 7.1; int() accepts the sign"),
    "a negative size": Refused(b"-1\r\na\r\n0\r\n\r\n", "bad_chunk", "9112 7.1"),
    "a size with 0x": Refused(b"0x1\r\na\r\n0\r\n\r\n", "bad_chunk", "9112 7.1; int() accepts it"),
    "a size with an underscore": Refused(b"0_1\r\na\r\n0\r\n\r\n", "bad_chunk", "9112 7.1; int() accepts it"),
    "a space before a size": Refused(b" 1\r\na\r\n0\r\n\r\n", "bad_chunk", "9112 7.1"),
    "a space behind a size": Refused(b"1 \r\na\r\n0\r\n\r\n", "bad_chunk", "9112 7.1"),
    "a size that is no number": Refused(b"g\r\na\r\n0\r\n\r\n", "bad_chunk", "9112 7.1"),
    "a size of 20 digits": Refused(b"00000000000000000001\r\na\r\n0\r\n\r\n", "bad_chunk", "9112 7.1: overflow"),
    "a size over the bound": Refused(b"8001\r\n" + b"a" * 0x8001 + b"\r\n0\r\n\r\n", "body_too_long", "9110 15.5.14"),
    "a size over 32 bits": Refused(b"100000001\r\na", "bad_chunk", "9112 7.1: overflow"),
    "chunks over the bound": Refused((b"4000\r\n" + b"a" * 0x4000 + b"\r\n") * 3, "body_too_long", "9110 15.5.14"),
    "thousands of tiny chunks": Refused(b"1\r\na\r\n" * 3000, "body_too_long", "a bound of ours"),
    "a chunk longer than its size": Refused(b"1\r\nab\r\n0\r\n\r\n", "bad_chunk", "9112 7.1"),
    "a chunk shorter than its size": Refused(b"3\r\na\r\n0\r\n\r\n", "bad_chunk", "9112 7.1"),
    "a chunk that ends in LF": Refused(b"1\r\na\n0\r\n\r\n", "bad_chunk", "9112 7.1"),
    "a size that ends in LF": Refused(b"1\na\r\n0\r\n\r\n", "bad_octet", "9112 7.1"),
    "a size that ends in CR": Refused(b"1\ra\r\n0\r\n\r\n", "bad_octet", "9112 7.1"),
    "an extension that ends in LF": Refused(b"1;a\nb\r\na\r\n0\r\n\r\n", "bad_octet", "9112 7.1.1; TERM.EXT"),
    "an extension that ends in CR": Refused(b"1;a\rb\r\na\r\n0\r\n\r\n", "bad_octet", "9112 7.1.1; EXT.TERM"),
    "an extension without a name": Refused(b"1;=b\r\na\r\n0\r\n\r\n", "bad_chunk", "9112 7.1.1"),
    "an extension with an open quote": Refused(b'1;a="b\r\na\r\n0\r\n\r\n', "bad_chunk", "9112 7.1.1"),
    "a long extension": Refused(b"1;" + b"a" * 3000 + b"\r\na\r\n0\r\n\r\n", "body_too_long", "9112 7.1.1: ought to limit"),
    "an extension that never ends": Refused(b"1;" + b"a" * 3000, "body_too_long", "9112 7.1.1: ought to limit"),
    "a folded trailer": Refused(b"0\r\nA: b\r\n c\r\n\r\n", "bad_field", "9112 7.1.2"),
    "a trailer without a colon": Refused(b"0\r\nGET / HTTP/1.1\r\n\r\n", "bad_field", "9112 7.1.2"),
    "a trailer with NUL": Refused(b"0\r\nA: \0\r\n\r\n", "bad_octet", "9112 7.1.2"),
    "long trailers": Refused(b"0\r\n" + b"A: b\r\n" * 400, "body_too_long", "a bound of ours"),
}

#: Each is cut off by the end of the connection.
CUT_OFF: Final[dict[str, bytes]] = {
    "a method": b"GET",
    "a line": b"GET /healthz HTTP/1.1",
    "a line's CR": b"GET /healthz HTTP/1.1\r",
    "a head without fields": _GET,
    "a head": _GET + _HOST,
    "a head's CR": _GET + _HOST + b"\r",
    "an empty line": b"\r\n",
    "a form": _POST + b"Content-Length: 4\r\n\r\na=b",
    "an unsent form": _POST + b"Content-Length: 4\r\n\r\n",
    "chunks": _CHUNKED + b"3\r\na=b\r\n",
    "a chunk": _CHUNKED + b"3\r\na=",
    "the last chunk": _CHUNKED + b"3\r\na=b\r\n0\r\n",
}


class Accepted(NamedTuple):
    """An odd but valid request, what is read, and the rule that permits it."""

    sent: bytes
    method: str
    target: str
    rule: str
    is_last: bool = False


ACCEPTED: Final[dict[str, Accepted]] = {
    "one empty line first": Accepted(b"\r\n" + _with(), "GET", "/healthz", "9112 2.2"),
    "HTTP/1.0 without a host": Accepted(b"GET /healthz HTTP/1.0\r\n\r\n", "GET", "/healthz", "9112 3.2; HAProxy's checks", True),
    "HTTP/1.0 that stays": Accepted(b"GET /healthz HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET", "/healthz", "9112 9.3"),
    "an absolute target": Accepted(_line(b"GET http://127.0.0.1/healthz HTTP/1.1"), "GET", "/healthz", "9112 3.2.2: MUST"),
    "an absolute target in capitals": Accepted(_line(b"GET HTTP://127.0.0.1/healthz HTTP/1.1"), "GET", "/healthz", "9110 4.2.3"),
    "an absolute target without a path": Accepted(_line(b"GET http://127.0.0.1?a HTTP/1.1"), "GET", "/?a", "9112 3.2.2"),
    "an asterisk": Accepted(_line(b"OPTIONS * HTTP/1.1"), "OPTIONS", "*", "9112 3.2.4"),
    "a path with all its characters": Accepted(
        _line(b"GET /-._~!$&'()*+,;=:@%2F//x?/?a=%20 HTTP/1.1"), "GET", "/-._~!$&'()*+,;=:@%2F//x?/?a=%20", "3986 3.3"
    ),
    "an unknown method": Accepted(_line(b"M-SEARCH!#$%&'*+^_`|~ / HTTP/1.1"), "M-SEARCH!#$%&'*+^_`|~", "/", "9110 9.1"),
    "the longest line": Accepted(_line(b"GET /" + b"a" * 8000 + b" HTTP/1.1"), "GET", "/" + "a" * 8000, "9112 3"),
    "64 fields": Accepted(_with(*[b"A: b"] * 63), "GET", "/healthz", "a bound of ours"),
    "no space behind a colon": Accepted(_with(b"A:b"), "GET", "/healthz", "9112 5: OWS"),
    "spaces and tabs around a value": Accepted(_with(b"A: \t b \t "), "GET", "/healthz", "9112 5: OWS"),
    "an empty value": Accepted(_with(b"A:", b"B: "), "GET", "/healthz", "9110 5.5"),
    "a value beyond ascii": Accepted(_with(b"A: \xfc\xff"), "GET", "/healthz", "9110 5.5: obs-text"),
    "a tab in a value": Accepted(_with(b"A: b\tc"), "GET", "/healthz", "9110 5.5"),
    "a name with an underscore": Accepted(_with(b"A_b: c"), "GET", "/healthz", "9110 5.1"),
    "a repeated field": Accepted(_with(b"Via: a", b"Via: b"), "GET", "/healthz", "9110 5.3"),
    "capitals and none": Accepted(_GET + b"hOsT: localhost\r\ncONNECTION: CLOSE\r\n\r\n", "GET", "/healthz", "9110 5.1", True),
    "keep-alive, close": Accepted(_with(b"Connection: keep-alive, close"), "GET", "/healthz", "9112 9.3: close wins", True),
    "close in a second field": Accepted(_with(b"Connection: x", b"Connection: close"), "GET", "/healthz", "9110 5.3", True),
    "an empty option": Accepted(_with(b"Connection: , close"), "GET", "/healthz", "9110 5.6.1.2", True),
    "a host with a port": Accepted(_GET + b"Host: localhost:8443\r\n\r\n", "GET", "/healthz", "9110 7.2"),
    "a host with an empty port": Accepted(_GET + b"Host: 127.0.0.1:\r\n\r\n", "GET", "/healthz", "3986 3.2.3"),
    "an IPv6 host": Accepted(_GET + b"Host: [::1]:80\r\n\r\n", "GET", "/healthz", "3986 3.2.2"),
    "a GET of length 0": Accepted(_with(b"Content-Length: 0"), "GET", "/healthz", "9110 8.6"),
    "zeros before a length": Accepted(_POST + b"Content-Length: 003\r\n\r\na=b", "POST", "/twilio/status", "9110 8.6: 1*DIGIT"),
    "chunked in capitals": Accepted(
        _POST + b"Transfer-Encoding: Chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n", "POST", "/twilio/status", "9112 7"
    ),
    "a POST without a body": Accepted(_POST + b"\r\n", "POST", "/twilio/status", "9112 6.3: length 0"),
    "an expectation": Accepted(
        _POST + b"Expect: 100-Continue\r\nContent-Length: 3\r\n\r\na=b", "POST", "/twilio/status", "9110 10.1.1"
    ),
    "an expectation of HTTP/1.0": Accepted(
        b"POST /twilio/status HTTP/1.0\r\nExpect: x\r\nContent-Length: 3\r\n\r\na=b",
        "POST",
        "/twilio/status",
        "9110 10.1.1: ignored",
        True,
    ),
}

ACCEPTED_CHUNKS: Final[dict[str, tuple[bytes, bytes]]] = {
    "no content": (b"0\r\n\r\n", b""),
    "one chunk": (b"3\r\na=b\r\n0\r\n\r\n", b"a=b"),
    "chunks of one byte": (b"1\r\na\r\n1\r\n=\r\n1\r\nb\r\n0\r\n\r\n", b"a=b"),
    "zeros before a size": (b"0003\r\na=b\r\n0000\r\n\r\n", b"a=b"),
    "capitals": (b"A\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", b"01234567890123456789a"),
    "extensions": (b'3;a;b=c ; d="e \\" ;f"\r\na=b\r\n0;last\r\n\r\n', b"a=b"),
    "CRLF as content": (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
    "trailers": (b"3\r\na=b\r\n0\r\nContent-Length: 7\r\nA: b\r\n\r\n", b"a=b"),
    "two hundred chunks": (b"1\r\na\r\n" * 200 + b"0\r\n\r\n", b"a" * 200),
    "the longest body": (b"4000\r\n" + b"a" * 0x4000 + b"\r\n0\r\n\r\n", b"a" * 0x4000),
}
