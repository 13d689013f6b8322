"""X-Twilio-Signature: proves that a request was made with one of the account's secrets.

Twilio signs the URL it requests and the form it sends, and is inconsistent about ports, slashes and schemes. So a few spellings
of one URL are tried, all built from the configured public URL and the requested path, never from a Host header. A signature
identifies Twilio, not the call; the stream token identifies the call. Expected signatures are never logged or returned.

    X-Twilio-Webhooks-Signature-Settings     secret              algorithm
    absent                                   an auth token       HMAC-SHA1
    key=...,algorithm=HMAC_SHA256            the SharedKey's     HMAC-SHA256, or HMAC-SHA1 where it names that or none

Source: Twilio docs, "Validating requests are coming from Twilio"; twilio 9.13.0, `twilio/request_validator.py`, whose `validate`
agrees on webhooks. For sockets it would try port 80 with wss, so the candidates there differ.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha1, sha256
from typing import Any, Final, NamedTuple

_SECURE: Final = ("https", "wss")
_AUTHORITY: Final = re.compile(r"(?P<host>.*?)(?::(?P<port>\d+))?")


_ALGORITHMS: Final = {"HMAC_SHA1": sha1, "HMAC_SHA256": sha256}


class SigningSecrets(NamedTuple):
    """Secrets that Twilio may sign with; empty ones are never valid. Two auth tokens: the old one during a rotation."""

    auth_tokens: Sequence[str]
    shared_key: str = ""


class Signature(NamedTuple):
    """A request's signature, and the settings that announce another secret or algorithm; None: no such header."""

    value: str
    settings: str | None = None


def signature_of(environ: Mapping[str, Any]) -> Signature | None:
    """Return the signature of a WSGI request; None without one."""
    value = environ.get("HTTP_X_TWILIO_SIGNATURE")
    return Signature(value, environ.get("HTTP_X_TWILIO_WEBHOOKS_SIGNATURE_SETTINGS")) if value else None


def form_text(form: Sequence[tuple[str, str]]) -> str:
    """Return the signed text of a form.

    Shape: fields as received, blank and unknown ones included. They are sorted by name; of a repeated name every distinct value
    counts, sorted.
    """
    values: dict[str, set[str]] = {}
    for name, value in form:
        values.setdefault(name, set()).add(value)
    return "".join(name + value for name in sorted(values) for value in sorted(values[name]))


def sign(secret: str, url: str, form: Sequence[tuple[str, str]] = (), algorithm: str = "HMAC_SHA1") -> str:
    """Return the signature Twilio sends with a request: the form's text behind the URL."""
    return _mac(secret, url + form_text(form), algorithm)


def webhook_valid(
    secrets: SigningSecrets, signature: Signature | None, public_url: str, path_and_query: str, signed_form: str
) -> bool:
    """Return True for a signed HTTP request from Twilio. The query counts byte for byte, as part of the URL."""
    scheme, authorities, prefix = _parts(public_url)
    urls = (f"{scheme}://{authority}{prefix}{path_and_query}" for authority in authorities)
    return _any_valid(secrets, signature, urls, signed_form)


def stream_valid(secrets: SigningSecrets, signature: Signature | None, public_url: str, path: str) -> bool:
    """Return True for a signed websocket handshake from Twilio: a GET without form, eight spellings of one URL."""
    return _any_valid(secrets, signature, _stream_urls(public_url, path), "")


def _stream_urls(public_url: str, path: str) -> Iterator[str]:
    scheme, authorities, prefix = _parts(public_url)
    schemes = ("wss", "https") if scheme in _SECURE else ("ws", "http")
    whole = prefix + path
    other = whole.removesuffix("/") if whole.endswith("/") else whole + "/"
    for spelling in schemes:
        for authority in authorities:
            yield f"{spelling}://{authority}{whole}"
            yield f"{spelling}://{authority}{other}"


def _any_valid(secrets: SigningSecrets, signature: Signature | None, urls: Iterable[str], signed_form: str) -> bool:
    if signature is None:
        return False
    keys, algorithm = secrets.auth_tokens, "HMAC_SHA1"
    if signature.settings is not None:
        keys, algorithm = (secrets.shared_key,), _algorithm(signature.settings)
    if algorithm not in _ALGORITHMS:
        return False
    given = _bytes(signature.value)
    valid = [key for key in keys if key]  # anyone can sign with an empty key
    return any(
        hmac.compare_digest(given, _mac(key, url + signed_form, algorithm).encode("ascii")) for url in urls for key in valid
    )


def _algorithm(settings: str) -> str:
    """Return the algorithm that `key=...,algorithm=...` names."""
    for part in settings.split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            return value.strip().upper()
    return "HMAC_SHA1"


def _mac(secret: str, text: str, algorithm: str) -> str:
    return base64.b64encode(hmac.digest(_bytes(secret), _bytes(text), _ALGORITHMS[algorithm])).decode("ascii")


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
