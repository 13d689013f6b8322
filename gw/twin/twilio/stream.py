"""Media stream of a call of the Twilio twin: sends the caller's audio, receives the gateway's, plays faults on request.

The caller's audio leaves on an absolute schedule, 50 frames a second, and the twin's own lateness is recorded: a late twin
voids a measurement. One greenlet sends, one reads, and one more waits for each mark that is due.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import gevent
from gevent.pool import Group

from gw.twin.sound import PTIME_MS, PTIME_S, SILENT_FRAME, frames
from gw.twin.twilio import fields as twilio_fields
from gw.twin.twilio import twiml
from gw.twin.twilio.call_record import CallRecord, ClosedBy
from gw.twin.twilio.messages import CONNECTED, MessageWriter
from gw.twin.twilio.receiver import DebuggerEntry
from gw.twin.twilio.steps import Step, StepClock
from gw.twin.twilio.webhooks import WebhookSender
from gw.twin.websocket import ClosedError, RefusedError, TimedOutError, TwinSocket, connect

_MAX_MESSAGE_BYTES: Final = 16 << 20
_WIRE_TIMEOUT_S: Final = 15.0
_CLOSE_S: Final = 2.0

Hook = Callable[["StreamedCall"], None]


@dataclass(frozen=True, kw_only=True)
class CallPlan:
    """The caller's part. `speech` is one frame each 20 ms, silence follows.

    `hang_up`: the caller hangs up after the speech; else the gateway ends the call, or `max_s` does. `hooks` run before the
    frame of that number. `prelude` replaces `connected` and `start`. `parameters` replace those of the TwiML.
    `answer`: how the called party reacts after `ring_s`. `verdicts`: of Twilio's detection of answering machines, with seconds
    since the answer; none is reported unless the request asks for them. `agent`: named by the URL of the voice webhook. `steps`:
    acts of the caller and faults of the network, in sequence, beside `speech`; their speech is appended to it.
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
    answer: Literal["answered", "busy", "no-answer", "failed"] = "answered"
    ring_s: float = 0.0
    verdicts: tuple[tuple[float, str], ...] = ()
    agent: str = ""
    signature: str | None = None  # replaces the upgrade's signature; empty: none
    receive_buffer_bytes: int | None = None
    steps: tuple[Step, ...] = ()
    unopened: int = 0  # first streams whose connection fails
    start_after_s: float = 0.0  # between `connected` and `start`
    echo_after_s: float = 0.0  # from a mark's playout, or a clear, to its echo
    slow_echo_s: float = 0.0  # the same for the first echo
    sends_stop: bool = True  # False: the socket closes without `stop`
    max_documents: int = 10  # TwiML that leads to TwiML


