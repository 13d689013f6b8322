"""Sample events for the tests of the store and the forwarder."""

from __future__ import annotations

import itertools

from gw import bus
from gw.call.quality import Quality
from gw.control.store import Stamped

ACCOUNT = "AC" + "0" * 32
T0 = 1_790_000_000.0


def call_sid(k: int) -> str:
    return f"CA{k:032x}"


def started(k: int = 1, **changes: object) -> bus.CallStarted:
    facts: dict[str, object] = {
        "call_sid": call_sid(k),
        "stream_sid": f"MZ{k:032x}",
        "account_sid": ACCOUNT,
        "agent": "default",
        "direction": "inbound",
        "from_number": "+4915112345678",
        "to_number": "+493012345678",
        "started_at": T0 + k,
        "answered_at": T0 + k + 0.5,
    }
    return bus.CallStarted(**(facts | changes))  # type: ignore[arg-type]


def ended(
    k: int = 1, reason: str = "caller_hangup", result: str = "success", at: float = T0 + 60, **quality: object
) -> bus.CallEnded:
    measured = Quality(**({"frames_sent": 100, "frames_expected": 100} | quality))  # type: ignore[arg-type]
    return bus.CallEnded(call_sid=call_sid(k), ended_at=at, reason=reason, result=result, detail="", quality=measured)


def turn(k: int = 1, n: int = 1, text: str = "Hello", **changes: object) -> bus.Turn:
    facts: dict[str, object] = {
        "call_sid": call_sid(k),
        "role": "agent",
        "item_id": f"item_{n}",
        "start_ms": n * 1000,
        "heard_ms": 900,
    }
    return bus.Turn(n=n, text=text, **(facts | changes))  # type: ignore[arg-type]


def stamp(*events: bus.Event, instance: str = "i1", worker: int = 0, host: str = "h1", gateway: str = "gw-1") -> list[Stamped]:
    """Numbered from 1, as a worker numbers them."""
    numbers = itertools.count(1)
    return [Stamped(event, host, worker, instance, next(numbers), gateway) for event in events]
