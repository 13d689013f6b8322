"""Listening Unix sockets for an owner and a group; the connections that wait there.

Replaces a socket file without a listener, refuses one with a listener, and at the end removes only the file it created.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import struct
from pathlib import Path
from typing import Final

#: Connections the kernel queues until they are accepted.
BACKLOG: Final = 64
#: Length of sun_path without its closing zero byte. Source: unix(7).
MAX_PATH_BYTES: Final = 107
#: Upper bound on the probe of an existing socket.
_PROBE_S: Final = 1.0
#: struct ucred: pid, uid, gid.
_CREDENTIALS: Final = struct.Struct("iII")


class PrivateListener:
    """Binds at construction, with mode 0600, or 0660 for a group. `socket` is non-blocking, for a gevent server."""

    def __init__(self, path: Path, group: str = "", *, key: str = "") -> None:
        """Bind and listen. `group`: its members may connect. `key`: the configuration's key of the group, for errors.

        Raises OSError when another process listens there, and for an unusable path or group.
        """
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
            if group:
                _admit(path, group, key)
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


def uid_of_peer(sock: socket.socket) -> int:
    """Return the user at the other end, as the kernel noted at connect. Source: unix(7), SO_PEERCRED."""
    _pid, uid, _gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


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


def _admit(path: Path, group: str, key: str) -> None:
    """Give the file to a group, then open it to its members. Raises OSError, without the file."""
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(0o660)
    except KeyError:
        path.unlink()
        raise OSError(f'{key} = "{group}": there is no such group: create it with groupadd, or correct the key') from None
    except OSError as error:
        path.unlink()
        raise OSError(
            f'{key} = "{group}": cannot give {path} to the group ({error.strerror}): '
            "the user of the gateway must be a member of the group"
        ) from error


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
