"""Client of the admin socket: one connection, one request, one answer, one time limit."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Final

import msgspec

from gw.bounded import OutOfTimeError, within
from gw.errors import GatewayError

#: Upper bound on the line of a request.
MAX_LINE_BYTES: Final = 64 * 1024
#: Upper bound on the line of an answer: several times ten thousand calls.
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


def read_only(path: str | os.PathLike[str]) -> Path:
    """Return the path of the read-only socket beside an admin socket: `admin-ro.sock` beside `admin.sock`."""
    return Path(path).with_name(f"{Path(path).stem}-ro{Path(path).suffix}")


class NotReachable(GatewayError):  # noqa: N818  a state of the gateway, not a mistake
    """No gateway answers: no socket, no listener, no answer in time, or an invalid one."""

    code = "not_reachable"


class Refused(GatewayError):  # noqa: N818  an answer of the gateway, not a mistake
    """The gateway refused the command. `code` is for machines, the text for people."""

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
    """Sends commands to the control process that listens at `path`."""

    def __init__(self, path: str | os.PathLike[str], timeout_s: float = 5.0) -> None:
        self._path = os.fspath(path)
        self._timeout_s = timeout_s

    def request(self, command: str, **arguments: Any) -> Any:
        """Send a command. Returns the `data` of its answer. Raises NotReachable, Refused."""
        line = msgspec.json.encode({"command": command, **arguments}) + b"\n"
        try:
            with within(self._timeout_s):
                answer = msgspec.json.decode(self._exchange(line), type=_Answer)
        except OutOfTimeError:
            raise NotReachable(f"no answer within {self._timeout_s:g} s") from None
        except (OSError, msgspec.MsgspecError) as error:
            raise NotReachable(str(error)) from error
        if not answer.ok:
            refusal = answer.error or _Error("failed", "the gateway gave no reason")
            raise Refused(refusal.code, refusal.message)
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
                    raise ConnectionError(f"the answer exceeds {MAX_ANSWER_BYTES} bytes")
            return bytes(answer)
