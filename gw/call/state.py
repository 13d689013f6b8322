"""A call's states and transitions, and every reason to end.

Every change of a call's state is in `TRANSITIONS`; an event the state does not allow raises. A call ends once: `END` is allowed
in every state but `ENDED`, and carries one `Reason`, whose `Result` assigns the fault.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from gw.errors import ProtocolCode, StateError


class State(StrEnum):
    """State of a call."""

    WAITING = "waiting"  # the phone socket is open; waiting for Twilio's `start`
    CONNECTING = "connecting"  # the stream started, or the AI leg was lost; an AI leg is being opened
    ACTIVE = "active"  # both legs are ready, audio flows
    CLOSING = "closing"  # no new audio is accepted; queued audio is still being heard
    ENDED = "ended"


class Event(StrEnum):
    """Event in a call's life."""

    START = "start"  # Twilio's `start` was accepted
    AI_READY = "ai_ready"  # the AI leg confirmed its formats
    AI_LOST = "ai_lost"  # the AI leg failed; another is being opened
    HANG_UP = "hang_up"  # the end is decided: last words are heard
    TAKEN_BACK = "taken_back"  # the caller spoke into the goodbye
    END = "end"  # anything that ends the call


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.WAITING, Event.START): State.CONNECTING,
    (State.WAITING, Event.END): State.ENDED,
    (State.CONNECTING, Event.AI_READY): State.ACTIVE,
    (State.CONNECTING, Event.HANG_UP): State.CLOSING,
    (State.CONNECTING, Event.END): State.ENDED,
    (State.ACTIVE, Event.AI_LOST): State.CONNECTING,
    (State.ACTIVE, Event.HANG_UP): State.CLOSING,
    (State.ACTIVE, Event.END): State.ENDED,
    (State.CLOSING, Event.TAKEN_BACK): State.ACTIVE,
    (State.CLOSING, Event.END): State.ENDED,
}


#: The detail of the end of a call that an operator transferred.
BY_OPERATOR: Final = "an operator transferred the caller"


class Result(StrEnum):
    """Responsibility for the end of a call."""

    SUCCESS = "success"
    OWN_ERROR = "own_error"
    PEER_ERROR = "peer_error"


