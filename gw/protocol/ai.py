"""Events of an AI leg, the same for every API.

`openai_realtime` and `parrot` produce them; no consumer depends on the API behind. Audio is mu-law, 8 kHz, mono, 8 bytes per ms.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from gw.errors import ProtocolCode

ResponseStatus = Literal["completed", "cancelled", "incomplete", "failed"]


class SessionCreated(NamedTuple):
    """The AI accepted the connection. `expires_at`: epoch seconds, 0.0 if unknown."""

    expires_at: float


class SessionReady(NamedTuple):
    """The AI confirmed mu-law in both directions: audio may flow."""


class ResponseStarted(NamedTuple):
    """The AI began a response."""

    response_id: str


class AudioDelta(NamedTuple):
    """A chunk of the agent's speech: any number of mu-law bytes."""

    response_id: str
    item_id: str
    audio: bytes


class ResponseDone(NamedTuple):
    """End of a response's audio. `detail`: why it did not complete; `rate_limited`: the API's request quota was exceeded."""

    response_id: str
    status: ResponseStatus
    detail: str
    rate_limited: bool = False


class SpeechStarted(NamedTuple):
    """The caller began to talk, `audio_start_ms` into the audio sent to the AI."""

    item_id: str
    audio_start_ms: int


class SpeechStopped(NamedTuple):
    """The caller stopped talking."""

    item_id: str


class CallerTranscript(NamedTuple):
    """The text of one of the caller's turns."""

    item_id: str
    text: str


class AgentTranscript(NamedTuple):
    """The whole text of one of the agent's items."""

    response_id: str
    item_id: str
    text: str


class AgentTranscriptDelta(NamedTuple):
    """A piece of the agent's transcript, sent while the item is generated."""

    item_id: str
    words: str


class ToolCall(NamedTuple):
    """The agent calls a tool. `arguments` is the AI's JSON string, unparsed."""

    item_id: str
    call_id: str
    name: str
    arguments: str


class AiError(NamedTuple):
    """An error event of the AI.

    `benign`: a race both sides expect. `fatal`: this session cannot continue; `permanent`: neither could another.
    `refuses_response`: the requested response will not come. `rate_limited`: the API's request quota was exceeded.
    """

    code: str
    message: str
    benign: bool
    fatal: bool
    refuses_response: bool = False
    permanent: bool = False
    rate_limited: bool = False


class Unreadable(NamedTuple):
    """An event that is not as documented. `is_first`: of its session."""

    code: ProtocolCode
    detail: str
    is_first: bool


class Ignored(NamedTuple):
    """An event the gateway has no use for; `kind` is its type on the wire."""

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
    | Unreadable
    | Ignored
)

#: The tool every agent has, so that an AI can end a call politely (gw.media.ai_in acts on it).
HANG_UP_TOOL = "hang_up"
