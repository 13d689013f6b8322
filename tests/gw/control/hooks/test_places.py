"""gw.control.hooks.places: connections in all and for each host, and a bounded queue."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from gw.control.hooks.places import CONNECTIONS, PER_HOST, QUEUE, Places, QueueFullError


class Holders:
    """Greenlets that hold places until they are released."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.free = Event()
        self.held: list[str] = []
        self.refused = 0
        self.greenlets: list[gevent.Greenlet[..., None]] = []

    def add(self, host: str, count: int = 1) -> None:
        self.greenlets += [gevent.spawn(self._hold, host) for _ in range(count)]
        gevent.idle()
        gevent.sleep(0)

    def _hold(self, host: str) -> None:
        try:
            with self.places.hold(host):
                self.held.append(host)
                self.free.wait()
        except QueueFullError:
            self.refused += 1

    def end(self) -> None:
        self.free.set()
        gevent.joinall(self.greenlets, timeout=10, raise_error=True)
        assert self.places.waiting == 0


def test_the_numbers() -> None:
    assert (CONNECTIONS, PER_HOST, QUEUE) == (64, 8, 256)


def test_a_host_has_at_most_its_own_places() -> None:
    holders = Holders(Places(connections=4, per_host=2, queue=10))
    holders.add("slow", 5)
    assert holders.held == ["slow"] * 2
    assert holders.places.waiting == 3
    holders.add("other", 2)
    assert holders.held == ["slow"] * 2 + ["other"] * 2, "requests that wait for their host hold no place"
    holders.add("third")
    assert holders.places.waiting == 4, "all places are taken"
    holders.end()
    assert len(holders.held) == 8


def test_a_full_queue_refuses_what_would_wait() -> None:
    holders = Holders(Places(connections=2, per_host=1, queue=3))
    holders.add("a", 4)
    assert holders.refused == 0
    holders.add("a")
    assert holders.refused == 1
    holders.add("b")
    assert holders.held == ["a", "b"], "a request that need not wait"
    holders.add("c")
    assert holders.refused == 2
    holders.end()


def test_a_killed_waiter_leaves_no_trace() -> None:
    places = Places(connections=1, per_host=1, queue=2)
    holders = Holders(places)
    holders.add("a")
    holders.add("a")
    holders.add("b")
    for greenlet in holders.greenlets[1:]:
        greenlet.kill()
    assert places.waiting == 0
    holders.greenlets = holders.greenlets[:1]
    holders.end()
    for host in ("a", "b"):
        with places.hold(host):
            assert places.waiting == 0


def test_an_error_frees_the_place() -> None:
    places = Places(connections=1, per_host=1, queue=0)
    with pytest.raises(RuntimeError), places.hold("a"):
        raise RuntimeError
    with places.hold("a"), pytest.raises(QueueFullError), places.hold("a"):
        pass
    with places.hold("b"):
        pass
