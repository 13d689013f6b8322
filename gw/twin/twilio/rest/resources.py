"""Calls and recordings of the Twilio twin's REST API: operations, answers and errors.

Follows Twilio's documentation: a second start on a call that is being recorded succeeds and records nothing. All requests to
record are kept in `starts`. Callbacks are posted from greenlets. Authentication, routing and faults are
`gw.twin.twilio.rest.server`'s.

Source: Twilio API 2010-04-01, Call and TwinRecording resources, paging; error codes 20003, 20404, 20429, 21220.
"""

from __future__ import annotations

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol
from urllib.parse import parse_qsl

import gevent
from gevent.pool import Pool

from gw.twin.twilio.fields import rfc2822
from gw.twin.twilio.rest.recording import TwinRecording, problem_of
from gw.twin.twilio.webhooks import WebhookSender

AUDIO_TYPE: Final = "audio/x-wav"
ACCOUNTS: Final = "/2010-04-01/Accounts/"
_ERRORS: Final = {
    20003: (401, "Authenticate"),
    20404: (404, "The requested resource was not found"),
    20429: (429, "Too Many Requests"),
    20004: (405, "Method not allowed"),
    21220: (400, "Requested resource is not eligible for recording"),
    20001: (400, "Invalid parameter"),
    16113: (400, "Cannot download a dual-channel presentation of a mono recording"),
}


Operation = Literal[
    "start", "list", "fetch", "media", "update", "delete", "call_fetch", "call_update", "call_list", "call_create"
]

_CALLBACK_DELAY_S: Final = 0.05


class RestCall(Protocol):
    """The part of a call that REST uses."""

    call_sid: str
    account_sid: str
    status: str
    answered_at: float | None
    ended_at: float | None

    def hang_up(self, by: Literal["rest"]) -> None: ...

    def redirect(self, document: str) -> None: ...


