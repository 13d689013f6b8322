"""Gateway under measurement with strangers at its door."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final

import gevent

from gw.bench.load_process import LoadProcess
from gw.bench.run import Load
from gw.bench.subject import Gateway
from gw.call.state import Reason
from metrics.declare import CALLS_ENDED
from metrics.exposition import Totals

#: Longest wait until the gateway has counted the last flooding call as ended.
_COUNTED_S: Final = 10.0
#: The ends of flooding calls: by the gateway, or by their caller at the window's end.
_ENDS: Final = (Reason.PHONE_FRAME_FLOOD, Reason.CALLER_HANGUP)


class BesiegedGateway(Gateway):
    """A gateway and its side load for `measure_with`: strangers from the last call's start to the window's end."""

    def __init__(self, command: Sequence[str], out: Path, load: Load) -> None:
        super().__init__(command, out / "gateway", workers=load.workers, calls=load.calls, watched=load.watched)
        self._log = out / "strangers.log"
        self._login = ("", "")
        self._strangers: LoadProcess | None = None
        self.seen: dict[str, Any] = {}

    def start(self, *, account_sid: str, auth_token: str, ai_url: str) -> None:
        self._login = (account_sid, auth_token)
        super().start(account_sid=account_sid, auth_token=auth_token, ai_url=ai_url)

    def stop(self) -> None:
        if self._strangers is not None:
            self._strangers.stop()
        super().stop()

    def on_calls_placed(self) -> None:
        account_sid, auth_token = self._login
        arguments = ("--url", self.url, "--account-sid", account_sid)
        self._strangers = LoadProcess("gw.verify.budget.strangers", *arguments, first_line=auth_token, log=self._log)

    @contextmanager
    def around_window(self) -> Iterator[None]:
        assert self._strangers is not None
        before = self._count_floods()
        self._strangers.order("begin")
        yield
        self.seen = self._strangers.order("end")
        deadline_s = monotonic() + _COUNTED_S
        while self._count_floods() - before < self.seen["calls"] and monotonic() < deadline_s:
            gevent.sleep(0.02)

    def _count_floods(self) -> float:
        """Return how many calls ended as flooding ones do: the end of a measured call does not count.

        Read from the pages: `/metrics` is cached, and the end of the window needs a new one.
        """
        totals = Totals(self.pages)
        return sum(totals.value(CALLS_ENDED, reason=reason) for reason in _ENDS)
