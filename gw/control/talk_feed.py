"""The talk page's read-only feed: words of a call, and histograms of the sent frames.

Exists without Twilio credentials only, and answers requests with the page's key from the public port's origins on this machine.
Bounded: the last calls, the last turns of each.
"""

from __future__ import annotations

import hmac
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

import msgspec

from gw import bus
from gw.config import Config, host_and_port

PATH: Final = "/talk/feed"
MAX_CALLS: Final = 8
MAX_TURNS: Final = 200
MAX_TEXT_CHARS: Final = 4000
_HISTOGRAMS: Final = {"send": "gw_tx_send_seconds", "lateness": "gw_tx_lateness_seconds"}
_LE: Final = re.compile(r'le="([^"]+)"')


class WordsOfTurn(msgspec.Struct, frozen=True):
    """A finished turn, for the page."""

    n: int
    role: str
    text: str
    interrupted: bool
    heard_ms: int | None


class _Call(msgspec.Struct):
    turns: list[WordsOfTurn]
    ended: str = ""  # the reason, once it has ended


class Feed(msgspec.Struct, frozen=True):
    """One answer. `histograms`: by name, the upper bound in seconds (None: infinite) and the count up to it."""

    turns: list[WordsOfTurn]
    ended: str
    histograms: dict[str, list[tuple[float | None, int]]]


class TalkFeed:
    """Words of the last calls. `page` returns the metrics page; it may wait."""

    def __init__(self, config: Config, page: Callable[[], bytes]) -> None:
        _, port = host_and_port(config.server.listen)
        self._key = b"" if config.signed else config.secrets.talk_key.encode()
        self._origins = frozenset(f"http://{host}:{port}" for host in ("127.0.0.1", "[::1]", "localhost"))
        self._page = page
        self._calls: OrderedDict[str, _Call] = OrderedDict()

    def on_event(self, event: bus.Event) -> None:
        """Keep the words of a finished turn, and a call's end."""
        if not self._key or not isinstance(event, bus.Turn | bus.CallEnded):
            return
        call = self._calls.setdefault(event.call_sid, _Call([]))
        if isinstance(event, bus.CallEnded):
            call.ended = event.reason
        elif len(call.turns) < MAX_TURNS:
            text = event.text[:MAX_TEXT_CHARS]
            call.turns.append(WordsOfTurn(event.n, event.role, text, event.interrupted, event.heard_ms))
        if len(self._calls) > MAX_CALLS:
            self._calls.popitem(last=False)

    def origin_of(self, origin: str) -> str:
        """Return the origin if the page may come from it, else empty."""
        return origin if origin in self._origins else ""

    def answer(self, query: str) -> bytes | None:
        """Return the answer to a request, None without the key. Raises what `page` raises."""
        fields = parse_qs(query, max_num_fields=8) if len(query) < 1024 else {}
        key = fields.get("key", [""])[0]
        if not self._key or not hmac.compare_digest(key.encode(), self._key):
            return None
        call = self._calls.get(fields.get("call", [""])[0], _Call([]))
        page = self._page().decode()
        return msgspec.json.encode(Feed(call.turns, call.ended, {name: _buckets(page, own) for name, own in _HISTOGRAMS.items()}))


def _buckets(page: str, name: str) -> list[tuple[float | None, int]]:
    """Return the buckets of a histogram on the metrics page, of all its series in sum."""
    sums: dict[str, int] = {}
    for line in page.splitlines():
        if line.startswith(f"{name}_bucket{{") and (bound := _LE.search(line)):
            sums[bound[1]] = sums.get(bound[1], 0) + int(float(line.rpartition(" ")[2]))
    return [(None if bound == "+Inf" else float(bound), count) for bound, count in sums.items()]
