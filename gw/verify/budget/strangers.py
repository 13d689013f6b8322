"""Strangers at a measured gateway's door: half-open heads, silent connections, and a telephone that floods with pings.

Runs as a separate process at a lower priority: `python -m gw.verify.budget.strangers`; orders come on stdin: begin, end. What the
gateway closes is opened again. The flooding call has a signature, so that each of its calls is also a newcomer's.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from gw.bench.load.callers import LoadCaller, Telephones
from gw.bench.load.loop import Loop, OrderChannel
from gw.bench.load.wire import PING, WireError, masked_text
from gw.twin.twilio.webhooks import WebhookSender

#: Of each kind; more than the connections an idle gateway has.
CONNECTIONS: Final = 200
#: As many as one read of the gateway takes.
_PING: Final = masked_text(b"", PING)
_FLOOD: Final = _PING * (8192 // len(_PING))
_FLOOD_EVERY_S: Final = 0.02
#: From the end of a flooding call to the next, and from a closed connection to another.
_REDIAL_S: Final = 0.5
_HALF_HEAD: Final = b"GET /media HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: "
_TIMEOUT_S: Final = 15.0


class _Held:
    """A connection that stays silent after its first bytes; what the gateway closes is replaced."""

    def __init__(self, door: _Door, first: bytes) -> None:
        self._door = door
        self._first = first
        self._sock = socket.create_connection(door.address, _TIMEOUT_S)
        self._sock.sendall(first)
        self._sock.setblocking(False)
        door.loop.watch(self._sock.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        with suppress(OSError):  # a reset is an end too
            if self._sock.recv(4096):
                return
        self._door.loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._door.closed += 1
        self._door.loop.after(_REDIAL_S, lambda _: self._door.hold(self._first))


class _Door:
    """All strangers of one process."""

    def __init__(self, loop: Loop, url: str, account_sid: str, auth_token: str) -> None:
        host, _, port = url.rpartition("/")[2].partition(":")
        self.loop = loop
        self.address = (host, int(port))
        self.closed = 0
        self._telephones = Telephones(loop, WebhookSender(url, url, auth_token, _TIMEOUT_S), account_sid)
        self._flooding = False
        self._call: LoadCaller | None = None
        self._calls = self._pings = self._not_answered = 0
        self._slowest_s = 0.0
        for _ in range(CONNECTIONS):
            self.hold(_HALF_HEAD)
            self.hold(b"")

    def hold(self, first: bytes) -> None:
        try:
            _Held(self, first)
        except OSError:  # refused immediately
            self.closed += 1
            self.loop.after(_REDIAL_S, lambda _: self.hold(first))

    def begin(self, _: dict[str, Any]) -> dict[str, Any]:
        """Start the flood."""
        self.closed = 0
        self._flooding = True
        self.loop.after(_FLOOD_EVERY_S, self._dial)
        return {}

    def _dial(self, _: float) -> None:
        if not self._flooding:
            return
        began_s = monotonic()
        try:
            self._call = self._telephones.place(self._calls, "/twilio/voice")
        except (OSError, WireError, KeyError):
            self._not_answered += 1
            self.loop.after(_REDIAL_S, self._dial)
            return
        self._calls += 1
        self._slowest_s = max(self._slowest_s, monotonic() - began_s)
        self.loop.after(_FLOOD_EVERY_S, self._flood)

    def _flood(self, _: float) -> None:
        if self._call is not None and self._call.send(_FLOOD):
            self._pings += len(_FLOOD) // len(_PING)
            self.loop.after(_FLOOD_EVERY_S, self._flood)
        else:
            self.loop.after(_REDIAL_S, self._dial)

    def end(self, _: dict[str, Any]) -> dict[str, Any]:
        """End the flood, with its last call. Returns what was seen."""
        self._flooding = False
        if self._call is not None:
            self._call.hang_up()
            self._call = None
        return {
            "half_open": CONNECTIONS,
            "silent": CONNECTIONS,
            "closed": self.closed,
            "pings": self._pings,
            "calls": self._calls,
            "not_answered": self._not_answered,
            "slowest_ms": round(self._slowest_s * 1000, 3),
        }


def main() -> int:
    """Run the process."""
    os.nice(10)
    options = argparse.ArgumentParser(description="Strangers at a gateway's door; orders on stdin.")
    options.add_argument("--url", required=True, help="the gateway")
    options.add_argument("--account-sid", required=True)
    given = options.parse_args()
    loop = Loop()
    door = _Door(loop, given.url, given.account_sid, sys.stdin.readline().strip())
    OrderChannel(loop, {"begin": door.begin, "end": door.end}).send({"ready": True})
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