class AnswerError(Exception):
    """Ends a request with one of Twilio's error codes."""

    def __init__(self, code: int, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class RestAnswer(NamedTuple):
    """An HTTP answer; status 0 holds the connection without one."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def form(text: str) -> dict[str, tuple[str, ...]]:
    """Parse a form; repeated names are kept."""
    fields: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        fields[name] = (*fields.get(name, ()), value)
    return fields


def json_answer(status: int, body: object) -> RestAnswer:
    """Build a JSON answer."""
    return RestAnswer(status, json.dumps(body).encode())


def error_answer(code: int, detail: str = "") -> RestAnswer:
    """Build the answer for one of Twilio's error codes."""
    status, message = _ERRORS.get(code, (400, "Bad request"))
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    return json_answer(status, {"code": code, "message": detail or message, "more_info": more_info, "status": status})


def page(name: str, resources: list[dict[str, Any]]) -> dict[str, Any]:
    """Build a list resource with everything on one page."""
    ends = {"first_page_uri": "", "next_page_uri": None, "previous_page_uri": None, "uri": ""}
    return {
        name: resources,
        "page": 0,
        "page_size": max(50, len(resources)),
        "start": 0,
        "end": max(0, len(resources) - 1),
        **ends,
    }


def call_resource(call: RestCall) -> dict[str, Any]:
    """Return a call's resource."""
    started = rfc2822(call.answered_at) if call.answered_at else None
    ended = rfc2822(call.ended_at) if call.ended_at else None
    seconds = round(call.ended_at - call.answered_at) if call.answered_at and call.ended_at else None
    created_at = getattr(call, "created_at", None)  # the calls of some tests have no more than REST acts on
    return {
        "sid": call.call_sid,
        "account_sid": call.account_sid,
        "api_version": "2010-04-01",
        "status": call.status,
        "direction": getattr(call, "direction", "inbound"),
        "to": getattr(call, "to_number", None),
        "from": getattr(call, "from_number", None),
        "answered_by": getattr(call, "answered_by", None),
        "date_created": None if created_at is None else rfc2822(created_at),
        "start_time": started,
        "end_time": ended,
        "duration": None if seconds is None else str(seconds),
        "price": None,
        "price_unit": "USD",
        "uri": f"{ACCOUNTS}{call.account_sid}/Calls/{call.call_sid}.json",
    }


class StartRequest(NamedTuple):
    """A request to record a call, and its outcome."""

    at: float  # epoch seconds
    call_sid: str
    fields: Mapping[str, tuple[str, ...]]
    status: int  # of the HTTP answer; 0: held without one
    code: int  # Twilio's error code; 0: none
    recording_sid: str  # empty: refused
    recorded: bool


class Resources(ABC):
    """Calls and recordings of one account. `routes` maps requests to operations."""

    def __init__(self, account_sid: str, calls: Mapping[str, RestCall], webhooks: WebhookSender) -> None:
        self._account_sid = account_sid
        self._calls = calls
        self._webhooks = webhooks
        self._callbacks = Pool(1000)
        self.starts: dict[str, list[StartRequest]] = {}
        self.recordings: dict[str, TwinRecording] = {}
        self.absent_calls: set[str] = set()  # calls whose recordings end as absent
        #: Places a call by the request's fields; None refuses.
        self.place: Callable[[Mapping[str, str]], RestCall] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Base URL of the API; a callback's media URL points there."""

    def recordings_of(self, call_sid: str) -> list[TwinRecording]:
        """Return the call's actual recordings."""
        return [recording for recording in self.recordings.values() if recording.call_sid == call_sid]

    def on_call_ended(self, call: RestCall) -> None:
        """End the call's recordings and post their callbacks."""
        for recording in self.recordings_of(call.call_sid):
            if recording.is_open:
                recording.finish(call.ended_at or time.time(), absent=call.call_sid in self.absent_calls)
                self._post_callback(recording)

    def wait_callbacks(self, timeout_s: float = 5.0) -> None:
        """Wait until every callback so far has been posted."""
        self._callbacks.join(timeout=timeout_s)

    def call_of(self, recording_sid: str) -> str:
        """Return the SID of a recording's call; empty if unknown."""
        recording = self.recordings.get(recording_sid)
        return recording.call_sid if recording else ""

    def _post_callback(self, recording: TwinRecording) -> None:
        if recording.wants_callback:
            url = self._webhooks.absolute(recording.callback_url)
            self._callbacks.add(
                gevent.spawn_later(_CALLBACK_DELAY_S, self._webhooks.post, url, recording.callback_fields(self.url))
            )

    # -- recordings -------------------------------------------------------------------------------------------------

    def record_start(
        self, call_sid: str, fields: Mapping[str, tuple[str, ...]], status: int, code: int, sid: str, recorded: bool
    ) -> None:
        """Record a request to record, and its outcome."""
        self.starts.setdefault(call_sid, []).append(StartRequest(time.time(), call_sid, fields, status, code, sid, recorded))

    def _live_call(self, call_sid: str) -> RestCall:
        call = self._calls.get(call_sid)
        if call is None:
            raise AnswerError(20404)
        return call

    def record(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        """Start recording a call."""
        call_sid = match["call"]
        code, detail = 0, ""
        call = self._calls.get(call_sid)
        if call is None:
            code = 20404
        elif call.status != "in-progress":
            code = 21220
        else:
            code, detail = problem_of(fields)
        if code:
            answer = error_answer(code, detail)
            self.record_start(call_sid, fields, answer.status, code, "", False)
            return answer
        recording = TwinRecording.of(self._account_sid, call_sid, fields, time.time())
        recorded = not any(one.is_open for one in self.recordings_of(call_sid))
        if recorded:
            self.recordings[recording.sid] = recording
            self._post_callback(recording)
        self.record_start(call_sid, fields, 201, 0, recording.sid, recorded)
        return json_answer(201, recording.resource())

    def _list(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        call_sid = match.groupdict().get("call") or fields.get("CallSid", ("",))[0]
        if match.groupdict().get("call"):
            self._live_call(call_sid)
        chosen = [one.resource() for one in self.recordings.values() if call_sid in ("", one.call_sid)]
        return json_answer(200, page("recordings", chosen))

    def _recording(self, match: re.Match[str]) -> TwinRecording:
        call_sid, sid = match.groupdict().get("call"), match["recording"]
        if sid == "Twilio.CURRENT" and call_sid:
            sid = next((one.sid for one in self.recordings_of(call_sid) if one.is_open), "")
        recording = self.recordings.get(sid)
        if recording is None or (call_sid and recording.call_sid != call_sid):
            raise AnswerError(20404)
        return recording

    def _fetch(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        return json_answer(200, self._recording(match).resource())

    def _media(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        recording = self._recording(match)
        if recording.status != "completed":
            raise AnswerError(20404)
        channels = int(fields.get("RequestedChannels", ("1",))[0])
        if channels > recording.channels:
            raise AnswerError(16113)
        return RestAnswer(200, recording.audio(channels), AUDIO_TYPE)

    def _update(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        recording, status = self._recording(match), fields.get("Status", ("",))[0]
        if status not in ("paused", "in-progress", "stopped"):
            raise AnswerError(20001, f"Status {status!r}")
        if not recording.is_open:
            raise AnswerError(21220)
        if status == "stopped":
            recording.finish(time.time(), absent=False)
            self._post_callback(recording)
        else:
            behavior = fields.get("PauseBehavior", ("",))[0]
            if behavior not in ("", "silence", "skip"):
                raise AnswerError(20001, f"PauseBehavior {behavior!r}")
            recording.change(status, time.time(), behavior)
        return json_answer(200, recording.resource())

    def _delete(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        del self.recordings[self._recording(match).sid]
        return RestAnswer(204, b"")

    # -- calls ------------------------------------------------------------------------------------------------------

    def _call_fetch(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        return json_answer(200, call_resource(self._live_call(match["call"])))

    def _call_update(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        call, status = self._live_call(match["call"]), fields.get("Status", ("",))[0]
        document = fields.get("Twiml", ("",))[0]
        if status not in ("completed", "canceled") and not document:
            raise AnswerError(20001, f"Status {status!r}")
        if call.status not in ("queued", "ringing", "in-progress"):
            raise AnswerError(21220, "Call is not in-progress. Cannot redirect.")
        if document:
            call.redirect(document)
            return json_answer(200, call_resource(call))
        call.hang_up("rest")
        return json_answer(200, {**call_resource(call), "status": status})

    def _call_create(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        missing = [name for name in ("To", "From", "Url") if not fields.get(name, ("",))[0]]
        if missing or self.place is None:
            raise AnswerError(20001, f"missing: {missing}")
        return json_answer(201, call_resource(self.place({name: values[0] for name, values in fields.items()})))

    def _call_list(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        status = fields.get("Status", ("",))[0]
        wanted = {name.lower(): fields.get(name, ("",))[0] for name in ("To", "From")}
        found = [call_resource(call) for call in self._calls.values() if status in ("", call.status)]
        chosen = [one for one in reversed(found) if all(value in ("", one[name]) for name, value in wanted.items())]
        return json_answer(200, page("calls", chosen))

    routes: Final[tuple[tuple[re.Pattern[str], dict[str, tuple[Operation, Act]]], ...]] = (
        (re.compile(r"/Calls/(?P<call>CA\w+)/Recordings\.json"), {"POST": ("start", record), "GET": ("list", _list)}),
        (
            re.compile(r"(?:/Calls/(?P<call>CA\w+))?/Recordings/(?P<recording>RE\w+|Twilio\.CURRENT)\.json"),
            {"GET": ("fetch", _fetch), "POST": ("update", _update), "DELETE": ("delete", _delete)},
        ),
        (re.compile(r"/Recordings/(?P<recording>RE\w+)\.wav"), {"GET": ("media", _media)}),
        (re.compile(r"/Recordings\.json"), {"GET": ("list", _list)}),
        (
            re.compile(r"/Calls/(?P<call>CA\w+)\.json"),
            {"GET": ("call_fetch", _call_fetch), "POST": ("call_update", _call_update)},
        ),
        (re.compile(r"/Calls\.json"), {"GET": ("call_list", _call_list), "POST": ("call_create", _call_create)}),
    )


Act = Callable[[Resources, re.Match[str], Mapping[str, tuple[str, ...]]], RestAnswer]
