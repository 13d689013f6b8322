"""One call's tool calls: their jobs' names, their outputs, and what a replacement AI session receives of them.

The AI's identifier names a call, whatever repeats it. A replacement session gets each call that was carried out, with its output;
an open one, or one that waits to leave the stream, gets its output later, under the same identifier. Bounded in calls and bytes;
the latest stay.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, get_args

import msgspec

from gw.call.conversation import Utterance
from gw.protocol.hooks.tool_call import ErrorWord, Status

#: Begins the identifiers of calls of MCP servers: theirs are those of items, which may equal those of function calls.
MCP_PREFIX: Final = "mcp/"
#: Calls that are kept: twice as many as are carried out (`gw.call.dialogue.rules.MAX_TOOLS`).
MAX_CALLS: Final = 200
#: Bytes of arguments and outputs that a replacement session receives. An open call's arguments are always sent.
MAX_RESTATED_BYTES: Final = 64 << 10
#: Sessions of one stream in the numbers of sessions: those of a later stream of the same call continue behind them.
SESSIONS_PER_STREAM: Final = 1000


class Stated(NamedTuple):
    """A tool call as a replacement session receives it. `output` None: it is still open."""

    call_id: str
    name: str
    arguments: str
    output: str | None


class ToolRecord(msgspec.Struct):
    """One call. `called_ms`: in the call's time."""

    name: str
    arguments: str
    session: int
    called_ms: int
    wanted: bool = False  # it is carried out
    is_open: bool = False  # control has not settled it
    output: str | None = None  # that the AI was given
    result: str = ""  # control's
    status: str = ""
    deadline_ms: int = 0  # epoch milliseconds; of a call of an earlier stream


_STATUSES: Final[dict[str, Status]] = {"ok": "ok", **{word: word for word in get_args(ErrorWord)}}


class ToolCalls:
    """One stream's tool calls, by the AI's identifier."""

    __slots__ = ("_call_sid", "_calls", "_session")

    def __init__(self, call_sid: str, streams: int = 0) -> None:
        """`streams`: of the same call, before this one."""
        self._call_sid = call_sid
        self._session = streams * SESSIONS_PER_STREAM
        self._calls: OrderedDict[str, ToolRecord] = OrderedDict()

    def on_session(self) -> None:
        """Count a session that takes over the conversation."""
        self._session += 1

    def on_call(self, call_id: str, name: str, arguments: str, now_ms: int) -> None:
        """Record a call, unless it is known."""
        if call_id in self._calls:
            return
        self._calls[call_id] = ToolRecord(name, arguments, self._session, now_ms)
        if len(self._calls) > MAX_CALLS:
            closed = [known for known, record in self._calls.items() if not record.is_open]
            del self._calls[next((known for known in closed if self._calls[known].output is not None), closed[0])]

    def on_returned(self, call_id: str, name: str, arguments: str, output: str, now_ms: int) -> None:
        """Record a call of an earlier stream, with the output that it has now."""
        self._calls[call_id] = ToolRecord(name, arguments, self._session, now_ms, True, False, output, output, "ok")

    def has(self, call_id: str) -> bool:
        """Return whether a call is known."""
        return call_id in self._calls

    def on_earlier(self, job_id: str, name: str, arguments: str, deadline_ms: int, now_ms: int) -> str | None:
        """Record a call of an earlier stream, by the name of its job. Returns its identifier; None for a name of another kind."""
        call_sid, _, rest = job_id.partition("/")
        session, _, call_id = rest.partition("/")
        if call_sid != self._call_sid or not (session.isascii() and session.isdigit() and call_id) or call_id in self._calls:
            return None
        self._calls[call_id] = ToolRecord(name, arguments, int(session), now_ms, deadline_ms=deadline_ms)
        return call_id

    def get(self, call_id: str) -> ToolRecord:
        """Return the record of a call that is open, or the latest."""
        return self._calls[call_id]

    def want(self, call_id: str) -> str:
        """Record that a call is carried out. Returns the name of its job."""
        record = self._calls[call_id]
        record.wanted = record.is_open = True
        return self.job_id(call_id)

    def job_id(self, call_id: str) -> str:
        """Return the name of a call's job, the same in every session."""
        return f"{self._call_sid}/{self._calls[call_id].session}/{call_id}"

    @property
    def open_jobs(self) -> list[str]:
        """The names of the jobs whose results are awaited."""
        return [self.job_id(call_id) for call_id, record in self._calls.items() if record.is_open]

    def on_settled(self, job_id: str, outcome: str, output: str) -> str | None:
        """Record a job's result. `outcome`: a `Status`. Returns the call's identifier; None for a job that is not awaited."""
        for call_id, record in self._calls.items():
            if record.is_open and self.job_id(call_id) == job_id:
                record.is_open, record.result, record.status = False, output, _STATUSES.get(outcome, "unknown_outcome")
                return call_id
        return None

    def close(self, call_id: str, output: str, status: Status) -> None:
        """Record the output of a call that no job settled: a later result is dropped."""
        record = self._calls[call_id]
        record.is_open, record.result, record.status = False, output, status

    def restate(self, history: Iterable[Utterance], starts_ms: Mapping[str, int], leaving: str = "") -> list[Utterance | Stated]:
        """Return the conversation for a new session, with each call among the turns.

        `starts_ms`: of the utterances, by identifier, in the call's time; those without one are earlier than this stream.
        `leaving`: the call that leaves the stream once all words are heard; empty: none.
        """
        calls = self._within_bounds(leaving)
        stated: list[Utterance | Stated] = []
        for said in history:
            while calls and calls[0][0] < starts_ms.get(said.item_id, 0):
                stated.append(calls.pop(0)[1])
            stated.append(said)
        return stated + [call for _, call in calls]

    def _within_bounds(self, leaving: str) -> list[tuple[int, Stated]]:
        kept: list[tuple[int, Stated]] = []
        size = 0
        for call_id, record in reversed(self._calls.items()):
            if not record.wanted and call_id != leaving:
                continue
            call = Stated(call_id, record.name, record.arguments, record.output)
            size += len(record.arguments) + len(record.output or "")
            if record.output is None or size <= MAX_RESTATED_BYTES:
                kept.append((record.called_ms, call))
        return kept[::-1]
