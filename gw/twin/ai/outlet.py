"""What a session of the AI twin sends: events with their ids, errors, what comes late, and nothing once it is dead.

Decides the wire form of an event, and which faults of the script change or silence it. Greenlets bring what comes late; they end
with the session. Never decides what is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import msgspec
from gevent.pool import Group

from gw.twin.ai import events
from gw.twin.ai.events import Event, Names
from gw.twin.ai.faults import strike
from gw.twin.ai.ledger import AiLedger, SentError, SentResponse
from gw.twin.ai.script import AiScript
from gw.twin.websocket import ClosedError, TimedOutError, Wire


class AiOutlet:
    """One session's way to its client."""

    def __init__(self, wire: Wire, ledger: AiLedger, script: AiScript) -> None:
        self._wire = wire
        self._ledger = ledger
        self._script = script
        self._greenlets = Group()
        self.names = Names(ledger.index)
        self.dead = False  # a stall: nothing is sent any more
        self.frozen = False  # nor read

    def stop(self) -> None:
        """End what would still come late."""
        self._greenlets.kill(timeout=1)

    def send(self, event: Event) -> None:
        """One event, with its id in front of the rest."""
        if self.dead:
            return
        if self._script.fault == "beta_names":
            event = events.beta(event)
        self._wire.send_text(msgspec.json.encode({"event_id": self.names.new("event"), **event}))

    def fail(self, kind: str, code: str | None, message: str, param: str | None = None, event_id: str | None = None) -> None:
        """An error event."""
        self._ledger.errors.append(SentError(time.monotonic(), code or kind, message))
        self.send(events.error(kind, code, message, param, event_id))

    def later(self, delay_s: float, act: Callable[..., None], *arguments: object) -> None:
        """Do something in a greenlet of this session's own."""

        def body() -> None:
            gevent.sleep(delay_s)
            try:
                act(*arguments)
            except (ClosedError, TimedOutError):
                pass  # the reader sees the same end and accounts for it

        self._greenlets.spawn(body)

    def misbehave(self, sent: SentResponse) -> None:
        """Do what the script's fault says, at this very place."""
        if self._script.fault in ("stall", "freeze"):
            self.dead = True
            self.frozen = self._script.fault == "freeze"
        elif self._script.fault is not None:
            strike(self._script.fault, self._wire, self.send, self.fail, events.audio_delta(sent, "//8="))
