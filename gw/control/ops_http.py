"""The operator's HTTP port: `/metrics`, `/healthz`, `/readyz`, and the feed of the talk page.

`/healthz` answers while the control process runs. `/readyz` reports whether new calls are accepted, and every other problem; an
unavailable store does not make the gateway unready, because calls continue without it. A metrics page costs tens of milliseconds,
so one rendering, in a native thread, serves all requests for a second. A token, if set, guards `/metrics` and the reasons of
`/readyz`; a load balancer has none. Changes nothing and logs no request.
"""

from __future__ import annotations

import hmac
import logging
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from gw.bounded import OutOfTimeError, within
from gw.config import Config, host_and_port
from gw.control import talk_feed
from gw.control.talk_feed import TalkFeed
from gw.logs.limited import LimitedLog
from gw.strangers import Bounds
from gw.strict_http import StrictServer
from metrics.exposition import CONTENT_TYPE

log = logging.getLogger(__name__)

#: One rendering serves all requests for this long.
CACHE_S: Final = 1.0
#: Upper bound on one rendering, including the wait for another.
RENDER_S: Final = 10.0
#: Connections that wait for their clients; Prometheus needs one, an operator a few. Prometheus reuses its idle one.
BOUNDS: Final = Bounds(places=64, per_address=32, head_s=10.0, body_s=5.0, answer_s=30.0, idle_s=70.0)

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Readiness(msgspec.Struct, frozen=True):
    """The body of `/readyz`: readiness, and a sentence for each problem."""

    ready: bool
    reasons: list[str]


class OpsHttp:
    """The HTTP server. Construction binds. `render` builds the metrics page, in a native thread."""

    def __init__(
        self,
        listen: str,
        *,
        render: Callable[[], bytes],
        readiness: Callable[[], Readiness],
        token: str = "",
        refused: Callable[[str], None] = lambda reason: None,
        config: Config | None = None,
    ) -> None:
        """Bind. `refused` counts a request by its reason. `config`: for the talk page's feed.

        Raises: OSError for an address in use.
        """
        self._refused = refused
        self._authorization = f"Bearer {token}".encode() if token else b""
        self._render = render
        self._readiness = readiness
        self._page = b""
        self._page_until_s = 0.0
        self.talk = TalkFeed(config or Config(), self._metrics)
        self._rendering = BoundedSemaphore(1)
        self._threads = gevent.get_hub().threadpool
        self._server = StrictServer(host_and_port(listen), self._answer, BOUNDS)
        self._server.count_refused = lambda reason, message, *args: refused(reason)  # type: ignore[method-assign]
        lines, failed = LimitedLog(log), "a connection to the ops port cannot be accepted: %s"
        self._server.on_accept_failed = partial(lines.warning, "accept_failed", failed)  # type: ignore[method-assign]
        try:
            self._server.init_socket()
        except OSError as error:
            code = error.errno or 0
            reason = os.strerror(code) if code > 0 else error  # gevent adds the address to the text of a system's error
            raise OSError(f"ops.listen = {listen} cannot be used: {reason}; choose another address, or free this one") from None

    @property
    def port(self) -> int:
        return int(self._server.server_port or 0)

    def start(self) -> None:
        self._server.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        self._server.stop(timeout=timeout_s)

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            self._refused("bad_method")
            return _respond(start_response, "405 Method Not Allowed", b"read only\n", extra=[("Allow", "GET, HEAD")])
        may_read = not self._authorization or hmac.compare_digest(
            environ.get("HTTP_AUTHORIZATION", "").encode("latin-1"), self._authorization
        )
        match environ["PATH_INFO"]:
            case "/metrics" if not may_read:
                challenge = [("WWW-Authenticate", "Bearer")]
                return _respond(start_response, "401 Unauthorized", b"SUBMILLI_OPS_TOKEN is the bearer token\n", extra=challenge)
            case "/metrics":
                try:
                    page = self._metrics()
                except OutOfTimeError:
                    return _respond(start_response, "503 Service Unavailable", b"the page took too long to render\n")
                return _respond(start_response, "200 OK", page, content_type=CONTENT_TYPE)
            case talk_feed.PATH if (answer := self._feed(environ, start_response)) is not None:
                return answer
            case "/healthz":
                return _respond(start_response, "200 OK", b"ok\n")
            case "/readyz":
                readiness = self._readiness()
                status = "200 OK" if readiness.ready else "503 Service Unavailable"
                body = msgspec.json.encode(readiness if may_read else Readiness(readiness.ready, [])) + b"\n"
                return _respond(start_response, status, body, content_type="application/json")
            case _:
                self._refused("not_found")
                return _respond(start_response, "404 Not Found", b"try /metrics, /healthz or /readyz\n")

    def _feed(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes] | None:
        """Answer a request of the talk page; None without its key."""
        try:
            body = self.talk.answer(environ.get("QUERY_STRING", ""))
        except OutOfTimeError:
            return _respond(start_response, "503 Service Unavailable", b"the metrics took too long to render\n")
        if body is None:
            return None
        origin = self.talk.origin_of(environ.get("HTTP_ORIGIN", ""))
        permitted = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")] if origin else []
        return _respond(start_response, "200 OK", body, content_type="application/json", extra=permitted)

    def _metrics(self) -> bytes:
        with within(RENDER_S), self._rendering:
            if time.monotonic() >= self._page_until_s:
                self._page = self._threads.apply(self._render)
                self._page_until_s = time.monotonic() + CACHE_S
            return self._page


def _respond(
    start_response: StartResponse,
    status: str,
    body: bytes,
    *,
    content_type: str = "text/plain; charset=utf-8",
    extra: list[tuple[str, str]] | None = None,
) -> Iterable[bytes]:
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"), *(extra or [])]
    start_response(status, headers)
    return [body]
