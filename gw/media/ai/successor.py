"""An AI leg opened in advance: beside a session that nears its end, or before a stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from gw.bounded import OutOfTimeError, within
from gw.call.dialogue.inputs import Input, SuccessorFailed, SuccessorReady
from gw.call.state import Reason
from gw.media.ai.leg import AiLeg, AiLegError
from gw.media.hub.greenlets import KindGreenlet
from gw.protocol import ai

log = logging.getLogger(__name__)

_MS: Final = 1000


class Successor:
    """One leg that waits to take over. `run` is its greenlet's body."""

    def __init__(self, leg: AiLeg, limit_s: float, report: Callable[[Input], None]) -> None:
        """`limit_s`: bound until the session is confirmed. `report`: receives SuccessorReady, then perhaps SuccessorFailed."""
        self.leg = leg
        self.greenlet: KindGreenlet | None = None
        self._limit_s = limit_s
        self._report: Callable[[Input], None] | None = report
        self._is_taken = False

    def run(self) -> None:
        """Open the leg, and read it until it is taken or dropped."""
        try:
            with within(self._limit_s):
                self.leg.connect()
                lifetime_ms = _read_until_ready(self.leg)
            self._tell(SuccessorReady(lifetime_ms))
            while self._report is not None:
                self.leg.read()
        except (AiLegError, OutOfTimeError) as error:
            log.warning("no AI session could be opened in advance: %s", error)
            self._tell(SuccessorFailed())
        finally:
            if not self._is_taken:
                self.leg.close()

    def _tell(self, event: Input) -> None:
        if self._report is not None:
            self._report(event)

    def take(self) -> None:
        """Let another greenlet read the leg, once `run` has ended."""
        self._is_taken = True
        self.drop()

    def drop(self) -> None:
        """Let `run` end. It closes the leg unless the leg was taken."""
        self._report = None
        self.leg.wake()


def lifetime_ms_of(expires_at: float) -> int:
    """Milliseconds until a session expires, by our clock; 0 if it does not say. A negative time is a clock's fault."""
    return int((expires_at - time.time()) * _MS) if expires_at else 0


def _read_until_ready(leg: AiLeg) -> int:
    """Read until the session is confirmed. Returns its lifetime in milliseconds. Raises AiLegError."""
    lifetime_ms = 0
    while True:
        for event in leg.read():
            if isinstance(event, ai.SessionCreated):
                lifetime_ms = lifetime_ms_of(event.expires_at)
            elif isinstance(event, ai.SessionReady):
                return lifetime_ms
            elif isinstance(event, ai.AiError) and (event.fatal or event.refuses == "session"):
                raise AiLegError(Reason.AI_REFUSED, f"{event.code}: {event.message}"[:500])
