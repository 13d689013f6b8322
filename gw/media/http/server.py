"""HTTP server of a worker: pywsgi with gevent-websocket's handler, made strict by `gw.strict_http`.

gevent-websocket answers 101 before the application runs, so every check that can refuse a stream comes here, before it: route,
version, key, signature, free slots. After the 101 the socket belongs to the session; its frames never pass gevent-websocket.
"""

from __future__ import annotations

import base64
import binascii
import logging
import resource
import select
from time import monotonic
from typing import Any, Final

import gevent
from gevent import socket
from gevent.monkey import get_original
from geventwebsocket.handler import WebSocketHandler

from gw.call.limits import phone_reads
from gw.logs.limited import LimitedLog
from gw.media.admission.slots import SHORT_DELAY_S
from gw.media.http.webhooks import Webhooks, foreign_request, signed_path
from gw.media.hub.clock import turn_loop
from gw.media.hub.greenlets import mark_current
from gw.media.session import MAX_WAITING_BYTES, Session
from gw.media.shared.context import MediaContext
from gw.media.transport.plain import Transport
from gw.media.uplink import MISSING_S
from gw.protocol.http import MAX_OPTIONS
from gw.protocol.signature import signature_of, stream_valid
from gw.protocol.websocket.handshake import accept_key
from gw.strangers import Bounds, Stage
from gw.strict_http import StrictHandler, StrictServer
from metrics.declare import CONNECTIONS

log = logging.getLogger(__name__)

#: Times of a connection's stages, in seconds. Proxies wait for an answer longer, and reuse an idle connection within 15 s.
HEAD_S: Final = 10.0
BODY_S: Final = 5.0
ANSWER_S: Final = 15.0
IDLE_S: Final = 15.0
#: Connections of a worker that wait for their peers, about 10 KB each, and those of one address.
PLACES: Final = 1000
PER_ADDRESS: Final = 100
#: The least of these if there are few descriptors, and descriptors of a worker beside those of connections.
_LEAST_PLACES: Final = 64
_OWN_DESCRIPTORS: Final = 100
#: With more connections than this that stay silent, a new connection is not counted as a future media socket.
MANY_SILENT: Final = 16
#: Twilio offers this subprotocol on some accounts; it is echoed only when offered (RFC 6455 4.2.2).
_SUBPROTOCOL: Final = "audio.twilio.com"
_MEDIA_PATH: Final = "/media"
_UPGRADE: Final = (("Upgrade", "websocket"), ("Connection", "Upgrade"))  # both also in a 426 (RFC 9110 7.8)
#: Reasons of gw_requests_refused_total by the status of the application's answer.
_NOT_HERE: Final = {"404": "not_found", "405": "bad_method"}
#: The kernel's send buffer: the least that a lead of 500 ms over a slow network needs. By default
#: the kernel takes megabytes from a proxy on this machine: minutes of speech before the transport's bound is met.
_SEND_BUFFER_BYTES: Final = 64 << 10
#: Frames of silence, or of kept audio, sent in one slice of the hub: about a third of a millisecond.
FILL_SLICE_FRAMES: Final = 20


