"""Outgoing events of an AI session: ids, errors, delayed events, and the faults of its script.

Delayed events are sent by greenlets that end with the session.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import gevent
import msgspec
from gevent.pool import Group

from gw.twin.ai import events
from gw.twin.ai.events import Event, IdMaker
from gw.twin.ai.ledger import AiLedger, SentError, SentResponse
from gw.twin.ai.script import AiScript
from gw.twin.websocket import ClosedError, TimedOutError, TwinSocket

#: Above a client's bound of 8 MiB on one event.
OVERSIZE_BYTES: Final = (8 << 20) + 4096
#: Unreadable events of one fault: as many as end a session.
BAD_EVENTS: Final = 5


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

    def play_fault(self, sent: SentResponse) -> None:
        """Send the script's fault in place of the next audio delta, or end the connection."""
        fault, websocket = self._script.fault, self._websocket
        delta = events.audio_delta(sent, "//8=")
        if fault in ("stall", "freeze"):
            self.silent = True
            self.frozen = fault == "freeze"
        elif fault == "close":
            websocket.close(1011, "internal error")
        elif fault == "reset":
            websocket.abort()
        elif fault == "one_bad_event":
            self.send({**delta, "delta": 5})
        elif fault in ("bad_json", "bad_type", "missing_field", "bad_base64"):
            for _ in range(BAD_EVENTS):
                if fault == "bad_json":
                    websocket.send_text(b'{"type":"response.output_audio.delta","delta":')
                elif fault == "missing_field":
                    self.send({name: value for name, value in delta.items() if name != "delta"})
                else:
                    self.send({**delta, "delta": 5 if fault == "bad_type" else "!not base64!"})
        elif fault == "bad_utf8":
            websocket.send_text(b'{"type":"response.done","response":{"id":"\xff\xfe"}}')
        elif fault == "binary_message":
            websocket.send_binary(msgspec.json.encode(delta))
        elif fault == "oversize_message":
            self.send({**delta, "delta": "A" * OVERSIZE_BYTES})
        elif fault == "bad_websocket":
            websocket.send_raw(b"\xf1\x02{}")  # FIN and all three reserved bits
        elif fault == "unknown_event":
            self.send({"type": "response.telepathy.delta", "thought": [1, {"deep": None}]})
        elif fault == "error_benign":
            self.fail("invalid_request_error", "response_cancel_not_active", "Cancellation failed: no active response found.")
        elif fault == "error_fatal":
            self.fail("server_error", "insufficient_quota", "You exceeded your current quota.")
        elif fault == "session_expired":
            self.fail("invalid_request_error", "session_expired", "Your session hit the maximum duration of 60 minutes.")
            websocket.close(1001, "session expired")
