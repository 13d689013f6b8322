"""One-time stream tokens: what ties a media socket to the voice webhook we answered.

The TwiML carries a token bound to its call, Twilio hands it back in `start`. A token says who it is for and when it was made,
under a MAC; whether it was used before is the ledger's to know, by its nonce. Pure: the key, the time and the randomness come
from the caller.

    <nonce, base64url> . <issued at, epoch s> . <HMAC-SHA256 over "label NUL nonce . issued at . call SID", base64url>
"""

from __future__ import annotations

import base64
import hmac
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from gw.errors import GatewayError

#: Long enough that no two are alike, short enough for the ledger.
MIN_NONCE_BYTES: Final = 8
MAX_NONCE_BYTES: Final = 32
#: Twilio allows 500 characters for a parameter's name and value (docs, "TwiML <Parameter>").
MAX_TOKEN_CHARS: Final = 300
#: Another host's clock may be ahead by this much.
SKEW_S: Final = 5
_LABEL: Final = b"submilli stream token 1\0"

TokenCode = Literal["token_forged", "token_expired"]


class TokenError(GatewayError):
    """A stream came with a token that does not open it."""

    def __init__(self, code: TokenCode, detail: str) -> None:
        super().__init__(detail)
        self.code: TokenCode = code


class TokenOk(NamedTuple):
    """A token of ours, for this call, in time. `nonce` is what may be used once."""

    nonce: bytes
    issued_at_s: int


def make(key: bytes, call_sid: str, issued_at_s: int, nonce: bytes) -> str:
    """A token for one call.

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


def check(key: bytes, token: str, call_sid: str, now_s: float, ttl_s: float = 60) -> TokenOk:
    """What a token says, once it is known to be ours and this call's.

    Raises: TokenError(token_forged) whatever the text; TokenError(token_expired) when it is older than `ttl_s`, or from a
    time to come; ValueError for an empty key.
    """
    if not key:
        raise ValueError("a token needs a key")
    body, _, mac = token.rpartition(".")
    if body.count(".") != 1 or len(token) > MAX_TOKEN_CHARS or not token.isascii():
        raise TokenError("token_forged", "a stream token that is none")
    if not hmac.compare_digest(mac.encode("ascii"), _mac(key, body, call_sid).encode("ascii")):
        raise TokenError("token_forged", "a stream token that is not ours, or another call's")
    nonce, _, issued = body.partition(".")  # under our own MAC: as `make` wrote it
    issued_at_s = int(issued)
    if not -SKEW_S <= now_s - issued_at_s <= ttl_s:
        raise TokenError("token_expired", f"a stream token of {now_s - issued_at_s:.0f} s ago")
    return TokenOk(base64.urlsafe_b64decode(nonce + "=" * (-len(nonce) % 4)), issued_at_s)


def _mac(key: bytes, body: str, call_sid: str) -> str:
    text = f"{body}.{call_sid}".encode("utf-8", "surrogatepass")  # a body holds one dot: nothing can move between the two
    return _text(hmac.digest(key, _LABEL + text, sha256))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
