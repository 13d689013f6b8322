"""One media socket from the upgrade to its last byte: admits the call, runs RX, and closes everything once.

RX is the greenlet the server gave the socket. It waits for `start`, starts the other greenlets, reads the phone leg until
the call has ended, and then closes, each step bounded: greenlets, report, AI leg, phone leg. No other code closes any of them.
"""

from __future__ import annotations

import logging
import time
from time import monotonic
from typing import Final, get_args

import gevent
import msgspec

from gw import bus
from gw.call.guard import HEARD
from gw.call.limits import MESSAGES_BURST, MESSAGES_PER_S, Allowance
from gw.call.resume import MAX_STREAMS, Resumed, parse_resumed
from gw.call.state import Event, Reason, State, phone_reason
from gw.errors import ProtocolCode, ProtocolError, close_code
from gw.media.admission.shared_lock import SharedBusyError
from gw.media.ai_in import AiIn
from gw.media.call import Call
from gw.media.hub.greenlets import KindGreenlet, mark_current, spawn
from gw.media.shared.context import CountedState, MediaContext
from gw.media.transport.plain import Transport
from gw.media.transport.websocket import LegClosedError, MessageReader, WebSocket
from gw.protocol import twilio
from gw.protocol.token import TokenError, check
from gw.protocol.websocket.frames import NORMAL

log = logging.getLogger(__name__)

#: Largest message from Twilio. A media message has 394 bytes, a `start` with all its parameters a few thousand.
MAX_MESSAGE_BYTES: Final = 64 << 10
#: Bytes that may wait for a Twilio that does not read: about 12 s of frames.
MAX_WAITING_BYTES: Final = 256 << 10
#: Time a call's greenlets have to end before they are killed.
JOIN_S: Final = 1.0
TOKEN_TTL_S: Final = 64
#: A stream without a message for this long gives way to another stream of its call: Twilio has left it.
SILENT_S: Final = 1.0
#: Time for a stream that gives way to close, and the interval between looks.
GIVE_WAY_S: Final = 2 * JOIN_S + 0.5
LOOK_S: Final = 0.02

#: Close codes of RFC 6455 7.4.1. Every other reason closes with 1000.
_CLOSE_CODES: Final = {
    **{phone_reason(code): close_code(code) for code in get_args(ProtocolCode)},
    Reason.START_TIMEOUT: 1008,
    Reason.WRONG_ACCOUNT: 1008,
    Reason.TOKEN_MISSING: 1008,
    Reason.TOKEN_FORGED: 1008,
    Reason.TOKEN_EXPIRED: 1008,
    Reason.TOKEN_USED: 1008,
    Reason.UNKNOWN_AGENT: 1008,
    Reason.INTERNAL_ERROR: 1011,
}


