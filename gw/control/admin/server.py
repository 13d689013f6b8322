"""The admin socket: one JSON object per line in, one JSON object per line out.

    {"command": "calls", "limit": 20}        ->  {"ok": true, "data": [...]}
    {"command": "hangup", "call_sid": "CA0"} ->  {"ok": false, "error": {"code": "not_found", "message": "..."}}

Access control is the mode of the Unix socket: its owner may command. Lines, requests and connections are bounded. An invalid line
gets an error line, and the connection stays open. `commands`, `machine` and `log_levels` define the commands.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import gevent
import gevent.pool
import gevent.server
import msgspec

from gw.bounded import OutOfTimeError, within
from gw.control.admin.client import MAX_LINE_BYTES
from gw.control.unix_socket import PrivateListener, Waiting
from gw.errors import GatewayError

log = logging.getLogger(__name__)

#: Upper bound on one command, from its line to its answer.
REQUEST_S: Final = 15.0
#: A connection without a line for this long is closed.
IDLE_S: Final = 60.0
#: Upper bound on the send of one answer.
SEND_S: Final = 10.0
#: Connections that wait for their client's next line; one more ends the longest wait.
MAX_WAITING: Final = 32

#: Takes the line's fields without `command`; returns a JSON document. Raises CommandError.
Command = Callable[[Mapping[str, Any]], Any]


A = TypeVar("A", bound=msgspec.Struct)


class CommandError(GatewayError):
    """A command that cannot be carried out.

    `code`: bad_request | unknown_command | not_found | busy | unavailable | failed | timeout.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def typed(kind: type[A], command: Callable[[A], Any]) -> Command:
    """Return a command that decodes its fields into `kind` and refuses unknown ones."""

    def run(fields: Mapping[str, Any]) -> Any:
        try:
            arguments = msgspec.convert(fields, type=kind)
        except msgspec.ValidationError as error:
            raise CommandError("bad_request", str(error)) from error
        return command(arguments)

    return run


class NoArguments(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of a command without any."""


class AdminServer:
    """The server of the admin socket. Construction binds, with mode 0600."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        """Bind. Raises OSError when another process listens there."""
        self._commands = commands
        self._listener = PrivateListener(path)
        self._waiting = Waiting(MAX_WAITING)
        self._connections = gevent.pool.Pool()
        self._server = gevent.server.StreamServer(self._listener.socket, self._serve, spawn=self._connections)

    def start(self) -> None:
        self._server.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Close the listener, wait `timeout_s` for requests under way, then end them."""
        self._server.stop(timeout=timeout_s)
        self._listener.close()

    def answer(self, line: bytes) -> bytes:
        """Carry out one line. Returns the answer, newline included."""
        try:
            with within(REQUEST_S):
                return _line({"ok": True, "data": self._carry_out(line)})
        except OutOfTimeError:
            return _error("timeout", f"the command took longer than {REQUEST_S:g} s")
        except CommandError as error:
            return _error(error.code, str(error))
        except GatewayError as error:
            return _error("unavailable", str(error))
        except Exception as error:  # an operator's command must not end the process
            log.exception("an admin command failed")
            return _error("failed", f"{type(error).__name__}: {error}")

    def _carry_out(self, line: bytes) -> Any:
        try:
            request = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CommandError("bad_request", f"a line must be one JSON object: {error}") from error
        name = request.pop("command", None)
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            raise CommandError(
                "unknown_command", f"unknown command {str(name)[:60]!r}; use one of: {', '.join(sorted(self._commands))}"
            )
        return command(request)

    def _serve(self, sock: socket.socket, _address: object) -> None:
        try:
            sock.settimeout(IDLE_S)
            buffer = bytearray()
            self._waiting.add(sock)
            while data := sock.recv(65536):
                buffer += data
                while (end := buffer.find(b"\n")) >= 0:
                    self._waiting.discard(sock)
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    answer = self.answer(line) if len(line) <= MAX_LINE_BYTES else _too_long()
                    with gevent.Timeout(SEND_S):
                        sock.sendall(answer)
                    self._waiting.add(sock)
                if len(buffer) > MAX_LINE_BYTES:
                    sock.sendall(_too_long())
                    return
        except (OSError, gevent.Timeout) as error:
            log.debug("an admin connection ended: %r", error)
        finally:
            self._waiting.discard(sock)


def _line(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _error(code: str, message: str) -> bytes:
    return _line({"ok": False, "error": {"code": code, "message": message}})


def _too_long() -> bytes:
    return _error("bad_request", f"a line may have at most {MAX_LINE_BYTES} bytes")
