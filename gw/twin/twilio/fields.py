"""Form fields of Twilio's webhooks about a call, empty ones included. Pure.

Source: Twilio's documentation of voice webhooks, call status callbacks, `<Stream>` status callbacks.
"""

from __future__ import annotations

import math
import time


def rfc2822(at: float) -> str:
    """Format a time as REST and callbacks do."""
    return time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(at))


def call_fields(account_sid: str, call_sid: str, caller: str, called: str, status: str) -> dict[str, str]:
    """Return the fields of every webhook about a call; some are empty, as in production."""
    where = {"City": "", "State": "CA", "Zip": "", "Country": "US"}
    places = {f"{side}{name}": value for side in ("From", "To", "Caller", "Called") for name, value in where.items()}
    return {
        "CallSid": call_sid,
        "AccountSid": account_sid,
        "From": caller,
        "To": called,
        "Caller": caller,
        "Called": called,
        "CallStatus": status,
        "ApiVersion": "2010-04-01",
        "Direction": "inbound",
        **places,
    }


def status_fields(status: str, seconds: int, at: float) -> dict[str, str]:
    """Return the fields a status callback adds at a call's end. `Duration`: Twilio bills started minutes."""
    return {
        "CallDuration": str(seconds),
        "Duration": str(math.ceil(seconds / 60)),
        "SipResponseCode": "200" if status == "completed" else "486",
        "Timestamp": rfc2822(at),
        "CallbackSource": "call-progress-events",
        "SequenceNumber": "0",
    }


def stream_fields(
    account_sid: str, call_sid: str, stream_sid: str, name: str, event: str, error: str, at: float
) -> dict[str, str]:
    """Return all fields of a stream's status callback."""
    fields = {
        "AccountSid": account_sid,
        "CallSid": call_sid,
        "StreamSid": stream_sid,
        "StreamName": name or stream_sid,
        "StreamEvent": event,
        "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at)),
    }
    return {**fields, "StreamError": error} if error else fields
