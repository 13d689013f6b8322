"""The talk page: a telephone in the browser, for a gateway without Twilio credentials.

The page plays Twilio's part: it asks the voice webhook, opens the media stream and answers marks, so that its call takes the
production path. Served on loopback, to a URL with the key of this start. Built once per worker: answering it sends bytes.
"""

from __future__ import annotations

import base64
import hmac
import re
from hashlib import sha256
from pathlib import Path
from typing import Final

from gw.config import Config, host_and_port
from gw.protocol.webhook_form import parse_form

PATH: Final = "/talk"
#: The path of the feed on ops.listen (`gw.control.talk_feed`).
FEED_PATH: Final = "/talk/feed"
#: Addresses that mean every interface, and one of them for a browser on this machine.
_LOOPBACK: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
_PAGE: Final = Path(__file__).parent / "page.html"
_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_STYLE: Final = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


class TalkPage:
    """The page and the check of its key. Without a key, or with credentials, no request may see it."""

    def __init__(self, config: Config) -> None:
        self._key = b"" if config.signed else config.secrets.talk_key.encode()
        feed = _feed(config.ops.listen)
        self.body = _PAGE.read_bytes().replace(b"@FEED@", feed.encode()) if self._key else b""
        self._policy = "; ".join(
            (
                "default-src 'none'",
                f"script-src '{_hash(_SCRIPT, self.body)}' blob:",  # the audio thread's code is a blob
                f"style-src '{_hash(_STYLE, self.body)}'",
                "img-src data:",
                f"connect-src 'self' ws://@ {feed}".rstrip(),
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        )

    def may_see(self, query: str) -> bool:
        """Return whether a request's query has the key."""
        try:
            key = dict(parse_form(query.encode("latin-1"))).get("key", "")
        except ValueError:
            return False
        return bool(self._key) and hmac.compare_digest(key.encode(), self._key)

    def headers(self, host: str) -> list[tuple[str, str]]:
        """Return the header fields of the answer. `host`: the request's, a loopback name."""
        return [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(self.body))),
            ("Content-Security-Policy", self._policy.replace("@", host, 1)),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),  # the URL has the key
            ("X-Content-Type-Options", "nosniff"),
        ]


def _feed(ops_listen: str) -> str:
    """Return the feed's URL; empty where only the control process has the port."""
    host, port = host_and_port(ops_listen)
    host = _LOOPBACK.get(host, host)
    named = f"[{host}]" if ":" in host else host
    return f"http://{named}:{port}{FEED_PATH}" if port else ""


def _hash(pattern: re.Pattern[bytes], page: bytes) -> str:
    """Return the source expression of an inline element. Source: Content Security Policy Level 3, 2.3.1."""
    found = pattern.search(page)
    return "sha256-" + base64.b64encode(sha256(found[1] if found else b"").digest()).decode()
