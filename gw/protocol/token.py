"""One-time stream tokens: tie a media socket to the voice webhook that announced the stream.

The TwiML carries a token bound to its call; Twilio returns the token in `start`. A token holds its call and issue time under a
MAC; the ledger of used nonces makes the token one-time. Pure: key, time and randomness are passed in.

    <nonce, base64url> . <issued at, epoch s> . <HMAC-SHA256 over "label NUL nonce . issued at . call SID", base64url>
"""

from __future__ import annotations

import base64
import hmac
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from gw.errors import GatewayError

#: Long enough to be unique, short enough for the ledger.
MIN_NONCE_BYTES: Final = 8
MAX_NONCE_BYTES: Final = 32
#: Twilio allows 500 characters for a parameter's name and value (docs, "TwiML <Parameter>").
MAX_TOKEN_CHARS: Final = 300
#: Tolerated lead of another host's clock.
SKEW_S: Final = 5
_LABEL: Final = b"submilli stream token 1\0"

TokenCode = Literal["token_forged", "token_expired"]


class TokenError(GatewayError):
    """A stream's token is invalid for its call."""

    def __init__(self, code: TokenCode, detail: str) -> None:
        super().__init__(detail)
        self.code: TokenCode = code


class StreamToken(NamedTuple):
    """A valid token. `nonce`: usable once."""

    nonce: bytes
    issued_at_s: int


def make(key: bytes, call_sid: str, issued_at_s: int, nonce: bytes) -> str:
    """Make a token for one call.

    Raises: ValueError for an empty key, a nonce outside 8 to 32 bytes, or a time before the epoch.
    """
    if not key:
        raise ValueError("a token needs a key")
    if not MIN_NONCE_BYTES <= len(nonce) <= MAX_NONCE_BYTES:
        raise ValueError(f"a nonce has {MIN_NONCE_BYTES} to {MAX_NONCE_BYTES} bytes")
    if issued_at_s < 0:
        raise ValueError("a token is not issued before the epoch")
    body = f"{_text(nonce)}.{issued_at_s}"
    return f"{body}.{_mac(key, body, call_sid)}"


def check(key: bytes, token: str, call_sid: str, now_s: float, ttl_s: float = 60) -> StreamToken:
    """Verify a token and return its content.

    Raises: TokenError(token_forged) for any other text; TokenError(token_expired) for a token older than `ttl_s`, or more than
    SKEW_S in the future; ValueError for an empty key.
    """
    if not key:
        raise ValueError("a token needs a key")
    body, _, mac = token.rpartition(".")
    if body.count(".") != 1 or len(token) > MAX_TOKEN_CHARS or not token.isascii():
        raise TokenError("token_forged", "the stream token is malformed")
    if not hmac.compare_digest(mac.encode("ascii"), _mac(key, body, call_sid).encode("ascii")):
        raise TokenError("token_forged", "the stream token was made with another key, or for another call")
    nonce, _, issued = body.partition(".")  # the MAC matched: the body is as `make` wrote it
    issued_at_s = int(issued)
    if not -SKEW_S <= now_s - issued_at_s <= ttl_s:
        raise TokenError("token_expired", f"the stream token is {now_s - issued_at_s:.0f} s old, valid for {ttl_s:g} s")
    return StreamToken(base64.urlsafe_b64decode(nonce + "=" * (-len(nonce) % 4)), issued_at_s)


def _mac(key: bytes, body: str, call_sid: str) -> str:
    text = f"{body}.{call_sid}".encode("utf-8", "surrogatepass")  # one dot in a body: no character can move between the two
    return _text(hmac.digest(key, _LABEL + text, sha256))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
