"""X-Twilio-Signature: proves that a request was made with the account's auth token.

Twilio signs the URL it requests and the form it sends, HMAC-SHA1, and is inconsistent about ports, slashes and schemes. So a few
spellings of one URL are tried, all built from the configured public URL and the requested path, never from a Host header. A
signature identifies Twilio, not the call; the stream token identifies the call. Expected signatures are never logged or
returned.

Source: Twilio docs, "Validating requests are coming from Twilio"; twilio 9.13.0, `twilio/request_validator.py`, whose `validate`
agrees on webhooks. For sockets it would try port 80 with wss, so the candidates there differ.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha1
from typing import Final

_SECURE: Final = ("https", "wss")
_AUTHORITY: Final = re.compile(r"(?P<host>.*?)(?::(?P<port>\d+))?")


def sign(auth_token: str, url: str, form: Sequence[tuple[str, str]] = ()) -> str:
    """Return the signature Twilio sends with a request.

    Shape: form fields as received, blank and unknown ones included. They are joined behind the URL, sorted by name; of a
    repeated name every distinct value counts, sorted.
    """
    values: dict[str, set[str]] = {}
    for name, value in form:
        values.setdefault(name, set()).add(value)
    text = url + "".join(name + value for name in sorted(values) for value in sorted(values[name]))
    return base64.b64encode(hmac.digest(_bytes(auth_token), _bytes(text), sha1)).decode("ascii")


def webhook_valid(
    auth_token: str, signature: str | None, public_url: str, path_and_query: str, form: Sequence[tuple[str, str]]
) -> bool:
    """Return True for a signed HTTP request from Twilio. The query counts byte for byte, as part of the URL."""
    scheme, authorities, prefix = _parts(public_url)
    urls = (f"{scheme}://{authority}{prefix}{path_and_query}" for authority in authorities)
    return _any_valid(auth_token, signature, urls, form)


def stream_valid(auth_token: str, signature: str | None, public_url: str, path: str) -> bool:
    """Return True for a signed websocket handshake from Twilio: a GET without form, eight spellings of one URL."""
    return _any_valid(auth_token, signature, _stream_urls(public_url, path), ())


def _stream_urls(public_url: str, path: str) -> Iterator[str]:
    scheme, authorities, prefix = _parts(public_url)
    schemes = ("wss", "https") if scheme in _SECURE else ("ws", "http")
    whole = prefix + path
    other = whole.removesuffix("/") if whole.endswith("/") else whole + "/"
    for spelling in schemes:
        for authority in authorities:
            yield f"{spelling}://{authority}{whole}"
            yield f"{spelling}://{authority}{other}"


def _any_valid(auth_token: str, signature: str | None, urls: Iterable[str], form: Sequence[tuple[str, str]]) -> bool:
    if not auth_token or signature is None:  # anyone can sign with an empty key
        return False
    given = _bytes(signature)
    return any(hmac.compare_digest(given, sign(auth_token, url, form).encode("ascii")) for url in urls)


def _parts(public_url: str) -> tuple[str, tuple[str, str], str]:
    """Split a public URL: scheme, authority without and with port, path without a trailing slash."""
    scheme, _, rest = public_url.partition("://")
    authority, slash, path = rest.partition("/")
    found = _AUTHORITY.fullmatch(authority)
    host, port = (found["host"], found["port"]) if found else (authority, None)
    named = port or ("443" if scheme in _SECURE else "80")
    return scheme, (host, f"{host}:{named}"), (slash + path).rstrip("/")


def _bytes(text: str) -> bytes:
    """Encode to UTF-8, lone surrogates included: a header or path of any bytes fails the comparison without an error."""
    return text.encode("utf-8", "surrogatepass")
