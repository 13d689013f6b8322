"""Resolves the host of an endpoint, and refuses addresses that are not public.

Against requests into the private network by the owner of a host's name (SSRF, DNS rebinding): a name is resolved once for each
connection, all its addresses have to be permitted, and the connection is made to these, without another lookup. An address that
carries an IPv4 address is judged by it. The tables are independent of Python's version, whose `is_global` changed several times.

Source: IANA IPv4 and IPv6 Special-Purpose Address Registries; RFC 4291 2.5.5.2, RFC 3056 2, RFC 6052 2.1.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from gevent import monkey
from gevent.threadpool import ThreadPool

from gw.config.hook_url import Address, Network, is_within
from gw.errors import GatewayError

#: Threads for lookups: `getaddrinfo` blocks, for half a minute if no name server answers.
LOOKUP_THREADS: Final = 8
#: Addresses of one host that are tried.
MAX_ADDRESSES: Final = 4

_PRIVATE_IPV4: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
#: All of global unicast, less what is not: protocols and Teredo, documentation, 6to4 (see `_carried`).
_GLOBAL_IPV6: Final = ipaddress.ip_network("2000::/3")
_PRIVATE_IPV6: Final = tuple(ipaddress.ip_network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

#: `getaddrinfo` outside gevent, for native threads.
_native_lookup: Final[Callable[..., list[Any]]] = monkey.get_original("socket", "getaddrinfo")


class AddressRefusedError(GatewayError):
    """A host has an address to which nothing is sent."""

    code = "refused"


class LookupFailedError(GatewayError):
    """A host has no address."""

    code = "unavailable"


class Resolver:
    """Lookups in native threads, so that the hub continues. A thread outlives a caller that gives up."""

    def __init__(self, lookup: Callable[..., list[Any]] = _native_lookup) -> None:
        self._lookup = lookup
        self._pool = ThreadPool(LOOKUP_THREADS)

    def resolve(self, host: str, port: int) -> list[Address]:
        """Return the addresses of a host, without doubles. The caller bounds the time. Raises LookupFailedError."""
        try:
            return [ipaddress.ip_address(host)]
        except ValueError:
            pass
        found = self._pool.spawn(self._outcome, host, port).get() or []
        if isinstance(found, Exception):
            raise LookupFailedError(f"the name {host} has no address: {found}")
        return list(dict.fromkeys(ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in found))

    def _outcome(self, host: str, port: int) -> list[Any] | Exception:
        """Run in a thread. Errors return as values: the pool prints a traceback of every error that reaches it."""
        try:
            return self._lookup(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        except (OSError, UnicodeError) as error:
            return error


def check(host: str, addresses: Sequence[Address], networks: Sequence[Network], *, secure: bool) -> list[Address]:
    """Return the addresses to connect to, in their sequence. `networks`: those of hooks.allow_networks. `secure`: https.

    Raises: AddressRefusedError if one is not permitted: the others may be bait.
    """
    for address in addresses:
        where = f"{address}" if str(address) == host else f"{address}, an address of {host},"
        if any(not _is_public(one) and not is_within(one, networks) for one in _carried(address)):
            raise AddressRefusedError(f"{where} is not public; to allow it, add its network to hooks.allow_networks")
        if not secure and not all(is_within(one, networks) for one in _carried(address)):
            raise AddressRefusedError(f"{where} is not in hooks.allow_networks, which http:// needs; use https://")
    return list(addresses[:MAX_ADDRESSES])


def _carried(address: Address) -> list[Address]:
    """Return the addresses that a packet to this one can reach: itself, or the IPv4 address in it."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address]


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not is_within(address, _PRIVATE_IPV4)
    return address in _GLOBAL_IPV6 and not is_within(address, _PRIVATE_IPV6)
