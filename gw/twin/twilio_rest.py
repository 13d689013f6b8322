"""Twilio's REST API as far as calls and their recordings go.

Decides what each request is answered with, as Twilio documents it, and which failures are played on demand. A second start on a
call that is being recorded answers success and records nothing. Everything asked is kept in `starts`. Checks Basic auth and every
form field; what Twilio would silently ignore is noted in `complaints`. Callbacks are posted from greenlets of their own.

Source: Twilio API 2010-04-01, Call and Recording resources; error codes 20003, 20404, 20429, 21220.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from gw.twin.twilio_answers import (
    ACCOUNTS,
    Answer,
    AnswerError,
    Call,
    call_resource,
    error_answer,
    form,
    json_answer,
    page,
)
from gw.twin.twilio_http import Webhooks
from gw.twin.twilio_recording import Recording, problem_of

RestFault = Literal[
    "21220",  # not eligible yet
    "20404",
    "20429",
    "503",  # with a body of HTML
    "html_200",  # success that is none
    "not_json",  # 201 with half a body
    "timeout_with_effect",  # done, but never answered
    "timeout_without_effect",
]
Operation = Literal["start", "list", "fetch", "update", "delete", "call_fetch", "call_update", "call_list", "call_create"]

MAX_BODY_BYTES: Final = 64 << 10
_HELD_S: Final = 60.0  # how long an answer that never comes is held at most
_CALLBACK_DELAY_S: Final = 0.05


class Start(NamedTuple):
    """A request to record a call, and what became of it."""

    at: float  # epoch seconds
    call_sid: str
    fields: Mapping[str, tuple[str, ...]]
    status: int  # the HTTP answer; 0: none was sent
    code: int  # Twilio's error, 0: none
    recording_sid: str  # empty: nothing was started
    recorded: bool


@dataclass(slots=True)
class _Fault:
    kind: RestFault
    operation: Operation
    call_sid: str  # empty: any call
    left: int


class TwilioRest:
    """The API server. `start`, `stop`."""

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        calls: Mapping[str, Call],
        webhooks: Webhooks,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._account_sid = account_sid
        self._auth_token = auth_token
        self._calls = calls
        self._webhooks = webhooks
        self._faults: list[_Fault] = []
        self._stopping = Event()
        self._callbacks = Pool(1000)
        self._server = WSGIServer((host, port), self._application, log=None, error_log=None, spawn=Pool(1000))
        self.starts: dict[str, list[Start]] = {}
        self.recordings: dict[str, Recording] = {}
        self.requests: deque[tuple[float, str, str, int]] = deque(maxlen=10_000)  # at, method, path, status
        self.complaints: list[str] = []  # what Twilio would ignore, but no careful client sends
        self.absent_calls: set[str] = set()  # their recordings turn out absent
        #: Calls somebody, as the fields of the request say; a twin that has no caller to offer refuses.
        self.place: Callable[[Mapping[str, str]], Call] | None = None
        self.delay_s = 0.0  # how long every answer takes, once the thing is done

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self) -> TwilioRest:
        """Listen. Raises OSError when the address is taken."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Close the listener and let held answers go. Idempotent."""
        self._stopping.set()
        self._server.stop(timeout=0.1)  # connections kept alive would be waited for
        self._callbacks.kill(timeout=1)

    @property
    def url(self) -> str:
        """What `twilio.api_base` is set to."""
        return f"http://{self._server.server_host}:{self._server.server_port}"

    def fail(self, kind: RestFault, times: int = 1, call_sid: str = "", operation: Operation = "start") -> None:
        """Play a failure on the next `times` requests of that operation, of one call or of any."""
        self._faults.append(_Fault(kind, operation, call_sid, times))

    def heal(self) -> None:
        """Play no failure any more; answers that are held stay held."""
        self._faults.clear()

    def wait_for(self, judge: Callable[[TwilioRest], bool], timeout_s: float = 5.0) -> bool:
        """Wait until `judge` holds. Returns whether it came to hold."""
        deadline_s = time.monotonic() + timeout_s
        while not judge(self):
            if time.monotonic() >= deadline_s:
                return False
            gevent.sleep(0.005)
        return True

    def recordings_of(self, call_sid: str) -> list[Recording]:
        """What was really recorded of a call."""
        return [recording for recording in self.recordings.values() if recording.call_sid == call_sid]

    def on_call_ended(self, call: Call) -> None:
        """End the call's recordings and tell their callbacks."""
        for recording in self.recordings_of(call.call_sid):
            if recording.is_open:
                recording.finish(call.ended_at or time.time(), absent=call.call_sid in self.absent_calls)
                self._tell(recording)

    def wait_callbacks(self, timeout_s: float = 5.0) -> None:
        """Wait until every callback so far was posted."""
        self._callbacks.join(timeout=timeout_s)

    def _tell(self, recording: Recording) -> None:
        if recording.wants_callback:
            url = self._webhooks.absolute(recording.callback_url)
            self._callbacks.add(
                gevent.spawn_later(_CALLBACK_DELAY_S, self._webhooks.post, url, recording.callback_fields(self.url))
            )

    # -- one request ------------------------------------------------------------------------------------------------

    def _application(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        method, path = str(environ["REQUEST_METHOD"]), str(environ["PATH_INFO"])
        try:
            answer = self._answer(environ, method, path)
        except AnswerError as error:
            answer = error_answer(error.code, error.detail)
        self.requests.append((time.time(), method, path, answer.status))
        if answer.status == 0:
            self._stopping.wait(_HELD_S)
            answer = Answer(504, b"")
        elif self.delay_s:
            self._stopping.wait(self.delay_s)
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Twilio-Concurrent-Requests", "1"),
            ("Twilio-Request-Id", f"RQ{uuid.uuid4().hex}"),
        ]
        if answer.status == 401:
            headers.append(("WWW-Authenticate", 'Basic realm="Twilio API"'))
        start_response(f"{answer.status} Twin", headers)
        return [answer.body]

    def _answer(self, environ: dict[str, Any], method: str, path: str) -> Answer:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > MAX_BODY_BYTES:
            raise AnswerError(20001, "body too long")
        body = environ["wsgi.input"].read(length) if length else b""
        self._check_login(str(environ.get("HTTP_AUTHORIZATION", "")))
        if method == "POST" and not str(environ.get("CONTENT_TYPE", "")).startswith("application/x-www-form-urlencoded"):
            self.complaints.append(f"{method} {path}: content type {environ.get('CONTENT_TYPE')!r}")
        fields = form(body.decode(errors="replace")) if method == "POST" else form(str(environ.get("QUERY_STRING", "")))
        if not path.startswith(f"{ACCOUNTS}{self._account_sid}/"):
            raise AnswerError(20404)
        return self._route(method, path.removeprefix(f"{ACCOUNTS}{self._account_sid}"), fields)

    def _check_login(self, header: str) -> None:
        expected = base64.b64encode(f"{self._account_sid}:{self._auth_token}".encode()).decode()
        if not hmac.compare_digest(header, f"Basic {expected}"):
            raise AnswerError(20003)

    def _route(self, method: str, path: str, fields: Mapping[str, tuple[str, ...]]) -> Answer:
        for pattern, methods in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if method not in methods:
                raise AnswerError(20004)
            operation, act = methods[method]
            call_sid = match.groupdict().get("call", "") or self._call_of(match.groupdict().get("recording", ""))
            fault = self._take_fault(operation, call_sid)
            return self._fail(fault, act, match, fields) if fault else act(self, match, fields)
        raise AnswerError(20404)

    def _call_of(self, recording_sid: str) -> str:
        recording = self.recordings.get(recording_sid)
        return recording.call_sid if recording else ""

    def _take_fault(self, operation: Operation, call_sid: str) -> RestFault | None:
        for fault in self._faults:
            if fault.left > 0 and fault.operation == operation and fault.call_sid in ("", call_sid):
                fault.left -= 1
                return fault.kind
        return None

    def _fail(self, fault: RestFault, act: _Act, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> Answer:
        html = b"<!doctype html><html><body><h1>503 Service Unavailable</h1></body></html>"
        if fault == "timeout_with_effect":
            act(self, match, fields)
            return Answer(0, b"")
        answer = {
            "timeout_without_effect": Answer(0, b""),
            "503": Answer(503, html, "text/html"),
            "html_200": Answer(200, html, "text/html"),
            "not_json": Answer(201, b'{"sid": "RE'),
        }.get(fault)
        code = 0 if answer else int(fault)
        answer = answer or error_answer(code)
        if act is TwilioRest._record:
            self._note_start(match["call"], fields, answer.status, code, "", False)
        return answer

    # -- recordings -------------------------------------------------------------------------------------------------

    def _note_start(
        self, call_sid: str, fields: Mapping[str, tuple[str, ...]], status: int, code: int, sid: str, recorded: bool
    ) -> None:
        self.starts.setdefault(call_sid, []).append(Start(time.time(), call_sid, fields, status, code, sid, recorded))

    def _live_call(self, call_sid: str) -> Call:
        call = self._calls.get(call_sid)
        if call is None:
            raise AnswerError(20404)
        return call

    def _record(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> Answer:
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
            self._note_start(call_sid, fields, answer.status, code, "", False)
            return answer
        recording = Recording.of(self._account_sid, call_sid, fields, time.time())
        recorded = not any(one.is_open for one in self.recordings_of(call_sid))
        if recorded:
            self.recordings[recording.sid] = recording
            self._tell(recording)
        self._note_start(call_sid, fields, 201, 0, recording.sid, recorded)
        return json_answer(201, recording.resource())

    def _list(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> Answer:
        call_sid = match.groupdict().get("call") or fields.get("CallSid", ("",))[0]
        if match.groupdict().get("call"):
            self._live_call(call_sid)
        chosen = [one.resource() for one in self.recordings.values() if call_sid in ("", one.call_sid)]
        return json_answer(200, page("recordings", chosen))

    def _recording(self, match: re.Match[str]) -> Recording:
        call_sid, sid = match.groupdict().get("call"), match["recording"]
        if sid == "Twilio.CURRENT" and call_sid:
            sid = next((one.sid for one in self.recordings_of(call_sid) if one.is_open), "")
        recording = self.recordings.get(sid)
        if recording is None or (call_sid and recording.call_sid != call_sid):
            raise AnswerError(20404)
        return recording

    def _fetch(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> Answer:
        return json_answer(200, self._recording(match).resource())

    def _update(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> Answer:
        recording, status = self._recording(match), fields.get("Status", ("",))[0]
        if status not in ("paused", "in-progress", "stopped"):
            raise AnswerError(20001, f"Status {status!r}")
        if not recording.is_open:
            raise AnswerError(21220)
        if status == "stopped":
            recording.finish(time.time(), absent=False)
            self._tell(recording)
        else:
            recording.status = status
        return json_answer(200, recording.resource())

    def _delete(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> Answer:
        del self.recordings[self._recording(match).sid]
        return Answer(204, b"")

    # -- calls ------------------------------------------------------------------------------------------------------

    def _call_fetch(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> Answer:
        return json_answer(200, call_resource(self._live_call(match["call"])))

    def _call_update(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> Answer:
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

    def _call_create(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> Answer:
        missing = [name for name in ("To", "From", "Url") if not fields.get(name, ("",))[0]]
        if missing or self.place is None:
            raise AnswerError(20001, f"missing: {missing}")
        return json_answer(201, call_resource(self.place({name: values[0] for name, values in fields.items()})))

    def _call_list(self, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> Answer:
        status = fields.get("Status", ("",))[0]
        chosen = [call_resource(call) for call in self._calls.values() if status in ("", call.status)]
        return json_answer(200, page("calls", chosen))

    _routes: Final[tuple[tuple[re.Pattern[str], dict[str, tuple[Operation, _Act]]], ...]] = (
        (re.compile(r"/Calls/(?P<call>CA\w+)/Recordings\.json"), {"POST": ("start", _record), "GET": ("list", _list)}),
        (
            re.compile(r"(?:/Calls/(?P<call>CA\w+))?/Recordings/(?P<recording>RE\w+|Twilio\.CURRENT)\.json"),
            {"GET": ("fetch", _fetch), "POST": ("update", _update), "DELETE": ("delete", _delete)},
        ),
        (re.compile(r"/Recordings\.json"), {"GET": ("list", _list)}),
        (
            re.compile(r"/Calls/(?P<call>CA\w+)\.json"),
            {"GET": ("call_fetch", _call_fetch), "POST": ("call_update", _call_update)},
        ),
        (re.compile(r"/Calls\.json"), {"GET": ("call_list", _call_list), "POST": ("call_create", _call_create)}),
    )


_Act = Callable[[TwilioRest, re.Match[str], Mapping[str, tuple[str, ...]]], Answer]
