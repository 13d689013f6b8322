"""HTTP handler for gevent's server that reads requests with `gw.protocol.http`.

pywsgi's own parser, and the error path behind it, which prints tracebacks in the hub, never run. Each answer of 4xx closes the
connection, an answer to HEAD has no body, and a body is read when the application asks for it, whole and within its bound.

`gw.strangers` decides which connections to give up; StrictServer shuts these down for reading, and their own greenlets end them.
So a connection that waits has no timer, and a thousand of them that end together are closed a few per turn of the loop. Nor do
a thousand requests that come together fill one turn: each part of one that costs over 20 us begins with `take_slice`.
"""

from __future__ import annotations

import contextlib
import errno
from time import monotonic
from typing import Any, Final, Literal
from urllib.parse import unquote

import gevent
from gevent import pywsgi
from gevent.lock import Semaphore
from gevent.pool import Pool
from gevent.socket import SHUT_RD, SHUT_RDWR, SHUT_WR, socket

from gw.protocol.http import ChunkedReader, GivenUp, Head, HeadReader, RequestError, RequestFault
from gw.strangers import Bounds, Closed, Stage, Strangers, address_groups

READ_BYTES: Final = 8192
#: After a refusal the rest of the request is read and dropped for this long, and this often.
LINGER_S: Final = 1.0
LINGER_READS: Final = 16
#: Interval of the checks for connections whose time is over, the number closed at a time, and the pause before the next ones.
SWEEP_S: Final = 0.1
SWEEP_MOST: Final = 4
SWEEP_PAUSE_S: Final = 0.002
#: Slices of requests in one turn of the loop, up to 0.1 ms each: a thousand connections may be ready together, and timers wait.
SLICES: Final = 4
#: A timer that is due at the loop's next look at its timers.
_NEXT_TURN_S: Final = 1e-9
#: Pause of accepting after a failure, as without a free descriptor.
ACCEPT_PAUSE_S: Final = 0.02
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Body:
    """The body of one request: `wsgi.input`."""

    def __init__(self, handler: StrictHandler, head: Head) -> None:
        self._handler = handler
        self._head: Head | None = head if head.is_chunked or head.length else None

    def read(self, size: int = -1) -> bytes:
        """Return the whole body, once; then nothing. Raises RequestError, and OSError of the socket."""
        if self._head is None:
            return b""
        head, self._head = self._head, None
        return self._handler.read_body(head)

    def _discard(self) -> None:
        """Close a connection whose body was not read: its bytes are not the next request. pywsgi calls this."""
        if self._head is not None:
            self._handler.close_connection = True
            self._handler.linger()


