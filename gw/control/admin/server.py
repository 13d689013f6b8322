"""The admin socket: one JSON object a line in, one JSON object a line out.

    {"command": "calls", "limit": 20}        ->  {"ok": true, "data": [...]}
    {"command": "hangup", "call_sid": "CA0"} ->  {"ok": false, "error": {"code": "not_found", "message": "..."}}

A private Unix socket is the whole of its security: whoever may open the file may command. Lines, requests and connections are
bounded; a line that cannot be understood gets an error line, and the connection goes on. What a command does is in
`admin_commands`; this is only how it is asked.
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

from gw.control.admin.client import MAX_LINE_BYTES
from gw.control.unix_socket import PrivateListener
from gw.errors import GatewayError

log = logging.getLogger(__name__)

#: One command, from its line to its answer.
REQUEST_S: Final = 15.0
#: A connection without a line.
IDLE_S: Final = 60.0
#: An answer must leave within this time.
SEND_S: Final = 10.0
#: Operators and scripts at once; more wait in the kernel's queue.
MAX_CONNECTIONS: Final = 32

#: Takes the line's fields, less `command`; returns what JSON can carry. Raises CommandError.
Command = Callable[[Mapping[str, Any]], Any]


A = TypeVar("A", bound=msgspec.Struct)


class CommandError(GatewayError):
    """A command that cannot be carried out.

    `code`: bad_request | unknown_command | not_found | unavailable | failed | timeout.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def typed(kind: type[A], command: Callable[[A], Any]) -> Command:
    """A command of typed arguments as one of a line's fields; an unknown one is refused, so that a slip is not ignored."""

    def carry_out(fields: Mapping[str, Any]) -> Any:
        try:
            arguments = msgspec.convert(fields, type=kind)
        except msgspec.ValidationError as error:
            raise CommandError("bad_request", str(error)) from error
        return command(arguments)

    return carry_out


class AdminServer:
    """Binds at construction, mode 0600."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        """Raises OSError when another process listens there."""
        self._commands = commands
        self._listener = PrivateListener(path)
        self._connections = gevent.pool.Pool(MAX_CONNECTIONS)
        self._server = gevent.server.StreamServer(self._listener.socket, self._serve, spawn=self._connections)

    def start(self) -> None:
        self._server.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Close the listener, give requests under way a moment, then end them."""
        self._server.stop(timeout=timeout_s)
        self._listener.close()

    def answer(self, line: bytes) -> bytes:
        """The answer to one line, newline included."""
        bound = gevent.Timeout.start_new(REQUEST_S)
        try:
            return _line({"ok": True, "data": self._carry_out(line)})
        except gevent.Timeout as passed:
            if passed is not bound:
                raise
            return _error("timeout", f"it took longer than {REQUEST_S:g} s")
        except CommandError as error:
            return _error(error.code, str(error))
        except GatewayError as error:
            return _error("unavailable", str(error))
        except Exception as error:  # a boundary: an operator's command must not end the process
            log.exception("an admin command failed")
            return _error("failed", f"{type(error).__name__}: {error}")
        finally:
            bound.close()

    def _carry_out(self, line: bytes) -> Any:
        try:
            request = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CommandError("bad_request", f"a line is one JSON object: {error}") from error
        name = request.pop("command", None)
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            raise CommandError("unknown_command", f"commands are: {', '.join(sorted(self._commands))}")
        return command(request)

    def _serve(self, sock: socket.socket, _address: object) -> None:
        try:
            sock.settimeout(IDLE_S)
            buffer = bytearray()
            while data := sock.recv(65536):
                buffer += data
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    answer = self.answer(line) if len(line) <= MAX_LINE_BYTES else _too_long()
                    with gevent.Timeout(SEND_S):
                        sock.sendall(answer)
                if len(buffer) > MAX_LINE_BYTES:
                    sock.sendall(_too_long())
                    return
        except (OSError, gevent.Timeout) as error:
            log.debug("an admin connection ended: %r", error)


def _line(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _error(code: str, message: str) -> bytes:
    return _line({"ok": False, "error": {"code": code, "message": message}})


def _too_long() -> bytes:
    return _error("bad_request", f"a line has at most {MAX_LINE_BYTES} bytes")
