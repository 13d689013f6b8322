"""The AI twin's faults in the middle of a response.

Decides, for each fault, what goes on the wire in place of a proper delta. How the session goes on is the session's matter; how
the client takes it, the client's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from gw.twin.ai.events import Event
from gw.twin.ai.script import Fault
from gw.twin.websocket import Wire

#: A client's bound on one event is 8 MiB.
OVERSIZE_BYTES: Final = (8 << 20) + 4096


def strike(fault: Fault, wire: Wire, send: Callable[[Event], None], fail: Callable[[str, str, str], None], delta: Event) -> None:
    """Send what the fault says, or end the connection. `delta` is the audio event that would have been right."""
    if fault == "close":
        wire.close(1011, "internal error")
    elif fault == "reset":
        wire.abort()
    elif fault == "bad_json":
        wire.send_text(b'{"type":"response.output_audio.delta","delta":')
    elif fault == "bad_type":
        send({**delta, "delta": 5})
    elif fault == "missing_field":
        send({name: value for name, value in delta.items() if name != "delta"})
    elif fault == "bad_utf8":
        wire.send_text(b'{"type":"response.done","response":{"id":"\xff\xfe"}}')
    elif fault == "bad_base64":
        send({**delta, "delta": "!not base64!"})
    elif fault == "binary_message":
        wire.send_binary(msgspec.json.encode(delta))
    elif fault == "oversize_message":
        send({**delta, "delta": "A" * OVERSIZE_BYTES})
    elif fault == "bad_websocket":
        wire.send_raw(b"\xf1\x02{}")  # FIN and all three reserved bits
    elif fault == "unknown_event":
        send({"type": "response.telepathy.delta", "thought": [1, {"deep": None}]})
    elif fault == "error_benign":
        fail("invalid_request_error", "response_cancel_not_active", "Cancellation failed: no active response found.")
    elif fault == "error_fatal":
        fail("server_error", "insufficient_quota", "You exceeded your current quota.")
    elif fault == "session_expired":
        fail("invalid_request_error", "session_expired", "Your session hit the maximum duration of 60 minutes.")
        wire.close(1001, "session expired")
