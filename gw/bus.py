"""The messages between the media workers and the control process, and their wire format.

Typed messages, length-prefixed msgpack, one Unix socket per worker. Every `Event` is numbered per worker instance; the worker
keeps it until control acknowledges that the event is in its spool. Other messages of a worker are neither numbered nor kept. A
`Command` goes from control to a worker. Pure: bytes in, messages out.

    0        4                4 + length
    | length | msgpack message |          length: unsigned, big-endian, of the message
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from gw.call.conversation import Utterance
from gw.call.cost.usage import Used
from gw.call.quality import Quality
from gw.errors import GatewayError
from gw.protocol.hooks.route_call import Decision

#: Version of this code. A new field with a default, or a new kind of event, needs no new version: older code skips the field and
#: keeps the event. A new kind of message does: older code ends the connection.
VERSION: Final = 4
#: The oldest version control accepts: during a reload, old workers run beside a new control process. Version 1 has no jobs,
#: version 2 no AnsweredBy, version 3 no ExpectStop.
OLDEST_VERSION: Final = 2
#: Size limit of a message: many times a webhook form or a long transcript.
MAX_MESSAGE_BYTES: Final = 1 << 20
_LENGTH: Final = struct.Struct("!I")


class _Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A message of the bus, tagged with its class name."""


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
    started_at: float  # of the voice webhook; of the stream if that is unknown
    answered_at: float  # of the stream's start


class FirstAudio(_Message, frozen=True):
    """The agent's first frame reached the kernel."""

    call_sid: str
    at: float


class StartRecording(_Message, frozen=True):
    """Record this call, once: its guard fired. Sent by the pool, never by TX.

    `resumed`: not the call's first stream, so another host may already have asked Twilio.
    """

    call_sid: str
    account_sid: str
    first_audio_at: float
    resumed: bool = False


class Turn(_Message, frozen=True):
    """A finished turn. `heard_ms`, `length_ms`: of an agent's audio, the part heard and all; None for the caller's turns."""

    call_sid: str
    n: int
    role: str  # caller | agent
    text: str
    item_id: str
    start_ms: int  # since the stream started
    interrupted: bool = False
    heard_ms: int | None = None
    length_ms: int | None = None


class CallEnded(_Message, frozen=True):
    """The end of a call's stream, with its reason, quality report and usage. `speak`: the caller is owed words."""

    call_sid: str
    ended_at: float
    reason: str
    result: str
    detail: str
    quality: Quality
    stream_sid: str = ""
    speak: bool = False
    used: list[Used] = []  # by day and model


class Usage(_Message, frozen=True):
    """Usage of AI models by a call's stream so far. Sent while it grows. `caller`: of an inbound call."""

    call_sid: str
    stream_sid: str
    at: float
    agent: str
    caller: str
    used: list[Used]


class CallEvent(_Message, frozen=True):
    """Any other event of a call: a tool call, a number of keys, an AI error, a refused stream. `call_sid` may be empty."""

    call_sid: str
    kind: str
    at: float
    data: dict[str, str | int | float | bool | None] = {}


class Webhook(_Message, frozen=True):
    """A signed webhook from Twilio. `kind`: status | recording | stream | action | amd.

    `fields`: the form's, unchanged, and `dial`, the name of the dial in the URL of `status` and `amd`.
    """

    kind: str
    at: float
    fields: dict[str, str]


class JobWanted(_Message, frozen=True):
    """Do something outside the gateway, once. Acknowledged: the job is on disk, and a JobSettled follows.

    `id`: chosen by the worker, the same whenever it is sent. `body`: JSON, read by the handler of `kind`.
    """

    id: str
    kind: str  # tool | leave | pause | resume
    call_sid: str
    deadline_ms: int  # epoch milliseconds; a job that was not begun by then is settled as expired
    body: str


Event = CallStarted | FirstAudio | StartRecording | Turn | CallEnded | Usage | CallEvent | Webhook | JobWanted


