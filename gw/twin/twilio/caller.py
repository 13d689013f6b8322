"""One phone call of the Twilio twin: voice webhook, TwiML, callbacks.

Follows Twilio's documentation from the voice webhook to the last callback, in one greenlet. Sees of the gateway only its
answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import gevent
from gevent.pool import Group

from gw.twin.sound import PTIME_S
from gw.twin.twilio import fields as twilio_fields
from gw.twin.twilio import twiml
from gw.twin.twilio.dial import Callee, Dialled, Dialler
from gw.twin.twilio.stream import CallPlan, StreamedCall
from gw.twin.twilio.webhooks import WebhookSender

_CALLBACKS_S: Final = 5.0  # for a stream's callbacks, before the call's own
#: Lengths of a pause and of a key in `<Play digits>`.
_PAUSE_S: Final = 0.5
_KEY_S: Final = 0.2
_NO_CALLEES: Final[Mapping[str, Callee]] = MappingProxyType({})


class _Next(NamedTuple):
    """The next document's URL, and further fields of its request."""

    url: str
    fields: Mapping[str, str] = MappingProxyType({})


class TwinCall(StreamedCall):
    """A call as seen by Twilio and by the caller."""

    def __init__(
        self,
        number: int,
        account_sid: str,
        plan: CallPlan,
        webhooks: WebhookSender,
        voice_url: str,
        status_url: str | None,
        on_end: Callable[[TwinCall], None] | None = None,
        callees: Mapping[str, Callee] = _NO_CALLEES,
        dials: list[Dialled] | None = None,
        amd_url: str = "",
    ) -> None:
        """`callees`: dialled parties by number; any other answers, and hangs up. `dials`: receives each dial. `amd_url` receives
        the verdicts of the plan, also after the call's end."""
        super().__init__(number, account_sid, plan, webhooks)
        self._amd_url = amd_url
        self._verdicts = Group()
        self.answered_by: str | None = None  # the first verdict
        self.created_at = time.time()
        self._voice_url = voice_url
        self._status_url = status_url
        self._on_end_of_call = on_end
        self._following = ""  # TwiML from REST that replaces the present one
        self._callees = callees
        self._dials: list[Dialled] = [] if dials is None else dials

    def redirect(self, document: str) -> None:
        """End the present document and follow another, from REST."""
        self._following = document
        self.hang_up("rest")

    def run(self) -> None:
        """Serve the call from the voice webhook to the last callback."""
        try:
            self._live()
        except Exception as error:  # noqa: BLE001 - a greenlet's top: the failure is the call's outcome, recorded in `error`
            self.error = f"{type(error).__name__}: {error}"
            self.status = "failed"
        finally:
            self._greenlets.kill(timeout=1)
            for websocket in self._abandoned:
                websocket.abort()
            self.ended_at = time.time()
            self.ended_s = self.ended_s if self.ended_s is not None else time.monotonic()
            try:
                if self._on_end_of_call is not None:
                    self._on_end_of_call(self)
                self._callbacks.join(timeout=_CALLBACKS_S)
                self._post_call_status()
            finally:
                self._callbacks.kill(timeout=1)
                self._done.set()

    def _live(self) -> None:
        self.status = "ringing"
        if self.plan.ring_s:
            gevent.sleep(self.plan.ring_s)
        if self.plan.answer != "answered" or self._leaving:
            self.status = "canceled" if self._leaving else self.plan.answer
            return
        self._detect()
        following: _Next | None = _Next(self._voice_url)
        for _ in range(self.plan.max_documents):
            assert following is not None
            url = following.url
            answer = self._webhooks.post(url, {**self.fields(), **following.fields})
            self.voice = self.voice or answer
            if not answer.is_good:
                self._log_problem(11200, f"{answer.url} answered {answer.status}: {answer.body[:200]}")
                self.status = "failed"
                return
            following = self._perform(twiml.parse(answer.body, answer.content_type), url)
            if following is None:
                break
        if self.status in ("ringing", "in-progress"):
            self.status = "completed"

    def _detect(self) -> None:
        """Report the verdicts on the party that answered, each after its time."""
        for after_s, verdict in self.plan.verdicts if self._amd_url else ():
            self._verdicts.add(gevent.spawn_later(after_s, self._report, verdict))

    def _report(self, verdict: str) -> None:
        self.answered_by = self.answered_by or verdict
        fields = {"AccountSid": self.account_sid, "CallSid": self.call_sid, "AnsweredBy": verdict}
        self._webhooks.post(self._amd_url, {**fields, "MachineDetectionDuration": "3000"})

    def _perform(self, document: twiml.Document, base: str) -> _Next | None:
        """Run a document. Returns the next one, None at the call's end."""
        for code, detail in document.problems:
            self._receiver.warn(code, detail)
        for verb in document.verbs:
            if isinstance(verb, twiml.Stream):
                self._answer()
                self._stream(verb, base)
                if self._following:
                    return self._redirected(base)
                goes_on = self.closed_by == "gateway" or self._stays_after_loss()
                if verb.action:
                    action = self._webhooks.absolute(verb.action, base)
                    if goes_on:
                        return _Next(action)
                    self.status = "completed"
                    self._webhooks.post(action, self.fields())
                if not goes_on:
                    return None
            elif verb.name == "Reject":
                self.spoken.append(verb.attributes.get("reason", "rejected"))
                self.status = "busy" if verb.attributes.get("reason") == "busy" else "no-answer"
                return None
            elif verb.name == "Hangup":
                return None
            elif verb.name == "Dial":
                self._answer()
                dialled = self._dial(verb, base)
                if self._following:
                    return self._redirected(base)
                if action := verb.attributes.get("action", ""):
                    following = _Next(self._webhooks.absolute(action, base), dialled.fields())
                    if not self._leaving:
                        return following
                    self.status = "completed"
                    self._webhooks.post(following.url, {**self.fields(), **following.fields})
                if self._leaving:
                    self.closed_by = self._leaving
                    return None
            elif verb.name == "Play" and (digits := verb.attributes.get("digits", "")):
                self._answer()
                self._play_digits(digits)
                if self._following:
                    return self._redirected(base)
                if self._leaving:
                    return None
            elif verb.name == "Redirect":
                return _Next(self._webhooks.absolute(verb.text, base))
            else:
                self._answer()
                self.spoken.append(verb.text)
        return None

    def _redirected(self, base: str) -> _Next | None:
        """Run the TwiML from REST."""
        document, self._following, self._leaving = self._following, "", ""
        return self._perform(twiml.parse(document), base)

    def _dial(self, verb: twiml.Verb, base: str) -> Dialled:
        """Dial the number of a `<Dial>`, and wait for the end."""
        self.dialled.append(verb.text)
        dialled = Dialled(verb.text, self.call_sid, time.monotonic())
        self._dials.append(dialled)
        dialler = Dialler(self.account_sid, self.plan.from_number, self._webhooks, base, self._has_left)
        dialler.run(verb, self._callees.get(verb.text, Callee()), dialled)
        return dialled

    def _has_left(self) -> bool:
        """Let the caller do the next step of the plan. Returns whether the call was hung up or redirected."""
        self._step()
        return bool(self._leaving)

    def _play_digits(self, digits: str) -> None:
        """Send tones to the other end, unless the caller leaves."""
        for key in digits:
            if self._leaving:
                return
            gevent.sleep(_PAUSE_S if key in "wW" else _KEY_S)
            self.tones += key
            self.tones_s.append(time.monotonic())

    def _stays_after_loss(self) -> bool:
        """Wait until Twilio notices the lost stream. Returns whether the caller stays on the line."""
        if self.closed_by != "network":
            return False
        self._leaving = ""
        deadline_s = time.monotonic() + self._ask_after_s
        while (left_s := deadline_s - time.monotonic()) > 0 and not self._leaving:
            gevent.sleep(min(left_s, PTIME_S))
        self.closed_by = self._leaving or "network"
        return not self._leaving

    def _answer(self) -> None:
        self.status = "in-progress"
        self.answered_at = self.answered_at or time.time()

    def _post_call_status(self) -> None:
        """The call's status callback."""
        if self._status_url is None:
            return
        seconds = round((self.ended_at or 0.0) - self.answered_at) if self.answered_at else 0
        extra = twilio_fields.status_fields(self.status, seconds, time.time())
        self._webhooks.post(self._status_url, {**self.fields(), **extra})

    @property
    def to_number(self) -> str:
        return self.plan.to_number

    @property
    def from_number(self) -> str:
        return self.plan.from_number

    @property
    def direction(self) -> str:
        return self.plan.direction

    def fields(self) -> dict[str, str]:
        """Return the fields of a webhook about this call in its present state. Twilio documents no field of its stream."""
        plan = self.plan
        fields = twilio_fields.call_fields(self.account_sid, self.call_sid, plan.from_number, plan.to_number, self.status)
        fields["Direction"] = plan.direction
        return fields
