"""A call's life as a table, and every way it can end.

Whatever changes a call's state is in `TRANSITIONS`; an event the state does not allow raises. A call ends once: `END` is
allowed in every state but `ENDED`, and carries one `Reason`, whose `Result` says whose fault it was.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from gw.errors import ProtocolCode, StateError


class State(StrEnum):
    """Where a call stands."""

    WAITING = "waiting"  # the phone socket is open, Twilio's `start` has not come
    CONNECTING = "connecting"  # the stream started, or the AI leg was lost: one is on its way
    ACTIVE = "active"  # both legs stand, audio flows
    CLOSING = "closing"  # nothing more will be said; what is queued is still being heard
    ENDED = "ended"


class Event(StrEnum):
    """What may happen to a call."""

    START = "start"  # Twilio's `start` was accepted
    AI_READY = "ai_ready"  # the AI leg confirmed its formats
    AI_LOST = "ai_lost"  # the AI leg failed, another is tried
    HANG_UP = "hang_up"  # the agent asked to hang up, or no AI leg will stand any more
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
    (State.CLOSING, Event.HANG_UP): State.CLOSING,
    (State.CLOSING, Event.END): State.ENDED,
}


class Result(StrEnum):
    """Whose doing the end was."""

    SUCCESS = "success"
    OWN_ERROR = "own_error"
    PEER_ERROR = "peer_error"


class Reason(StrEnum):
    """Why a call ended. Exactly one per call, the same word in log, store and metrics."""

    # as calls should end
    CALLER_HANGUP = "caller_hangup"  # Twilio's `stop`
    AI_HANGUP = "ai_hangup"  # the agent hung up, its goodbye was heard
    ADMIN_HANGUP = "admin_hangup"  # an operator, or the call was completed by REST
    IDLE_LIMIT = "idle_limit"  # nobody spoke for `media.idle_limit_s`
    DURATION_LIMIT = "duration_limit"  # `media.max_call_s` passed
    SHUTDOWN = "shutdown"  # the gateway stops and the drain time is over
    # the start of the stream was refused
    START_TIMEOUT = "start_timeout"
    WRONG_ACCOUNT = "wrong_account"
    TOKEN_MISSING = "token_missing"
    TOKEN_FORGED = "token_forged"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_USED = "token_used"
    UNKNOWN_AGENT = "unknown_agent"
    # the phone leg failed
    PHONE_LOST = "phone_lost"  # the socket closed or broke without `stop`
    PHONE_SILENT = "phone_silent"  # no message at all for `media.phone_silence_s`
    PHONE_LEG_STALLED = "phone_leg_stalled"  # Twilio does not read: our buffer ran over
    PHONE_BAD_JSON = "phone_bad_json"
    PHONE_BAD_TYPE = "phone_bad_type"
    PHONE_MISSING_FIELD = "phone_missing_field"
    PHONE_BAD_UTF8 = "phone_bad_utf8"
    PHONE_BAD_BASE64 = "phone_bad_base64"
    PHONE_BINARY_MESSAGE = "phone_binary_message"
    PHONE_OVERSIZE_MESSAGE = "phone_oversize_message"
    PHONE_BAD_WEBSOCKET = "phone_bad_websocket"
    PHONE_MEDIA_BEFORE_START = "phone_media_before_start"
    PHONE_SECOND_START = "phone_second_start"
    PHONE_WRONG_STREAM = "phone_wrong_stream"
    PHONE_WRONG_FORMAT = "phone_wrong_format"
    # the AI leg failed
    AI_UNREACHABLE = "ai_unreachable"  # DNS, TCP or TLS
    AI_REFUSED = "ai_refused"  # an HTTP answer other than 101, or a fatal error event
    AI_RATE_LIMITED = "ai_rate_limited"  # HTTP 429, or an error that says so
    AI_TIMEOUT = "ai_timeout"  # not ready within `media.ai_connect_s`
    AI_CLOSED = "ai_closed"  # the AI closed the session
    AI_LOST = "ai_lost"  # the socket broke
    AI_STALLED = "ai_stalled"  # a response began and nothing came for `media.ai_stall_s`
    AI_LEG_STALLED = "ai_leg_stalled"  # the AI does not read: our buffer ran over
    AI_BAD_JSON = "ai_bad_json"
    AI_BAD_TYPE = "ai_bad_type"
    AI_MISSING_FIELD = "ai_missing_field"
    AI_BAD_UTF8 = "ai_bad_utf8"
    AI_BAD_BASE64 = "ai_bad_base64"
    AI_BINARY_MESSAGE = "ai_binary_message"
    AI_OVERSIZE_MESSAGE = "ai_oversize_message"
    AI_BAD_WEBSOCKET = "ai_bad_websocket"
    AI_WRONG_FORMAT = "ai_wrong_format"
    # it failed for good, and the caller was helped on as configured
    FALLBACK_TRANSFER = "fallback_transfer"
    FALLBACK_GOODBYE = "fallback_goodbye"
    # our own
    INTERNAL_ERROR = "internal_error"
    WORKER_LOST = "worker_lost"  # written by control: the worker died with the call


_SUCCESS: Final = frozenset(
    {
        Reason.CALLER_HANGUP,
        Reason.AI_HANGUP,
        Reason.ADMIN_HANGUP,
        Reason.IDLE_LIMIT,
        Reason.DURATION_LIMIT,
        Reason.SHUTDOWN,
    }
)
_OWN: Final = frozenset({Reason.INTERNAL_ERROR, Reason.WORKER_LOST})


def result_of(reason: Reason) -> Result:
    """Whose doing an end for this reason is."""
    if reason in _SUCCESS:
        return Result.SUCCESS
    return Result.OWN_ERROR if reason in _OWN else Result.PEER_ERROR


def phone_reason(code: ProtocolCode) -> Reason:
    """The reason for a call whose phone leg broke its protocol."""
    return Reason(f"phone_{code}")


def ai_reason(code: ProtocolCode) -> Reason:
    """The reason for a call whose AI leg broke its protocol."""
    return Reason(f"ai_{code}")


class CallState:
    """One call's state. `on_event` is the only thing that changes it."""

    __slots__ = ("now", "reason")

    def __init__(self) -> None:
        self.now: State = State.WAITING
        self.reason: Reason | None = None

    @property
    def has_ended(self) -> bool:
        """Nothing more happens to this call."""
        return self.now is State.ENDED

    def on_event(self, event: Event) -> State:
        """Take one step. Returns the new state; raises StateError where the table has none."""
        following = TRANSITIONS.get((self.now, event))
        if following is None:
            raise StateError(f"{event} is not allowed in state {self.now}")
        self.now = following
        return following

    def end(self, reason: Reason) -> bool:
        """End the call for `reason`. Returns False, and changes nothing, when it has ended already."""
        if self.now is State.ENDED:
            return False
        self.on_event(Event.END)
        self.reason = reason
        return True
