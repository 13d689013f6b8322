"""One call's tools: the way of a tool call from the AI to control, and of its result back.

The dialogue decides which call is carried out, and when its output is sent. A call becomes a job of control, which is on disk
once the event is acknowledged. Until control settles the job, the dialogue's deadline runs; a later result is dropped. Arguments
and outputs are in no log and no note.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gw import bus
from gw.call import prompts
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import ToolOutcome
from gw.call.dialogue.rules import MCP_APPROVAL, MCP_CALL
from gw.call.tool_calls import MCP_PREFIX, ToolCalls, ToolRecord
from gw.config import Say, Tool
from gw.media.ai_side import AiSide
from gw.media.call_events import CallEvents
from gw.protocol import ai
from gw.protocol.hooks.tool_call import MAX_ARGUMENTS_BYTES, CallFacts, Status, ToolCall, encode_call, failed

log = logging.getLogger(__name__)

_MS: Final = 1000
#: Length of a name in logs and notes: the AI may invent one.
_NAME_CHARS: Final = 64

#: First output of a call in the background.
STARTED: Final = '{"status":"started"}'
#: Status and output of a call whose result no tool gave. The words are part of the interface to agents.
_OUTPUTS: Final[dict[ToolOutcome, tuple[Status, str]]] = {
    "ok": ("ok", '{"ok": true}'),
    "unknown_tool": ("invalid_arguments", failed("invalid_arguments", "There is no tool of this name.").output),
    "invalid_arguments": (
        "invalid_arguments",
        failed("invalid_arguments", f"The arguments are longer than {MAX_ARGUMENTS_BYTES} bytes.").output,
    ),
    "busy": ("busy", failed("busy", "Too many tool calls.").output),
    "cancelled": ("cancelled", failed("cancelled", "The call was given up before its result came.").output),
    "unknown_outcome": ("unknown_outcome", failed("unknown_outcome", "The result did not come in time.").output),
}


class _McpCall(msgspec.Struct):
    """A call that the provider carries out, or a question about one. `called_ms`: in the call's time."""

    name: str
    called_ms: int
    is_question: bool
    status: Status = "unknown_outcome"