class StrictHandler(pywsgi.WSGIHandler):
    """One connection of a StrictServer. `ahead`: bytes received behind the last request."""

    server: Any  # a StrictServer
    #: Errors of a peer that is gone, which pywsgi does not report.
    ignored_socket_errors = (errno.EPIPE, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
    _given_up: GivenUp | Literal[""] = ""
    _stage: Stage = Stage.HEAD
    #: Nothing is read beyond what has come: this connection was given up, also if its request came whole at the last moment.
    is_shut = False

    def __init__(self, sock: socket, address: Any, server: Any) -> None:
        # not pywsgi's own: it makes a file object of the socket, which nothing here reads
        self.socket = sock
        self.client_address = address
        self.server = server
        self.ahead = b""

    def handle(self) -> None:
        """Serve a connection from its accept to its end."""
        address = self.client_address[0] if self.client_address else ""
        self.server.close_one(self.server.strangers.enter(self, address, monotonic()))
        try:
            super().handle()
        finally:
            self.server.strangers.leave(self)
            self.environ = None  # else an object cycle: the body refers to its handler

    def to_stage(self, stage: Stage) -> None:
        """Begin a stage, with its time."""
        self._stage, self._given_up = stage, ""
        self.server.close_one(self.server.strangers.move(self, stage, monotonic()))

    def give_up(self, closed: Closed[Any]) -> None:
        """Let the greenlet that waits for the peer end the connection."""
        self._given_up, self.is_shut = closed.reason, True
        with contextlib.suppress(OSError):  # closed already
            # below gevent's own shutdown, with which the wait would raise EBADF
            self.socket._sock.shutdown(SHUT_RDWR if closed.hard else SHUT_RD)  # type: ignore[attr-defined]

    def handle_one_request(self) -> Any:
        """Read and answer one request. Returns True if the connection may have another."""
        reader = HeadReader()
        try:
            head = self._read_head(reader)
        except RequestError as refused:
            self.command = reader.method
            if reader.has_begun:
                self.refuse(refused)
            else:
                self.on_refused(refused.code)
            return None
        except OSError as error:
            self.broke_off(error, has_begun=reader.has_begun)
            return None
        if head is None:
            return None
        self.ahead = reader.rest
        self.to_stage(Stage.BODY if head.length or head.is_chunked else Stage.ANSWER)
        self.command, self.path, self.request_version = head.method, head.target, head.version
        self.requestline = f"{head.method} {head.target} {head.version}"
        self.close_connection = head.is_last
        self.environ = self._environ_of(head)
        self.application = self.server.application
        self.handle_one_response()
        if self.close_connection:
            return None
        self.to_stage(Stage.HEAD if self.ahead else Stage.IDLE)
        return True

    def _read_head(self, reader: HeadReader) -> Head | None:
        """Read a head; None if the peer ended before it. Raises RequestError and OSError."""
        data = self.ahead
        while (head := reader.feed(data)) is None:
            if reader.has_begun and self._stage is Stage.IDLE:
                self.to_stage(Stage.HEAD)
            data = self._receive()
            if not data:
                if reader.has_begun or self._given_up:
                    raise self._cut_off("head")
                return None
        return head

    def _cut_off(self, part: str) -> RequestError:
        if self._given_up:
            return RequestError(self._given_up, f"the {part} was given up: too slow, or too many connections")
        return RequestError("cut_off", f"the {part} ended early")

    def read_body(self, head: Head) -> bytes:
        """Read a request's body. Raises RequestError and OSError."""
        try:
            body = self._read_body(head)
        except OSError as error:
            self.close_connection = True
            self.broke_off(error, has_begun=True)
            raise
        self.to_stage(Stage.ANSWER)
        return body

    def _read_body(self, head: Head) -> bytes:
        data = self.ahead
        if head.expects_continue and not data:
            self.socket.sendall(_CONTINUE)
        if not head.is_chunked:
            while len(data) < head.length:
                data += self._more_of_body()
            self.ahead = data[head.length :]
            return data[: head.length]
        reader = ChunkedReader()
        while (body := reader.feed(data)) is None:
            data = self._more_of_body()
        self.ahead = reader.rest
        return body

    def _more_of_body(self) -> bytes:
        data = self._receive()
        if not data:
            raise self._cut_off("body")
        return data

    def _receive(self) -> bytes:
        """Wait for bytes, the peer's end or a failure, and for room to handle it in this turn of the loop. Raises OSError."""
        try:
            return self.socket.recv(READ_BYTES)
        finally:
            self.server.take_slice()

    def run_application(self) -> None:
        """Run the application. Refuses a request whose body is not valid."""
        try:
            pywsgi.WSGIHandler.run_application(self)
        except RequestError as refused:
            self.refuse(refused)

    def refuse(self, refused: RequestError) -> None:
        """Answer a request that breaks HTTP, and close."""
        self.on_refused(refused.code)
        self.close_connection = True
        text = f"{refused}\n"
        fields = f"Connection: close\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}"
        try:
            self.socket.sendall(f"HTTP/1.1 {refused.status}\r\n{fields}\r\n\r\n{text if self.command != 'HEAD' else ''}".encode())
            self.linger()
        except OSError:
            pass  # gone already

    def linger(self) -> None:
        """End our side, and drop what the peer still sends: it would reset the connection (RFC 9112 9.6). Raises OSError."""
        self.socket.shutdown(SHUT_WR)
        gevent.sleep(0)  # refusing was one slice
        with gevent.Timeout(LINGER_S, False):  # type: ignore[arg-type]  # a silent limit, which the stubs lack
            for _ in range(LINGER_READS):
                if not self._receive():
                    break

    def on_refused(self, fault: RequestFault | GivenUp) -> None:
        """Count a request that breaks HTTP, or was given up."""
        self.server.count_refused(fault, "a request breaks HTTP, or was given up: %s", fault)

    def broke_off(self, error: OSError, *, has_begun: bool) -> None:
        """Count a connection that failed before its request was complete. `has_begun`: within the request."""

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        """Begin an answer. One of 4xx closes the connection."""
        if status[:1] == "4":
            self.close_connection = True
        if self.close_connection and self.request_version == "HTTP/1.1" and status[:3] != "101":
            headers = [*headers, ("Connection", "close")]
        return super().start_response(status, headers, exc_info)

    def write(self, data: bytes) -> None:
        """Send a piece of an answer's body, behind its head. To HEAD only the head, which is that of a GET."""
        super().write(b"" if self.command == "HEAD" else data)

    def _environ_of(self, head: Head) -> dict[str, Any]:
        """Build the WSGI environment. A field with `_` in its name is left out: it would look like one with `-`."""
        environ: dict[str, Any] = self.server.get_environ()
        path, _, query = head.target.partition("?")
        for name, value in head.fields:
            if "_" not in name:
                key = "HTTP_" + name.replace("-", "_").upper()
                environ[key] = f"{environ[key]},{value}" if key in environ else value
        environ.pop("HTTP_TRANSFER_ENCODING", None)  # decoded here
        environ.pop("HTTP_CONTENT_LENGTH", None)
        if (content_type := environ.pop("HTTP_CONTENT_TYPE", None)) is not None:
            environ["CONTENT_TYPE"] = content_type
        if head.length:
            environ["CONTENT_LENGTH"] = str(head.length)
        self.wsgi_input: Any = _Body(self, head)  # not pywsgi's Input
        environ.update(
            {
                "REQUEST_METHOD": head.method,
                "SCRIPT_NAME": "",
                "PATH_INFO": unquote(path, encoding="latin-1"),
                "QUERY_STRING": query,
                "SERVER_PROTOCOL": head.version,
                "wsgi.input": self.wsgi_input,
                "wsgi.input_terminated": True,
            }
        )
        return environ


class StrictServer(pywsgi.WSGIServer):
    """A server whose connections have bounded places. Prints nothing, and no lack of descriptors ends its accepting."""

    def __init__(self, listener: Any, application: Any, bounds: Bounds, *, shared: tuple[str, ...] = (), **options: Any) -> None:
        """`shared`: networks whose addresses are not limited each. Raises OSError for an address in use."""
        options.setdefault("handler_class", StrictHandler)
        # a pool without a bound: gevent's server stops accepting while its pool is full
        super().__init__(listener, application, log=None, error_log=None, spawn=Pool(), **options)
        self.strangers: Strangers[StrictHandler] = Strangers(bounds, address_groups(shared))
        self._sweeper: gevent.Greenlet[..., None] | None = None
        self._slices = Semaphore(SLICES)

    def start(self) -> None:
        super().start()
        self._sweeper = gevent.spawn(self._sweep)

    def stop(self, timeout: float | None = None) -> None:
        super().stop(timeout)
        if self._sweeper is not None:
            self._sweeper.kill()

    def do_read(self) -> tuple[Any, ...] | None:  # type: ignore[override]  # gevent's own returns None too
        """Accept a connection. After a failure, give one up for its descriptor, and pause."""
        try:
            accepted: tuple[Any, ...] | None = super().do_read()
        except OSError as error:
            if self.is_fatal_error(error):
                raise
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.close_one(self.strangers.give_way(monotonic()))
            self.on_accept_failed(error)
            self.pause_accepting(ACCEPT_PAUSE_S)
            return None
        return accepted

    def take_slice(self) -> None:
        """Wait until this turn of the loop has room for another slice of a request."""
        self._slices.acquire()
        timer = self.loop.timer(_NEXT_TURN_S)
        timer.start(self._end_slice, timer)

    def _end_slice(self, timer: Any) -> None:
        timer.close()
        self._slices.release()

    def pause_accepting(self, pause_s: float) -> None:
        """Leave waiting connections alone for a time: the listener would report them in every turn of the loop."""
        self.stop_accepting()
        self._timer = self.loop.timer(pause_s)  # gevent's own timer for a pause after an error, which `stop` ends
        self._timer.start(self.on_pause_over)

    def on_pause_over(self) -> None:
        if self.started:
            self.start_accepting()

    def count_refused(self, reason: str, message: str, *args: object) -> None:
        """Count a refused request."""

    def on_accept_failed(self, error: OSError) -> None:
        """Log a failure to accept."""

    def close_one(self, closed: Closed[StrictHandler] | None) -> None:
        """End a connection that was given up."""
        if closed is not None:
            closed.key.give_up(closed)

    def _sweep(self) -> None:
        """Close connections whose time is over, a few at a time. A greenlet's body."""
        while True:
            gevent.sleep(SWEEP_S)
            while closed := self.strangers.due(monotonic(), SWEEP_MOST):
                for each in closed:
                    self.close_one(each)
                del closed, each  # else the last one would live until the next
                gevent.sleep(SWEEP_PAUSE_S)
