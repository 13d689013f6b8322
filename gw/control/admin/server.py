"""The admin socket: one JSON object per line in, one JSON object per line out.

    {"command": "calls", "limit": 20}        ->  {"ok": true, "data": [...]}
    {"command": "hangup", "call_sid": "CA0"} ->  {"ok": false, "error": {"code": "not_found", "message": "..."}}

Access control is the mode of the Unix socket: its owner may command, and the members of its group. A second, read-only socket
beside it refuses commands that act. Every other request that acts is recorded, whatever its outcome. Lines, requests and
connections are bounded. An invalid line gets an error line, and the connection stays open. `commands`, `machine`, `log_levels`
and `gw.control.retention` define the commands.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import gevent
import gevent.pool
import gevent.server
import msgspec

from gw.bounded import OutOfTimeError, within
from gw.control.admin.client import MAX_LINE_BYTES
from gw.control.unix_socket import PrivateListener, Waiting, uid_of_peer
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

Fields = Mapping[str, Any]
A = TypeVar("A", bound=msgspec.Struct)


class CommandError(GatewayError):
    """A command that cannot be carried out.

    `code`: bad_request | unknown_command | read_only | not_found | busy | unavailable | failed | timeout.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Command(NamedTuple):
    """A command of the admin socket. Made by `reads` or `acts`, so that none is without a decision."""

    run: Callable[[Fields], Any]  # takes the line's fields without `command`; returns a JSON document; raises CommandError
    acts: Callable[[Fields], bool]  # whether a request changes something
    erases: bool = False  # removes the call: its record is not an event of the call


class Act(NamedTuple):
    """A request that acts, after its end. `outcome`: done, the code of its error, or interrupted by the stop of control."""

    command: str
    call_sid: str  # empty: it concerns no call that is kept
    fields: Fields
    uid: int  # of the requesting user
    outcome: str


class _Answer(NamedTuple):
    outcome: str
    data: Any = None
    message: str = ""


def reads(kind: type[A], command: Callable[[A], Any]) -> Command:
    """Return a command that changes nothing. Decodes its fields into `kind`, and refuses unknown ones."""
    return Command(_typed(kind, command), lambda _: False)


def acts(
    kind: type[A], command: Callable[[A], Any], *, when: Callable[[Fields], bool] = lambda _: True, erases: bool = False
) -> Command:
    """Return a command that acts, or acts only `when` its fields meet a condition. Each such request is recorded."""
    return Command(_typed(kind, command), when, erases)


def _typed(kind: type[A], command: Callable[[A], Any]) -> Callable[[Fields], Any]:
    def run(fields: Fields) -> Any:
        try:
            arguments = msgspec.convert(fields, type=kind)
        except msgspec.ValidationError as error:
            raise CommandError("bad_request", str(error)) from error
        return command(arguments)

    return run


class NoArguments(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of a command without any."""


class AdminServer:
    """The server of one admin socket, over its listener."""

    def __init__(
        self, listener: PrivateListener, commands: Mapping[str, Command], *, on_act: Callable[[Act], None] | None
    ) -> None:
        """`on_act` records a request that acts; None: such requests are refused."""
        self._commands = commands
        self._on_act = on_act
        self._listener = listener
        self._waiting = Waiting(MAX_WAITING)
        self._connections = gevent.pool.Pool()
        self._server = gevent.server.StreamServer(self._listener.socket, self._serve, spawn=self._connections)

    def start(self) -> None:
        self._server.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Close the listener, wait `timeout_s` for requests under way, then end them."""
        self._server.stop(timeout=timeout_s)
        self._listener.close()

    def answer(self, line: bytes, uid: int) -> bytes:
        """Carry out one line of a user. Returns the answer, newline included."""
        try:
            name, command, fields = self._parse(line)
        except CommandError as error:
            return _error(error.code, str(error))
        if not command.acts(fields):
            return _encoded(_carry_out(command, fields))
        if self._on_act is None:
            use = "use ops.admin_socket, as its owner or a member of ops.admin_group"
            return _error("read_only", f"{name} acts, and this socket is read-only: {use}")
        answer = _Answer("interrupted")
        try:
            answer = _carry_out(command, fields)
        finally:
            self._on_act(Act(name, _call_of(command, fields, answer.data), fields, uid, answer.outcome))
        return _encoded(answer)

    def _parse(self, line: bytes) -> tuple[str, Command, Fields]:
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
        return str(name), command, request

    def _serve(self, sock: socket.socket, _address: object) -> None:
        try:
            sock.settimeout(IDLE_S)
            buffer = bytearray()
            self._waiting.add(sock)
            uid = uid_of_peer(sock)
            while data := sock.recv(65536):
                buffer += data
                while (end := buffer.find(b"\n")) >= 0:
                    self._waiting.discard(sock)
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    answer = self.answer(line, uid) if len(line) <= MAX_LINE_BYTES else _too_long()
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


def _carry_out(command: Command, fields: Fields) -> _Answer:
    try:
        with within(REQUEST_S):
            return _Answer("done", command.run(fields))
    except OutOfTimeError:
        return _Answer("timeout", message=f"the command took longer than {REQUEST_S:g} s")
    except CommandError as error:
        return _Answer(error.code, message=str(error))
    except GatewayError as error:
        return _Answer("unavailable", message=str(error))
    except Exception as error:  # an operator's command must not end the process
        log.exception("an admin command failed")
        return _Answer("failed", message=f"{type(error).__name__}: {error}")


def _call_of(command: Command, fields: Fields, data: Any) -> str:
    """Return the call that a request concerned, or that it made; empty without one, or after its removal."""
    made = data if isinstance(data, Mapping) else {}
    call_sid = fields.get("call_sid") or made.get("call_sid")
    return call_sid if isinstance(call_sid, str) and not command.erases else ""


def _encoded(answer: _Answer) -> bytes:
    return _line({"ok": True, "data": answer.data}) if answer.outcome == "done" else _error(answer.outcome, answer.message)


def _line(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _error(code: str, message: str) -> bytes:
    return _line({"ok": False, "error": {"code": code, "message": message}})


def _too_long() -> bytes:
    return _error("bad_request", f"a line may have at most {MAX_LINE_BYTES} bytes")
