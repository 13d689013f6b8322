"""A recording in Twilio's REST API: parameters, resource, status callback. Plain values.

Times are passed in as epoch seconds.

Source: Twilio API 2010-04-01, TwinRecording resource and its status callback; error codes 13256, 13621.
"""

from __future__ import annotations

import io
import random
import uuid
import wave
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from gw.twin.twilio.fields import rfc2822

_ALLOWED: Final = {
    "RecordingChannels": ("mono", "dual"),
    "RecordingTrack": ("both", "inbound", "outbound"),
    "RecordingStatusCallbackMethod": ("GET", "POST"),
    "Trim": ("do-not-trim", "trim-silence"),
}
_FIELDS: Final = frozenset({*_ALLOWED, "RecordingStatusCallback", "RecordingStatusCallbackEvent", "RecordingConfigurationId"})
_EVENTS: Final = frozenset({"in-progress", "completed", "absent"})

Fields = Mapping[str, tuple[str, ...]]


def problem_of(fields: Fields) -> tuple[int, str]:
    """Validate a start's parameters. Returns Twilio's error code, 0 if valid, and a sentence."""
    for name, values in fields.items():
        if name not in _FIELDS:
            return 20001, f"unknown parameter {name}"
        if name in _ALLOWED and (len(values) != 1 or values[0] not in _ALLOWED[name]):
            return 20001, f"{name} {values}"
    url = fields.get("RecordingStatusCallback", ("",))[0]
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        return 13256, f"invalid callback URL {url[:80]!r}"
    if not _events_of(fields) <= _EVENTS:
        return 13621, f"invalid callback event in {sorted(_events_of(fields))}"
    return 0, ""


def _events_of(fields: Fields) -> frozenset[str]:
    """Repeated keys, or one value with blanks; `completed` by default."""
    named = " ".join(fields.get("RecordingStatusCallbackEvent", ())).split()
    return frozenset(named) or frozenset({"completed"})


@dataclass(slots=True)
class TwinRecording:
    """One recording and its callback."""

    sid: str
    account_sid: str
    call_sid: str
    channels: int
    track: str
    started_at: float
    callback_url: str
    callback_events: frozenset[str]
    status: str = "in-progress"
    seconds: int | None = None
    changes: list[tuple[float, str]] = field(default_factory=list)  # pauses and their ends, with their times
    pause_behavior: str = ""  # of the last pause

    @classmethod
    def of(cls, account_sid: str, call_sid: str, fields: Fields, now: float) -> TwinRecording:
        """Create a recording that begins now."""
        return cls(
            sid=f"RE{uuid.uuid4().hex}",
            account_sid=account_sid,
            call_sid=call_sid,
            channels=2 if fields.get("RecordingChannels", ("mono",))[0] == "dual" else 1,
            track=fields.get("RecordingTrack", ("both",))[0],
            started_at=now,
            callback_url=fields.get("RecordingStatusCallback", ("",))[0],
            callback_events=_events_of(fields),
        )

    @property
    def is_open(self) -> bool:
        """True while it is recording or paused."""
        return self.status in ("in-progress", "paused")

    @property
    def wants_callback(self) -> bool:
        """True if a callback was requested for its present status."""
        return bool(self.callback_url) and self.status in self.callback_events

    def change(self, status: str, now: float, behavior: str) -> None:
        """Pause, or continue."""
        self.status = status
        self.changes.append((now, status))
        if status == "paused":
            self.pause_behavior = behavior or "skip"

    def records(self, at: float) -> bool:
        """Return whether it had the sound of this time. Ended recordings had it until now."""
        status = "in-progress" if at >= self.started_at else ""
        for when, changed in self.changes:
            if when <= at:
                status = changed
        return status == "in-progress"

    def finish(self, now: float, absent: bool) -> None:
        """End the recording."""
        self.status = "absent" if absent else "completed"
        self.seconds = 0 if absent else round(now - self.started_at)

    def resource(self) -> dict[str, Any]:
        """Return the resource as REST shows it."""
        started = rfc2822(self.started_at)
        return {
            "account_sid": self.account_sid,
            "api_version": "2010-04-01",
            "call_sid": self.call_sid,
            "conference_sid": None,
            "channels": self.channels,
            "date_created": started,
            "date_updated": started,
            "start_time": started,
            "price": None,
            "price_unit": None,
            "duration": None if self.seconds is None else str(self.seconds),
            "sid": self.sid,
            "source": "StartCallRecordingAPI",
            "status": self.status,
            "error_code": 0 if self.status == "absent" else None,
            "track": self.track,
            "encryption_details": None,
            "uri": f"/2010-04-01/Accounts/{self.account_sid}/Calls/{self.call_sid}/Recordings/{self.sid}.json",
        }

    def audio(self, channels: int) -> bytes:
        """Return its audio as WAV: noise that depends on the SID, 8 kHz, 16 bit."""
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(channels)
            out.setsampwidth(2)
            out.setframerate(8000)
            out.writeframes(random.Random(self.sid).randbytes(2 * 8000 * channels * max(1, self.seconds or 0)))
        return file.getvalue()

    def callback_fields(self, api_base: str) -> dict[str, str]:
        """Return the form fields of its status callback."""
        fields = {
            "AccountSid": self.account_sid,
            "CallSid": self.call_sid,
            "RecordingSid": self.sid,
            "RecordingUrl": f"{api_base}/2010-04-01/Accounts/{self.account_sid}/Recordings/{self.sid}",
            "RecordingStatus": self.status,
            "RecordingChannels": str(self.channels),
            "RecordingStartTime": rfc2822(self.started_at),
            "RecordingSource": "StartCallRecordingAPI",
            "RecordingTrack": self.track,
        }
        if self.seconds is not None:
            fields["RecordingDuration"] = str(self.seconds)
        return {**fields, "ErrorCode": "0"} if self.status == "absent" else fields
