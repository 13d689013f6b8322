"""Record of an AI session, for comparison with the gateway's own figures.

Plain values, written by the session, read by tests, demo and bench. Times are `time.monotonic()`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from gw.twin.sound import BYTES_PER_MS, find_tag

KEPT_EVENTS: Final = 10_000
KEPT_UPLINK_BYTES: Final = 64 << 20  # over two hours of one caller
_TAG_WITHIN_BYTES: Final = 1 << 16  # a tag is at the start of the call


class Received(NamedTuple):
    """A client event other than audio."""

    at_s: float
    kind: str
    body: Mapping[str, Any]


class Truncate(NamedTuple):
    """`conversation.item.truncate`, and whether it was accepted."""

    at_s: float
    item_id: str
    audio_end_ms: int
    accepted: bool


class Create(NamedTuple):
    """`response.create`, and the response to it: None if it was refused or ignored."""

    at_s: float
    instructions: str  # which replace the session's for this response
    response_id: str | None
    refusal: str  # code of the error, or its type
    with_tools: bool = True


class Cancel(NamedTuple):
    """`response.cancel`, and the response it ended; None without one."""

    at_s: float
    response_id: str | None


class Deletion(NamedTuple):
    """`conversation.item.delete`, and whether there was such an item."""

    at_s: float
    item_id: str
    accepted: bool


class Item(NamedTuple):
    """`conversation.item.create` that was accepted."""

    at_s: float
    item_id: str
    kind: str  # message, function_call, function_call_output
    role: str  # empty for calls and their outputs
    text: str  # of a message or an output
    call_id: str


class McpTool(NamedTuple):
    """A tool of a remote MCP server that the AI asks to call. `takes_s`: from the approval on."""

    name: str
    server_label: str = "crm"
    arguments: str = '{"number":"12"}'
    takes_s: float = 0.1
    fails: bool = False
    ends: bool = True  # False: nothing more is heard of the call


class SentCall(NamedTuple):
    """A tool call of the AI."""

    at_s: float
    response_id: str
    call_id: str
    name: str
    status: str | None  # empty: absent

    @property
    def is_due(self) -> bool:
        """True if it needs an output: calls that were cut short need none."""
        return self.status not in ("incomplete", "in_progress")


@dataclass(slots=True)
class Debt:
    """An answer owed to the caller, until its first audio or the caller's next words."""

    at_s: float
    cause: str  # speech | create
    response_id: str | None = None  # of the answer
    audio_s: float | None = None
    withdrawn_s: float | None = None

    @property
    def is_open(self) -> bool:
        return self.audio_s is None and self.withdrawn_s is None


class SentError(NamedTuple):
    """An error event sent to the client."""

    at_s: float
    code: str
    message: str


class Delta(NamedTuple):
    """One piece of sent audio."""

    at_s: float
    size: int


@dataclass(slots=True)
class SentResponse:
    """A response and its audio item."""

    number: int  # 1 for the session's first
    response_id: str
    item_id: str
    asked: bool  # by response.create; else started by voice detection
    intended: bytes
    words: str
    created_s: float
    audio: bytearray = field(default_factory=bytearray)  # sent so far
    deltas: list[Delta] = field(default_factory=list)
    late: bytearray = field(default_factory=bytearray)  # its rest, sent after the end or a truncate
    hangs_up: bool = False  # it calls the tool, once completed
    may_call: bool = True  # tools
    has_item: bool = False  # the item's first events were sent
    usage: Mapping[str, Any] | None = None  # as reported at its end
    status: str | None = "in_progress"
    reason: str = ""  # of a cancellation or an incomplete response
    done_s: float | None = None
    truncated_ms: int | None = None
    faults: tuple[str, ...] = ()  # names of its script's faults

    @property
    def is_active(self) -> bool:
        return self.status == "in_progress"

    @property
    def sent_ms(self) -> int:
        """Length of the item so far: the bound on a truncate."""
        return (len(self.audio) + len(self.late)) // BYTES_PER_MS

    @property
    def believed(self) -> bytes:
        """Audio that the AI believes was heard: all of it, unless truncated."""
        end = None if self.truncated_ms is None else self.truncated_ms * BYTES_PER_MS
        return bytes((self.audio + self.late)[:end])


@dataclass(slots=True)
class AiLedger:
    """Record of one session."""

    index: int
    path: str
    model: str
    headers: Mapping[str, str]
    connected_s: float
    ready_s: float | None = None  # session.updated was sent
    updates: list[Mapping[str, Any]] = field(default_factory=list)  # each session.update's `session`
    responses: list[SentResponse] = field(default_factory=list)
    uplink: bytearray = field(default_factory=bytearray)  # the caller's audio as received
    appends: int = 0
    first_append_s: float | None = None
    last_append_s: float | None = None
    events: deque[Received] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    truncates: list[Truncate] = field(default_factory=list)
    creates: list[Create] = field(default_factory=list)
    early_creates: int = 0  # before the end of a rate limit
    cancels: list[Cancel] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    item_ids: set[str] = field(default_factory=set)  # of the conversation, without deleted ones
    calls: list[SentCall] = field(default_factory=list)
    debts: list[Debt] = field(default_factory=list)
    errors: list[SentError] = field(default_factory=list)
    tool_outputs: list[Mapping[str, Any]] = field(default_factory=list)
    mcp_questions: dict[str, tuple[str, McpTool]] = field(default_factory=dict)  # by item: the response, and the tool
    mcp_answers: list[Mapping[str, Any]] = field(default_factory=list)
    transcriptions: list[Mapping[str, Any]] = field(default_factory=list)  # usage of each
    turns_ms: list[tuple[int, int]] = field(default_factory=list)  # the caller's turns: start and end
    violations: list[str] = field(default_factory=list)  # acts of the client that are allowed but careless
    closed_s: float | None = None
    closed_by: str = ""  # peer, us, lost, silence
    close_code: int | None = None

    @property
    def is_over(self) -> bool:
        return self.closed_s is not None

    @property
    def audio(self) -> bytes:
        """Audio of all responses, in sequence."""
        return b"".join(bytes(response.audio) for response in self.responses)

    @property
    def tag(self) -> int | None:
        """The number that the caller's first audio carried; it identifies the call."""
        return find_tag(bytes(self.uplink[:_TAG_WITHIN_BYTES]))

    def owe(self, cause: str, at_s: float) -> None:
        """Record that the caller is owed an answer."""
        self.debts.append(Debt(at_s, cause))

    def answer(self, sent: SentResponse, at_s: float) -> None:
        """Record the first audio of a response. It answers whatever came before the response."""
        for debt in self.debts:
            if debt.is_open and debt.at_s <= sent.created_s:
                debt.response_id, debt.audio_s = sent.response_id, at_s

    def withdraw(self, at_s: float) -> None:
        """Record that the caller speaks again, so that the last answer is owed no longer."""
        for debt in self.debts:
            if debt.is_open:
                debt.withdrawn_s = at_s

    def kinds(self) -> list[str]:
        """Return the types of the client events other than audio, in sequence."""
        return [event.kind for event in self.events]