class Hello(_Message, frozen=True):
    """The first message of every connection. `instance` is unique per worker process; `calls`: those alive now.

    `answered_at`, `account_sids`: the start of each call's stream, and its account, in the sequence of `calls`; older workers
    omit them.
    """

    worker: int
    instance: str
    pid: int
    calls: list[str]
    version: int = 1  # of the bus; version 1 omits it
    answered_at: list[float] = []
    account_sids: list[str] = []


class WorkerStatus(_Message, frozen=True):
    """A worker's figures for `status` and admission, sent once a second."""

    calls: int
    draining: bool
    unacked: int
    lateness_p99_s: float
    hold_max_s: float  # within the last minute, while the hub was watched


class StackFrame(msgspec.Struct, frozen=True):
    """Position of one frame of a stack."""

    file: str
    line: int
    function: str


class HubHold(_Message, frozen=True):
    """A hold of a worker's hub beyond the budget. At most one a second; not resent if lost."""

    at: float
    kind: str
    wall_s: float
    cpu_s: float  # an upper bound: the machine may not have run the worker all the time
    stack: list[StackFrame]  # innermost first; empty if it was not sampled


class Numbered(_Message, frozen=True):
    """An event with its number: 1, 2, 3 ... per instance."""

    n: int
    event: Event


class Unreadable(msgspec.Struct, frozen=True):
    """A numbered event unknown to this version. `body` is kept for a version that decodes it. Never sent."""

    n: int
    body: bytes


class Ask(_Message, frozen=True):
    """A worker's question. `n`: its number on this connection; the worker waits for a short time.

    `account_sid`: the account that asks; older workers omit it.
    `about` next: the next step of a call whose stream ended. conversation: the conversation of a call that resumes. route: who
    answers a call, by the user's endpoint, which gets the webhook's `fields`. variables: those of the call's route.
    left: the next step after a transfer, or digits, of this `key`, which ended as `outcome`. whisper: the words for its callee.
    digits: keep the sensitive digits in `fields` under their reference, in memory only.
    """

    n: int
    call_sid: str
    about: str
    account_sid: str = ""
    fields: dict[str, str] = {}
    key: str = ""
    outcome: str = ""


class JobsOpen(_Message, frozen=True):
    """The jobs of a call that a worker waits for. Sent after every connection, behind the unacknowledged events.

    Control sends a JobSettled for each settled job and for each unknown one, and nothing for one under way.
    """

    call_sid: str
    ids: list[str]


class JobCancelled(_Message, frozen=True):
    """The worker no longer waits for this job: end its request, or do not send it. Not resent if lost."""

    id: str


class StopExpected(_Message, frozen=True):
    """The answer to ExpectStop. `kept`: the stream parameters that every stream of the call has."""

    call_sid: str
    kept: dict[str, str] = {}


FromWorker = Hello | WorkerStatus | HubHold | Numbered | Ask | JobsOpen | JobCancelled | StopExpected

# -- control to worker ------------------------------------------------------------------------------------------------


class VersionRefused(_Message, frozen=True, tag="Refused"):
    """Control does not support the worker's version of the bus.

    The worker keeps its events until one of the two is replaced.
    """

    version: int  # control's
    why: str


class Ack(_Message, frozen=True):
    """Acknowledges that every event up to `n` is in the spool."""

    n: int


class HangUp(_Message, frozen=True):
    """End this call with `reason`."""

    call_sid: str
    reason: str


class Drain(_Message, frozen=True):
    """Refuse new calls, or accept them again."""

    on: bool


class Budget(_Message, frozen=True):
    """Money left of the limits that calls share, sent once a second.

    `callers`: left for each number whose share changed since the last one; all of them to a worker that connects.
    """

    day: str  # UTC; on another day than before, what was sent earlier is void
    day_usd: float | None = None
    callers: dict[str, float] = {}


class OpenTool(msgspec.Struct, frozen=True):
    """A tool call of an earlier stream, which gave the AI no result. `id`: of its job."""

    id: str
    tool: str
    arguments: str
    deadline_ms: int  # epoch milliseconds


