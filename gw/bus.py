"""What passes between the media workers and the control process.

Typed messages, length-prefixed msgpack, one Unix socket per worker. Every `Event` is numbered per worker instance and kept by
the worker until control acknowledges that its spool has it; `Hello`, `WorkerStatus` and `HubHold` are neither numbered nor kept.
`Command` is what control says. Pure: bytes in, messages out.

    0        4                4 + length
    | length | msgpack message |          length: unsigned, big-endian, of what follows
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from gw.call.conversation import Utterance
from gw.call.quality import Quality
from gw.errors import GatewayError

#: What this code speaks. A field with a default, or a further kind of event, needs no new one: who does not know it passes the
#: field over and keeps the event. Another kind of message does: who does not know it ends the connection.
VERSION: Final = 1
#: The oldest worker control still understands: while workers are rolled over, old ones live on beside a new control.
OLDEST_VERSION: Final = 1
#: A message is refused above this: a webhook form and a long transcript turn fit many times over.
MAX_MESSAGE_BYTES: Final = 1 << 20
_LENGTH: Final = struct.Struct("!I")


class _Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A message of the bus; its class name is its tag."""


# -- worker to control ------------------------------------------------------------------------------------------------


class CallStarted(_Message, frozen=True):
    """Twilio's `start` was accepted. Times are epoch seconds."""

    call_sid: str
    stream_sid: str
    account_sid: str
    agent: str
    direction: str
    from_number: str
    to_number: str
    started_at: float  # the voice webhook; the stream's start where it is not known
    answered_at: float  # the stream's start


class FirstAudio(_Message, frozen=True):
    """The first frame to the caller reached the kernel."""

    call_sid: str
    at: float


class StartRecording(_Message, frozen=True):
    """The guard fired: record this call, once. Sent by the pool, never by TX. `resumed`: not the call's first stream, so another
    host may have asked Twilio already."""

    call_sid: str
    account_sid: str
    first_audio_at: float
    resumed: bool = False


class Turn(_Message, frozen=True):
    """One side spoke. `heard_ms` is what the caller heard of an agent's turn; None where it does not apply."""

    call_sid: str
    n: int
    role: str  # caller | agent
    text: str
    item_id: str
    start_ms: int  # since the stream started
    interrupted: bool = False
    heard_ms: int | None = None


class CallEnded(_Message, frozen=True):
    """The end of a call, with its reason and its quality report."""

    call_sid: str
    ended_at: float
    reason: str
    result: str
    detail: str
    quality: Quality


class CallEvent(_Message, frozen=True):
    """Everything else worth keeping: a tool call, a dtmf digit, an AI error, a refused stream. `call_sid` may be empty."""

    call_sid: str
    kind: str
    at: float
    data: dict[str, str | int | float | bool | None] = {}


class Webhook(_Message, frozen=True):
    """A signed webhook of Twilio's, as it came. `kind`: status | recording | stream | action."""

    kind: str
    at: float
    fields: dict[str, str]


Event = CallStarted | FirstAudio | StartRecording | Turn | CallEnded | CallEvent | Webhook


class Hello(_Message, frozen=True):
    """First on every connection. `instance` is new each time a worker process starts; `calls` are those alive now."""

    worker: int
    instance: str
    pid: int
    calls: list[str]
    version: int = 1  # of the bus; not named by those that speak the first


class WorkerStatus(_Message, frozen=True):
    """Once a second: what `status` and admission show of a worker."""

    calls: int
    draining: bool
    unacked: int
    lateness_p99_s: float
    hold_max_s: float  # within the last minute, while it was watched


class StackFrame(msgspec.Struct, frozen=True):
    """Where a frame of a stack was."""

    file: str
    line: int
    function: str


class HubHold(_Message, frozen=True):
    """Something held a worker's hub over the budget: once a second at most, and nobody misses one that is lost."""

    at: float
    kind: str
    wall_s: float
    cpu_s: float  # at most: less where the machine did not run the worker
    stack: list[StackFrame]  # innermost first; empty where it was not seen


class Numbered(_Message, frozen=True):
    """An event with its number: 1, 2, 3 ... per instance."""

    n: int
    event: Event


class Unreadable(msgspec.Struct, frozen=True):
    """A numbered event that is none this code knows: `body` as it came, to be kept for a version that does. Never sent."""

    n: int
    body: bytes


class Ask(_Message, frozen=True):
    """A question, `n` its number on this connection; who asks does not wait for long.

    `about` next: what Twilio is to do with a call whose stream is over. conversation: what was said in a call that comes back.
    """

    n: int
    call_sid: str
    about: str


