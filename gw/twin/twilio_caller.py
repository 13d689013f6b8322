"""One phone call of the Twilio twin: the webhook, the stream, the caller's mouth and ear, the end.

Decides what Twilio and the person at the phone would do next. The caller's audio leaves on an absolute schedule, 50 frames a
second, and the twin's own lateness is measured: a late twin voids what it measured. What comes back is judged strictly, played
by the player's clock and kept. One greenlet lives the call, one reads, one more waits for each mark that is due. Never reads the
gateway's state: only what came over the wire.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import gevent
from gevent.pool import Group

from gw.twin import twilio_fields, twiml
from gw.twin.sound import PTIME_MS, PTIME_S, SILENT_FRAME, frames
from gw.twin.twilio_ear import Warned
from gw.twin.twilio_http import Webhooks
from gw.twin.twilio_messages import CONNECTED, Writer
from gw.twin.twilio_record import CallRecord, ClosedBy
from gw.twin.wire import ClosedError, RefusedError, TimedOutError, Wire, connect

_MAX_MESSAGE_BYTES: Final = 16 << 20
_MAX_DOCUMENTS: Final = 10  # TwiML that leads to TwiML
_WIRE_TIMEOUT_S: Final = 15.0
_CLOSE_S: Final = 2.0
_CALLBACKS_S: Final = 5.0  # a stream's callbacks, before the call's own

Hook = Callable[["TwinCall"], None]


@dataclass(frozen=True, kw_only=True)
class CallPlan:
    """What the caller does. `speech` is one frame each 20 ms, silence follows.

    `hang_up`: the caller hangs up when the speech is over; else the gateway ends the call, or `max_s` does. `hooks` run before
    the frame of that number. `prelude` replaces `connected` and `start`. `parameters` replace what the TwiML said.
    """

    speech: tuple[bytes, ...] = ()
    from_number: str = "+15005550006"
    to_number: str = "+15005550001"
    direction: str = "inbound"
    hang_up: bool = True
    max_s: float = 60.0
    hooks: Mapping[int, Hook] = field(default_factory=dict)
    prelude: Hook | None = None
    parameters: Mapping[str, str] | None = None
    signature: str | None = None  # on the upgrade: another than the right one; empty: none
    receive_buffer_bytes: int | None = None


class TwinCall(CallRecord):
    """A call as Twilio and the caller saw it. `run` is its whole life."""

    def __init__(
        self,
        number: int,
        account_sid: str,
        plan: CallPlan,
        webhooks: Webhooks,
        voice_url: str,
        status_url: str | None,
        on_end: Hook | None = None,
    ) -> None:
        super().__init__(number, account_sid)
        self.plan = plan
        self._webhooks = webhooks
        self._voice_url = voice_url
        self._status_url = status_url
        self._on_end_of_call = on_end
        self._speech: deque[bytes] = deque(plan.speech)
        self._writer = Writer(account_sid, self.call_sid, self.stream_sid)
        self._wire: Wire | None = None
        self._reader: gevent.Greenlet[..., object] | None = None
        self._callbacks = Group()
        self._leaving: ClosedBy = ""
        self._following = ""  # TwiML that REST put in place of what is under way
        self._frozen = False
        self._mute = False

    # -- the person at the phone ------------------------------------------------------------------------------------

    def say(self, *pieces: bytes) -> None:
        """Say more, after what is still to be said."""
        for piece in pieces:
            self._speech.extend(frames(piece))

    def press(self, digit: str) -> None:
        """A key of the telephone. Raises ClosedError when the stream is over."""
        self.send_text(self._writer.dtmf(digit))

    def hang_up(self, by: ClosedBy = "caller") -> None:
        """Put the receiver down; the stream ends within a frame."""
        self._leaving = self._leaving or by

    def redirect(self, document: str) -> None:
        """REST gave the call other TwiML: what is under way ends, this follows."""
        self._following = document
        self.hang_up("rest")

    # -- faults -----------------------------------------------------------------------------------------------------

    def send_text(self, data: bytes) -> None:
        """Any text message, valid or not."""
        self._standing().send_text(data)

    def send_binary(self, data: bytes) -> None:
        """A binary message: Twilio never sends one."""
        self._standing().send_binary(data)

    def send_raw(self, data: bytes) -> None:
        """Bytes outside of all framing."""
        self._standing().send_raw(data)

    def send_start(self, **changes: object) -> None:
        """`start`; the changes replace fields of its `start` object."""
        self.send_text(self._writer.start(self.parameters, changes))

    def send_media(self, frame: bytes = SILENT_FRAME) -> None:
        """One frame out of turn."""
        self.send_text(self._writer.media(frame, self.frames_sent * PTIME_MS))

    def abort(self) -> None:
        """Break the connection with a reset."""
        self._leaving = "twin"
        self._standing().abort()

    def freeze(self) -> None:
        """Become half open: nothing is sent or read any more, the socket stays. Ends by `max_s` or `hang_up`."""
        self.stop_reading()
        self._frozen = True

    def mute(self) -> None:
        """Send nothing more, but listen: a peer that has stopped talking while its connection stands."""
        self._mute = True

    def stop_reading(self) -> None:
        """Let what the gateway sends pile up; the caller goes on talking."""
        if self._reader is not None:
            self._reader.kill()

    def _standing(self) -> Wire:
        if self._wire is None:
            raise ClosedError("us", 1006, "the stream does not stand")
        return self._wire

    # -- the call ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Live the call from the webhook to the last callback."""
        try:
            self._live()
        except Exception as error:  # noqa: BLE001 - a greenlet's top: the failure is the call's outcome, told by `error`
            self.error = f"{type(error).__name__}: {error}"
            self.status = "failed"
        finally:
            self._greenlets.kill(timeout=1)
            self.ended_at = time.time()
            self.ended_s = self.ended_s if self.ended_s is not None else time.monotonic()
            try:
                if self._on_end_of_call is not None:
                    self._on_end_of_call(self)
                self._callbacks.join(timeout=_CALLBACKS_S)
                self._tell_end()
            finally:
                self._callbacks.kill(timeout=1)
                self._done.set()

    def _live(self) -> None:
        self.status = "ringing"
        url = self._voice_url
        for _ in range(_MAX_DOCUMENTS):
            answer = self._webhooks.post(url, self.fields())
            self.voice = self.voice or answer
            if not answer.is_good:
                self._note(11200, f"{answer.url} answered {answer.status}: {answer.body[:200]}")
                self.status = "failed"
                return
            following = self._perform(twiml.parse(answer.body, answer.content_type), url)
            if following is None:
                break
            url = following
        if self.status in ("ringing", "in-progress"):
            self.status = "completed"

    def _perform(self, document: twiml.Document, base: str) -> str | None:
        """Run a document. Returns the URL of the next one, None when the call is over."""
        for code, detail in document.problems:
            self._ear.warn(code, detail)
        for verb in document.verbs:
            if isinstance(verb, twiml.Stream):
                self._answer()
                self._stream(verb, base)
                if self._following:
                    following, self._following, self._leaving = self._following, "", ""
                    return self._perform(twiml.parse(following), base)
                if verb.action:
                    action = self._webhooks.absolute(verb.action, base)
                    if self.closed_by == "gateway":
                        return action
                    self.status = "completed"
                    self._webhooks.post(action, self.fields())
                if self.closed_by != "gateway":
                    return None
            elif verb.name == "Reject":
                self.spoken.append(verb.attributes.get("reason", "rejected"))
                self.status = "busy" if verb.attributes.get("reason") == "busy" else "no-answer"
                return None
            elif verb.name == "Hangup":
                return None
            elif verb.name == "Dial":
                self._answer()
                self.dialled.append(verb.text)
            elif verb.name == "Redirect":
                return self._webhooks.absolute(verb.text, base)
            else:
                self._answer()
                self.spoken.append(verb.text)
        return None

    def _answer(self) -> None:
        self.status = "in-progress"
        self.answered_at = self.answered_at or time.time()

    def _tell_end(self) -> None:
        """The call's status callback."""
        if self._status_url is None:
            return
        seconds = round((self.ended_at or 0.0) - self.answered_at) if self.answered_at else 0
        extra = twilio_fields.status_fields(self.status, seconds, time.time())
        self._webhooks.post(self._status_url, {**self.fields(), **extra})

    def fields(self) -> dict[str, str]:
        """The fields of every webhook about this call, as it stands."""
        plan = self.plan
        fields = twilio_fields.call_fields(self.account_sid, self.call_sid, plan.from_number, plan.to_number, self.status)
        fields["Direction"] = plan.direction
        return {**fields, "StreamSid": self.stream_sid} if self.started_s is not None else fields

    def _note(self, code: int, detail: str) -> None:
        self.notices.append(Warned(time.monotonic(), code, detail))

    # -- the stream -------------------------------------------------------------------------------------------------

    def _stream(self, stream: twiml.Stream, base: str) -> None:
        """Open the stream, live in it, end it."""
        if self.started_s is not None:
            self._begin_again()
        url = self._webhooks.absolute(stream.url, base).replace("https://", "wss://", 1).replace("http://", "ws://", 1)
        callback = self._webhooks.absolute(stream.status_callback, base) if stream.status_callback else ""
        self.parameters = dict(stream.parameters if self.plan.parameters is None else self.plan.parameters)
        try:
            self._wire = self._open(url)
        except (RefusedError, OSError, TimedOutError, ClosedError) as error:
            code = 31920 if isinstance(error, RefusedError) else 31902 if isinstance(error, ConnectionRefusedError) else 31901
            self.http_status = error.status if isinstance(error, RefusedError) else None
            self._note(code, str(error))
            self.closed_by = "gateway"
            self._tell_stream(callback, stream.name, "stream-error", str(error))
            return
        self._tell_stream(callback, stream.name, "stream-started")
        wire = self._wire
        try:
            self._reader = gevent.spawn(self._read, wire)
            self._greenlets.add(self._reader)
            self._talk(wire)
            self.closed_by = self._leaving
        except (ClosedError, TimedOutError) as error:
            self._on_end(error, wire)
        self.ended_s = time.monotonic()
        self._let_go(wire)
        self._tell_stream(callback, stream.name, "stream-stopped")

    def _begin_again(self) -> None:
        """A second stream in one call has a name and numbers of its own."""
        self.stream_sid = f"MZ{uuid.uuid4().hex}"
        self._writer = Writer(self.account_sid, self.call_sid, self.stream_sid)
        self._ear.begin_again(self.stream_sid, time.monotonic())
        self.closed_by, self.close_code, self.close_reason, self.ended_s = "", None, "", None

    def _open(self, url: str) -> Wire:
        host, port, tls = self._webhooks.locate(url)
        headers = self._webhooks.headers(url)
        if self.plan.signature is not None:
            headers["X-Twilio-Signature"] = self.plan.signature
            if not self.plan.signature:
                del headers["X-Twilio-Signature"]
        small = self.plan.receive_buffer_bytes
        return connect(url, (host, port), headers, _WIRE_TIMEOUT_S, _MAX_MESSAGE_BYTES, tls, small)

    def _tell_stream(self, callback: str, name: str, event: str, error: str = "") -> None:
        """The stream's status callback, in a greenlet of its own: Twilio doesn't wait for it either."""
        if not callback:
            return
        fields = twilio_fields.stream_fields(self.account_sid, self.call_sid, self.stream_sid, name, event, error, time.time())
        self._callbacks.add(gevent.spawn(self._webhooks.post, callback, fields))

    def _talk(self, wire: Wire) -> None:
        """Send frames until somebody hangs up. Raises ClosedError when the gateway closed."""
        if self.plan.prelude is not None:
            self.started_s = time.monotonic()
            self.plan.prelude(self)
        else:
            wire.send_text(CONNECTED)
            self.started_s = time.monotonic()
            self.send_start()
        origin_s = time.monotonic() - self.frames_sent * PTIME_S  # a second stream goes on where the first one ended
        while True:
            hook = None if self._frozen or self._mute else self.plan.hooks.get(self.frames_sent)
            if hook is not None:
                hook(self)
            self._check_limit(origin_s)
            if self._leaving:
                return
            if self._frozen or self._mute:
                if not self._frozen and not wire.is_open:
                    raise wire.closing()
                gevent.sleep(PTIME_S)
                continue
            if not self._speech and self.plan.hang_up:
                self.hang_up()
                return
            frame = self._speech.popleft() if self._speech else SILENT_FRAME
            wire.send_text(self._writer.media(frame, self.frames_sent * PTIME_MS))
            self.sent_speech += frame
            self.frames_sent += 1
            due_s = origin_s + self.frames_sent * PTIME_S
            wait_s = due_s - time.monotonic()
            gevent.sleep(max(0.0, wait_s))
            self.lateness_s.append(max(0.0, time.monotonic() - due_s))

    def _check_limit(self, origin_s: float) -> None:
        if time.monotonic() - origin_s > self.plan.max_s:
            self.hang_up("limit")

    def _on_end(self, error: ClosedError | TimedOutError, wire: Wire) -> None:
        """The stream ended under the caller's feet."""
        if self._leaving:
            self.closed_by = self._leaving
            return
        end = wire.closing()
        # A write may fail before the close frame that explains it was read.
        reader = self._reader
        if end.by == "lost" and reader is not None:
            reader.join(_CLOSE_S)
            end = wire.closing()
        if wire.violation:
            self._ear.warn(31924, wire.violation)
        self.closed_by = "gateway"
        if isinstance(error, TimedOutError):
            self._note(31930, "the gateway does not read the caller's audio")
            return
        self.close_code = end.code
        self.close_reason = end.reason
        self._note(31903 if end.by == "lost" else 31921, f"{end.code} {end.reason}")

    def _let_go(self, wire: Wire) -> None:
        """Say goodbye as Twilio does, and release the socket."""
        if self._frozen or self._leaving == "twin":
            wire.abort()
            return
        try:
            if wire.is_open:
                wire.send_text(self._writer.stop())
            wire.close(wait_s=_CLOSE_S)
        except (ClosedError, TimedOutError):
            wire.release()

    # -- what the gateway says --------------------------------------------------------------------------------------

    def _read(self, wire: Wire) -> None:
        """Take every message until the end. The talking greenlet sees the end too, at its next frame."""
        while True:
            try:
                message = wire.receive()
            except ClosedError:
                return
            except TimedOutError:
                continue  # an agent may be silent for long: the limit of the call bounds this
            if self.ended_s is not None:
                continue  # nobody is at the phone any more; what is left is read until the close frame
            self._ear.on_message(message.data, message.text, time.monotonic())
            if self._ear.is_full:
                self.hang_up("limit")

    def _echo(self, name: str) -> bool:
        """Send a mark back. Returns whether it left; the talking greenlet accounts for a stream that is over."""
        try:
            self.send_text(self._writer.mark(name))
        except (ClosedError, TimedOutError):
            return False
        return True