class Answer(_Message, frozen=True):
    """The answer to question `n`. `step`: a value of NextStep, empty if unknown.

    `reason`: why the stream ended, or why there is no route.
    `left`: the wish of a call that returns (`gw.call.leave`); `outcome`: how it ended; `text`: words for a callee.
    """

    n: int
    step: str = ""
    agent: str = ""
    resumes: int = 0
    began_at: float = 0.0
    utterances: list[Utterance] = []
    reason: str = ""
    spent_usd: float = 0.0  # by the call's earlier streams
    route: Decision | None = None
    left: str = ""
    outcome: str = ""
    text: str = ""
    tools: list[OpenTool] = []
    is_recorded: bool = False  # the call's recording was requested


#: The step of an answer about digits: control keeps them.
KEPT: Final = "kept"


class JobSettled(_Message, frozen=True):
    """The result of a job. May come twice.

    `outcome`: ok, or the word of the error, as in `output`. `output`: the answer's text, or an error in JSON.
    """

    id: str
    call_sid: str
    outcome: str
    output: str


class AnsweredBy(_Message, frozen=True):
    """Twilio's verdict on the party that answered an outbound call. May come late, twice and wrong."""

    call_sid: str
    verdict: str  # human | machine_end_beep | machine_end_silence | machine_end_other | fax | unknown


class ExpectStop(_Message, frozen=True):
    """An operator transfers the call: Twilio's `stop` within `for_s` is part of it. 0: the transfer was refused."""

    call_sid: str
    for_s: float


Command = Ack | HangUp | Drain | Budget | Answer | VersionRefused | JobSettled | AnsweredBy | ExpectStop

_encoder: Final = msgspec.msgpack.Encoder()
_from_worker: Final = msgspec.msgpack.Decoder(FromWorker)
_command: Final = msgspec.msgpack.Decoder(Command)
_event: Final[msgspec.msgpack.Decoder[Event]] = msgspec.msgpack.Decoder(Event)


class _Envelope(msgspec.Struct, frozen=True, tag="Numbered"):
    """A `Numbered` with its event undecoded."""

    n: int
    event: msgspec.Raw


_envelope: Final = msgspec.msgpack.Decoder(_Envelope)

#: Raised by msgspec on invalid bytes; bad UTF-8 and deep nesting raise Python's own errors.
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
#: Raised on a value without a msgpack form: a lone surrogate, an integer beyond 64 bits.
_UNWRITABLE: Final = (UnicodeEncodeError, OverflowError)


class BusError(GatewayError):
    """Invalid data from the peer: ends the connection, nothing else.

    Raised by `pack` and `encode_event`: the message cannot be sent, the connection is unaffected.
    """

    code = "bus_error"


def pack(message: FromWorker | Command) -> bytes:
    """Encode one message for the wire. Raises BusError if it is too long or has no wire form."""
    body = _encode(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise BusError(f"a message of {len(body)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return _LENGTH.pack(len(body)) + body


def encode_event(event: Event) -> bytes:
    """Encode an event for the spool. Raises BusError if it has no such form."""
    return _encode(event)


def _encode(message: FromWorker | Command | Event) -> bytes:
    try:
        return _encoder.encode(message)
    except _UNWRITABLE as error:
        raise BusError(f"{type(message).__name__}: {error}") from error


def decode_event(body: bytes) -> Event:
    """Decode an event from the spool. Raises BusError on invalid bytes."""
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
        """Make a reader of a worker's messages, for control."""
        return cls(_from_worker)

    @classmethod
    def of_commands(cls) -> Reader:
        """Make a reader of control's messages, for a worker."""
        return cls(_command)

    def feed(self, data: bytes) -> list[FromWorker | Command | Unreadable]:
        """Append received data. Returns the messages now complete. Raises BusError."""
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
        """Keep an event that cannot be decoded, so that it does not block those behind it.

        Raises: BusError for any other message.
        """
        if self._decoder is _from_worker:
            try:
                envelope = _envelope.decode(body)
            except _UNREADABLE:
                pass  # the first error is more precise
            else:
                return Unreadable(envelope.n, bytes(envelope.event))
        raise BusError(str(error)) from error
