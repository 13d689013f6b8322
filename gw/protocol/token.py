"""One-time stream tokens: tie a media socket to the voice webhook that announced the stream.

The TwiML carries a token bound to its call; Twilio returns the token in `start`. A token holds its issue time; its MAC covers the
call and the stream parameters that select the agent and what is resumed. The ledger of used nonces makes the token one-time. The
key belongs to one ledger, so no other machine accepts the token. Pure: key, time and randomness are passed in.

    <nonce, base64url> . <issued at, epoch s> . <HMAC-SHA256 over "label NUL nonce . issued at . texts", base64url>
    texts: the call SID, the values of BOUND, and NAME=VALUE of BOUND_IF_PRESENT, each as <length in characters> : <text>
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from gw.errors import GatewayError

#: Long enough to be unique, short enough for the ledger.
MIN_NONCE_BYTES: Final = 8
MAX_NONCE_BYTES: Final = 32
#: Twilio allows 500 characters for a parameter's name and value (docs, "TwiML <Parameter>").
MAX_TOKEN_CHARS: Final = 300
#: Tolerated lead of another host's clock.
SKEW_S: Final = 5
#: Stream parameters that the MAC covers. The others are for the log and the store, and Twilio may change characters in them.
BOUND: Final = ("agent", "resume", "began")
#: The same, where present: a worker of an earlier version checks and makes tokens without them.
BOUND_IF_PRESENT: Final = ("route", "left", "outcome")
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_LABEL: Final = b"submilli stream token 2\0"
_LEDGER_LABEL: Final = b"submilli ledger key 1\0"

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


def ledger_key(key: bytes, ledger_id: bytes) -> bytes:
    """Derive the key of one ledger's tokens from the key that several machines share."""
    return hmac.digest(key, _LEDGER_LABEL + ledger_id, sha256)


def make(key: bytes, call_sid: str, issued_at_s: int, nonce: bytes, parameters: Mapping[str, str] = _NONE) -> str:
    """Make a token for one call. `parameters`: the stream's.

    Raises: ValueError for an empty key, a nonce outside 8 to 32 bytes, or a time before the epoch.
    """
    if not key:
        raise ValueError("a token needs a key")
    if not MIN_NONCE_BYTES <= len(nonce) <= MAX_NONCE_BYTES:
        raise ValueError(f"a nonce has {MIN_NONCE_BYTES} to {MAX_NONCE_BYTES} bytes")
    if issued_at_s < 0:
        raise ValueError("a token is not issued before the epoch")
    body = f"{_text(nonce)}.{issued_at_s}"
    return f"{body}.{_mac(key, body, call_sid, parameters)}"


def check(
    key: bytes, token: str, call_sid: str, now_s: float, ttl_s: float = 60, parameters: Mapping[str, str] = _NONE
) -> StreamToken:
    """Verify a token and return its content.

    Raises: TokenError(token_forged) for any other text; TokenError(token_expired) for a token older than `ttl_s`, or more than
    SKEW_S in the future; ValueError for an empty key.
    """
    if not key:
        raise ValueError("a token needs a key")
    body, _, mac = token.rpartition(".")
    if body.count(".") != 1 or len(token) > MAX_TOKEN_CHARS or not token.isascii():
        raise TokenError("token_forged", "the stream token is malformed")
    if not hmac.compare_digest(mac.encode("ascii"), _mac(key, body, call_sid, parameters).encode("ascii")):
        detail = "the stream token was made with another key or on another machine, or for another call or agent"
        raise TokenError("token_forged", detail)
    nonce, _, issued = body.partition(".")  # the MAC matched: the body is as `make` wrote it
    issued_at_s = int(issued)
    if not -SKEW_S <= now_s - issued_at_s <= ttl_s:
        raise TokenError("token_expired", f"the stream token is {now_s - issued_at_s:.0f} s old, valid for {ttl_s:g} s")
    return StreamToken(base64.urlsafe_b64decode(nonce + "=" * (-len(nonce) % 4)), issued_at_s)


def _mac(key: bytes, body: str, call_sid: str, parameters: Mapping[str, str]) -> str:
    bound = [parameters.get(name, "") for name in BOUND]
    bound += [f"{name}={parameters[name]}" for name in BOUND_IF_PRESENT if parameters.get(name)]
    texts = "".join(f"{len(text)}:{text}" for text in (call_sid, *bound))
    return _text(hmac.digest(key, _LABEL + f"{body}.{texts}".encode("utf-8", "surrogatepass"), sha256))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
