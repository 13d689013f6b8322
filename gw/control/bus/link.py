"""Control's commands to one worker: queued within a bound, written by a greenlet.

The sender of a command never waits for the socket. A worker that does not read its commands loses its connection and reconnects.
"""

from __future__ import annotations

import logging
import socket
from typing import Final

import gevent
import gevent.queue

from gw import bus

log = logging.getLogger(__name__)

#: Upper bound on waiting commands; a link that exceeds it is closed.
MAX_COMMANDS: Final = 1024
#: Upper bound on the send of one command.
SEND_S: Final = 10.0


class BusLink:
    """The writing half of one worker's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._commands: gevent.queue.Queue[bytes] = gevent.queue.Queue(MAX_COMMANDS)
        self._writer = gevent.spawn(self._write)

    def send(self, command: bus.Command) -> bool:
        """Queue a command. Returns False when the link is closed; a full queue closes it."""
        if self._writer.dead:
            return False
        try:
            self._commands.put_nowait(bus.pack(command))
        except gevent.queue.Full:
            log.warning("a worker does not read its commands", extra={"reason": "bus_overflow"})
            self.close()
            return False
        return True

    def close(self) -> None:
        """Close the connection; its reader receives the end of the stream."""
        self._writer.kill(block=False)
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # closed by the worker first

    def _write(self) -> None:
        try:
            while True:
                data = self._commands.get()
                with gevent.Timeout(SEND_S):
                    self._sock.sendall(data)
        except (OSError, gevent.Timeout) as error:
            log.info("a worker's connection cannot be written: %r", error)
            self.close()
