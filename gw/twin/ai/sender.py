"""Outgoing events of an AI session: ids, errors, delayed events, and the messages of faults.

Delayed events are sent by greenlets that end with the session.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import msgspec
from gevent.pool import Group

from gw.twin.ai import events, faults
from gw.twin.ai.events import Event, IdMaker
from gw.twin.ai.faults import FaultyResponse
from gw.twin.ai.ledger import AiLedger, SentError, SentResponse
from gw.twin.ai.script import AiScript
from gw.twin.websocket import ClosedError, TimedOutError, TwinSocket


class EventSender:
    """The sending side of one session."""

    def __init__(self, websocket: TwinSocket, ledger: AiLedger, script: AiScript) -> None:
        self._websocket = websocket
        self._ledger = ledger
        self._script = script
        self._greenlets = Group()
        self.ids = IdMaker(ledger.index)
        self.silent = False  # stalled: sends nothing
        self.frozen = False  # reads nothing either

    def stop(self) -> None:
        """Cancel all delayed events."""
        self._greenlets.kill(timeout=1)

    def send(self, event: Event) -> None:
        """Send an event, with its id as the first field."""
        if self.silent:
            return
        if self._script.fault == "beta_names":
            event = events.beta(event)
        if event["type"] == "conversation.item.added":
            self._ledger.item_ids.add(str(event["item"]["id"]))
        self._websocket.send_text(msgspec.json.encode({"event_id": self.ids.new("event"), **event}))

    def fail(self, kind: str, code: str | None, message: str, param: str | None = None, event_id: str | None = None) -> None:
        """Send an error event."""
        self._ledger.errors.append(SentError(time.monotonic(), code or kind, message))
        self.send(events.error(kind, code, message, param, event_id))

    def send_later(self, delay_s: float, act: Callable[..., None], *arguments: object) -> None:
        """Call `act` after a delay, in a greenlet of this session."""

        def body() -> None:
            gevent.sleep(delay_s)
            try:
                act(*arguments)
            except (ClosedError, TimedOutError):
                pass  # the reader sees the same end and records it

        self._greenlets.spawn(body)

    def play(self, fault: FaultyResponse, sent: SentResponse) -> None:
        """Send a fault's messages and error, then go silent or close."""
        for template in (*fault.sends, fault.binary):
            if not template or self.silent:
                continue
            data = faults.message(template, sent, self.ids.new("event"))
            if template is fault.binary:
                self._websocket.send_binary(data)
            else:
                self._websocket.send_text(data)
        if fault.raw:
            self._websocket.send_raw(fault.raw)
        if fault.error is not None:
            self.fail(*fault.error)
        if fault.stalls in ("session", "reading"):
            self.silent, self.frozen = True, fault.stalls == "reading"
        if fault.closes == 0:
            self._websocket.abort()
        elif fault.closes is not None:
            self._websocket.close(fault.closes, "closed by the script")
