"""Twilio's webhooks: the public HTTP side of a worker.

`/twilio/voice` reserves a slot and answers with TwiML that opens a stream with a one-time token. Without a free slot the caller
hears so, or is passed on, as configured. Every other webhook is sent to control as an event and answered. Nothing here waits for
a database or for REST. The signature is checked first, and a request without one is refused before its body is read; without
credentials only this machine is answered. A request through a balancer that can ask another machine is refused with 503 when no
slot is free; its body has the TwiML for the caller, for the balancer to use.

A webhook that comes again within REMEMBERED_S, at whichever worker, gets the same answer and causes no event. The answer is not
kept: its token is derived from the webhook, the time it came first and the stream's parameters. So every worker of the machine
makes the same, and each resume of a call has another. After a call's end its voice webhook opens no stream, for OVER_S.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from gw import bus
from gw.call.guard import HEARD, off_by
from gw.call.leave import caller_outcome, is_key, outcome_of
from gw.call.quality import Quality
from gw.call.resume import RESUMABLE, NextStep, Resumed, is_normal, next_step
from gw.call.state import Reason, result_of
from gw.call.variables import carried, with_given
from gw.config import Config, Overflow, Route
from gw.logs.limited import LimitedLog
from gw.media import talk
from gw.media.admission.shared_lock import SharedBusyError
from gw.media.admission.token_ledger import NONCE_BYTES, key_of
from gw.media.hub.clock import turn_loop
from gw.media.shared.context import MediaContext
from gw.media.shared.routing import NO_ROUTE, id_of
from gw.protocol import twiml
from gw.protocol.loopback import Foreign, foreign
from gw.protocol.signature import form_text, signature_of, webhook_valid
from gw.protocol.token import make
from gw.protocol.webhook_form import CALL_OVER, field_fault, parse_form
from metrics.declare import OVERFLOW, WEBHOOKS

log = logging.getLogger(__name__)

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Environ = dict[str, Any]

#: A repeated webhook has one effect. Twilio waits 15 s for an answer, and tries again at most five times.
REMEMBERED_S: Final = 60
#: No stream for a call that is over.
OVER_S: Final = 3600
#: Bound on questions to control about a call that left its stream, below Twilio's 15 s.
ASK_AGAIN_S: Final = 8.0
#: Time in which the callee of a transfer has to press the key, after the summary.
WHISPER_S: Final = 10
_ACCEPT_KEY: Final = "1"
_SID_CHARS: Final = 34
#: Longest display name or number in a <Parameter>.
MAX_VALUE_CHARS: Final = 200

#: Header of a balancer that sends a request to another machine after a 503 (deploy/haproxy). It grants nothing: a signed request
#: with it is refused with another status.
_ELSEWHERE: Final = "HTTP_X_SUBMILLI_ELSEWHERE"
_NO_SLOT: Final = "503 Service Unavailable"

_XML: Final = "text/xml; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"
_WEBHOOK_KINDS: Final = ("voice", "status", "recording", "stream", "action", "whisper", "amd")
_WEBHOOK_PATHS: Final = {f"/twilio/{kind}": kind for kind in _WEBHOOK_KINDS}

#: Webhooks whose answer is a call's next step. The others report something that has happened.
_STEPS: Final = frozenset({"voice", "action", "whisper"})

#: Path of a balancer's health check: some worker of the machine answers webhooks.
_HEALTH_PATH: Final = "/healthz"


_FOREIGN: Final = (
    "without Twilio credentials only http://127.0.0.1, http://[::1] and http://localhost are answered, and no web page; "
    "set twilio.account_sid, and TWILIO_AUTH_TOKEN in the environment"
)


#: The ending of a call that did not end in this worker: its caller is on the line, and may have heard no goodbye.
_UNKNOWN: Final = ("", "", True, "")


class _Moment(NamedTuple):
    """A webhook's key, and until when it is remembered, epoch seconds."""

    key: bytes
    until_s: int


class Choice(NamedTuple):
    """The route of one call. `id`: its name in the stream's parameters; `is_refused`: no agent answers, by route.on_failure."""

    route: Route
    id: str = ""
    greeting: str | None = None
    is_refused: bool = False


NO_CHOICE: Final = Choice(NO_ROUTE)