class StreamedCall(CallRecord):
    """A call's media stream: speech, keys, hang-up, faults."""

    def __init__(self, number: int, account_sid: str, plan: CallPlan, webhooks: WebhookSender) -> None:
        super().__init__(number, account_sid)
        self.plan = plan
        self._webhooks = webhooks
        self._speech: deque[bytes] = deque(plan.speech)
        self._writer = MessageWriter(account_sid, self.call_sid, self.stream_sid)
        self._websocket: TwinSocket | None = None
        self._reader: gevent.Greenlet[..., object] | None = None
        self._callbacks = Group()
        self._leaving: ClosedBy = ""
        self._frozen = False
        self._mute = False
        self._receiver.echo_after_s, self._receiver.slow_echo_s = plan.echo_after_s, plan.slow_echo_s
        self._hooks = dict(plan.hooks)
        self._steps = StepClock(plan.steps)
        self._place = 0  # frames of the caller's clock: sent, lost and delayed ones
        self._gap_end = 0  # place at which the network delivers frames again
        self._delayed: list[tuple[bytes, int]] | None = None  # frames of a gap and their places; None: lost
        self._abandoned: list[TwinSocket] = []  # half-open sockets of earlier streams
        self._unopened = plan.unopened
        self._ask_after_s = 0.0  # from the loss of a stream to the request of the action URL

    # -- the person at the phone ------------------------------------------------------------------------------------

    def say(self, *pieces: bytes) -> None:
        """Append speech to the queue."""
        for piece in pieces:
            self._speech.extend(frames(piece))

    def press(self, digit: str) -> None:
        """Press a key. Raises ClosedError if the stream has ended."""
        self.send_text(self._writer.dtmf(digit))

    def hang_up(self, by: ClosedBy = "caller") -> None:
        """Hang up; the stream ends within a frame."""
        self._leaving = self._leaving or by

    # -- faults -----------------------------------------------------------------------------------------------------

    def lose_frames(self, lasts_s: float) -> None:
        """Lose the caller's audio for a time; the call's clock runs on."""
        self._gap_end, self._delayed = self._place + round(lasts_s / PTIME_S), None

    def delay_frames(self, lasts_s: float) -> None:
        """Hold the caller's audio back for a time, then send all of it together."""
        self._gap_end, self._delayed = self._place + round(lasts_s / PTIME_S), []

    def lose_stream(self, *, half_open: bool = False, ask_after_s: float = 0.2) -> None:
        """Lose the media socket while the caller stays: no `stop`, no close frame.

        Twilio asks the action URL after `ask_after_s`. `half_open`: the socket stays open until the call's end, silent and
        unread; else it is reset.
        """
        if not half_open:
            self._connected().abort()
        elif self._websocket is not None:
            self.stop_reading()
            self._abandoned.append(self._websocket)
        self._ask_after_s = ask_after_s
        self.hang_up("network")

    def send_text(self, data: bytes) -> None:
        """Send any text message, valid or not."""
        self._connected().send_text(data)

    def send_binary(self, data: bytes) -> None:
        """Send a binary message, as Twilio never does."""
        self._connected().send_binary(data)

    def send_raw(self, data: bytes) -> None:
        """Send bytes outside of all framing."""
        self._connected().send_raw(data)

    def send_start(self, **changes: object) -> None:
        """Send `start`; `changes` replace fields of its `start` object."""
        self.send_text(self._writer.start(self.parameters, changes))

    def send_media(self, frame: bytes = SILENT_FRAME) -> None:
        """Send one extra frame."""
        self.send_text(self._writer.media(frame, self.frames_sent * PTIME_MS))

    def abort(self) -> None:
        """Break the connection with a reset."""
        self._leaving = "twin"
        self._connected().abort()

    def freeze(self) -> None:
        """Become half open: send and read nothing, keep the socket. Ends by `max_s` or `hang_up`."""
        self.stop_reading()
        self._frozen = True

    def mute(self) -> None:
        """Send nothing, but keep reading: a peer that fell silent on an open connection."""
        self._mute = True

    def stop_reading(self) -> None:
        """Stop reading, so that the gateway's messages pile up; the caller keeps sending."""
        if self._reader is not None:
            self._reader.kill()

    def _connected(self) -> TwinSocket:
        if self._websocket is None:
            raise ClosedError("us", 1006, "the stream is not open")
        return self._websocket

    def _log_problem(self, code: int, detail: str) -> None:
        self.notices.append(DebuggerEntry(time.monotonic(), code, detail))

    # -- the stream -------------------------------------------------------------------------------------------------

    def _stream(self, stream: twiml.Stream, base: str) -> None:
        """Open the stream, serve it to its end, close it."""
        if self.started_s is not None:
            self._restart_stream()
        url = self._webhooks.absolute(stream.url, base).replace("https://", "wss://", 1).replace("http://", "ws://", 1)
        callback = self._webhooks.absolute(stream.status_callback, base) if stream.status_callback else ""
        self.parameters = dict(stream.parameters if self.plan.parameters is None else self.plan.parameters)
        try:
            self._websocket = self._open_stream(url)
        except (RefusedError, OSError, TimedOutError, ClosedError) as error:
            code = 31920 if isinstance(error, RefusedError) else 31902 if isinstance(error, ConnectionRefusedError) else 31901
            self.http_status = error.status if isinstance(error, RefusedError) else None
            self._log_problem(code, str(error))
            self.closed_by = "gateway"
            self._post_stream_status(callback, stream.name, "stream-error", str(error))
            return
        self._post_stream_status(callback, stream.name, "stream-started")
        websocket = self._websocket
        try:
            self._reader = gevent.spawn(self._read, websocket)
            self._greenlets.add(self._reader)
            self._talk(websocket)
            self.closed_by = self._leaving
        except (ClosedError, TimedOutError) as error:
            self._on_end(error, websocket)
        self.ended_s = time.monotonic()
        self._close_stream(websocket)
        self._post_stream_status(callback, stream.name, "stream-stopped")

    def _restart_stream(self) -> None:
        """Start a call's second stream, with a new SID and new numbers."""
        self.stream_sid = f"MZ{uuid.uuid4().hex}"
        self._writer = MessageWriter(self.account_sid, self.call_sid, self.stream_sid)
        self._receiver.restart(self.stream_sid, time.monotonic())
        self.closed_by, self.close_code, self.close_reason, self.ended_s = "", None, "", None
        self._gap_end, self._delayed = 0, None

    def _open_stream(self, url: str) -> TwinSocket:
        if self._unopened:
            self._unopened -= 1
            raise TimeoutError("no connection")
        host, port, tls = self._webhooks.locate(url)
        headers = self._webhooks.headers(url)
        if self.plan.signature is not None:
            headers["X-Twilio-Signature"] = self.plan.signature
            if not self.plan.signature:
                del headers["X-Twilio-Signature"]
        small = self.plan.receive_buffer_bytes
        return connect(url, (host, port), headers, _WIRE_TIMEOUT_S, _MAX_MESSAGE_BYTES, tls, small)

    def _post_stream_status(self, callback: str, name: str, event: str, error: str = "") -> None:
        """Post the stream's status callback from a greenlet: Twilio does not wait for it either."""
        if not callback:
            return
        fields = twilio_fields.stream_fields(self.account_sid, self.call_sid, self.stream_sid, name, event, error, time.time())
        self._callbacks.add(gevent.spawn(self._webhooks.post, callback, fields))

    def _talk(self, websocket: TwinSocket) -> None:
        """Send frames until one side hangs up. Raises ClosedError when the gateway closed."""
        if self.plan.prelude is None:
            websocket.send_text(CONNECTED)
            gevent.sleep(self.plan.start_after_s)
        self.started_s = time.monotonic()
        self.streams_s.append(self.started_s)
        if self.plan.prelude is not None:
            self.plan.prelude(self)
        else:
            self.send_start()
        origin_s = time.monotonic() - self._place * PTIME_S  # a second stream continues where the first one ended
        while True:
            hook = None if self._frozen or self._mute else self._hooks.pop(self._place, None)
            if hook is not None:
                hook(self)
            self._step()
            self._check_limit(origin_s)
            if self._leaving:
                return
            if self._frozen or self._mute:
                if not self._frozen and not websocket.is_open:
                    raise websocket.closing()
                gevent.sleep(PTIME_S)
                continue
            if not self._speech and self.plan.hang_up:
                self.hang_up()
                return
            if not websocket.is_open:
                raise websocket.closing()
            self._send_frame(websocket, self._speech.popleft() if self._speech else SILENT_FRAME)
            due_s = origin_s + self._place * PTIME_S
            wait_s = due_s - time.monotonic()
            gevent.sleep(max(0.0, wait_s))
            self.lateness_s.append(max(0.0, time.monotonic() - due_s))

    def _send_frame(self, websocket: TwinSocket, frame: bytes) -> None:
        """Send one frame of the caller, unless the network loses or delays it."""
        ready = [(frame, self._place)]
        if self._place < self._gap_end:
            if self._delayed is not None:
                self._delayed += ready
            ready = []
        elif self._delayed is not None:
            ready, self._delayed = self._delayed + ready, None
        self._place += 1
        for one, place in ready:
            websocket.send_text(self._writer.media(one, place * PTIME_MS))
            self.sent_speech += one
            self.sent_s.append(time.monotonic())
            self.frames_sent += 1

    def _step(self) -> None:
        """Do the plan's next step if it is due."""
        if self._steps.is_over:
            return
        now_s = time.monotonic()
        step = self._steps.due(now_s, self.player.is_playing(now_s))
        if step is None:
            return
        self.done.append((now_s, step))
        if step.kind == "say":
            self.say(step.audio)
        elif step.kind == "press":
            for key in step.keys.split():
                self.press(key)
        elif step.kind == "lose_frames":
            self.lose_frames(step.lasts_s)
        elif step.kind == "delay_frames":
            self.delay_frames(step.lasts_s)
        elif step.kind == "hang_up":
            self.hang_up()
        else:
            self.lose_stream(half_open=step.kind == "half_open", ask_after_s=step.lasts_s)

    def _check_limit(self, origin_s: float) -> None:
        if time.monotonic() - origin_s > self.plan.max_s:
            self.hang_up("limit")

    def _on_end(self, error: ClosedError | TimedOutError, websocket: TwinSocket) -> None:
        """Record how the gateway, or the network, ended the stream."""
        if self._leaving:
            self.closed_by = self._leaving
            return
        end = websocket.closing()
        # a write may fail before the close frame that explains it was read
        reader = self._reader
        if end.by == "lost" and reader is not None:
            reader.join(_CLOSE_S)
            end = websocket.closing()
        if websocket.violation:
            self._receiver.warn(31924, websocket.violation)
        self.closed_by = "gateway"
        if isinstance(error, TimedOutError):
            self._log_problem(31930, "the gateway does not read the caller's audio")
            return
        self.close_code = end.code
        self.close_reason = end.reason
        self._log_problem(31903 if end.by == "lost" else 31921, f"{end.code} {end.reason}")

    def _close_stream(self, websocket: TwinSocket) -> None:
        """Close as Twilio does, and release the socket."""
        if websocket in self._abandoned:
            return
        if self._frozen or self._leaving in ("twin", "network"):
            websocket.abort()
            return
        try:
            if websocket.is_open and self.plan.sends_stop:
                websocket.send_text(self._writer.stop())
            websocket.close(wait_s=_CLOSE_S)
        except (ClosedError, TimedOutError):
            websocket.release()

    # -- receiving --------------------------------------------------------------------------------------------------

    def _read(self, websocket: TwinSocket) -> None:
        """Read all messages to the end. The sending greenlet sees the end too, at its next frame."""
        while True:
            try:
                message = websocket.receive()
            except ClosedError:
                return
            except TimedOutError:
                continue  # an agent may be silent for long; the call's limit bounds this
            if self.ended_s is not None:
                continue  # the caller has hung up: read on to the close frame
            self._receiver.on_message(message.data, message.text, time.monotonic())
            if self._receiver.is_full:
                self.hang_up("limit")

    def _echo(self, name: str) -> bool:
        """Send a mark back. Returns whether it was sent; the sending greenlet handles an ended stream."""
        try:
            self.send_text(self._writer.mark(name))
        except (ClosedError, TimedOutError):
            return False
        return True
