"""Server of the AI twin: accepts websockets and gives each a session with a script.

Speaks OpenAI Realtime's GA shape. Any path is served, so that base URLs can separate agents; the ledgers of all sessions stay
readable after their end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final
from urllib.parse import parse_qs, urlsplit

import gevent
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from gw.twin.ai.ledger import AiLedger
from gw.twin.ai.script import AiScript, conversation
from gw.twin.ai.session import AiSession
from gw.twin.polling import wait_until
from gw.twin.websocket import answer_request, read_request

#: OpenAI's limit on one client event.
MAX_EVENT_BYTES: Final = 15 << 20
_HANDSHAKE_S: Final = 10.0
_DEAF_BYTES: Final = 4096  # receive buffer of a deaf session
_REFUSALS: Final = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Country, region, or territory not supported."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request."),
    400: ("invalid_request_error", "missing_model", "You must provide a model parameter."),
}


class AiTwin:
    """A server of scripted voices. Call `start` and `stop`, or use it as a context manager."""

    def __init__(
        self,
        script: AiScript | Callable[[int, str], AiScript] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_sessions: int = 2000,
        needs_key: bool = True,
    ) -> None:
        """`script`: one for all sessions, or a function of index and path. `api_key`: None accepts any bearer.

        `needs_key` False: a request without a key is accepted too.
        """
        chosen = script if script is not None else conversation()
        self._script_of: Callable[[int, str], AiScript] = (lambda index, path: chosen) if isinstance(chosen, AiScript) else chosen
        self._api_key = api_key
        self._needs_key = needs_key
        self._timeout_s = timeout_s
        self._pool = Pool(max_sessions)
        self._server = StreamServer((host, port), self._on_connection, backlog=1024, spawn=self._pool)
        self._connections = 0
        self.sessions: list[AiLedger] = []
        self.refusals: list[int] = []  # HTTP statuses other than 101

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self) -> AiTwin:
        """Listen. Raises OSError if the address is taken."""
        self._server.start()
        return self

    def stop(self, timeout_s: float = 2.0) -> None:
        """Close the listener, then every session. Idempotent."""
        self._server.stop(timeout=0)
        self._pool.kill(timeout=timeout_s)

    def __enter__(self) -> AiTwin:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the listener."""
        return str(self._server.server_host), int(self._server.server_port or 0)

    @property
    def url(self) -> str:
        """Base URL for an agent's `base_url`."""
        host, port = self.address
        return f"ws://{host}:{port}/v1/realtime"

    # -- finding a session ------------------------------------------------------------------------------------------

    def session_of(self, tag: int) -> AiLedger | None:
        """Return the session whose first caller audio carried this tag (`sound.tag`)."""
        return next((ledger for ledger in self.sessions if ledger.tag == tag), None)

    def wait_for(self, condition: Callable[[AiTwin], bool], timeout_s: float = 5.0) -> bool:
        """Wait until `condition` holds. Returns whether it held."""
        return wait_until(lambda: condition(self), timeout_s)

    # -- connections ------------------------------------------------------------------------------------------------

    def _on_connection(self, sock: socket.socket, address: tuple[str, int]) -> None:
        index = self._connections
        self._connections += 1
        try:
            self._serve(sock, index)
        finally:
            sock.close()

    def _serve(self, sock: socket.socket, index: int) -> None:
        asked = read_request(sock, _HANDSHAKE_S, MAX_EVENT_BYTES)
        if asked is None:
            return
        protocol, request = asked
        parts = urlsplit(request.path)
        script = self._script_of(index, parts.path)
        if script.fault == "deaf":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _DEAF_BYTES)
        if script.fault == "mute":
            gevent.sleep(self._timeout_s)
            return
        model = parse_qs(parts.query).get("model", [""])[0]
        status = self._refusal_status(request, model, script)
        response = _refusal(status) if status else protocol.accept(request)
        if response.status_code != 101:
            self.refusals.append(response.status_code)
        websocket = answer_request(sock, protocol, response, self._timeout_s)
        if websocket is None:
            return
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        headers.pop("authorization", None)  # ledgers may be printed
        ledger = AiLedger(index, parts.path, model, headers, time.monotonic())
        self.sessions.append(ledger)
        AiSession(websocket, ledger, script).run()

    def _refusal_status(self, request: Request, model: str, script: AiScript) -> int:
        """The HTTP status to refuse with, 0 to accept."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if script.fault in ("refuse_401", "refuse_403", "refuse_429", "refuse_500"):
            return int(script.fault.removeprefix("refuse_"))
        missing = self._needs_key and (scheme != "Bearer" or not key)
        if missing or (self._api_key is not None and key != self._api_key):
            return 401
        return 0 if model else 400


def _refusal(status: int) -> Response:
    kind, code, message = _REFUSALS[status]
    body = json.dumps({"error": {"type": kind, "code": code, "message": message, "param": None}}).encode()
    headers = Headers([("Connection", "close"), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return Response(status, "Refused", headers, body)
