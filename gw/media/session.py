"""One media socket from the upgrade to its last byte: waits for `start`, lets the call in, runs RX, and closes everything once.

RX is the greenlet the server gave the socket. It starts the other three, reads the phone leg until the state says the call has
ended, and then tears down, each step bounded: greenlets, AI leg, report, phone leg. Nobody else closes anything.
"""

from __future__ import annotations

import logging
import time
from time import monotonic
from typing import Final

import gevent
from websockets.protocol import Protocol, Side

from gw import bus
from gw.call.state import Event, Reason, State, phone_reason
from gw.errors import ProtocolError
from gw.media.ai_in import AiIn
from gw.media.call import Call
from gw.media.context import CountedState, MediaContext
from gw.media.hub.greenlets import KindGreenlet, mark_current, spawn
from gw.media.transport.plain import Transport
from gw.media.transport.websocket import QUIET, LegClosedError, MessageReader, WebSocket
from gw.protocol import twilio
from gw.protocol.token import TokenError, check

log = logging.getLogger(__name__)

#: From Twilio: a media message is 394 bytes; a `start` with all its parameters a few thousand.
MAX_MESSAGE_BYTES: Final = 64 << 10
#: Towards Twilio: what waits for a Twilio that does not read, about 12 s of frames.
MAX_WAITING_BYTES: Final = 256 << 10
#: How long a call's greenlets may take to end before they are killed.
JOIN_S: Final = 1.0
TOKEN_TTL_S: Final = 64

