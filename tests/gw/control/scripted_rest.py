"""A real HTTP server with scripted answers in place of Twilio's REST API."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import gevent
import gevent.pywsgi

from gw.config import AccountSecrets, Config, Recording, Secrets, Server, Subaccount, Twilio
from gw.control.twilio_api.rest import TwilioRest

ACCOUNT = "AC" + "0" * 32
OTHER_ACCOUNT = "AC" + "2" * 32
CALL = "CA" + "1" * 32
RECORDING = "RE" + "2" * 32
HTML = b"<html><body><h1>503 Service Unavailable</h1></body></html>"


@dataclass(frozen=True)
class Answer:
    """One answer: a status, a body (JSON unless bytes), how long the server sits on it before answering, and Retry-After."""

    status: int
    body: Any
    hold_s: float = 0.0
    retry_after: str = ""


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    form: dict[str, list[str]]
    authorization: str


def recording(sid: str = RECORDING, status: str = "in-progress", **fields: Any) -> dict[str, Any]:
    return {
        "account_sid": ACCOUNT,
        "api_version": "2010-04-01",
        "call_sid": CALL,
        "channels": 2,
        "duration": None,
        "sid": sid,
        "source": "StartCallRecordingAPI",
        "status": status,
        "error_code": None,
        "track": "both",
        "uri": f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}/Recordings/{sid}.json",
        **fields,
    }


def created(**fields: Any) -> Answer:
    return Answer(201, recording(**fields))


def listing(*recordings: dict[str, Any]) -> Answer:
    return Answer(200, {"recordings": list(recordings), "next_page_uri": None, "page": 0, "page_size": 50})


def refusal(status: int, code: int, message: str = "no") -> Answer:
    return Answer(status, {"code": code, "message": message, "more_info": "", "status": status})


def rest_of(config: Config) -> TwilioRest:
    """The requests of the main account."""
    return TwilioRest(config, config.accounts[0])


@dataclass
class ScriptedRest:
    """Answers POST and GET from two scripts. An exhausted script answers 500, which fails the test."""

    posts: deque[Answer] = field(default_factory=deque)
    gets: deque[Answer] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    on_request: Callable[[Seen], None] | None = None

    def __post_init__(self) -> None:
        self._server = gevent.pywsgi.WSGIServer(("127.0.0.1", 0), self._answer, log=None, error_log=None)
        self._server.start()
        self.base = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.stop(timeout=0)

    def count(self, method: str) -> int:
        return sum(1 for request in self.seen if request.method == method)

    def config(
        self, *, timeout_s: float = 2.0, retry_s: float = 2.0, signed: bool = True, base: str = "", other: bool = False
    ) -> Config:
        """`other`: with a second account, named so."""
        return Config(
            server=Server(public_url="https://voice.example.com"),
            twilio=Twilio(
                account_sid=ACCOUNT,
                api_base=base or self.base,
                timeout_s=timeout_s,
                accounts={"other": Subaccount(account_sid=OTHER_ACCOUNT)} if other else {},
            ),
            recording=Recording(retry_s=retry_s),
            secrets=Secrets(
                twilio_auth_token="secret" if signed else "",
                accounts={"other": AccountSecrets(twilio_auth_token="another secret")},
            ),
        )

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        form = parse_qs(environ["wsgi.input"].read().decode(), keep_blank_values=True)
        method = environ["REQUEST_METHOD"]
        request = Seen(method, environ["PATH_INFO"], form, environ.get("HTTP_AUTHORIZATION", ""))
        self.seen.append(request)
        if self.on_request is not None:
            self.on_request(request)
        script = self.posts if method == "POST" else self.gets
        answer = script.popleft() if script else Answer(500, b"the script ran out")
        if answer.hold_s:
            gevent.sleep(answer.hold_s)
        raw = isinstance(answer.body, bytes)
        body = answer.body if raw else json.dumps(answer.body).encode()
        fields = [("Content-Type", "text/html" if raw else "application/json")]
        if answer.retry_after:
            fields.append(("Retry-After", answer.retry_after))
        start_response(f"{answer.status} x", fields)
        return [body]
