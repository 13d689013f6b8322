"""Bounds on requests under way: a number of connections in all and for each host, and a bounded queue before them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from gevent.lock import BoundedSemaphore

from gw.errors import GatewayError

#: Connections in all, and for each host.
CONNECTIONS: Final = 64
PER_HOST: Final = 8
#: Requests that may wait for one.
QUEUE: Final = 256


class QueueFullError(GatewayError):
    """As many requests wait as may wait."""

    code = "busy"


class Places:
    """Places for connections. Hosts come from the configuration, so their number is bounded."""

    def __init__(self, *, connections: int = CONNECTIONS, per_host: int = PER_HOST, queue: int = QUEUE) -> None:
        self._all = BoundedSemaphore(connections)
        self._per_host = per_host
        self._hosts: dict[Hashable, BoundedSemaphore] = {}
        self._queue = queue
        self.waiting = 0

    @contextmanager
    def hold(self, host: Hashable) -> Iterator[None]:
        """Hold a place during the `with` block, after a wait that the caller bounds. Raises QueueFullError.

        A request waits for its host first, so that those to a slow host take no place of others.
        """
        places = self._hosts.setdefault(host, BoundedSemaphore(self._per_host))
        if (places.locked() or self._all.locked()) and self.waiting >= self._queue:
            raise QueueFullError(f"{self.waiting} requests wait for a connection")
        self.waiting += 1
        try:
            places.acquire()
            try:
                self._all.acquire()
            except BaseException:
                places.release()
                raise
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._all.release()
            places.release()
