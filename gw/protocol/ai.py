"""Events of an AI leg, the same for every API.

`openai_realtime` and `parrot` produce them; no consumer depends on the API behind. Audio is mu-law, 8 kHz, mono, 8 bytes per ms.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

from gw.errors import ProtocolCode

ResponseStatus = Literal["completed", "cancelled", "incomplete", "failed"]

#: Kind of a failure. passing: another attempt may succeed. lasting: every attempt would fail alike. rate_limit: the session is
#: healthy and asks for a pause. crossed: our request met a response that the AI had begun itself. "": none, or an expected race.
Trouble = Literal["", "passing", "lasting", "rate_limit", "crossed"]

#: The request that an error refuses, by its event_id: the session, a response, anything else. "": the error names none.
Refused = Literal["", "session", "response", "other"]


class Tokens(NamedTuple):
    """Tokens that a model used. `*_in`: without the cached ones."""

    text_in: int = 0
    text_cached: int = 0
    text_out: int = 0
    audio_in: int = 0
    audio_cached: int = 0
    audio_out: int = 0


NO_TOKENS = Tokens()


class SessionCreated(Struct, frozen=True):
    """The AI accepted the connection. `expires_at`: epoch seconds, 0.0 if unknown."""

    expires_at: float


class SessionReady(Struct, frozen=True):
    """The AI confirmed the session, and named no other format than mu-law: audio may flow."""


class ResponseStarted(Struct, frozen=True):
    """The AI began a response. `response_id`: "" in this and every other event where the AI names none."""

    response_id: str


class ResponseAlive(Struct, frozen=True):
    """Sign of life: a part of a response's text, arguments of a tool call, an item that begins, bytes of a long event."""

    response_id: str


class AudioDelta(Struct, frozen=True):
    """A chunk of the agent's speech: any number of mu-law bytes."""

    response_id: str
    item_id: str
    audio: bytes


class ResponseDone(Struct, frozen=True):
    """End of a response's audio. A missing or unknown status is "failed".

    `detail`: why it did not complete. `trouble`: of a failed one. `wait_ms`: the pause a rate limit asks for; 0: unknown.
    """

    response_id: str
    status: ResponseStatus
    detail: str
    trouble: Trouble = ""
    wait_ms: int = 0
    tokens: Tokens = NO_TOKENS


class SpeechStarted(Struct, frozen=True):
    """The caller began to talk, `audio_start_ms` into the audio sent to the AI; 0: unknown."""

    item_id: str
    audio_start_ms: int


class SpeechStopped(Struct, frozen=True):
    """The caller stopped talking."""

    item_id: str


class CallerTranscript(Struct, frozen=True):
    """The text of one of the caller's turns. `tokens`: those of the transcription model."""

    item_id: str
    text: str
    tokens: Tokens = NO_TOKENS


class CallerTranscriptFailed(Struct, frozen=True):
    """One of the caller's turns has no text: its transcription failed."""

    item_id: str
    code: str
    message: str


class AgentTranscript(Struct, frozen=True):
    """The whole text of one of the agent's items."""

    response_id: str
    item_id: str
    text: str


class AgentTranscriptDelta(Struct, frozen=True):
    """A piece of the agent's transcript, sent while the item is generated."""

    response_id: str
    item_id: str
    words: str


class ToolCall(Struct, frozen=True):
    """The agent calls a tool. `arguments` is the AI's JSON string, unparsed."""

    response_id: str
    item_id: str
    call_id: str
    name: str
    arguments: str


class TokenLimit(Struct, frozen=True):
    """The tokens that the AI allows within a minute, and those left. `reset_s`: until all are allowed again."""

    limit: int
    remaining: int
    reset_s: float


class McpCall(Struct, frozen=True):
    """The provider calls a tool of a remote MCP server for the agent. `item_id` names the call."""

    response_id: str
    item_id: str
    name: str


class McpCallDone(Struct, frozen=True):
    """A tool of a remote MCP server has answered or failed. The provider has given the AI its output."""

    item_id: str
    failed: bool


class McpApproval(Struct, frozen=True):
    """The provider asks whether it may call a tool of a remote MCP server."""

    response_id: str
    item_id: str
    server_label: str
    name: str


class McpListFailed(Struct, frozen=True):
    """The provider could not list the tools of a remote MCP server: the agent has none of them."""

    item_id: str


class AiError(Struct, frozen=True):
    """An error event of the AI.

    `fatal`: this session cannot continue. `trouble`: "" for a race that both sides expect. `wait_ms`: the pause a rate limit asks
    for; 0: unknown. A rate limit is never fatal.
    """

    code: str
    message: str
    fatal: bool
    trouble: Trouble = ""
    wait_ms: int = 0
    refuses: Refused = ""


class Unreadable(Struct, frozen=True):
    """An event that is not as documented. The session continues."""

    code: ProtocolCode
    detail: str


class Ignored(Struct, frozen=True):
    """An event the gateway has no use for; `kind` is its type on the wire."""

    kind: str


AiEvent = (
    SessionCreated
    | SessionReady
    | ResponseStarted
    | ResponseAlive
    | AudioDelta
    | ResponseDone
    | SpeechStarted
    | SpeechStopped
    | CallerTranscript
    | CallerTranscriptFailed
    | AgentTranscript
    | AgentTranscriptDelta
    | ToolCall
    | McpCall
    | McpCallDone
    | McpApproval
    | McpListFailed
    | TokenLimit
    | AiError
    | Unreadable
    | Ignored
)

#: The tool by which an AI ends a call politely. Every agent has it unless its configuration leaves it out.
HANG_UP_TOOL = "hang_up"
#: The tool by which an AI has the caller type digits.
COLLECT_DIGITS_TOOL = "collect_digits"