FromWorker = Hello | WorkerStatus | HubHold | Numbered | Ask

# -- control to worker ------------------------------------------------------------------------------------------------


class VersionRefused(_Message, frozen=True, tag="Refused"):
    """Control does not speak the worker's version of the bus: its events stay with it until one of both is replaced."""

    version: int  # control's
    why: str


class Ack(_Message, frozen=True):
    """Every event up to `n` is in the spool."""

    n: int


class HangUp(_Message, frozen=True):
    """End this call with `reason`."""

    call_sid: str
    reason: str


class Drain(_Message, frozen=True):
    """Refuse new calls, or take them again."""

    on: bool


class Answer(_Message, frozen=True):
    """The answer to the question of this number. `step`: a value of gw.call.resume.Step, empty where it is not known."""

    n: int
    step: str = ""
    agent: str = ""
    resumes: int = 0
    began_at: float = 0.0
    utterances: list[Utterance] = []


Command = Ack | HangUp | Drain | Answer | VersionRefused

_encoder: Final = msgspec.msgpack.Encoder()
_from_worker: Final = msgspec.msgpack.Decoder(FromWorker)
_command: Final = msgspec.msgpack.Decoder(Command)
_event: Final[msgspec.msgpack.Decoder[Event]] = msgspec.msgpack.Decoder(Event)


class _Envelope(msgspec.Struct, frozen=True, tag="Numbered"):
    """A `Numbered` whose event is not looked at."""

    n: int
    event: msgspec.Raw


_envelope: Final = msgspec.msgpack.Decoder(_Envelope)

#: What msgspec raises on bytes that are no message of ours: bad UTF-8 and deep nesting do not come as its own error.
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
#: And on a value that has no msgpack form: a lone surrogate, an integer beyond 64 bits.
_UNWRITABLE: Final = (UnicodeEncodeError, OverflowError)


class BusError(GatewayError):
    """The other end does not speak this bus: the connection ends, nothing else does. From `pack` and `encode_event`: this one
    message cannot be sent, the connection is whole."""

    code = "bus_error"


def pack(message: FromWorker | Command) -> bytes:
    """One message as it goes on the wire. Raises BusError when it is too long or has no wire form."""
    body = _encode(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise BusError(f"a message of {len(body)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return _LENGTH.pack(len(body)) + body


def encode_event(event: Event) -> bytes:
    """An event as the spool keeps it. Raises BusError when it has no such form."""
    return _encode(event)


def _encode(message: FromWorker | Command | Event) -> bytes:
    try:
        return _encoder.encode(message)
    except _UNWRITABLE as error:
        raise BusError(f"{type(message).__name__}: {error}") from error


def decode_event(body: bytes) -> Event:
    """An event from the spool. Raises BusError on bytes that are none."""
    try:
        return _event.decode(body)
    except _UNREADABLE as error:
        raise BusError(str(error)) from error


class Reader:
    """Cuts a byte stream into messages."""

    __slots__ = ("_buffer", "_decoder")

    def __init__(self, decoder: msgspec.msgpack.Decoder[FromWorker] | msgspec.msgpack.Decoder[Command]) -> None:
        self._buffer = bytearray()
        self._decoder = decoder

    @classmethod
    def of_events(cls) -> Reader:
        """Control's end: reads what workers say."""
        return cls(_from_worker)

    @classmethod
    def of_commands(cls) -> Reader:
        """A worker's end: reads what control says."""
        return cls(_command)

    def feed(self, data: bytes) -> list[FromWorker | Command | Unreadable]:
        """Add what arrived; returns the messages now complete. Raises BusError."""
        buffer = self._buffer
        buffer += data
        messages: list[FromWorker | Command | Unreadable] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > MAX_MESSAGE_BYTES:
                raise BusError(f"a message of {length} bytes is over the limit of {MAX_MESSAGE_BYTES}")
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            body = bytes(memoryview(buffer)[start + _LENGTH.size : end])
            try:
                messages.append(self._decoder.decode(body))
            except _UNREADABLE as error:
                messages.append(self._kept(body, error))
            start = end
        del buffer[:start]
        return messages

    def _kept(self, body: bytes, error: Exception) -> Unreadable:
        """An event nobody here can read must not stand in the way of those behind it. Raises BusError for what is no event."""
        if self._decoder is _from_worker:
            try:
                envelope = _envelope.decode(body)
            except _UNREADABLE:
                pass  # the first error says more
            else:
                return Unreadable(envelope.n, bytes(envelope.event))
        raise BusError(str(error)) from error
