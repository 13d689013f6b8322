"""gw.control.hooks.addresses: nothing private is reached, under whatever spelling."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import gevent
import pytest
from gevent import monkey

from gw.config.hook_url import parse_networks
from gw.control.hooks.addresses import (
    LOOKUP_THREADS,
    AddressRefusedError,
    LookupFailedError,
    Resolver,
    check,
)


def checked(*addresses: str, networks: tuple[str, ...] = (), secure: bool = True, host: str = "api.example.com") -> list[str]:
    found = check(host, [ipaddress.ip_address(one) for one in addresses], parse_networks(networks), secure=secure)
    return [str(one) for one in found]


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "93.184.216.34",
        "172.32.0.1",
        "223.255.255.255",
        "2606:4700::1",
        "2002:101:101::1",
        "64:ff9b::101:101",
        "::ffff:1.1.1.1",
    ],
)
def test_public(address: str) -> None:
    assert checked(address) == [str(ipaddress.ip_address(address))]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.0.3.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "192.0.0.8",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.3.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a00:301::1",
        "2001:0:7f00:1::1",
        "2001:db8::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "100::1",
        "5f00::1",
    ],
)
def test_not_public(address: str) -> None:
    with pytest.raises(AddressRefusedError, match=r"hooks\.allow_networks"):
        checked(address)
    with pytest.raises(AddressRefusedError):
        checked("1.1.1.1", address)


def test_allowed_networks() -> None:
    assert checked("10.0.3.1", networks=("10.0.3.0/24",)) == ["10.0.3.1"]
    assert checked("::ffff:10.0.3.1", networks=("10.0.3.0/24",)) == ["::ffff:a00:301"]
    assert checked("64:ff9b::a00:301", networks=("10.0.3.0/24",)) == ["64:ff9b::a00:301"]
    assert checked("127.0.0.1", "::1", networks=("127.0.0.0/8", "::1/128"), secure=False) == ["127.0.0.1", "::1"]
    with pytest.raises(AddressRefusedError, match=r"^::1, an address of localhost, is not public"):
        checked("127.0.0.1", "::1", networks=("127.0.0.0/8",), host="localhost")
    with pytest.raises(AddressRefusedError):
        checked("::ffff:127.0.0.1", networks=("::ffff:127.0.0.0/104",)), "the address that is reached counts"


def test_plain_http_needs_an_allowed_network() -> None:
    with pytest.raises(AddressRefusedError, match=r"^1\.1\.1\.1 is not in hooks\.allow_networks, which http:// needs"):
        checked("1.1.1.1", secure=False, host="1.1.1.1")
    with pytest.raises(AddressRefusedError):
        checked("10.0.3.1", "1.1.1.1", networks=("10.0.3.0/24",), secure=False)


def test_a_few_addresses_are_tried_and_all_are_judged() -> None:
    many = [f"1.1.1.{number}" for number in range(20)]
    assert checked(*many) == many[:4]
    with pytest.raises(AddressRefusedError):
        checked(*many, "10.0.0.1")


# -- lookups ------------------------------------------------------------------------------------------------------------


def entry(address: str) -> tuple[Any, ...]:
    return (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))


def test_an_address_is_not_looked_up() -> None:
    resolver = Resolver(lookup=lambda *args, **keys: pytest.fail("looked up"))
    assert resolver.resolve("::ffff:7f00:1", 443) == [ipaddress.ip_address("::ffff:127.0.0.1")]
    assert resolver.resolve("10.0.0.1", 443) == [ipaddress.ip_address("10.0.0.1")]


def test_spellings_that_only_the_system_reads_as_addresses() -> None:
    for host in ("2130706433", "0x7f000001", "127.1", "0177.0.0.1"):
        found = Resolver().resolve(host, 443)
        assert {str(one) for one in found} == {"127.0.0.1"}
        with pytest.raises(AddressRefusedError):
            check(host, found, (), secure=True)


def test_doubles_and_scopes() -> None:
    resolver = Resolver(lookup=lambda *args, **keys: [entry("1.1.1.1"), entry("1.1.1.1"), entry("fe80::1%eth0")])
    assert [str(one) for one in resolver.resolve("x", 443)] == ["1.1.1.1", "fe80::1"]


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example.com"])
def test_a_name_without_an_address(host: str) -> None:
    with pytest.raises(LookupFailedError, match=f"the name {host} has no address"):
        Resolver().resolve(host, 443)


def test_lookups_that_hang_block_neither_the_hub_nor_more_than_their_threads() -> None:
    hanging = monkey.get_original("_thread", "allocate_lock")()  # for native threads
    hanging.acquire()
    started = []

    def lookup(*args: Any, **keys: Any) -> list[Any]:
        started.append(args)
        with hanging:
            pass
        return [entry("1.1.1.1")]

    resolver = Resolver(lookup)
    waiting = [gevent.spawn(resolver.resolve, f"host-{number}", 443) for number in range(LOOKUP_THREADS + 3)]
    try:
        turns = 0
        while len(started) < LOOKUP_THREADS:
            gevent.sleep(0.001)
            turns += 1
        assert turns > 0, "the hub runs"
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            resolver.resolve("one-more", 443)
        assert len(started) == LOOKUP_THREADS
    finally:
        hanging.release()
    assert gevent.joinall(waiting, timeout=10, raise_error=True)
    assert all([str(one) for one in greenlet.value] == ["1.1.1.1"] for greenlet in waiting)
