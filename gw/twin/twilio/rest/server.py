"""HTTP server of the Twilio twin's REST API: Basic auth, routing, faults on request.

Covers calls and their recordings. Acts of the client that Twilio would silently ignore are recorded in `complaints`.

Source: Twilio API 2010-04-01, requests and authentication; error codes 20003, 20404, 20429, 21220.
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
from typing import Any, Final, Literal

from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from gw.twin.polling import wait_until
from gw.twin.twilio.rest.resources import (
    ACCOUNTS,
    AUDIO_TYPE,
    Act,
    AnswerError,
    Operation,
    Resources,
    RestAnswer,
    RestCall,
    error_answer,
    form,
)
from gw.twin.twilio.webhooks import WebhookSender

RestFault = Literal[
    "21220",  # not eligible yet
    "20404",
    "20429",
    "503",  # with a body of HTML
    "503_with_effect",  # the same, but done
    "html_200",  # a success status without a result
    "not_json",  # 201 with half a body
    "timeout_with_effect",  # done, but not answered
    "timeout_without_effect",
    "cut",  # the connection ends after half of the body
]

MAX_BODY_BYTES: Final = 64 << 10
_HELD_S: Final = 60.0  # longest hold of a connection without an answer


@dataclass(slots=True)
class _Fault:
    kind: RestFault
    operation: Operation
    call_sid: str  # empty: any call
    left: int


class RestTwin(Resources):
    """REST API server. Call `start` and `stop`."""

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        calls: Mapping[str, RestCall],
        webhooks: WebhookSender,
        host: str = "127.0.0.1",
        port: int = 0,
        beside: RestTwin | None = None,
    ) -> None:
        """`beside`: another account's API, whose server answers for this account too. It refuses the other's credentials."""
        super().__init__(account_sid, calls, webhooks)
        self.auth_tokens = [auth_token]  # the primary one, and during a rotation a secondary one
        self._faults: list[_Fault] = []
        self._stopping = Event()
        self._accounts: dict[str, RestTwin] = beside._accounts if beside else {}  # on this server, by SID
        self._accounts[account_sid] = self
        self._is_beside = beside is not None
        self._server: WSGIServer = beside._server if beside else self._own_server(host, port)
        self.requests: deque[tuple[float, str, str, int]] = deque(maxlen=10_000)  # at, method, path, status
        self.complaints: list[str] = []  # acts that Twilio would ignore, but a careful client avoids
        self.delay_s = 0.0  # added to every answer, after the operation

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self) -> RestTwin:
        """Listen. Raises OSError if the address is taken."""
        if not self._is_beside:
            self._server.start()
        return self

    def stop(self) -> None:
        """Close the listener and release held connections. Idempotent."""
        self._stopping.set()
        if not self._is_beside:
            self._server.stop(timeout=0.1)  # does not wait for connections kept alive
        self._callbacks.kill(timeout=1)

    @property
    def url(self) -> str:
        """Base URL, for `twilio.api_base`."""
        return f"http://{self._server.server_host}:{self._server.server_port}"

    def fail(self, kind: RestFault, times: int = 1, call_sid: str = "", operation: Operation = "start") -> None:
        """Make the next `times` requests of an operation fail, for one call or for any."""
        self._faults.append(_Fault(kind, operation, call_sid, times))

    def heal(self) -> None:
        """Cancel all faults; held connections stay held."""
        self._faults.clear()

    def wait_for(self, condition: Callable[[RestTwin], bool], timeout_s: float = 5.0) -> bool:
        """Wait until `condition` holds. Returns whether it held."""
        return wait_until(lambda: condition(self), timeout_s)

    def _own_server(self, host: str, port: int) -> WSGIServer:
        return WSGIServer((host, port), self._application, log=None, error_log=None, spawn=Pool(1000))

    # -- one request ------------------------------------------------------------------------------------------------

    def _application(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        """Answer as the account in the path; any other request as the server's own account."""
        path = str(environ["PATH_INFO"])
        account_sid = path.removeprefix(ACCOUNTS).partition("/")[0]
        return self._accounts.get(account_sid, self)._respond(environ, start_response, path)

    def _respond(self, environ: dict[str, Any], start_response: Callable[..., object], path: str) -> Iterable[bytes]:
        method = str(environ["REQUEST_METHOD"])
        try:
            answer = self._answer(environ, method, path)
        except AnswerError as error:
            answer = error_answer(error.code, error.detail)
        if answer.content_type == AUDIO_TYPE:
            answer = _part(answer, str(environ.get("HTTP_RANGE", "")))
        self.requests.append((time.time(), method, path, answer.status))
        if answer.status == 0:
            self._stopping.wait(_HELD_S)
            answer = RestAnswer(504, b"")
        elif self.delay_s:
            self._stopping.wait(self.delay_s)
        headers = [
            *answer.headers,
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Twilio-Concurrent-Requests", "1"),
            ("Twilio-Request-Id", f"RQ{uuid.uuid4().hex}"),
        ]
        if answer.status == 401:
            headers.append(("WWW-Authenticate", 'Basic realm="Twilio API"'))
        start_response(f"{answer.status} Twin", headers)
        return [answer.body[: len(answer.body) // 2] if ("Connection", "close") in answer.headers else answer.body]

    def _answer(self, environ: dict[str, Any], method: str, path: str) -> RestAnswer:
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
        logins = (base64.b64encode(f"{self._account_sid}:{token}".encode()).decode() for token in self.auth_tokens)
        if not any(hmac.compare_digest(header, f"Basic {login}") for login in logins):
            raise AnswerError(20003)

    def _route(self, method: str, path: str, fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        for pattern, methods in self.routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if method not in methods:
                raise AnswerError(20004)
            operation, act = methods[method]
            call_sid = match.groupdict().get("call", "") or self.call_of(match.groupdict().get("recording", ""))
            fault = self._take_fault(operation, call_sid)
            return self._fail(fault, act, match, fields) if fault else act(self, match, fields)
        raise AnswerError(20404)

    def _take_fault(self, operation: Operation, call_sid: str) -> RestFault | None:
        for fault in self._faults:
            if fault.left > 0 and fault.operation == operation and fault.call_sid in ("", call_sid):
                fault.left -= 1
                return fault.kind
        return None

    def _fail(self, fault: RestFault, act: Act, match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> RestAnswer:
        html = b"<!doctype html><html><body><h1>503 Service Unavailable</h1></body></html>"
        if fault == "timeout_with_effect":
            act(self, match, fields)
            return RestAnswer(0, b"")
        if fault == "503_with_effect":
            act(self, match, fields)
            return RestAnswer(503, html, "text/html")
        if fault == "cut":
            return act(self, match, fields)._replace(headers=(("Connection", "close"),))
        answer = {
            "timeout_without_effect": RestAnswer(0, b""),
            "503": RestAnswer(503, html, "text/html"),
            "html_200": RestAnswer(200, html, "text/html"),
            "not_json": RestAnswer(201, b'{"sid": "RE'),
        }.get(fault)
        code = 0 if answer else int(fault)
        answer = answer or error_answer(code)
        if act is Resources.record:
            self.record_start(match["call"], fields, answer.status, code, "", False)
        return answer


def _part(answer: RestAnswer, span: str) -> RestAnswer:
    """Return the part of a body that a request asks for: `bytes=N-`, RFC 9110 14.2."""
    match = re.fullmatch(r"bytes=(\d+)-", span)
    if match is None:
        return answer
    start, size = int(match[1]), len(answer.body)
    if start >= size:
        return answer._replace(status=416, body=b"", headers=(*answer.headers, ("Content-Range", f"bytes */{size}")))
    content_range = ("Content-Range", f"bytes {start}-{size - 1}/{size}")
    return answer._replace(status=206, body=answer.body[start:], headers=(*answer.headers, content_range))
