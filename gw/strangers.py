"""Places for connections that wait for their peer: how many, how many of one address, and for how long. Pure.

A connection holds a place while its request is incomplete, and between two requests; not while it is answered. A newcomer always
gets a place: when its address has too many, or all are taken, the connection that has waited longest for a head gives way, then
the one idle longest, then the oldest body. So a flood displaces itself, and a request that arrives whole is answered.

All connections in a stage have the same time, so a stage is in the sequence of its deadlines and no step searches.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import islice
from typing import Final, Generic, Literal, NamedTuple, TypeVar

from gw.protocol.http import GivenUp

K = TypeVar("K", bound=Hashable)


class Stage(StrEnum):
    """Stages of a connection, by the event it waits for."""

    HEAD = "head"  # the end of a request's head, or its beginning on a new connection
    BODY = "body"
    ANSWER = "answer"
    IDLE = "idle"  # the next request
    CLOSING = "closing"  # its end: it was given up


class Bounds(NamedTuple):
    """Limits of a port. `places`: connections in HEAD, BODY and IDLE together; `per_address`: of these, from one address."""

    places: int
    per_address: int
    head_s: float
    body_s: float
    answer_s: float
    idle_s: float
    closing_s: float = 2.0


class Closed(NamedTuple, Generic[K]):
    """A connection to close. `reason`: empty if no request was under way. `hard`: it was given up before, and has not ended."""

    key: K
    reason: GivenUp | Literal[""]
    hard: bool = False


class _Place:
    __slots__ = ("group", "stage")

    def __init__(self, group: str) -> None:
        self.group = group
        self.stage = Stage.HEAD


#: Stages that hold a place, in the sequence in which they give way.
_HELD: Final = (Stage.HEAD, Stage.IDLE, Stage.BODY)
_TIMEOUTS: Final[dict[Stage, GivenUp]] = {Stage.HEAD: "head_timeout", Stage.BODY: "body_timeout"}


class Strangers(Generic[K]):
    """The connections of one port, by stage."""

    def __init__(self, bounds: Bounds, group_of: Callable[[str], str] = lambda address: "") -> None:
        """`group_of` returns what an address is counted as; empty: not limited."""
        self._bounds = bounds
        self._group_of = group_of
        self._places: dict[K, _Place] = {}
        self._stages: dict[Stage, dict[K, float]] = {stage: {} for stage in Stage}  # deadlines, in their sequence
        self._groups: dict[str, dict[K, None]] = {}
        self._seconds = dict(zip(Stage, bounds[2:], strict=True))

    def count(self, stage: Stage) -> int:
        """Return the connections in a stage."""
        return len(self._stages[stage])

    def enter(self, key: K, address: str, now_s: float) -> Closed[K] | None:
        """Give a new connection a place. Returns the connection that gives way."""
        self._places[key] = _Place(self._group_of(address))
        self._stages[Stage.HEAD][key] = now_s + self._bounds.head_s
        return self._make_room(key, now_s)

    def move(self, key: K, stage: Stage, now_s: float) -> Closed[K] | None:
        """Begin a stage, also the same one again. Returns the connection that gives way. Does nothing after `leave`."""
        place = self._places.get(key)
        if place is None:
            return None
        del self._stages[place.stage][key]
        self._stages[stage][key] = now_s + self._seconds[stage]
        place.stage = stage
        if stage in _HELD:
            return self._make_room(key, now_s)
        self._leave_group(key, place.group)
        return None

    def leave(self, key: K) -> None:
        """Free the place of a connection that ended, or became a media socket. Idempotent."""
        place = self._places.pop(key, None)
        if place is not None:
            del self._stages[place.stage][key]
            self._leave_group(key, place.group)

    def give_way(self, now_s: float, newcomer: K | None = None) -> Closed[K] | None:
        """Give up one connection, to free its place or its descriptor."""
        for stage in _HELD:
            for key in self._stages[stage]:
                if key is not newcomer:
                    return self._close(key, "displaced", now_s)
        return None

    def due(self, now_s: float, most: int) -> list[Closed[K]]:
        """Give up at most so many connections whose time is over."""
        closed: list[Closed[K]] = []
        for stage, deadlines in self._stages.items():
            for key, deadline_s in list(islice(deadlines.items(), most - len(closed))):
                if deadline_s > now_s:
                    break
                if stage is Stage.CLOSING:
                    self.move(key, stage, now_s)
                    closed.append(Closed(key, "", hard=True))
                else:
                    closed.append(self._close(key, _TIMEOUTS.get(stage, "head_timeout"), now_s))
        return closed

    def _make_room(self, key: K, now_s: float) -> Closed[K] | None:
        group = self._places[key].group
        if group:
            own = self._groups.setdefault(group, {})
            own[key] = None
            if len(own) > self._bounds.per_address:
                others = (other for other in own if other is not key)
                return self._close(min(others, key=lambda other: _HELD.index(self._places[other].stage)), "address_limit", now_s)
        if sum(len(self._stages[stage]) for stage in _HELD) > self._bounds.places:
            return self.give_way(now_s, key)
        return None

    def _close(self, key: K, reason: GivenUp, now_s: float) -> Closed[K]:
        stage = self._places[key].stage
        self.move(key, Stage.CLOSING, now_s)
        return Closed(key, reason if stage in _TIMEOUTS else "")

    def _leave_group(self, key: K, group: str) -> None:
        own = self._groups.get(group, {})
        own.pop(key, None)
        if not own:
            self._groups.pop(group, None)


def address_groups(shared: Iterable[str] = ()) -> Callable[[str], str]:
    """Return the function that maps an address to what is limited: an IPv4 address, or an IPv6 network of 64 bits.

    Loopback, and addresses within the networks `shared`, are not limited: many clients come from these through a proxy.
    Raises ValueError for an invalid network.
    """
    networks = [ip_network(network) for network in shared]

    @lru_cache(maxsize=1024)
    def group_of(address: str) -> str:
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return ""  # a Unix socket
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if ip.is_loopback or any(ip in network for network in networks):
            return ""
        return str(ip) if ip.version == 4 else ip.exploded[:19]

    return group_of
