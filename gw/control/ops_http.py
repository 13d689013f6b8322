"""The operator's HTTP port: `/metrics`, `/healthz`, `/readyz`.

`/healthz` says that the control process turns, whatever else is wrong. `/readyz` says whether calls can be taken: a worker is
connected and not draining. A store that is away does not make the gateway unready, for calls go on without it; the answer says
so all the same. A metrics page costs tens of milliseconds, so one rendering, in a thread, serves everybody for a second. Never
changes anything, never logs a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import gevent
import gevent.pool
import gevent.pywsgi
import msgspec
from gevent.lock import BoundedSemaphore

from gw.config import host_and_port
from metrics.exposition import CONTENT_TYPE

#: One rendering serves everybody for this long.
CACHE_S: Final = 1.0
#: Bound on one rendering.
RENDER_S: Final = 10.0
#: Connections at once; Prometheus needs one, a person a few.
MAX_CONNECTIONS: Final = 64
#: A connection that sends nothing is closed.
IDLE_S: Final = 30.0

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Readiness(msgspec.Struct, frozen=True):
    """Whether calls can be taken, and what is wrong, if only a little."""

    ready: bool
    reasons: list[str]


class OpsHttp:
    """Binds at construction. `render` makes the metrics page; it runs in a native thread."""

    def __init__(self, listen: str, *, render: Callable[[], bytes], readiness: Callable[[], Readiness]) -> None:
        """Raises OSError when the address is taken."""
        self._render = render
        self._readiness = readiness
        self._page = b""
        self._page_until_s = 0.0
        self._rendering = BoundedSemaphore(1)
        self._threads = gevent.get_hub().threadpool
        self._server = gevent.pywsgi.WSGIServer(
            host_and_port(listen),
            self._answer,
            log=None,
            error_log=None,
            spawn=gevent.pool.Pool(MAX_CONNECTIONS),
            handler_class=_Handler,
        )
        self._server.init_socket()

    @property
    def port(self) -> int:
        return int(self._server.server_port or 0)

    def start(self) -> None:
        self._server.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        self._server.stop(timeout=timeout_s)

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            return _respond(start_response, "405 Method Not Allowed", b"read only\n", extra=[("Allow", "GET, HEAD")])
        match environ["PATH_INFO"]:
            case "/metrics":
                try:
                    page = self._metrics()
                except gevent.Timeout:  # ours alone: nothing around this request starts another
                    return _respond(
                        start_response, "503 Service Unavailable", b"the page took too long to render\n", method=method
                    )
                return _respond(start_response, "200 OK", page, content_type=CONTENT_TYPE, method=method)
            case "/healthz":
                return _respond(start_response, "200 OK", b"ok\n", method=method)
            case "/readyz":
                readiness = self._readiness()
                status = "200 OK" if readiness.ready else "503 Service Unavailable"
                body = msgspec.json.encode(readiness) + b"\n"
                return _respond(start_response, status, body, content_type="application/json", method=method)
            case _:
                return _respond(start_response, "404 Not Found", b"try /metrics, /healthz or /readyz\n", method=method)

    def _metrics(self) -> bytes:
        with gevent.Timeout(RENDER_S), self._rendering:
            if time.monotonic() >= self._page_until_s:
                self._page = self._threads.apply(self._render)
                self._page_until_s = time.monotonic() + CACHE_S
            return self._page


class _Handler(gevent.pywsgi.WSGIHandler):
    """A connection with a bound on its silence."""

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        sock.settimeout(IDLE_S)
        super().__init__(sock, address, server)


def _respond(
    start_response: StartResponse,
    status: str,
    body: bytes,
    *,
    content_type: str = "text/plain; charset=utf-8",
    method: str = "GET",
    extra: list[tuple[str, str]] | None = None,
) -> Iterable[bytes]:
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"), *(extra or [])]
    start_response(status, headers)
    return [b"" if method == "HEAD" else body]
