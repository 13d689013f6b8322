"""What control sends to one worker: commands, queued within a bound and written by a greenlet of their own.

Whoever has a command waits for no socket. A worker that does not read them loses its connection, and connects again. Never reads.
"""

from __future__ import annotations

import logging
import socket
from typing import Final

import gevent
import gevent.queue

from gw import bus

log = logging.getLogger(__name__)

#: Commands waiting for a worker that does not read; a link that runs over is closed.
MAX_COMMANDS: Final = 1024
#: A command must leave within this time.
SEND_S: Final = 10.0


class BusLink:
    """One worker's connection: a bounded queue of commands and the greenlet that writes them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._commands: gevent.queue.Queue[bytes] = gevent.queue.Queue(MAX_COMMANDS)
        self._writer = gevent.spawn(self._write)

    def send(self, command: bus.Command) -> bool:
        """Queue a command. False when the link is closed or full; a full one is closed: its worker does not read."""
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
        """End the connection; its reader sees the end of the stream."""
        self._writer.kill(block=False)
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other end was faster

    def _write(self) -> None:
        try:
            while True:
                data = self._commands.get()
                with gevent.Timeout(SEND_S):
                    self._sock.sendall(data)
        except (OSError, gevent.Timeout) as error:
            log.info("a worker's connection cannot be written: %r", error)
            self.close()
