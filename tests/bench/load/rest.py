"""Twilio's REST API for recordings, in a separate process.

Every call named in a request is treated as in progress.
Run as `python -m tests.bench.load.rest`. The account's secret is the first line of stdin, orders follow: report (recordings
requested and begun so far). `gw.twin.twilio.rest.server` answers the requests.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from gevent import os as gevent_os

from gw.twin.twilio.rest.resources import RestCall
from gw.twin.twilio.rest.server import RestTwin
from gw.twin.twilio.webhooks import WebhookSender


@dataclass
class _ActiveCall:
    """A call in progress."""

    call_sid: str
    account_sid: str
    status: str = "in-progress"
    answered_at: float | None = 0.0
    ended_at: float | None = None

    def hang_up(self, by: Literal["rest"]) -> None:
        self.status = "completed"

    def redirect(self, document: str) -> None:
        self.status = "completed"  # its stream has ended


class _EveryCall(Mapping[str, RestCall]):
    """Mapping of every possible SID to a call in progress."""

    def __init__(self, account_sid: str) -> None:
        self._account_sid = account_sid

    def __getitem__(self, call_sid: str) -> RestCall:
        return _ActiveCall(call_sid, self._account_sid)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _lines(fd: int) -> Iterator[bytes]:
    """Read lines of a pipe until its end, without blocking other greenlets."""
    gevent_os.make_nonblocking(fd)
    rest = b""
    while data := gevent_os.nb_read(fd, 4096):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _send(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the process until stdin ends."""
    options = argparse.ArgumentParser(description="Twilio's REST API for the bench; orders on stdin.")
    options.add_argument("--account-sid", required=True)
    given = options.parse_args()
    orders = _lines(sys.stdin.fileno())
    secret = next(orders).decode().strip()  # the first line: arguments are public, a secret is not
    unused = "http://127.0.0.1:9"  # callback URLs in requests are absolute
    rest = RestTwin(given.account_sid, secret, _EveryCall(given.account_sid), WebhookSender(unused, unused, secret)).start()
    try:
        _send({"ready": True, "url": rest.url})
        for order in orders:
            if json.loads(order)["do"] != "report":
                raise ValueError(f"no such order: {order!r}")
            _send({"asked": sum(map(len, rest.starts.values())), "began": len(rest.recordings)})
    finally:
        rest.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
