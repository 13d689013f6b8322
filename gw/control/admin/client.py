"""The asking half of the admin socket, for commands and tests. One connection, one request, one answer, one bound."""

from __future__ import annotations

import os
import socket
from typing import Any, Final

import gevent
import msgspec

from gw.errors import GatewayError

#: A request's line.
MAX_LINE_BYTES: Final = 64 * 1024
#: An answer's line: ten thousand calls fit several times.
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class NotReachable(GatewayError):  # noqa: N818  it says what is the case, and is caught by that name
    """No gateway answers: no socket, nobody behind it, no answer within the time, or one that is none."""

    code = "not_reachable"


class Refused(GatewayError):  # noqa: N818  the gateway's answer, not a fault here
    """The gateway answered that it cannot. `code` is its word, the text its sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Error(msgspec.Struct, frozen=True):
    code: str
    message: str


class _Answer(msgspec.Struct, frozen=True):
    ok: bool
    data: Any = None
    error: _Error | None = None


class AdminClient:
    """Asks the control process that listens at `path`."""

    def __init__(self, path: str | os.PathLike[str], timeout_s: float = 5.0) -> None:
        self._path = os.fspath(path)
        self._timeout_s = timeout_s

    def request(self, command: str, **arguments: Any) -> Any:
        """The `data` of the answer. Raises NotReachable, Refused."""
        line = msgspec.json.encode({"command": command, **arguments}) + b"\n"
        bound = gevent.Timeout.start_new(self._timeout_s)
        try:
            answer = msgspec.json.decode(self._exchange(line), type=_Answer)
        except gevent.Timeout as passed:
            if passed is not bound:
                raise
            raise NotReachable(f"no answer within {self._timeout_s:g} s") from None
        except (OSError, msgspec.MsgspecError) as error:
            raise NotReachable(str(error)) from error
        finally:
            bound.close()
        if not answer.ok:
            said = answer.error or _Error("failed", "it said no more than no")
            raise Refused(said.code, said.message)
        return answer.data

    def _exchange(self, line: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self._path)
            sock.sendall(line)
            answer = bytearray()
            while not answer.endswith(b"\n"):
                data = sock.recv(1 << 18)
                if not data:
                    raise ConnectionError("the gateway closed the connection")
                answer += data
                if len(answer) > MAX_ANSWER_BYTES:
                    raise ConnectionError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            return bytes(answer)
