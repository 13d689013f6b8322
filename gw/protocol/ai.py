"""What an AI leg says, whatever API is behind it.

One file per API (`openai_realtime`, `parrot`) turns its wire into these events; nothing downstream knows which one spoke.
Audio is mu-law, 8 kHz, mono, 8 bytes a millisecond.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

ResponseStatus = Literal["completed", "cancelled", "incomplete", "failed"]


class SessionCreated(NamedTuple):
    """The AI accepted the connection. `expires_at` is epoch seconds, 0.0 when it names none."""

    expires_at: float


class SessionReady(NamedTuple):
    """The AI confirmed mu-law both ways: audio may flow from here on."""


class ResponseStarted(NamedTuple):
    response_id: str


class AudioDelta(NamedTuple):
    """A chunk of the agent's speech: any number of mu-law bytes."""

    response_id: str
    item_id: str
    audio: bytes


class ResponseDone(NamedTuple):
    """No more audio of this response will come. `detail` says why it did not complete. `rate_limited`: we ask too often."""

    response_id: str
    status: ResponseStatus
    detail: str
    rate_limited: bool = False


class SpeechStarted(NamedTuple):
    """The caller began to talk, `audio_start_ms` into the audio the AI has received."""

    item_id: str
    audio_start_ms: int


class SpeechStopped(NamedTuple):
    item_id: str
    audio_end_ms: int


class CallerTranscript(NamedTuple):
    item_id: str
    text: str


class AgentTranscript(NamedTuple):
    response_id: str
    item_id: str
    text: str


class AgentTranscriptDelta(NamedTuple):
    """A piece of the agent's transcript, while it is spoken."""

    item_id: str
    words: str


class ToolCall(NamedTuple):
    """The agent wants something done. `arguments` is a JSON string as the AI wrote it."""

    response_id: str
    item_id: str
    call_id: str
    name: str
    arguments: str


class AiError(NamedTuple):
    """The AI complained. `benign`: a race both sides expect; `fatal`: the session cannot go on; `permanent`: nor could another;
    `refuses_response`: the response we asked for will not come; `rate_limited`: because we ask too often."""

    code: str
    message: str
    event_id: str
    benign: bool
    fatal: bool
    refuses_response: bool = False
    permanent: bool = False
    rate_limited: bool = False


class Ignored(NamedTuple):
    """An event we have no use for, known or not; `kind` is its type."""

    kind: str


AiEvent = (
    SessionCreated
    | SessionReady
    | ResponseStarted
    | AudioDelta
    | ResponseDone
    | SpeechStarted
    | SpeechStopped
    | CallerTranscript
    | AgentTranscript
    | AgentTranscriptDelta
    | ToolCall
    | AiError
    | Ignored
)

#: The tool every agent is given, so that an AI can end a call politely (gw.media.session acts on it).
HANG_UP_TOOL = "hang_up"
