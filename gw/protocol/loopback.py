"""Requests that a gateway without Twilio credentials accepts: from this machine, and not from a web page.

Such a gateway listens on loopback only. A web page in a browser of the same machine can reach it nevertheless: under the page's
own name by DNS rebinding, or under the gateway's, with an `Origin`. Pure.
"""

from __future__ import annotations

from typing import Literal

from gw.config.rules import is_loopback

Foreign = Literal["", "foreign_host", "foreign_origin"]


def foreign(host: str | None, origin: str | None) -> Foreign:
    """Return why a request is refused, or "". `host`, `origin`: its header fields; None: absent. Every browser sends a Host.

    Shape: the host is a loopback address or `localhost`, with or without a port; an origin is that of the host itself.
    """
    if host is None:
        return "" if origin is None else "foreign_origin"
    name, _, port = host.rpartition(":")
    if not name or (port and not port.isdigit()):
        name = host
    if name.startswith("["):
        name = name[1:-1] if name.endswith("]") else ""
    if not name or not is_loopback(name):
        return "foreign_host"
    if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        return "foreign_origin"
    return ""
