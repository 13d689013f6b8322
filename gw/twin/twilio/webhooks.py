"""HTTP requests of the Twilio twin to the gateway: signed forms, posted to its real address under its public name.

Implements Twilio's documentation of request signing separately from the gateway's check. Requests are bounded in time and size,
and recorded. A failed one is repeated as the fragment of its URL asks, which is neither sent nor signed; without one, a failed
connect once. Source: Twilio, "Webhook connection overrides".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

#: Twilio's limit on a TwiML document.
MAX_BODY_BYTES: Final = 64 << 10
#: Twilio's timeout for a webhook (debugger code 11205).
TIMEOUT_S: Final = 15.0
KEPT_POSTS: Final = 10_000
#: Repetitions by default and at most (`rc`), and the failures after which there is one (`rp`).
RETRIES: Final = "1"
MAX_RETRIES: Final = 5
POLICY: Final = "ct"


@dataclass(frozen=True, slots=True)
class Posted:
    """A request to the gateway and its answer. `status` 0: no HTTP answer, `body` has the reason."""

    at_s: float
    url: str
    fields: Mapping[str, str]
    status: int
    content_type: str
    body: str
    took_s: float

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300


def sign(auth_token: str, url: str, fields: Mapping[str, str] | None = None) -> str:
    """Compute X-Twilio-Signature: HMAC-SHA1 over the URL and all fields, sorted by name."""
    text = url + "".join(name + value for name, value in sorted((fields or {}).items()))
    return base64.b64encode(hmac.new(auth_token.encode(), text.encode(), hashlib.sha1).digest()).decode()


class WebhookSender:
    """Webhook client of an account."""

    def __init__(self, gateway_url: str, public_url: str, auth_token: str, timeout_s: float = TIMEOUT_S) -> None:
        self.public_url = public_url.rstrip("/")
        self._gateway = urlsplit(gateway_url)
        self._public = urlsplit(self.public_url)
        self.auth_token = auth_token  # the primary one
        self._timeout_s = timeout_s
        self.posts: deque[Posted] = deque(maxlen=KEPT_POSTS)

    def absolute(self, url: str, base: str | None = None) -> str:
        """Resolve a URL as Twilio does, against the document that contains it."""
        return urljoin(base or self.public_url + "/", url)

    def locate(self, url: str) -> tuple[str, int, bool]:
        """Return host, port and whether TLS: the gateway's own for its public host, else the URL's."""
        parts = urlsplit(url)
        mapped = self._gateway if (parts.hostname, _port(url)) == (self._public.hostname, _port(self.public_url)) else parts
        return mapped.hostname or "", _port(mapped.geturl()), mapped.scheme in ("https", "wss")

    def headers(self, url: str, fields: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return Twilio's request headers, with a signature if there is an auth token."""
        headers = {"User-Agent": "TwilioProxy/1.1", "I-Twilio-Idempotency-Token": "twin"}
        if self.auth_token:
            headers["X-Twilio-Signature"] = sign(self.auth_token, url, fields)
        return headers

    def post(self, url: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Posted:
        """POST a form and record each answer; a failure is an answer too. `headers` replace Twilio's. Returns the last one."""
        url, _, fragment = url.partition("#")
        overrides = dict(parse_qsl(fragment))
        retries, policy = min(MAX_RETRIES, int(overrides.get("rc", RETRIES))), overrides.get("rp", POLICY).split(",")
        until_s = time.monotonic() + self._timeout_s
        while True:
            posted, failure = self._post_once(url, fields, headers, max(0.1, until_s - time.monotonic()))
            self.posts.append(posted)
            may_repeat = failure and (failure in policy or "all" in policy) and time.monotonic() < until_s
            if not (may_repeat and retries):
                return posted
            retries -= 1

    def _post_once(
        self, url: str, fields: Mapping[str, str], headers: Mapping[str, str] | None, bound_s: float
    ) -> tuple[Posted, str]:
        """Return the answer and the kind of its failure, as the policy names it; empty for a good one."""
        host, port, tls = self.locate(url)
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if tls else http.client.HTTPConnection
        connection = kind(host, port, timeout=bound_s)
        sent = {
            **self.headers(url, fields),
            "Host": parts.netloc,
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            **(headers or {}),
        }
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        began_s, failure = time.monotonic(), "ct"
        try:
            connection.connect()
            failure = "rt"
            connection.request("POST", target, urlencode(fields), sent)
            answer = connection.getresponse()
            body = answer.read(MAX_BODY_BYTES + 1).decode(errors="replace")
            status, content_type = answer.status, answer.getheader("Content-Type", "")
            failure = f"{status // 100}xx" if status >= 400 else ""
        except (OSError, http.client.HTTPException) as error:
            status, content_type, body = 0, "", f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        return Posted(began_s, url, dict(fields), status, content_type, body, time.monotonic() - began_s), failure

    def posted_to(self, path: str) -> list[Posted]:
        """Return all requests to that path, in sequence."""
        return [posted for posted in self.posts if urlsplit(posted.url).path == path]


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme in ("https", "wss") else 80)