class CallTools:
    """One call's tools."""

    def __init__(
        self, events: CallEvents, side: AiSide, tools: Mapping[str, Tool], facts: CallFacts, now_ms: Callable[[], int]
    ) -> None:
        """`tools`: the configured ones. `facts`: of the call, for their endpoints. `now_ms`: the call's time."""
        self._events = events
        self._side = side
        self._tools = tools
        self._facts = facts
        self._now_ms = now_ms
        self.calls = ToolCalls(events.sid, events.resumed.n if events.resumed is not None else 0)
        self._mcp: dict[str, _McpCall] = {}  # those without an end, as many as the dialogue keeps open

    @property
    def open_jobs(self) -> list[str]:
        """The names of the jobs whose results are awaited."""
        return self.calls.open_jobs

    # -- from the AI ------------------------------------------------------------------------------------------------------

    def take(self, event: ai.ToolCall, response_id: str) -> given.ToolCall:
        """Record a call of the AI. Returns the dialogue's input."""
        self._events.note("tool_call", name=event.name[:_NAME_CHARS], id=event.call_id[:128], item=event.item_id[:128])
        is_readable = len(event.arguments) <= MAX_ARGUMENTS_BYTES
        is_readable = is_readable and len(event.arguments.encode("utf-8", "replace")) <= MAX_ARGUMENTS_BYTES
        self.calls.on_call(event.call_id, event.name, event.arguments if is_readable else "", self._now_ms())
        return given.ToolCall(response_id, event.call_id, event.name, is_readable)

    # -- from the AI's provider: remote MCP servers -----------------------------------------------------------------------

    def take_mcp(self, event: ai.McpCall | ai.McpApproval, response_id: str) -> given.ToolCall:
        """Record a call that the provider carries out, or its question. Returns the dialogue's input: for it they are tools."""
        call_id, is_question = MCP_PREFIX + event.item_id, isinstance(event, ai.McpApproval)
        if not is_question:
            self._events.note("tool_call", name=event.name[:_NAME_CHARS], id=event.item_id[:128], item=event.item_id[:128])
        self._mcp.setdefault(call_id, _McpCall(event.name, self._now_ms(), is_question))
        return given.ToolCall(response_id, call_id, MCP_APPROVAL if is_question else MCP_CALL)

    def on_mcp_done(self, event: ai.McpCallDone) -> given.ToolSettled | None:
        """Record the end of a call. Returns the dialogue's input; None for a call that is not awaited."""
        return self._end_mcp(MCP_PREFIX + event.item_id, "unavailable" if event.failed else "ok")

    def on_session_lost(self) -> list[given.ToolSettled]:
        """Give up the calls of a session that is gone: the provider cannot report their ends. Returns the dialogue's inputs."""
        settled = [self._end_mcp(call_id, "unknown_outcome") for call_id, call in self._mcp.items() if not call.is_question]
        return [one for one in settled if one is not None]

    def _end_mcp(self, call_id: str, status: Status) -> given.ToolSettled | None:
        call = self._mcp.get(call_id)
        if call is None or call.is_question:
            return None
        call.status = status
        return given.ToolSettled(call_id)

    def _close_mcp(self, call_id: str) -> None:
        """Note the end of a call. The AI has its result from the provider."""
        call = self._mcp.pop(call_id)
        if not call.is_question:
            self._note_end(call.name, call_id, call.status, call.called_ms)

    # -- the dialogue's commands ------------------------------------------------------------------------------------------

    def want(self, command: do.WantTool) -> None:
        """Have control carry a call out. Calls of MCP servers are the provider's."""
        if command.call_id in self._mcp:
            return
        record = self.calls.get(command.call_id)
        job_id = self.calls.want(command.call_id)
        body = ToolCall(id=job_id, tool=record.name, arguments=record.arguments, call=self._facts)
        deadline_ms = int((time.time() + self._tools[record.name].timeout_s) * _MS)
        self._events.emit(bus.JobWanted(job_id, "tool", self._events.sid, deadline_ms, encode_call(body)))

    def cancel(self, command: do.CancelTool) -> None:
        """Have control close the request of a call whose output was sent."""
        self._events.cancel_job(self.calls.job_id(command.call_id))

    def send_output(self, command: do.ToolOutput) -> None:
        """Send the AI a call's output."""
        if command.call_id in self._mcp:
            self._close_mcp(command.call_id)
            return
        record = self._take_result(command.call_id, command.result)
        self._side.tool_output(command.call_id, record.output or "")

    def send_result(self, command: do.ToolResult) -> None:
        """Send the AI the result of a call in the background."""
        record = self._take_result(command.call_id, command.result)
        self._side.say_system(prompts.result_of(record.name, record.output or ""))

    def _take_result(self, call_id: str, result: ToolOutcome) -> ToolRecord:
        """Record what the AI is given of a call, and note a call that is over."""
        record = self.calls.get(call_id)
        if result == "started":
            record.output = STARTED
            return record
        if result != "settled":
            status, output = _OUTPUTS[result]
            self.calls.close(call_id, output, status)
        record.output = record.result
        self._note_end(record.name, self.calls.job_id(call_id), record.status, record.called_ms)
        return record

    def _note_end(self, tool: str, call_id: str, status: str, called_ms: int) -> None:
        ms, name = self._now_ms() - called_ms, tool[:_NAME_CHARS]
        self._events.note("tool_called", tool=name, id=call_id[:512], status=status, ms=ms)
        level = logging.INFO if status == "ok" else logging.WARNING
        log.log(level, "tool %s: %s after %d ms", name, status, ms, extra={"call_sid": self._events.sid})

    def filler_of(self, name: str) -> str:
        """Return the system item before a response that bridges the wait for a tool."""
        filler = self._tools[name].filler
        return prompts.filler_of(filler.say if isinstance(filler, Say) else "")

    # -- from control -----------------------------------------------------------------------------------------------------

    def on_settled(self, settled: bus.JobSettled) -> given.ToolSettled | None:
        """Record a job's result. Returns the dialogue's input; None for a job that is not awaited."""
        call_id = self.calls.on_settled(settled.id, settled.outcome, settled.output)
        return None if call_id is None else given.ToolSettled(call_id)
