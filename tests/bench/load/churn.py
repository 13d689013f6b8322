"""Short calls that come and go, evenly in time, beside the measured ones.

Run as `python -m tests.bench.load.churn`, with the arguments of `gw.bench.load.callers`; orders come on stdin: churn, placed,
stop. Placing a call blocks on the gateway's answers, so this process cannot measure anything.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from gw.bench.load.callers import Telephones
from gw.bench.load.loop import TICKS_PER_S, Loop, OrderChannel
from gw.bench.load.wire import WireError
from gw.twin.twilio.webhooks import WebhookSender

_WHY_CHARS: Final = 200


class Churn:
    """Short calls on an absolute schedule.

    Calls that a busy machine missed are skipped, not placed in a burst later; orders are served meanwhile.
    """

    def __init__(self, loop: Loop, telephones: Telephones) -> None:
        self._loop = loop
        self._telephones = telephones
        self._path = ""
        self._every_ticks = 0
        self._length_s = 0.0
        self._tick = 0
        self._refused = 0
        self._why = ""

    def churn(self, order: dict[str, Any]) -> dict[str, Any]:
        """Place `per_s` calls a second at `path` from now on, each hung up after `seconds`."""
        self._path = str(order["path"])
        self._every_ticks = round(TICKS_PER_S / float(order["per_s"]))
        self._length_s = float(order["seconds"])
        self._tick = self._loop.tick
        self._plan()
        return {}

    def _plan(self) -> None:
        self._tick = max(self._tick + self._every_ticks, self._loop.now_tick() + 1)
        self._loop.at(self._tick, self._come)

    def _come(self, _: float) -> None:
        self._place()
        self._plan()

    def _place(self) -> None:
        telephones = self._telephones
        try:
            caller = telephones.place(len(telephones.callers), self._path)
        except (OSError, WireError, KeyError) as error:
            self._refused += 1
            self._why = str(error)[:_WHY_CHARS]
            return
        telephones.callers.append(caller)
        caller.start(self._loop.tick + 1)
        self._loop.after(self._length_s, lambda _: caller.hang_up())

    def placed(self, _: dict[str, Any]) -> dict[str, Any]:
        """Return the number of calls placed, and of failures."""
        return {"placed": len(self._telephones.callers), "refused": self._refused, "why": self._why}

    def stop(self, order: dict[str, Any]) -> dict[str, Any]:
        """Hang up all calls and place no more."""
        self._loop.stop()
        return self._telephones.stop(order)


def main() -> int:
    """Run the process."""
    options = argparse.ArgumentParser(description="Callers who come and go; orders on stdin.")
    options.add_argument("--url", required=True, help="the gateway")
    options.add_argument("--account-sid", required=True)
    given = options.parse_args()
    loop = Loop()
    secret = sys.stdin.readline().strip()  # the first line: arguments are public, a secret is not
    churn = Churn(loop, Telephones(loop, WebhookSender(given.url, given.url, secret), given.account_sid))
    orders = OrderChannel(loop, {"churn": churn.churn, "placed": churn.placed, "stop": churn.stop})
    orders.send({"ready": True})
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