class Webhooks:
    """WSGI application of a worker."""

    def __init__(self, context: MediaContext) -> None:
        self._context = context
        config = context.config
        self._public = config.server.public_base.rstrip("/")
        self._signed = config.signed
        self._overflow = context.config.overflow
        self._overflow_cells = {reason: context.page.counter(OVERFLOW, reason=reason) for reason in OVERFLOW.labels["reason"]}
        self._lines = LimitedLog(log)
        self._talk = talk.TalkPage(config)
        back = config.server.way_back
        self._stream_url = "ws" + self._public.removeprefix("http") + "/media" + back
        self._action_url = f"{self._public}/twilio/action{back}"
        self._cells = {
            (kind, outcome): context.page.counter(WEBHOOKS, kind=kind, outcome=outcome)
            for kind in WEBHOOKS.labels["kind"]
            for outcome in WEBHOOKS.labels["outcome"]
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if foreigner := foreign_request(self._context.config, environ):
            return self._refuse(start_response, "403 Forbidden", foreigner, _FOREIGN)
        if environ["PATH_INFO"] == talk.PATH and self._talk.may_see(environ.get("QUERY_STRING", "")):
            return self._answer_talk(environ, start_response)
        kind = _WEBHOOK_PATHS.get(self._context.config.server.base_path(environ["PATH_INFO"]))
        if environ["PATH_INFO"] == _HEALTH_PATH:
            if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
                return _answer(start_response, "405 Method Not Allowed", _TEXT, "use GET\n", ("Allow", "GET, HEAD"))
            return _answer(start_response, "200 OK", _TEXT, "a worker answers\n")
        if kind is None:
            return _answer(start_response, "404 Not Found", _TEXT, "not found\n")
        if environ["REQUEST_METHOD"] != "POST":
            return _answer(start_response, "405 Method Not Allowed", _TEXT, "use POST\n", ("Allow", "POST"))
        signature = signature_of(environ)
        if self._signed and signature is None:
            return self._unsigned(kind, "no_signature", "the request has no X-Twilio-Signature", environ, start_response)
        try:
            form = parse_form(environ["wsgi.input"].read())
        except ValueError as error:
            return self._bad_request(kind, f"the form cannot be read: {error}"[:200], start_response)
        text, path, fields = form_text(form), signed_path(environ), dict(form)
        if self._signed:
            account_sid = fields["AccountSid"] = fields.get("AccountSid") or self._context.config.twilio.account_sid
            secrets = self._context.signing_secrets.get(account_sid)  # the signature covers this field
            if secrets is None:
                fault = f"the account {account_sid[:40]!r} is not configured; expected one of [twilio] and [twilio.accounts.NAME]"
                return self._unsigned(kind, "wrong_account", fault, environ, start_response)
            if not webhook_valid(secrets, signature, self._public, path, text):
                return self._unsigned(kind, "bad_signature", "the signature is not valid for this URL", environ, start_response)
            call_sid = fields.get("CallSid", "")
            if self._context.account_of(call_sid) not in ("", account_sid):
                self._cells[kind, "wrong_account"].add()
                fault = f"the call {call_sid!r} is not of the account {account_sid!r}, which signed"
                return self._refuse(start_response, "403 Forbidden", "wrong_account", fault)
        turn_loop()  # the signature was a third of the work
        if fault := field_fault(fields):
            if kind in _STEPS or fields.get("CallSid"):
                return self._bad_request(kind, fault, start_response)
            self._cells[kind, "bad_request"].add()  # a callback of no call changes nothing
            return _answer(start_response, "204 No Content", _TEXT, "")
        key = key_of(f"{kind}?{environ.get('QUERY_STRING', '')}", text)
        elsewhere = _ELSEWHERE in environ
        if kind == "voice":
            return self._voice(fields, key, environ, start_response, elsewhere=elsewhere)
        moment, is_new = self._remember(key)
        if kind == "whisper":
            self._cells[kind, "accepted" if is_new else "repeated"].add()
            return _answer(start_response, "200 OK", _XML, self._whisper(fields, _query(environ), is_new=is_new))
        if is_new:
            self._context.emit(bus.Webhook(kind, time.time(), _with_dial(kind, _without_keys(fields), environ)))
        self._cells[kind, "accepted" if is_new else "repeated"].add()
        if kind == "action":
            query = _query(environ)
            if is_key(left := query.get("left", "")):
                status, document = self._after_leave(fields, moment, _kept(query), left, elsewhere=elsewhere)
            else:
                status, document = self._after_stream(fields, moment, query, elsewhere=elsewhere)
            return _answer(start_response, status, _XML, document)
        if kind == "status" and fields.get("CallStatus") in CALL_OVER:
            self._on_over(self._name(fields))
        return _answer(start_response, "204 No Content", _TEXT, "")

    def _answer_talk(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _answer(start_response, "405 Method Not Allowed", _TEXT, "use GET\n", ("Allow", "GET, HEAD"))
        start_response("200 OK", self._talk.headers(environ.get("HTTP_HOST", "localhost")))
        return [self._talk.body]

    def _unsigned(self, kind: str, reason: str, text: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self._cells[kind, "bad_signature"].add()
        url = f"{self._public}{environ['PATH_INFO']}"  # shows a public_url that differs from the URL Twilio has
        return self._refuse(start_response, "403 Forbidden", reason, f"{text}: {url}")

    def _bad_request(self, kind: str, text: str, start_response: StartResponse) -> Iterable[bytes]:
        self._cells[kind, "bad_request"].add()
        return self._refuse(start_response, "400 Bad Request", "bad_form", text)

    def _refuse(self, start_response: StartResponse, status: str, reason: str, text: str) -> Iterable[bytes]:
        """Answer with a reason, count it, and log one line per reason and second."""
        self._context.cells.requests_refused[reason].add()
        self._lines.warning(reason, "webhook refused: %s", text)
        return _answer(start_response, status, _TEXT, f"{text}\n")

    def _remember(self, key: bytes, *, only_look: bool = False) -> tuple[_Moment, bool]:
        """Remember a webhook for REMEMBERED_S from its first time. Returns until when, and whether this is the first time."""
        now_s = int(time.time())
        until_s = now_s + REMEMBERED_S
        try:
            known_s = self._context.ledger.remember(key, 0 if only_look else until_s, now_s)
        except SharedBusyError:
            known_s = 0  # an event that comes twice does no harm; a lost one does
        return _Moment(key, known_s or until_s), not known_s

    def _account_sid(self, fields: dict[str, str]) -> str:
        """Return the account that signed; empty without credentials."""
        return fields["AccountSid"] if self._signed else ""

    def _name(self, fields: dict[str, str]) -> str:
        return self._context.name_of(fields["CallSid"], fields.get("AccountSid", ""))

    def _on_over(self, name: str, *, only_look: bool = False) -> bool:
        """Open no further stream for the call of this name. Returns whether it was over already."""
        now_s = int(time.time())
        try:
            until_s = 0 if only_look else now_s + OVER_S
            return self._context.ledger.remember(key_of("over", name), until_s, now_s, is_end=True) > 0
        except SharedBusyError:
            log.warning(
                "the end of a call could not be read or written: other workers hold the lock", extra={"call_sid": name[-34:]}
            )
            return False

    def _voice(
        self, fields: dict[str, str], key: bytes, environ: Environ, start_response: StartResponse, *, elsewhere: bool
    ) -> Iterable[bytes]:
        call_sid, query = fields["CallSid"], _query(environ)
        asked = query.get("agent", "")[:MAX_VALUE_CHARS]
        moment, is_new = self._remember(key, only_look=True)
        if is_new and (fields.get("CallStatus") in CALL_OVER or self._on_over(self._name(fields), only_look=True)):
            self._cells["voice", "repeated"].add()
            log.warning("a voice webhook of a call that is over", extra={"call_sid": call_sid})
            return _answer(start_response, "200 OK", _XML, twiml.hangup())
        chosen = NO_CHOICE if asked else self._choose(fields, float(moment.until_s - REMEMBERED_S))
        route = with_given(chosen.route, _kept(query))
        if chosen.is_refused:
            return _answer(start_response, "200 OK", _XML, self._refuse_route(key))
        if route.refuse or route.dial:
            return _answer(start_response, "200 OK", _XML, self._pass_on(fields, key, route))
        name = asked or route.agent or "default"
        if is_new:
            if (agent := self._context.config.agents.get(name)) is None:
                source = "the voice webhook's URL asks for" if asked else "the route endpoint names"
                return _answer(start_response, "200 OK", _XML, self._refuse_agent(fields, name, key, source))
            if refusal := self._context.refusal_of_cost(_caller(fields), agent):  # another machine would refuse it too
                return _answer(start_response, "200 OK", _XML, self._turn_away(call_sid, refusal))
            if refusal := self._context.reserve(call_sid):  # not remembered: a slot may be free a moment later
                return _answer(start_response, _NO_SLOT if elsewhere else "200 OK", _XML, self._turn_away(call_sid, refusal))
            moment, is_new = self._remember(key)
            at, facts = float(moment.until_s - REMEMBERED_S), {**_facts(fields), **_kept(query)}
            filled = self._context.routing.agent_of(name, agent, route, facts, at, chosen.greeting)
        else:
            filled = None
            self._context.slots.renew(call_sid)  # unless its stream has come
        self._cells["voice", "accepted" if is_new else "repeated"].add()
        turn_loop()  # the document is another third
        if is_new:
            self._context.warm.open(call_sid, filled)
        more = {"agent": name, **_kept(query), **({"route": chosen.id} if chosen.id else {})}
        return _answer(start_response, "200 OK", _XML, self._stream_for(fields, moment, more, route))

    def _choose(self, fields: dict[str, str], at: float) -> Choice:
        """Choose who answers: the first route that fits, else the user's endpoint. May wait for control, bounded."""
        route = self._context.routing.choose(fields.get("To", ""), at)
        if route is not None:
            return Choice(route, id_of(route))
        if not self._context.lookups.is_configured:
            return NO_CHOICE
        looked = self._context.lookups.ask(fields, self._account_sid(fields))
        if looked.failure:
            data: dict[str, str | int | float | bool | None] = {"why": looked.failure, "refused": looked.is_refused}
            self._context.emit(bus.CallEvent(fields["CallSid"], "route_failed", time.time(), data))
        return Choice(looked.route, looked.id, looked.greeting, looked.is_refused)

    def _refuse_route(self, key: bytes) -> str:
        """Refuse a call because no route is known. Returns the TwiML."""
        _, is_new = self._remember(key)
        self._cells["voice", "failed" if is_new else "repeated"].add()
        return self._refusal()

    def _refusal(self) -> str:
        """Return the TwiML for a caller whom no agent can answer: words, whatever the answer to an overflow is."""
        text = self._overflow.text
        return twiml.say_and_hang_up(text) if text else _overflow(self._overflow)

    def _pass_on(self, fields: dict[str, str], key: bytes, route: Route) -> str:
        """Refuse a call, or connect it elsewhere, as its route says. Returns the TwiML."""
        call_sid, act = fields["CallSid"], "refused" if route.refuse else "dialled"
        _, is_new = self._remember(key)
        self._cells["voice", "accepted" if is_new else "repeated"].add()
        if is_new:
            data: dict[str, str | int | float | bool | None] = {"called": fields.get("To", ""), "dial": route.dial}
            self._context.emit(bus.CallEvent(call_sid, f"route_{act}", time.time(), data))
            log.info("a call is %s by its route", act, extra={"call_sid": call_sid})
        if route.dial:
            return twiml.dial(route.dial)
        return twiml.reject_busy() if route.refuse == "busy" else twiml.say_and_hang_up(route.refuse)

    def _refuse_agent(self, fields: dict[str, str], name: str, key: bytes, source: str) -> str:
        """Refuse a call for an agent that is not configured: with words, an error line, and a row once. Returns the TwiML.

        `source`: the beginning of a sentence about the name.
        """
        call_sid, at, reason = fields["CallSid"], time.time(), Reason.UNKNOWN_AGENT
        known = ", ".join(sorted(self._context.config.agents))
        detail = f"{source} the agent {name[:40]!r}, which is not configured; use one of: {known}"[:500]
        self._cells["voice", "failed"].add()
        log.error("a call is refused: %s", detail, extra={"call_sid": call_sid, "reason": reason.value})
        _, is_new = self._remember(key_of("unknown agent", key.hex()))
        if is_new:
            self._report_unanswered(fields, name, at, reason, detail)
        return self._refusal()

    def _report_no_stream(self, fields: dict[str, str], query: dict[str, str]) -> None:
        """Report the start and the end of a call whose stream is over, but never began. May wait for control, for a moment."""
        call_sid = fields["CallSid"]
        extra = {"call_sid": call_sid, "reason": Reason.NO_STREAM.value}
        log.warning("no stream of a call began: Twilio could not open it, or it was refused", extra=extra)
        looked = self._context.route_of(_kept(query), call_sid, self._account_sid(fields), is_start=False)
        if variables := looked.route.variables:
            self._context.emit(bus.CallEvent(call_sid, "variables", time.time(), dict(variables)))
        self._report_unanswered(fields, query.get("agent", "default"), time.time(), Reason.NO_STREAM)

    def _report_unanswered(self, fields: dict[str, str], agent: str, at: float, reason: Reason, detail: str = "") -> None:
        """Report the start and the end of a call that has no stream."""
        call_sid = fields["CallSid"]
        start = (agent[:MAX_VALUE_CHARS], fields.get("Direction", "inbound"), fields.get("From", ""), fields.get("To", ""))
        self._context.cells.ended[reason].add()
        self._context.emit(bus.CallStarted(call_sid, "", fields.get("AccountSid", ""), *start, at, at))
        self._context.emit(bus.CallEnded(call_sid, at, reason, result_of(reason), detail, Quality()))

    def _turn_away(self, call_sid: str, refusal: str) -> str:
        """Count and log a call that is not admitted. Returns the TwiML for its caller."""
        self._cells["voice", "busy"].add()
        self._overflow_cells[refusal].add()
        log.warning("a call is refused: %s", refusal, extra={"call_sid": call_sid, "reason": "busy"})
        return _overflow(self._overflow)

    def _stream_for(
        self,
        fields: dict[str, str],
        moment: _Moment,
        more: dict[str, str],
        route: Route | None = None,
        *,
        is_recorded: bool = False,
    ) -> str:
        """Build TwiML that opens a stream for this call: the same for the same webhook.

        `route`: the call's; None: named by `more`. `is_recorded`: its recording was requested, so the caller has heard
        the notice. Twilio speaks a notice without a file.
        """
        notice, before = self._context.config.recording.notice, ""
        if notice.is_set and (is_recorded or self._records(fields, more, route)):
            if not is_recorded and not notice.file:
                before = notice.text
            more = {**more, **HEARD} if is_recorded or before else more
        key = self._context.token_key
        nonce = hmac.digest(key, b"nonce\0%b%d%b" % (*moment, repr(more).encode()), sha256)[:NONCE_BYTES]
        token = make(key, self._name(fields), moment.until_s - REMEMBERED_S, nonce, more)
        parameters = {"token": token, **_facts(fields), **more}
        kept = _kept(more)
        if more["agent"] != "default":
            kept["agent"] = more["agent"]  # for another stream, if this one never begins
        if more.get("after") == Reason.NO_STREAM:
            kept["again"] = "1"
        action_url = f"{self._action_url}?{urlencode(kept)}" if kept else self._action_url
        turn_loop()  # the library builds the document in as long as all before took
        return twiml.connect_stream(self._stream_url, action_url, f"{self._public}/twilio/stream", parameters, before=before)

    def _records(self, fields: dict[str, str], more: dict[str, str], route: Route | None) -> bool:
        """Return whether a call with these stream parameters is recorded. Without its route, may wait for control."""
        config = self._context.config
        if (agent := config.agents.get(more["agent"])) is None:
            return False
        if route is None:
            route = self._context.route_of(more, fields["CallSid"], self._account_sid(fields), is_start=False).route
        return not off_by(config, agent, route)

    def _after_stream(
        self, fields: dict[str, str], moment: _Moment, query: dict[str, str], *, elsewhere: bool
    ) -> tuple[str, str]:
        """Return the HTTP status and the TwiML for a call whose stream is over. `query`: that of the stream's TwiML.

        Asks control, bounded, about a call that may continue or did not end in this worker.
        """
        context, call_sid, name = self._context, fields["CallSid"], self._name(fields)
        if fields.get("CallStatus") in CALL_OVER:
            self._on_over(name)
            return "200 OK", twiml.hangup()
        if call_sid not in context.endings and context.is_owed_nothing(name):
            self._on_over(name)
            return "200 OK", twiml.hangup()
        reason, agent_name, speak, _ = context.endings.get(call_sid, _UNKNOWN)
        step = next_step(reason, resumes=0, on_lost="goodbye", speak=speak)
        resumed = None
        if not reason or reason in RESUMABLE or step is NextStep.TRANSFER:  # the transfer by REST may be done already
            answer = context.ask(call_sid, "next", self._account_sid(fields))
            if answer is not None and answer.reason == Reason.NO_STREAM and not (answer.agent or reason):  # not reported yet
                self._report_no_stream(fields, query)
                answer = context.ask(call_sid, "next", self._account_sid(fields))
            if answer is not None and answer.step:
                step, agent_name, reason = NextStep(answer.step), answer.agent or agent_name, answer.reason or reason
                resumed = Resumed(answer.resumes, answer.began_at, reason)
        agent = context.config.agents.get(agent_name) or context.config.agents["default"]
        if reason == Reason.NO_STREAM and query.get("again"):  # its caller has heard silence twice
            step = NextStep.GOODBYE
        status = "200 OK"
        if step is NextStep.RESUME and resumed is not None:
            if not context.reserve(call_sid):
                log.warning("a call resumes on another stream after %s", reason, extra={"call_sid": call_sid})
                more = {"agent": agent_name or "default", **resumed.parameters(), **_kept(query)}
                is_recorded = answer is not None and answer.is_recorded
                return status, self._stream_for(fields, moment, more, is_recorded=is_recorded)
            status = _NO_SLOT if elsewhere else status
        if status != _NO_SLOT:
            self._on_over(name)
        if step is NextStep.TRANSFER:
            return status, twiml.dial(agent.transfer_to)
        words = agent.closing if is_normal(reason) else agent.goodbye
        if step is not NextStep.HANG_UP and words:
            return status, twiml.say_and_hang_up(words)
        return status, twiml.hangup()

    def _after_leave(
        self, fields: dict[str, str], moment: _Moment, kept: dict[str, str], key: str, *, elsewhere: bool
    ) -> tuple[str, str]:
        """Return the HTTP status and the TwiML for a call that left its stream for a transfer, or for digits.

        Asks control, bounded, and again while control restarts: the caller waits. If the worker dies meanwhile, Twilio's
        repetition reports the transfer's end.
        """
        context, call_sid, name = self._context, fields["CallSid"], self._name(fields)
        more = {"key": key, "outcome": outcome_of(fields)}
        answer = context.ask_again(call_sid, "left", self._account_sid(fields), ASK_AGAIN_S, **more)
        is_over = fields.get("CallStatus") in CALL_OVER
        outcome = caller_outcome(answer.outcome if answer is not None else outcome_of(fields), is_over=is_over)
        if outcome in context.cells.transfers and self._remember(key_of("transfer ended", f"{name} {key}"))[1]:
            context.cells.transfers[outcome].add()
            target = answer.text if answer is not None else ""
            context.emit(bus.CallEvent(call_sid, "transfer_ended", time.time(), {"target": target, "status": outcome}))
            log.info("a transfer ended: %s", outcome, extra={"call_sid": call_sid})
        step = NextStep(answer.step) if answer is not None and answer.step else NextStep.GOODBYE
        if is_over or step is NextStep.HANG_UP:
            self._on_over(name)
            return "200 OK", twiml.hangup()
        agent_name = (answer.agent if answer is not None else "") or "default"
        if step is NextStep.RESUME and answer is not None:
            refusal = context.reserve(call_sid)
            if not refusal:
                resumed = Resumed(answer.resumes, answer.began_at, answer.reason, key, outcome)
                more = {"agent": agent_name, **resumed.parameters(), **kept}
                return "200 OK", self._stream_for(fields, moment, more, is_recorded=answer.is_recorded)
            if elsewhere:
                return _NO_SLOT, twiml.hangup()
            log.warning("a call cannot return to its agent: %s", refusal, extra={"call_sid": call_sid, "reason": "busy"})
        self._on_over(name)
        words = (context.config.agents.get(agent_name) or context.config.agents["default"]).goodbye
        return "200 OK", twiml.say_and_hang_up(words) if words else twiml.hangup()

    def _whisper(self, fields: dict[str, str], query: dict[str, str], *, is_new: bool) -> str:
        """Return the TwiML for the callee of a transfer: the summary, then the connection. It is declined without a key 1."""
        call_sid, key = query.get("call", "")[:_SID_CHARS], query.get("key", "")
        if not (is_key(key) and call_sid.isalnum()):
            return twiml.hangup()
        if query.get("accept"):
            if fields.get("Digits") != _ACCEPT_KEY:
                return twiml.hangup()
            if is_new:
                self._context.emit(bus.CallEvent(call_sid, "transfer_accepted", time.time(), {"key": key}))
            return twiml.connect_callee()
        answer = self._context.ask_again(call_sid, "whisper", self._account_sid(fields), ASK_AGAIN_S, key=key)
        if answer is None or not answer.text:
            log.warning("a callee hears no whisper: the transfer is not known", extra={"call_sid": call_sid})
            return twiml.hangup()
        back = self._context.config.server.way_back
        accept_url = f"{self._public}/twilio/whisper{back}?call={call_sid}&key={key}&accept=1"
        return twiml.whisper(answer.text, accept_url, timeout_s=WHISPER_S)


def foreign_request(config: Config, environ: Environ) -> Foreign:
    """Return why a gateway without credentials refuses a request, or ""."""
    return "" if config.signed else foreign(environ.get("HTTP_HOST"), environ.get("HTTP_ORIGIN"))


def signed_path(environ: Environ) -> str:
    """Return the path and query that Twilio's signature covers."""
    query = environ.get("QUERY_STRING", "")
    return f"{environ['PATH_INFO']}?{query}" if query else str(environ["PATH_INFO"])


def _query(environ: Environ) -> dict[str, str]:
    """Parse the query; empty if it cannot be read."""
    try:
        return dict(parse_form(environ.get("QUERY_STRING", "").encode("latin-1")))
    except ValueError:
        return {}


def _kept(query: Mapping[str, str]) -> dict[str, str]:
    """Return what a call's streams have from its first URL on: the digest of its route; its dial and variables."""
    route = {"route": query["route"][:MAX_VALUE_CHARS]} if query.get("route") else {}
    return {**route, **carried(query)}


def _with_dial(kind: str, fields: dict[str, str], environ: Environ) -> dict[str, str]:
    """Add the name of the dial that a report in its URL is about."""
    dial = _query(environ).get("dial", "")[:MAX_VALUE_CHARS] if kind in ("status", "amd") else ""
    return {**fields, "dial": dial} if dial else fields


def _facts(fields: dict[str, str]) -> dict[str, str]:
    """Return the stream parameters with a call's direction and numbers."""
    return {
        "direction": fields.get("Direction", "inbound")[:MAX_VALUE_CHARS],
        "caller": fields.get("From", "")[:MAX_VALUE_CHARS],
        "called": fields.get("To", "")[:MAX_VALUE_CHARS],
    }


def _caller(fields: dict[str, str]) -> str:
    """Return the number of an inbound call's caller; empty for an outbound call."""
    return fields.get("From", "")[:MAX_VALUE_CHARS] if fields.get("Direction", "inbound") == "inbound" else ""


def _overflow(overflow: Overflow) -> str:
    """Build the TwiML for a caller whose call is not admitted."""
    if overflow.answer == "queue":
        return twiml.enqueue(overflow.text, overflow.queue)
    if overflow.answer == "dial":
        return twiml.dial(overflow.dial)
    return twiml.say_and_hang_up(overflow.text)


def _without_keys(fields: dict[str, str]) -> dict[str, str]:
    """Replace the keys a caller pressed by their number: they may be secret, and are never stored."""
    keys = fields.get("Digits")
    return {**fields, "Digits": f"[{len(keys)} keys]"} if keys else fields


def _answer(
    start_response: StartResponse, status: str, content_type: str, text: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    body = text.encode("utf-8")
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers])
    return [body] if body else []
