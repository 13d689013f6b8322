"""A listening Unix socket for its owner only, and the connections that wait on it.

Replaces a socket file without a listener, refuses one with a listener, and at the end removes only the file it created.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Final

#: Connections the kernel queues until they are accepted.
BACKLOG: Final = 64
#: Length of sun_path without its closing zero byte. Source: unix(7).
MAX_PATH_BYTES: Final = 107
#: Upper bound on the probe of an existing socket.
_PROBE_S: Final = 1.0


class PrivateListener:
    """Binds at construction, with mode 0600. `socket` is non-blocking, for a gevent server."""

    def __init__(self, path: Path) -> None:
        """Bind and listen. Raises OSError when another process listens there, or for an unusable path."""
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise OSError(f"{path} is too long for a Unix socket: at most {MAX_PATH_BYTES} bytes")
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        self._path = path
        self.socket = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)  # so that the socket is never open to others, not even before a chmod
        try:
            self.socket.bind(str(path))
            self.socket.listen(BACKLOG)
            self.socket.setblocking(False)
            self._created = path.stat()
        except OSError as error:
            self.socket.close()
            raise OSError(f"cannot listen on {path}: {error.strerror or error}") from error  # the error of bind names no path
        finally:
            os.umask(mask)

    def close(self) -> None:
        """Stop listening, and remove the file unless another process has replaced it."""
        self.socket.close()
        try:
            if os.path.samestat(self._path.stat(), self._created):
                self._path.unlink()
        except FileNotFoundError:
            pass  # already removed


class Waiting:
    """Connections that wait for their client. One more than `most` ends the longest wait, so stuck clients exclude no other."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sockets: dict[socket.socket, None] = {}

    def add(self, sock: socket.socket) -> None:
        """Begin a wait."""
        self.discard(sock)
        self._sockets[sock] = None
        if len(self._sockets) > self._most:
            longest = next(iter(self._sockets))
            self.discard(longest)
            with contextlib.suppress(OSError):  # closed already
                longest.shutdown(socket.SHUT_RDWR)

    def discard(self, sock: socket.socket) -> None:
        """End a wait. Idempotent."""
        self._sockets.pop(sock, None)


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a process that was killed: one without a listener. Raises OSError for any other file."""
    if not path.exists():
        return
    if not path.is_socket():
        raise OSError(f"{path} exists and is not a socket: remove it or choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        else:
            raise OSError(f"another process listens on {path}")
