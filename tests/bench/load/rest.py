"""The bench's REST API: Twilio's, as far as recordings go, in a process of its own. Every call anybody names is one that
stands.

Decides nothing: `gw.twin.twilio.rest` answers. Run as `python -m tests.bench.load.rest`; the account's secret is the first line
of stdin, orders follow: report (how many recordings were asked for so far, and how many began).
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

from gw.twin.twilio.resources import RestCall
from gw.twin.twilio.rest import TwilioRest
from gw.twin.twilio.webhooks import Webhooks


@dataclass
class _Standing:
    """A call that is under way, whoever's it is."""

    call_sid: str
    account_sid: str
    status: str = "in-progress"
    answered_at: float | None = 0.0
    ended_at: float | None = None

    def hang_up(self, by: Literal["rest"]) -> None:
        self.status = "completed"

    def redirect(self, document: str) -> None:
        self.status = "completed"  # its stream is over


class _Everybody(Mapping[str, RestCall]):
    """All calls there may be."""

    def __init__(self, account_sid: str) -> None:
        self._account_sid = account_sid

    def __getitem__(self, call_sid: str) -> RestCall:
        return _Standing(call_sid, self._account_sid)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _lines(fd: int) -> Iterator[bytes]:
    """Lines of a pipe until its end; waits without holding anybody."""
    gevent_os.make_nonblocking(fd)
    rest = b""
    while data := gevent_os.nb_read(fd, 4096):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> int:
    """This process's body: serve until stdin ends."""
    options = argparse.ArgumentParser(description="Twilio's REST API for the bench; orders on stdin.")
    options.add_argument("--account-sid", required=True)
    given = options.parse_args()
    orders = _lines(sys.stdin.fileno())
    secret = next(orders).decode().strip()  # the first line: a secret is no argument
    nobody = "http://127.0.0.1:9"  # callbacks are asked for with whole URLs
    rest = TwilioRest(given.account_sid, secret, _Everybody(given.account_sid), Webhooks(nobody, nobody, secret)).start()
    try:
        _say({"ready": True, "url": rest.url})
        for order in orders:
            if json.loads(order)["do"] != "report":
                raise ValueError(f"no such order: {order!r}")
            _say({"asked": sum(map(len, rest.starts.values())), "began": len(rest.recordings)})
    finally:
        rest.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