class _RefusedError(Exception):
    """The stream's `start` is refused."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Session:
    """One open media socket. `run` returns when it is closed."""

    def __init__(self, context: MediaContext, transport: Transport, account_sid: str) -> None:
        """`account_sid`: the account that the socket belongs to; empty without credentials, for any."""
        self._context = context
        self._account_sid = account_sid
        self._transport = transport
        self._socket = WebSocket(transport, MAX_MESSAGE_BYTES, is_client=False, on_pongs=context.cells.pongs["phone"].add)
        self._reader = MessageReader(self._socket, twilio.parse)
        self._state = CountedState(context.cells)
        self._call: Call | None = None
        self._greenlets: list[KindGreenlet] = []
        self._unknown: set[str] = set()
        self._messages = Allowance(MESSAGES_PER_S, MESSAGES_BURST)  # that `_take` left
        self.opened_s = self.last_message_s = monotonic()
        self._detail = ""
        self._call_sid = ""
        self._has_slot = False
        self._frames_missing = False

    def run(self) -> None:
        """Read until the call is over, then close. Never raises. RX's body."""
        mark_current("rx")
        try:
            while not self._state.has_ended:
                for event in self._reader.read_beside(self._take):
                    self.last_message_s = monotonic()
                    self._on_event(event)
                    if self._state.reason is not None:
                        break
        except ProtocolError as error:
            self.end(phone_reason(error.code), error.detail)
        except LegClosedError as error:
            stalled = error.failure == "stalled"
            self.end(Reason.PHONE_LEG_STALLED if stalled else Reason.PHONE_LOST, str(error))
        except _RefusedError as error:
            self.end(error.reason, error.detail)
        except Exception as error:
            log.exception("RX failed", extra={"call_sid": self._call_sid, "reason": Reason.INTERNAL_ERROR.value})
            self.end(Reason.INTERNAL_ERROR, f"RX: {type(error).__name__}: {error}")
        finally:
            self.end(Reason.INTERNAL_ERROR, "RX was killed")  # after GreenletExit or Timeout; else without effect
            self._close()

    def end(self, reason: Reason, detail: str = "") -> None:
        """End this socket's call, or the socket before its call. Idempotent; never waits."""
        if self._call is not None:
            has_left = reason in (Reason.PHONE_LOST, Reason.PHONE_SILENT)
            self._call.end(reason, detail, monotonic() - self.last_message_s if has_left else 0.0)
            return
        if self._state.end(reason):
            self._detail = detail
            self._transport.wake()

    @property
    def open_jobs(self) -> list[str]:
        """The names of the jobs whose results this call awaits."""
        return [*self._call.digits.open_jobs, *self._call.tools.open_jobs] if self._call is not None else []

    def on_job_settled(self, settled: bus.JobSettled) -> None:
        """Take a job's result. A failure ends this call alone; never raises, and never waits."""
        if self._call is None:
            return
        try:
            self._call.on_job_settled(settled)
        except Exception as error:
            log.exception("a job's result failed", extra={"call_sid": self._call_sid, "reason": Reason.INTERNAL_ERROR.value})
            self.end(Reason.INTERNAL_ERROR, f"job: {type(error).__name__}: {error}"[:500])

    def on_answered_by(self, verdict: str) -> None:
        """Take Twilio's verdict on the party that answered. A failure ends this call alone; never raises, and never waits."""
        if self._call is None:
            return
        try:
            self._call.on_answered_by(verdict)
        except Exception as error:
            log.exception("a verdict failed", extra={"call_sid": self._call_sid, "reason": Reason.INTERNAL_ERROR.value})
            self.end(Reason.INTERNAL_ERROR, f"verdict: {type(error).__name__}: {error}"[:500])

    def expect_stop(self, for_s: float) -> dict[str, str]:
        """Expect Twilio's `stop` for an operator's transfer. Returns the parameters that every stream of the call has."""
        return self._call.expect_stop(for_s) if self._call is not None else {}

    def check_or_end(self, now_s: float) -> None:
        """Check this call, and end it if the check itself fails. Never raises, so the watchdog reaches the next call."""
        try:
            self.check(now_s)
        except Exception as error:
            log.exception("the watchdog failed", extra={"call_sid": self._call_sid, "reason": Reason.INTERNAL_ERROR.value})
            self.end(Reason.INTERNAL_ERROR, f"watchdog: {type(error).__name__}: {error}"[:500])

    def check(self, now_s: float) -> None:
        """Apply the time limits of the socket and of its call. The watchdog calls this."""
        media = self._context.config.media
        if self._state.now is State.WAITING:
            if now_s - self.opened_s > media.start_timeout_s:
                self.end(Reason.START_TIMEOUT, f"no start within {media.start_timeout_s:g} s of the upgrade")
        elif self._call is not None and not self._state.has_ended:
            if now_s - self.last_message_s > media.phone_silence_s:
                self.end(Reason.PHONE_SILENT, f"Twilio sent nothing for {media.phone_silence_s:g} s")
            else:
                self._call.check(now_s)

    def lacks_frames(self, now_s: float) -> bool:
        """Return whether `check_frames` has something to do. Every 50 ms for every session: cheap."""
        call = self._call
        return call is not None and (self._frames_missing or call.uplink.has_kept or call.uplink.is_missing(now_s))

    @property
    def has_kept(self) -> bool:
        """True while kept audio can be sent."""
        return self._call is not None and self._call.uplink.has_kept

    def check_frames(self, now_s: float) -> int:
        """Send the AI the caller's kept audio, and silence in place of missing frames. Returns the frames sent. Never raises."""
        call = self._call
        if call is None or call.state.has_ended:
            return 0
        try:
            missing = call.uplink.is_missing(now_s)
            if missing is not self._frames_missing:
                self._frames_missing = missing
                (call.on_frames_missing if missing else call.on_frames_back)()
            return call.uplink.check_fill(now_s)
        except Exception as error:
            log.exception(
                "the check of the uplink failed", extra={"call_sid": self._call_sid, "reason": Reason.INTERNAL_ERROR.value}
            )
            self.end(Reason.INTERNAL_ERROR, f"uplink: {type(error).__name__}: {error}"[:500])
            return 0

    # -- Twilio's messages ----------------------------------------------------------------------------------------------

    def _take(self, event: twilio.TwilioEvent) -> bool:
        """Forward a frame of a running call in the hub's callback, while RX waits: 49 of 50 messages. RX handles every other
        message, and every frame that is not as expected or beyond real time."""
        call = self._call
        if type(event) is not twilio.Media or call is None or call.state.has_ended:
            return False
        if event.stream_sid != call.stream_sid or event.track != "inbound":
            return False
        self.last_message_s = now_s = monotonic()
        return call.uplink.try_push(event.payload, now_s)

    def _on_event(self, event: twilio.TwilioEvent) -> None:
        call = self._call
        if not self._messages.take(self.last_message_s):
            raise ProtocolError("message_flood", f"over {MESSAGES_PER_S} messages a second besides audio")
        if isinstance(event, twilio.Media):
            if call is None:
                raise ProtocolError("media_before_start", "media came before start")
            self._check_stream(call, event.stream_sid)
            if event.track == "inbound":
                if not call.uplink.try_push(event.payload, self.last_message_s):
                    call.uplink.push_any(event.payload, self.last_message_s)
            else:
                call.uplink.count("other_track")
        elif isinstance(event, twilio.Start):
            if call is not None:
                raise ProtocolError("second_start", "start came twice on one stream")
            self._start(event)
        elif isinstance(event, twilio.Unknown):
            self._on_unknown(event)
        elif call is not None:
            self._on_call_event(call, event)
        elif not isinstance(event, twilio.Connected):
            raise ProtocolError("media_before_start", f"{type(event).__name__.lower()} came before start")

    def _on_call_event(self, call: Call, event: twilio.TwilioEvent) -> None:
        if isinstance(event, twilio.Mark):
            self._check_stream(call, event.stream_sid)
            call.on_mark_echo(event.name)
        elif isinstance(event, twilio.Stop):
            self._check_stream(call, event.stream_sid)
            call.end(Reason.CALLER_HANGUP)
        elif isinstance(event, twilio.Dtmf):
            self._check_stream(call, event.stream_sid)
            call.on_key(event.digit)

    def _on_unknown(self, event: twilio.Unknown) -> None:
        """Count a message of an unknown kind, and note each kind once a stream: a newer Twilio may send more."""
        self._context.uplink_cells.by_reason["unknown_event"].add(1)
        if event.event not in self._unknown and len(self._unknown) < 16:
            self._unknown.add(event.event)
            self._context.emit(bus.CallEvent(self._call_sid, "unknown_message", time.time(), {"event": event.event[:64]}))
            log.info("unknown message %s", event.event[:64], extra={"call_sid": self._call_sid})

    def _check_stream(self, call: Call, stream_sid: str) -> None:
        if stream_sid != call.stream_sid:
            raise ProtocolError("wrong_stream", "a message for another stream")

    # -- the start ------------------------------------------------------------------------------------------------------

    def _start(self, start: twilio.Start) -> None:
        self._call_sid = start.call_sid
        config = self._context.config
        if self._account_sid and start.account_sid != self._account_sid:
            raise _RefusedError(Reason.WRONG_ACCOUNT, "the stream belongs to another account")
        voice_at = self._use_token(start)
        name = start.parameters.get("agent", "default")
        agent = config.agents.get(name)
        if agent is None:
            raise _RefusedError(Reason.UNKNOWN_AGENT, f"no agent has the name {name[:40]!r}")
        account_sid = start.account_sid if config.signed else ""
        looked = self._context.route_of(start.parameters, start.call_sid, account_sid)
        start = self._replace_silent(start)
        self._context.endings.pop(start.call_sid, None)
        self._context.slots.occupy(start.call_sid)
        self._has_slot = True
        if self._state.has_ended:  # while this worker waited for control, or for the lock
            return
        self._state.on_event(Event.START)
        answered_at = time.time() if voice_at is None else voice_at
        routing = self._context.routing
        agent = routing.agent_of(name, agent, looked.route, start.parameters, answered_at, looked.greeting)
        call = Call(self._context, self._state, start, name, agent, self._transport, voice_at=voice_at, route=looked.route)
        self._call, self._context.calls[start.call_sid] = call, self
        call.greet()
        log.info("call started with agent %s", name, extra={"call_sid": call.sid, "stream_sid": call.stream_sid})
        for kind, body in (
            ("ai_in", AiIn(call).run),
            ("other", call.dialogue.run),
            ("ai_out", call.downlink.ai_out.run),
            ("tx", call.downlink.tx.run),
        ):
            greenlet = KindGreenlet(kind, body)
            greenlet.link_exception(call.ending.on_crash)
            greenlet.start()
            self._greenlets.append(greenlet)

    def _replace_silent(self, start: twilio.Start) -> twilio.Start:
        """End an older stream of this call that Twilio has left, and wait until it has closed.

        Returns: the start, as one that resumes the call if there was such a stream.
        Raises: _RefusedError for a stream that is in use.
        """
        begun_s = monotonic()
        while (old := self._context.calls.get(start.call_sid)) is not None and not self._state.has_ended:
            if old.account_sid != start.account_sid:
                raise _RefusedError(Reason.WRONG_ACCOUNT, "the call belongs to another account")
            now_s = monotonic()
            if now_s - old.last_message_s > SILENT_S:
                old.end(Reason.PHONE_LOST, "another stream took its place")
            elif now_s - begun_s > SILENT_S + LOOK_S:
                raise _RefusedError(Reason.TOKEN_USED, "the call already has a stream")
            if now_s - begun_s > SILENT_S + GIVE_WAY_S:
                raise _RefusedError(Reason.TOKEN_USED, "the call's former stream does not close")
            resumed = parse_resumed(start.parameters, time.time()) or old.resumed_by()
            heard = HEARD if old.is_announced else {}
            start = msgspec.structs.replace(start, parameters={**start.parameters, **resumed.parameters(), **heard})
            gevent.sleep(LOOK_S)
        return start

    @property
    def account_sid(self) -> str:
        """The call's account; empty before its start."""
        return "" if self._call is None else self._call.events.account_sid

    @property
    def answered_at(self) -> float:
        """Start of the stream, epoch seconds; 0 before it."""
        return 0.0 if self._call is None else self._call.events.started_at

    @property
    def is_announced(self) -> bool:
        """True once the caller has heard that the call is recorded, or need not."""
        return self._call is not None and self._call.downlink.guard.is_announced

    def resumed_by(self) -> Resumed:
        """Return what another stream resumes that takes this one's place."""
        assert self._call is not None
        events = self._call.events
        before = events.resumed or Resumed(0, events.started_at)
        return Resumed(min(before.n + 1, MAX_STREAMS), before.began_at, Reason.PHONE_LOST)  # a higher number is not valid

    def _use_token(self, start: twilio.Start) -> float | None:
        """Check the one-time token and use it. Returns when it was issued; None for a stream that needs and has none."""
        token = start.parameters.get("token", "")
        if not token:
            if self._context.config.signed:
                raise _RefusedError(Reason.TOKEN_MISSING, "the stream has no token")
            return None
        now_s = int(time.time())
        try:
            name = self._context.name_of(start.call_sid, start.account_sid)
            good = check(self._context.token_key, token, name, now_s, TOKEN_TTL_S, start.parameters)
        except TokenError as error:
            raise _RefusedError(Reason(error.code), str(error)) from error
        try:
            is_first = self._context.ledger.use(good.nonce, good.issued_at_s + TOKEN_TTL_S + 1, now_s)
        except SharedBusyError:
            is_first = True  # a caller is worth more than the guard against a replay of a token that is valid
            self._context.cells.locks_busy.add()
            log.warning(
                "a token is accepted without the check for reuse: other workers hold the lock", extra={"call_sid": start.call_sid}
            )
        if not is_first:
            raise _RefusedError(Reason.TOKEN_USED, "the token was used before")
        return float(good.issued_at_s)

    # -- the end --------------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """Close everything, in sequence and bounded: nothing is sent after the close frame, no greenlet is left."""
        call = self._call
        try:
            if call is not None:
                self._stop_greenlets(call)
                call.report_end()
                self._context.share_ending(call.sid)
            else:
                self._report_refused()
        except Exception:
            log.exception(
                "the end of a call cannot be reported", extra={"call_sid": self._call_sid, "reason": Reason.INTERNAL_ERROR.value}
            )
        finally:
            self._close_legs(call)

    def _stop_greenlets(self, call: Call) -> None:
        call.dialogue.stop()
        call.downlink.stop()
        call.ai.leg.wake()
        gevent.joinall(self._greenlets, timeout=JOIN_S)
        running = [*self._greenlets, *call.ai.greenlets]
        gevent.killall([greenlet for greenlet in running if not greenlet.dead], timeout=JOIN_S)
        self._greenlets.clear()
        call.ai.greenlets.clear()  # a killed greenlet keeps the traceback, which refers to the call

    def _close_legs(self, call: Call | None) -> None:
        if self._has_slot:
            self._context.slots.release()
        closer = None
        if call is not None:
            # only after the report: a Hello before it must name the call
            self._context.calls.pop(call.sid, None)
            if not call.park():
                closer = spawn("other", call.ai.leg.close)  # at the same time: each may take its bound
        reason = self._state.reason or Reason.INTERNAL_ERROR
        self._socket.close(_CLOSE_CODES.get(reason, NORMAL), reason.value)
        if closer is not None:
            closer.join()

    def _report_refused(self) -> None:
        reason = self._state.reason or Reason.INTERNAL_ERROR
        cells = self._context.cells
        cells.ended[reason].add()
        if reason.value in cells.refused:
            cells.refused[reason.value].add()
        data: dict[str, str | int | float | bool | None] = {"reason": reason.value, "detail": self._detail[:500]}
        self._context.emit(bus.CallEvent(self._call_sid, "stream_refused", time.time(), data))
        self._context.refusals.warning(reason.value, "stream refused: %s", self._detail, call_sid=self._call_sid)
