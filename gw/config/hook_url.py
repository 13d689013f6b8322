"""The grammar of the URL of a user's endpoint: of a tool, and of whatever else the gateway requests.

One parser for the check of the configuration and for the connection, so that both mean the same host. Opens and resolves nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS: Final = {"https": 443, "http": 80}
#: Visible ASCII. `urlsplit` would remove line breaks, and a backslash means a slash to other parsers.
_PLAIN: Final = re.compile(r"[!-\[\]-~]+")
_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
#: A user and a password, or the part that may be one.
_USER: Final = re.compile(r"//[^/?#]*@")


class HookUrl(NamedTuple):
    """The parts of a URL. `host`: a name or an address, without brackets. `target`: path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_hook_url(text: str) -> HookUrl:
    """Return the parts of a URL. Raises ValueError, whose text follows "expected"."""
    if not _PLAIN.fullmatch(text):
        raise ValueError("visible ASCII only; write other characters percent-encoded, and a host in Punycode")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError("https://host/path") from None
    if url.scheme not in _PORTS:
        raise ValueError("https://host/path")
    if "@" in url.netloc:
        raise ValueError("no user and no password: the request is signed, see deploy/TOOLS.md")
    if "#" in text:
        raise ValueError("no fragment")
    if port == 0:
        raise ValueError("a port from 1 to 65535")
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return HookUrl(url.scheme, _host(url.netloc, url.hostname or ""), port or _PORTS[url.scheme], target)


def _host(netloc: str, host: str) -> str:
    if netloc.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host if "%" not in host else ""))
        except ValueError:
            raise ValueError("an IPv6 address in the brackets") from None
    if not _NAME.fullmatch(host) or ".." in host:
        raise ValueError("https://host/path")
    return host


def parse_networks(networks: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of `hooks.allow_networks`. Raises ValueError."""
    return tuple(ipaddress.ip_network(network) for network in networks)


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Return whether an address belongs to one of the networks."""
    return any(address.version == network.version and address in network for network in networks)


def shown(text: str) -> str:
    """Return a URL for an error message: without a user and a password, and short."""
    hidden = _USER.sub("//***@", text)
    return hidden if len(hidden) <= 100 else f"{hidden[:100]}..."
