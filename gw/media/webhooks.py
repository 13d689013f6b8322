"""Twilio's webhooks: the public HTTP side of a worker.

`/twilio/voice` reserves a slot and answers with TwiML that opens a stream with a one-time token. Without a free slot the caller
hears so, or is passed on, as configured. Every other webhook is sent to control as an event and answered. Nothing here waits for
a database or for REST. The signature is checked first. A request through a balancer that can ask another machine is refused with
503 when no slot is free; its body has the TwiML for the caller, for the balancer to use.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import parse_qsl

from gw import bus
from gw.call.resume import NextStep, Resumed, next_step
from gw.config import Overflow
from gw.media.admission.token_ledger import NONCE_BYTES
from gw.media.context import MediaContext
from gw.protocol import twiml
from gw.protocol.signature import webhook_valid
from gw.protocol.token import make
from metrics.declare import OVERFLOW, WEBHOOKS

log = logging.getLogger(__name__)

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Environ = dict[str, Any]

MAX_FIELDS: Final = 200
#: Longest display name or number in a <Parameter>.
MAX_VALUE_CHARS: Final = 200

#: CallStatus values of a call that is over. Source: Twilio, Voice status callbacks.
CALL_OVER: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})

#: Header of a balancer that sends a request to another machine after a 503 (deploy/haproxy). It grants nothing: a signed request
#: with it is refused with another status.
_ELSEWHERE: Final = "HTTP_X_SUBMILLI_ELSEWHERE"
_NO_SLOT: Final = "503 Service Unavailable"

_XML: Final = "text/xml; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"
_WEBHOOK_PATHS: Final = {f"/twilio/{kind}": kind for kind in ("voice", "status", "recording", "stream", "action")}

#: Path of a balancer's health check: some worker of the machine answers webhooks.
_HEALTH_PATH: Final = "/healthz"


class _BadRequestError(Exception):
    """The request is not a valid webhook; the text is the reason."""


class Webhooks:
    """WSGI application of a worker."""

    def __init__(self, context: MediaContext) -> None:
        self._context = context
        config = context.config
        self._public = config.server.public_base.rstrip("/")
        self._signed = config.signed
        self._overflow = context.config.overflow
        self._overflow_cells = {reason: context.page.counter(OVERFLOW, reason=reason) for reason in OVERFLOW.labels["reason"]}
        back = config.server.way_back
        self._stream_url = "ws" + self._public.removeprefix("http") + "/media" + back
        self._action_url = f"{self._public}/twilio/action{back}"
        self._cells = {
            (kind, outcome): context.page.counter(WEBHOOKS, kind=kind, outcome=outcome)
            for kind in WEBHOOKS.labels["kind"]
            for outcome in WEBHOOKS.labels["outcome"]
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        kind = _WEBHOOK_PATHS.get(self._context.config.server.base_path(environ["PATH_INFO"]))
        if environ["PATH_INFO"] == _HEALTH_PATH:
            if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
                return _answer(start_response, "405 Method Not Allowed", _TEXT, "use GET\n", ("Allow", "GET, HEAD"))
            return _answer(start_response, "200 OK", _TEXT, "a worker answers\n")
        if kind is None:
            return _answer(start_response, "404 Not Found", _TEXT, "not found\n")
        if environ["REQUEST_METHOD"] != "POST":
            return _answer(start_response, "405 Method Not Allowed", _TEXT, "use POST\n", ("Allow", "POST"))
        try:
            form = _form(environ)
        except _BadRequestError as error:
            self._cells[kind, "bad_request"].add()
            return _answer(start_response, "400 Bad Request", _TEXT, f"{error}\n")
        if self._signed and not self._is_twilios(environ, form):
            self._cells[kind, "bad_signature"].add()
            url = f"{self._public}{environ['PATH_INFO']}"  # shows a public_url that differs from the URL Twilio has
            log.warning("webhook refused: the signature is not valid for %s", url, extra={"reason": "bad_signature"})
            return _answer(start_response, "403 Forbidden", _TEXT, "the signature is not valid for this URL\n")
        fields = dict(form)
        elsewhere = _ELSEWHERE in environ
        if kind == "voice":
            return self._voice(fields, environ, start_response, elsewhere=elsewhere)
        self._context.emit(bus.Webhook(kind, time.time(), fields))
        self._cells[kind, "accepted"].add()
        if kind == "action":
            status, document = self._after_stream(fields, elsewhere=elsewhere)
            return _answer(start_response, status, _XML, document)
        return _answer(start_response, "204 No Content", _TEXT, "")

    def _is_twilios(self, environ: Environ, form: list[tuple[str, str]]) -> bool:
        signature = environ.get("HTTP_X_TWILIO_SIGNATURE")
        return webhook_valid(self._context.config.secrets.twilio_auth_token, signature, self._public, signed_path(environ), form)

    def _voice(
        self, fields: dict[str, str], environ: Environ, start_response: StartResponse, *, elsewhere: bool
    ) -> Iterable[bytes]:
        call_sid = fields.get("CallSid", "")
        if not call_sid:
            self._cells["voice", "bad_request"].add()
            return _answer(start_response, "400 Bad Request", _TEXT, "CallSid is missing\n")
        if refusal := self._context.reserve(call_sid):
            self._cells["voice", "busy"].add()
            self._overflow_cells[refusal].add()
            log.warning("a call is refused: %s", refusal, extra={"call_sid": call_sid, "reason": "busy"})
            return _answer(start_response, _NO_SLOT if elsewhere else "200 OK", _XML, _overflow(self._overflow))
        self._cells["voice", "accepted"].add()
        return _answer(start_response, "200 OK", _XML, self._stream_for(fields, {"agent": _requested_agent(environ)}))

    def _stream_for(self, fields: dict[str, str], more: dict[str, str]) -> str:
        """Build TwiML that opens a stream for this call."""
        token = make(self._context.token_key, fields["CallSid"], int(time.time()), os.urandom(NONCE_BYTES))
        parameters = {
            "agent": "default",
            "token": token,
            "direction": fields.get("Direction", "inbound")[:MAX_VALUE_CHARS],
            "caller": fields.get("From", "")[:MAX_VALUE_CHARS],
            "called": fields.get("To", "")[:MAX_VALUE_CHARS],
            **more,
        }
        return twiml.connect_stream(self._stream_url, self._action_url, f"{self._public}/twilio/stream", parameters)

    def _after_stream(self, fields: dict[str, str], *, elsewhere: bool) -> tuple[str, str]:
        """Return the HTTP status and the TwiML for a call whose stream is over.

        Asks control, bounded, about a call that did not end in this worker. An unknown call is hung up.
        """
        context, call_sid = self._context, fields.get("CallSid", "")
        if not call_sid or fields.get("CallStatus") in CALL_OVER:
            return "200 OK", twiml.hangup()
        ending = context.endings.get(call_sid)
        step, agent_name, resumed = NextStep.HANG_UP, "", None
        if ending is not None:
            reason, agent_name = ending
            step = next_step(reason.value, resumes=0, on_lost="goodbye")
        if ending is None or step is NextStep.TRANSFER:  # the transfer by REST may be done already
            answer = context.ask(call_sid, "next")
            if answer is not None and answer.step:
                step, agent_name = NextStep(answer.step), answer.agent or agent_name
                resumed = Resumed(answer.resumes, answer.began_at)
        agent = context.config.agents.get(agent_name) or context.config.agents["default"]
        status = "200 OK"
        if step is NextStep.RESUME and resumed is not None:
            if not context.reserve(call_sid):
                log.warning("a call resumes after its worker died", extra={"call_sid": call_sid})
                return status, self._stream_for(fields, {"agent": agent_name or "default", **resumed.parameters()})
            status = _NO_SLOT if elsewhere else status
        if step is NextStep.TRANSFER:
            return status, twiml.dial(agent.transfer_to)
        if step is not NextStep.HANG_UP and agent.goodbye:
            return status, twiml.say_and_hang_up(agent.goodbye)
        return status, twiml.hangup()


def signed_path(environ: Environ) -> str:
    """Return the path and query that Twilio's signature covers."""
    query = environ.get("QUERY_STRING", "")
    return f"{environ['PATH_INFO']}?{query}" if query else str(environ["PATH_INFO"])


def _requested_agent(environ: Environ) -> str:
    """Read the agent from `/twilio/voice?agent=name`. The stream's start refuses an unknown one."""
    try:
        asked = dict(parse_qsl(environ.get("QUERY_STRING", ""), max_num_fields=MAX_FIELDS))
    except ValueError:
        return "default"  # hundreds of fields
    return asked.get("agent", "")[:MAX_VALUE_CHARS] or "default"


def _overflow(overflow: Overflow) -> str:
    """Build the TwiML for a caller for whom no slot is free."""
    if overflow.answer == "queue":
        return twiml.enqueue(overflow.text, overflow.queue)
    if overflow.answer == "dial":
        return twiml.dial(overflow.dial)
    return twiml.say_and_hang_up(overflow.text)


def _form(environ: Environ) -> list[tuple[str, str]]:
    """Parse the request's form fields, in sequence, blank ones kept. Raises _BadRequestError."""
    body: bytes = environ["wsgi.input"].read()
    try:
        return parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, strict_parsing=False, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise _BadRequestError(f"the form cannot be read: {error}"[:200]) from None


def _answer(
    start_response: StartResponse, status: str, content_type: str, text: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    body = text.encode("utf-8")
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers])
    return [body] if body else []