class _RefusedError(Exception):
    """The upgrade is refused. `reason`: a label of gw_streams_refused_total."""

    def __init__(self, status: str, reason: str, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.headers = list(headers)


class MediaHandler(StrictHandler, WebSocketHandler):  # type: ignore[misc]  # gevent-websocket has no types
    """One connection: `GET /media` starts a session, every other request goes to the application."""

    server: MediaServer
    environ: dict[str, Any]
    _is_pending = True

    def handle(self) -> None:
        """Serve a connection from its accept to its end."""
        mark_current("server")
        accepted = self.socket
        try:
            super().handle()
        finally:
            self._count_as_known(accepted)

    def _count_as_known(self, accepted: socket.socket) -> None:
        """Stop counting this connection as a possible media socket."""
        if self._is_pending:
            self._is_pending = False
            self.server.on_known(accepted)

    def run_application(self) -> None:
        """Run a session for /media, also with a machine's name behind it; else the application."""
        context = self.server.context
        # when leaving, the client's next connection goes to another worker; only webhooks keep theirs
        self.close_connection |= context.leaving or self.command != "POST"
        turn_loop()  # reading the request was half of the work: let other greenlets run in between
        self.server.take_slice()
        self._count_as_known(self.socket)  # no switch from here to where a media socket is counted
        is_media = context.config.server.base_path(self.environ["PATH_INFO"]) == _MEDIA_PATH
        if not is_media or foreign_request(context.config, self.environ):  # which the application refuses
            super().run_application()
            return
        try:
            headers, account_sid = self._check_upgrade(context)
        except _RefusedError as refused:
            self._refuse(context, refused)
            return
        self.server.strangers.leave(self)
        context.streams += 1
        context.publish()
        try:
            self._upgrade(context, headers, account_sid)
        finally:
            context.streams -= 1
            context.publish()

    def _upgrade(self, context: MediaContext, headers: list[tuple[str, str]], account_sid: str) -> None:
        self.environ["wsgi.websocket"] = self  # gevent-websocket's start_response requires it
        self.start_response("101 Switching Protocols", headers)
        del self.environ["wsgi.websocket"]  # else an object cycle: the handler refers to its environ
        self.write(b"")
        self._run_session(context, account_sid)

    def _check_upgrade(self, context: MediaContext) -> tuple[list[tuple[str, str]], str]:
        """Return the headers of the 101, and the SID of the account that signed. Raises _RefusedError."""
        environ = self.environ
        upgrades = _tokens(environ.get("HTTP_UPGRADE", ""))
        if environ["REQUEST_METHOD"] != "GET" or "websocket" not in upgrades or self.request_version != "HTTP/1.1":
            raise _RefusedError("426 Upgrade Required", "bad_request", "this is a websocket\n", *_UPGRADE)
        if "upgrade" not in _tokens(environ.get("HTTP_CONNECTION", "")):
            raise _RefusedError("400 Bad Request", "bad_request", "Connection: Upgrade is missing\n")
        if environ.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip() != "13":
            raise _RefusedError("426 Upgrade Required", "bad_request", "use version 13\n", ("Sec-WebSocket-Version", "13"))
        key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "").strip()
        if not _is_key(key):
            raise _RefusedError("400 Bad Request", "bad_request", "Sec-WebSocket-Key is not 16 bytes of base64\n")
        account_sid = context.config.twilio.account_sid
        if context.config.signed:
            account_sid = self._signer(context)
            if not account_sid:
                raise _RefusedError("403 Forbidden", "bad_signature", "the signature is not valid for this URL\n")
        if self.is_shut:
            raise _RefusedError("503 Service Unavailable", "busy", "the connection was given up\n")
        if not context.may_open():
            raise _RefusedError("503 Service Unavailable", "busy", "no slot is free for another call\n")
        headers = [*_UPGRADE, ("Sec-WebSocket-Accept", accept_key(key))]
        if _SUBPROTOCOL in _tokens(environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")):
            headers.append(("Sec-WebSocket-Protocol", _SUBPROTOCOL))
        return headers, account_sid

    def _signer(self, context: MediaContext) -> str:
        """Return the SID of the account that signed the upgrade, which does not name one; empty if none did."""
        signature, path = signature_of(self.environ), signed_path(self.environ)
        for account_sid, secrets in context.signing_secrets.items():
            if stream_valid(secrets, signature, context.config.server.public_base, path):
                return account_sid
            turn_loop()  # a signature that is not valid takes eight or sixteen sums
        return ""

    def _refuse(self, context: MediaContext, refused: _RefusedError) -> None:
        context.cells.refused[refused.reason].add()
        if refused.reason == "bad_request":
            context.cells.requests_refused["bad_upgrade"].add()
        elif refused.reason == "bad_signature":
            missing = "HTTP_X_TWILIO_SIGNATURE" not in self.environ
            context.cells.requests_refused["no_signature" if missing else "bad_signature"].add()
        self.server.lines.warning(refused.reason, "upgrade refused: %s", str(refused).strip())
        body = str(refused).encode("utf-8")
        self.close_connection = True
        self.start_response(
            refused.status,
            [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *refused.headers],
        )
        self.result = [body]
        self.process_result()

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        """Begin an answer, and count one to a request for nothing that is here."""
        if reason := _NOT_HERE.get(status[:3]):
            self.server.count_refused(reason, "a request is refused: %s", status)
        return super().start_response(status, headers, exc_info)

    def _run_session(self, context: MediaContext, account_sid: str) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        transport = Transport(self.socket, MAX_WAITING_BYTES, first=self.ahead, reads=phone_reads())
        session = Session(context, transport, account_sid)
        self.server.sessions.add(session)
        try:
            session.run()
        finally:
            self.server.sessions.discard(session)
            mark_current("server")

    def broke_off(self, error: OSError, *, has_begun: bool) -> None:
        if has_begun:
            self.server.count_refused("cut_off", "a request broke off: %s", error)

    def log_request(self) -> None:
        """Log nothing: requests are counted."""


class MediaServer(StrictServer):
    """Listener of a worker, its sessions, and the watchdog that bounds their waits.

    A waiting connection wakes all workers of the machine. Each decides for one connection at a time whether to accept it, so that
    connections are shared evenly also when many come at the same time. A worker that leaves one to the others checks again after
    LEFT_S.
    """

    #: Interval of the watchdog's checks.
    WATCH_S: Final = 0.25
    #: Interval of the checks for missing frames.
    FRAMES_S: Final = 0.05
    #: Pause before a connection that was left to other workers is checked again: they accept within a millisecond or two.
    LEFT_S: Final = 0.005

    def __init__(self, listener: socket.socket, context: MediaContext) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = (descriptors - 2 * context.config.server.max_calls_per_worker - _OWN_DESCRIPTORS) // 2
        places = max(_LEAST_PLACES, min(PLACES, spare))
        bounds = Bounds(places, min(PER_ADDRESS, places), HEAD_S, BODY_S, ANSWER_S, IDLE_S)
        shared = context.config.server.proxy_networks
        super().__init__(listener, Webhooks(context), bounds, shared=shared, handler_class=MediaHandler)
        self.context = context
        self.sessions: set[Session] = set()
        self.lines = LimitedLog(log)
        self.max_accept = 1  # per turn of the loop, so that other workers get their share
        self._young: dict[socket.socket, float] = {}  # pending connections since less than SHORT_DELAY_S, oldest first
        self._connections = {value: context.page.gauge(CONNECTIONS, state=value) for value in CONNECTIONS.labels["state"]}
        self._left_s = 0.0  # since when a connection has been left to other workers; 0.0: none is
        self._waiting = get_original("select", "poll")()  # gevent's own poll would wait for the hub, in the hub
        self._waiting.register(listener.fileno(), select.POLLIN)

    def do_read(self) -> tuple[Any, ...] | None:  # type: ignore[override]  # gevent's own returns None too
        """Accept a waiting connection, or leave it to the other workers for now."""
        now_s = monotonic()
        self._count_overdue(now_s)
        delay_s = self.context.slots.accept_delay_s()
        if delay_s:
            self._left_s = self._left_s or now_s
            if now_s - self._left_s < delay_s:
                self.pause_accepting(self.LEFT_S)
                return None
        accepted = super().do_read()
        self._reset_delay()
        return accepted

    def on_pause_over(self) -> None:
        """Check again whether a connection waits."""
        if self.started:
            self._reset_delay()
        super().on_pause_over()

    def _reset_delay(self) -> None:
        """Restart the delay when no connection waits any more."""
        if self._left_s and not self._waiting.poll(0):
            self._left_s = 0.0

    def do_handle(self, *connection: Any) -> None:
        """Count a connection from its accept on, before its request is read."""
        self._young[connection[0]] = monotonic()
        self.context.pending += 1
        self.context.publish()
        super().do_handle(*connection)

    def on_known(self, accepted: socket.socket) -> None:
        """Stop counting a connection as pending: its first request is complete, or it ended."""
        context = self.context
        self._young.pop(accepted, None)
        context.pending -= 1
        context.overdue = min(context.overdue, context.pending)
        context.publish()

    def _count_overdue(self, now_s: float) -> None:
        """Count the pending connections that are too late for a media socket: all, if many others were silent."""
        context, young = self.context, self._young
        while young and now_s - next(iter(young.values())) > SHORT_DELAY_S:
            del young[next(iter(young))]
        silent = context.pending - len(young)
        overdue = context.pending if silent > MANY_SILENT else silent
        if overdue != context.overdue:
            context.overdue = overdue
            context.publish()

    def count_refused(self, reason: str, message: str, *args: object) -> None:
        """Count a refused request, and log it, one line per reason and second."""
        self.context.cells.requests_refused[reason].add()
        self.lines.warning(reason, message, *args)

    def on_accept_failed(self, error: OSError) -> None:
        self.lines.warning("accept_failed", "a connection cannot be accepted: %s", error)

    def watch(self) -> None:
        """Check every session at an interval, a few microseconds each. The watchdog greenlet's body."""
        checked_s = 0.0
        while True:
            began_s = monotonic()
            gevent.sleep(min(self.FRAMES_S, self.WATCH_S))
            if monotonic() - began_s < MISSING_S:  # else this process was stopped: frames that came meanwhile are read first
                self._fill_silence()
            if monotonic() - checked_s < self.WATCH_S:
                continue
            checked_s = monotonic()
            self._check_sessions()
            self._count_overdue(monotonic())
            self._publish_connections()

    def _publish_connections(self) -> None:
        count, cells = self.strangers.count, self._connections
        cells["head"].set(count(Stage.HEAD) + count(Stage.CLOSING))
        cells["request"].set(count(Stage.BODY) + count(Stage.ANSWER))
        cells["idle"].set(count(Stage.IDLE))
        cells["stream"].set(self.context.streams)

    def _fill_silence(self) -> None:
        """Send kept audio, and silence in place of missing frames, in slices: a network's outage concerns every call."""
        now_s, sent = monotonic(), 0
        for session in [session for session in self.sessions if session.lacks_frames(now_s)]:
            if sent >= FILL_SLICE_FRAMES or (sent and session.has_kept):  # a batch of kept audio is a slice
                sent = 0
                turn_loop()
            sent += session.check_frames(now_s)

    def _check_sessions(self) -> None:
        """Check each session. A separate function, so that no local keeps the last session between two checks."""
        for n, session in enumerate(list(self.sessions)):
            session.check_or_end(monotonic())
            if n % 50 == 49:
                turn_loop()


def _tokens(header: str) -> list[str]:
    """A header's comma-separated tokens, lower case."""
    return [token.strip().lower() for token in header.split(",", MAX_OPTIONS)]


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode("ascii"), validate=True)) == 16
    except (binascii.Error, UnicodeEncodeError):
        return False
