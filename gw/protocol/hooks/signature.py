"""Submilli-Signature: proves to a user's endpoint that the gateway made a request.

    Submilli-Signature: t=<epoch s>,v1=<hex HMAC-SHA256(secret, "<t>." + body)>[,v1=<the same with another secret>]

While a secret is replaced, a header has one `v1` for each of the two, so that an endpoint may know either. A receiver rejects a
`t` older than five minutes, and compares in constant time. Pure: secrets and time are passed in.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, Literal

HEADER: Final = "Submilli-Signature"
#: Accepted difference between the clocks of sender and receiver.
TOLERANCE_S: Final = 300
#: Longest header that is read; one with two signatures has 150 characters.
MAX_CHARS: Final = 512

Fault = Literal["", "malformed", "expired", "forged"]


def sign(secrets: Sequence[str], body: bytes, now_s: float) -> str:
    """Return the header's value. `secrets`: the present one, then the former one; empty ones are left out.

    Raises: ValueError without any secret, or before the epoch.
    """
    keys = [secret for secret in secrets if secret]
    if not keys:
        raise ValueError("a signature needs a secret")
    if now_s < 0:
        raise ValueError("a signature is not made before the epoch")
    issued = str(int(now_s))
    return ",".join([f"t={issued}", *(f"v1={_mac(key, issued, body)}" for key in keys)])


def verify(secrets: Sequence[str], header: str, body: bytes, now_s: float, tolerance_s: float = TOLERANCE_S) -> Fault:
    """Return why a request is refused, or "". Unknown parts of the header are ignored.

    Raises: ValueError without any secret: anyone can sign with an empty one.
    """
    keys = [secret for secret in secrets if secret]
    if not keys:
        raise ValueError("a signature needs a secret")
    if len(header) > MAX_CHARS or not header.isascii():
        return "malformed"
    parts = [part.strip().partition("=")[::2] for part in header.split(",")]
    times = [value for name, value in parts if name == "t"]
    given = [value.encode("ascii") for name, value in parts if name == "v1"]
    if len(times) != 1 or not times[0].isdecimal() or len(times[0]) > 12 or not given:
        return "malformed"
    expected = [_mac(key, times[0], body).encode("ascii") for key in keys]
    if not any([hmac.compare_digest(one, other) for one in given for other in expected]):  # noqa: C419 - each pair is compared
        return "forged"
    return "" if abs(now_s - int(times[0])) <= tolerance_s else "expired"


def _mac(secret: str, issued: str, body: bytes) -> str:
    key = secret.encode("utf-8", "surrogatepass")
    return hmac.digest(key, issued.encode("ascii") + b"." + body, sha256).hex()
