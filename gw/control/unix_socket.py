"""A listening Unix socket that only its owner can open, for the bus and for the admin commands.

Replaces a file that nobody listens on, refuses one that somebody does, and removes at the end only the file it made.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

#: Connections the kernel keeps while none is accepted.
BACKLOG: Final = 64
#: The longest path: sun_path less its closing zero byte. Source: unix(7).
MAX_PATH_BYTES: Final = 107
#: How long a live listener may take to accept the probe.
_PROBE_S: Final = 1.0


class PrivateListener:
    """Binds at construction, mode 0600. `socket` is non-blocking, for a gevent server."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when another process listens there, or the path cannot be used."""
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise OSError(f"{path} is longer than the {MAX_PATH_BYTES} bytes a Unix socket's path may have")
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        self._path = path
        self.socket = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)  # private from its first moment on
        try:
            self.socket.bind(str(path))
            self.socket.listen(BACKLOG)
            self.socket.setblocking(False)
            self._made = path.stat()
        except OSError as error:
            self.socket.close()
            raise OSError(f"cannot listen on {path}: {error.strerror or error}") from error  # bind names no path
        finally:
            os.umask(mask)

    def close(self) -> None:
        """Stop listening and remove the file, unless it is another's by now."""
        self.socket.close()
        try:
            if os.path.samestat(self._path.stat(), self._made):
                self._path.unlink()
        except FileNotFoundError:
            pass  # somebody was faster


def _clear(path: Path) -> None:
    """Make room at `path`: a socket file without a listener is left over from a process that was killed."""
    if not path.exists():
        return
    if not path.is_socket():
        raise OSError(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        else:
            raise OSError(f"another process listens on {path}")