#: RFC 6455 7.4.1: what the peer reads. Everything that is not here closes with 1000.
_CLOSE_CODES: Final = {
    Reason.PHONE_BAD_JSON: 1007,
    Reason.PHONE_BAD_TYPE: 1007,
    Reason.PHONE_MISSING_FIELD: 1007,
    Reason.PHONE_BAD_UTF8: 1007,
    Reason.PHONE_BAD_BASE64: 1007,
    Reason.PHONE_WRONG_FORMAT: 1007,
    Reason.PHONE_BINARY_MESSAGE: 1003,
    Reason.PHONE_OVERSIZE_MESSAGE: 1009,
    Reason.PHONE_BAD_WEBSOCKET: 1002,
    Reason.PHONE_MEDIA_BEFORE_START: 1002,
    Reason.PHONE_SECOND_START: 1002,
    Reason.PHONE_WRONG_STREAM: 1002,
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
    """The stream's start is not accepted."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Session:
    """One media socket, open. `run` returns when it is closed."""

    def __init__(self, context: MediaContext, transport: Transport) -> None:
        self._context = context
        self._transport = transport
        self._socket = WebSocket(transport, Protocol(Side.SERVER, max_size=MAX_MESSAGE_BYTES, logger=QUIET))
        self._reader = MessageReader(self._socket, twilio.parse)
        self._state = CountedState(context.cells)
        self._call: Call | None = None
        self._ai_in: AiIn | None = None
        self._greenlets: list[KindGreenlet] = []
        self._unknown: set[str] = set()
        self.opened_s = self.last_message_s = monotonic()
        self._detail = ""
        self._call_sid = ""
        self._entered = False  # it has a place of the machine's

    def run(self) -> None:
        """RX's body: read until the call is over, then close. Never raises."""
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
            self.end(Reason.INTERNAL_ERROR, "RX was killed")  # GreenletExit and Timeout: an end with a reason all the same
            self._close()

    def end(self, reason: Reason, detail: str = "") -> None:
        """End this socket's call, or the socket that has none yet. Idempotent; never waits."""
        if self._call is not None:
            self._call.end(reason, detail)
            return
        if self._state.end(reason):
            self._detail = detail
            self._transport.wake()

    def check_or_end(self, now_s: float) -> None:
        """`check`, whose failure ends this call and no other: the watchdog looks at all of them. Never raises."""
        try:
            self.check(now_s)
        except Exception as error:
            log.exception("the watchdog failed", extra={"call_sid": self._call_sid, "reason": Reason.INTERNAL_ERROR.value})
            self.end(Reason.INTERNAL_ERROR, f"watchdog: {type(error).__name__}: {error}"[:500])

    def check(self, now_s: float) -> None:
        """The watchdog's look."""
        media = self._context.config.media
        if self._state.now is State.WAITING:
            if now_s - self.opened_s > media.start_timeout_s:
                self.end(Reason.START_TIMEOUT, f"no start within {media.start_timeout_s:g} s of the upgrade")
        elif self._call is not None and not self._state.has_ended:
            if now_s - self.last_message_s > media.phone_silence_s:
                self.end(Reason.PHONE_SILENT, f"nothing came from Twilio for {media.phone_silence_s:g} s")
            else:
                self._call.check(now_s)
                if self._ai_in is not None and self._state.now is State.ACTIVE:
                    self._ai_in.failover.check(now_s)

    # -- Twilio's messages ----------------------------------------------------------------------------------------------

    def _take(self, event: twilio.TwilioEvent) -> bool:
        """The caller's audio in a running call, forty-nine of fifty messages a second: sent on in the hub's callback, while RX
        sleeps. Everything else, and whatever is wrong with a frame, is RX's to look at."""
        call = self._call
        if type(event) is not twilio.Media or call is None or call.state.has_ended:
            return False
        if event.stream_sid != call.stream_sid or event.track != "inbound":
            return False
        self.last_message_s = monotonic()
        call.uplink.push(event.payload)
        return True

    def _on_event(self, event: twilio.TwilioEvent) -> None:
        call = self._call
        if isinstance(event, twilio.Media):
            if call is None:
                raise ProtocolError("media_before_start", "media came before start")
            self._check_stream(call, event.stream_sid)
            if event.track == "inbound":
                call.uplink.push(event.payload)
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
        """A newer Twilio may say more than we know: counted, kept once a stream, and nothing else."""
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
        if config.twilio.account_sid and start.account_sid != config.twilio.account_sid:
            raise _RefusedError(Reason.WRONG_ACCOUNT, "the stream is of another account")
        voice_at = self._use_token(start)
        name = start.parameters.get("agent", "default")
        agent = config.agents.get(name)
        if agent is None:
            raise _RefusedError(Reason.UNKNOWN_AGENT, f"no agent is called {name[:40]!r}")
        if start.call_sid in self._context.calls:
            raise _RefusedError(Reason.TOKEN_USED, "this call has a stream already")
        self._context.slots.occupy(start.call_sid)
        self._entered = True
        if self._state.has_ended:  # while other workers had the lock
            return
        self._state.on_event(Event.START)
        call = Call(self._context, self._state, start, name, agent, self._transport, voice_at=voice_at, wake=self._transport.wake)
        self._call = self._context.calls[start.call_sid] = call
        log.info("call started with agent %s", name, extra={"call_sid": call.sid, "stream_sid": call.stream_sid})
        self._ai_in = AiIn(call)
        for kind, body in (("ai_in", self._ai_in.run), ("ai_out", call.downlink.ai_out.run), ("tx", call.downlink.tx.run)):
            greenlet = KindGreenlet(kind, body)
            greenlet.link_exception(self._on_crash)
            greenlet.start()
            self._greenlets.append(greenlet)

    def _use_token(self, start: twilio.Start) -> float | None:
        """Check the one-time token and use it up. Returns when it was issued; None where none is asked for and none came."""
        token = start.parameters.get("token", "")
        if not token:
            if self._context.config.signed:
                raise _RefusedError(Reason.TOKEN_MISSING, "the stream brings no token")
            return None
        now_s = int(time.time())
        try:
            good = check(self._context.token_key, token, start.call_sid, now_s, TOKEN_TTL_S)
        except TokenError as error:
            raise _RefusedError(Reason(error.code), str(error)) from error
        if not self._context.ledger.use(good.nonce, good.issued_at_s + TOKEN_TTL_S + 1, now_s):
            raise _RefusedError(Reason.TOKEN_USED, "the token was used before")
        return float(good.issued_at_s)

    def _on_crash(self, greenlet: KindGreenlet) -> None:
        """A greenlet of this call died of an error: the call ends, nothing else does."""
        error, kind = greenlet.exception, greenlet.kind
        log.error("%s failed", kind, exc_info=error, extra={"call_sid": self._call_sid, "reason": Reason.INTERNAL_ERROR.value})
        self.end(Reason.INTERNAL_ERROR, f"{kind}: {type(error).__name__}: {error}"[:500])

    # -- the end --------------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """Take everything down, in order and bounded: nobody writes after the close frame, nothing is left running."""
        call = self._call
        try:
            if call is not None:
                self._stop_greenlets(call)
                call.report_end()
            else:
                self._report_refused()
        except Exception:
            log.exception("the end cannot be reported", extra={"call_sid": self._call_sid, "reason": Reason.INTERNAL_ERROR.value})
        finally:
            self._close_legs(call)

    def _stop_greenlets(self, call: Call) -> None:
        call.downlink.stop()
        call.ai.leg.wake()
        gevent.joinall(self._greenlets, timeout=JOIN_S)
        running = [*self._greenlets, *call.ai.greenlets]
        gevent.killall([greenlet for greenlet in running if not greenlet.dead], timeout=JOIN_S)
        self._greenlets.clear()
        call.ai.greenlets.clear()  # one that was killed keeps the traceback, and by it the call

    def _close_legs(self, call: Call | None) -> None:
        if self._entered:
            self._context.slots.release()
        closer = None
        if call is not None:
            self._context.calls.pop(call.sid, None)  # after its end was told: until then a new Hello must name it
            closer = spawn("other", call.ai.leg.close)  # beside ours: each may take its bound
        reason = self._state.reason or Reason.INTERNAL_ERROR
        self._socket.close(_CLOSE_CODES.get(reason, 1000), reason.value)
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
        log.warning("stream refused: %s", self._detail, extra={"call_sid": self._call_sid, "reason": reason.value})