class Reason(StrEnum):
    """Reason of a call's end. One per call, the same word in log, store and metrics."""

    # normal ends
    CALLER_HANGUP = "caller_hangup"  # Twilio's `stop`
    AI_HANGUP = "ai_hangup"  # the agent hung up after its goodbye was heard
    ADMIN_HANGUP = "admin_hangup"  # an operator, or the call was completed by REST
    IDLE_LIMIT = "idle_limit"  # silence on both legs for `media.idle_limit_s`
    DURATION_LIMIT = "duration_limit"  # `media.max_call_s` passed
    BUDGET = "budget"  # a limit of [budget] was reached
    TRANSFERRED = "transferred"  # the agent or an operator transferred the caller
    DIGITS_SENT = "digits_sent"  # the call left the stream to send digits; it comes back
    MACHINE = "machine"  # an answering machine or a fax machine took an outbound call
    SHUTDOWN = "shutdown"  # the gateway stopped, and `server.stop_timeout_s` passed
    # no stream began
    NO_STREAM = "no_stream"  # Twilio opened none, or none that was accepted
    START_TIMEOUT = "start_timeout"
    WRONG_ACCOUNT = "wrong_account"
    TOKEN_MISSING = "token_missing"
    TOKEN_FORGED = "token_forged"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_USED = "token_used"
    UNKNOWN_AGENT = "unknown_agent"
    # the phone leg failed
    PHONE_LOST = "phone_lost"  # the socket closed without `stop`
    PHONE_SILENT = "phone_silent"  # no message for `media.phone_silence_s`
    PHONE_LEG_STALLED = "phone_leg_stalled"  # Twilio does not read: our buffer ran over
    PHONE_BAD_JSON = "phone_bad_json"
    PHONE_BAD_TYPE = "phone_bad_type"
    PHONE_MISSING_FIELD = "phone_missing_field"
    PHONE_BAD_UTF8 = "phone_bad_utf8"
    PHONE_BAD_BASE64 = "phone_bad_base64"
    PHONE_BINARY_MESSAGE = "phone_binary_message"
    PHONE_OVERSIZE_MESSAGE = "phone_oversize_message"
    PHONE_BAD_WEBSOCKET = "phone_bad_websocket"
    PHONE_FRAME_FLOOD = "phone_frame_flood"  # too many control frames or small fragments
    PHONE_MESSAGE_FLOOD = "phone_message_flood"  # too many messages besides audio
    PHONE_MEDIA_BEFORE_START = "phone_media_before_start"
    PHONE_SECOND_START = "phone_second_start"
    PHONE_WRONG_STREAM = "phone_wrong_stream"
    PHONE_WRONG_FORMAT = "phone_wrong_format"
    # the AI leg failed
    AI_UNREACHABLE = "ai_unreachable"  # DNS, TCP or TLS
    AI_REFUSED = "ai_refused"  # an HTTP status other than 101, or a fatal error event
    AI_RATE_LIMITED = "ai_rate_limited"  # HTTP 429, or an error event with that meaning
    AI_TIMEOUT = "ai_timeout"  # not ready within `media.ai_connect_s`
    AI_CLOSED = "ai_closed"  # the AI closed the session
    AI_LOST = "ai_lost"  # the socket broke
    AI_STALLED = "ai_stalled"  # a response began, then no event for `media.ai_stall_s`
    AI_LEG_STALLED = "ai_leg_stalled"  # the AI does not read: our buffer ran over
    AI_BAD_JSON = "ai_bad_json"
    AI_BAD_TYPE = "ai_bad_type"
    AI_MISSING_FIELD = "ai_missing_field"
    AI_BAD_UTF8 = "ai_bad_utf8"
    AI_BAD_BASE64 = "ai_bad_base64"
    AI_BINARY_MESSAGE = "ai_binary_message"
    AI_OVERSIZE_MESSAGE = "ai_oversize_message"
    AI_BAD_WEBSOCKET = "ai_bad_websocket"
    AI_FRAME_FLOOD = "ai_frame_flood"
    AI_WRONG_FORMAT = "ai_wrong_format"
    AI_NO_ANSWER = "ai_no_answer"  # response after response ended without a word
    # it failed permanently; the caller got the configured fallback
    FALLBACK_TRANSFER = "fallback_transfer"
    FALLBACK_GOODBYE = "fallback_goodbye"
    # own errors
    INTERNAL_ERROR = "internal_error"
    WORKER_LOST = "worker_lost"  # the worker died with the call; written by control


_SUCCESS: Final = frozenset(
    {
        Reason.CALLER_HANGUP,
        Reason.AI_HANGUP,
        Reason.ADMIN_HANGUP,
        Reason.IDLE_LIMIT,
        Reason.DURATION_LIMIT,
        Reason.BUDGET,
        Reason.TRANSFERRED,
        Reason.DIGITS_SENT,
        Reason.MACHINE,
        Reason.SHUTDOWN,
    }
)
_OWN: Final = frozenset({Reason.INTERNAL_ERROR, Reason.WORKER_LOST})


def result_of(reason: Reason) -> Result:
    """Return the result of an end for this reason."""
    if reason in _SUCCESS:
        return Result.SUCCESS
    return Result.OWN_ERROR if reason in _OWN else Result.PEER_ERROR


def phone_reason(code: ProtocolCode) -> Reason:
    """Return the reason for a protocol error of the phone leg."""
    return Reason(f"phone_{code}")


def ai_reason(code: ProtocolCode) -> Reason:
    """Return the reason for a protocol error of the AI leg."""
    return Reason(f"ai_{code}")


class CallState:
    """One call's state, changed only by `on_event`."""

    __slots__ = ("now", "reason")

    def __init__(self) -> None:
        self.now: State = State.WAITING
        self.reason: Reason | None = None

    @property
    def has_ended(self) -> bool:
        """True once the call has ended."""
        return self.now is State.ENDED

    def on_event(self, event: Event) -> State:
        """Take one transition. Returns the new state. Raises StateError for an event the state does not allow."""
        following = TRANSITIONS.get((self.now, event))
        if following is None:
            raise StateError(f"{event} is not allowed in state {self.now}")
        self.now = following
        return following

    def end(self, reason: Reason) -> bool:
        """End the call for `reason`. Returns False, without effect, for an ended call."""
        if self.now is State.ENDED:
            return False
        self.on_event(Event.END)
        self.reason = reason
        return True
