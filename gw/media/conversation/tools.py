"""One call's tools: the way of a tool call from the AI to control, and of its result back.

The dialogue decides which call is carried out, and when its output is sent. A call becomes a job of control, which is on disk
once the event is acknowledged. Until control settles the job, the dialogue's deadline runs; a later result is dropped. Arguments
and outputs are in no log and no note.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gw import bus
from gw.call import prompts
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import ToolOutcome
from gw.call.dialogue.rules import LEAVE_MS, MCP_APPROVAL, MCP_CALL
from gw.call.digits import MAX_DIGITS, mask, read_asked
from gw.call.digits import output_of as typed_output
from gw.call.leave import (
    KIND,
    LEAVING_TOOLS,
    TRANSFER,
    Leave,
    decode_leave,
    digits_of,
    encode_leave,
    output_of,
    transfer_of,
)
from gw.call.resume import Resumed
from gw.call.tool_calls import MCP_PREFIX, ToolCalls, ToolRecord
from gw.config import Agent, Say, Tool
from gw.errors import ProtocolError
from gw.media.ai_side import AiSide
from gw.media.call_events import CallEvents
from gw.media.conversation.digits import CallDigits
from gw.protocol import ai
from gw.protocol.ai import COLLECT_DIGITS_TOOL
from gw.protocol.hooks.tool_call import MAX_ARGUMENTS_BYTES, CallFacts, Status, ToolCall, encode_call, failed

log = logging.getLogger(__name__)

_MS: Final = 1000
#: Length of a name in logs and notes: the AI may invent one.
_NAME_CHARS: Final = 64

#: Time that control has for Twilio's new instructions: less than the dialogue waits.
REDIRECT_S: Final = LEAVE_MS / _MS - 1.0
#: Results of a job after which the stream ends, or may end. The dialogue waits for its end, within a bound.
_MAY_LEAVE: Final = ("ok", "unknown_outcome")

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
    "not_paused": (
        "unavailable",
        failed("unavailable", "The recording cannot be paused, so nothing was collected. Ask the caller not to type.").output,
    ),
    "busy": ("busy", failed("busy", "Too many tool calls.").output),
    "cancelled": ("cancelled", failed("cancelled", "The call was given up before its result came.").output),
    "unknown_outcome": ("unknown_outcome", failed("unknown_outcome", "The result did not come in time.").output),
}
_BAD_DIGITS: Final = f"Expected min and max from 1 to {MAX_DIGITS}, min first; finish_on #, * or empty; timeout_s 1 to 60."


class _McpCall(msgspec.Struct):
    """A call that the provider carries out, or a question about one. `called_ms`: in the call's time."""

    name: str
    called_ms: int
    is_question: bool
    status: Status = "unknown_outcome"


class CallTools:
    """One call's tools."""

    def __init__(
        self,
        events: CallEvents,
        side: AiSide,
        digits: CallDigits,
        tools: Mapping[str, Tool],
        facts: CallFacts,
        now_ms: Callable[[], int],
        agent: Agent,
        route: str = "",
        carried: Mapping[str, str] | None = None,
    ) -> None:
        """`tools`: the configured ones. `facts`: of the call, for their endpoints. `now_ms`: the call's time. `route`: its id.
        `carried`: what all its streams have."""
        self._events = events
        self._side = side
        self._digits = digits
        self._tools = tools
        self._facts = facts
        self._now_ms = now_ms
        self._agent = agent
        self._route = route
        self._carried = {} if carried is None else dict(carried)
        self._wishes: dict[str, Leave] = {}  # to leave the stream, by call: one is carried out
        self._faults: dict[str, str] = {}  # of arguments, until the call's output is sent
        self.is_back = False  # from a transfer, or digits, whose output the AI is given
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
        if is_readable and event.name in LEAVING_TOOLS and event.name in self._agent.tools:
            is_readable = self._take_wish(event)
        asked = None
        if event.name == COLLECT_DIGITS_TOOL and event.name in self._agent.tools:
            asked = read_asked(event.arguments) if is_readable else None
            is_readable = asked is not None
            if not is_readable:
                self._faults[event.call_id] = _BAD_DIGITS
        return given.ToolCall(response_id, event.call_id, event.name, is_readable, asked)

    def _take_wish(self, event: ai.ToolCall) -> bool:
        """Read the arguments of a call that leaves the stream. Returns whether they are valid."""
        transfer, key = self._agent.transfer, os.urandom(16).hex()
        wish = Leave(
            key=key,
            tool=event.name,
            account_sid=self._events.account_sid,
            route=self._route,
            carried=self._carried,
            call_id=event.call_id,
            ring_s=transfer.ring_s,
        )
        try:
            if event.name == TRANSFER:
                accept = transfer.accept if transfer.whisper else ""
                wish = transfer_of(wish, event.arguments, transfer.targets, accept=accept)
            else:
                wish = digits_of(wish, event.arguments)
        except ProtocolError as error:
            self._faults[event.call_id] = error.detail
            return False
        self._wishes.setdefault(event.call_id, wish)
        return True

    def resume(self, tool: bus.OpenTool) -> given.ToolResumed | None:
        """Record a call of an earlier stream. Returns the dialogue's input; None for a tool that is not configured any more."""
        if tool.tool not in self._tools:
            return None
        call_id = self.calls.on_earlier(tool.id, tool.tool, tool.arguments, tool.deadline_ms, self._now_ms())
        if call_id is None:
            return None
        if self._tools[tool.tool].mode == "background":
            self.calls.get(call_id).output = STARTED
        return given.ToolResumed(call_id, tool.tool, tool.deadline_ms - int(time.time() * _MS))

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
        if (wish := self._wishes.get(command.call_id)) is not None:
            deadline_ms = int((time.time() + REDIRECT_S) * _MS)
            self._events.note("leaving", tool=wish.tool, target=wish.target)
            self._events.emit(bus.JobWanted(job_id, KIND, self._events.sid, deadline_ms, encode_leave(wish)))
            return
        body = ToolCall(id=job_id, tool=record.name, arguments=record.arguments, call=self._facts)
        deadline_ms = record.deadline_ms or int((time.time() + self._tools[record.name].timeout_s) * _MS)
        self._events.emit(bus.JobWanted(job_id, "tool", self._events.sid, deadline_ms, encode_call(body)))

    def collect(self, command: do.Collect) -> None:
        """Record a call that no job carries out: the caller types its result."""
        self.calls.get(command.call_id).wanted = True

    def take_digits(self, command: do.TakeDigits, on_input: Callable[[given.ToolSettled], None]) -> None:
        """Make the output of a collection. `on_input` settles the call once control keeps the digits."""
        ref = self._digits.next_ref() if command.keeps else ""
        shown = mask(command.digits) if command.is_sensitive else command.digits
        output = typed_output(shown, command.shortfall, ref)
        self.calls.close(command.call_id, output, "timeout" if command.shortfall else "ok")
        if command.keeps:
            self._digits.keep(ref, command.digits, lambda: on_input(given.ToolSettled(command.call_id)))

    def cancel(self, command: do.CancelTool) -> None:
        """Have control close the request of a call whose output was sent."""
        self._events.cancel_job(self.calls.job_id(command.call_id))

    def send_output(self, command: do.ToolOutput) -> None:
        """Send the AI a call's output."""
        if command.call_id in self._mcp:
            self._close_mcp(command.call_id)
            return
        record = self._take_result(command.call_id, command.result)
        self._wishes.pop(command.call_id, None)
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
            if result == "invalid_arguments" and (fault := self._faults.pop(call_id, "")):
                output = failed("invalid_arguments", fault).output
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
        if settled.outcome in _MAY_LEAVE and any(self.calls.job_id(call_id) == settled.id for call_id in self._wishes):
            return None
        call_id = self.calls.on_settled(settled.id, settled.outcome, settled.output)
        return None if call_id is None else given.ToolSettled(call_id)

    # -- a call that leaves the stream, and returns -----------------------------------------------------------------------

    def leaves_for(self) -> Leave | None:
        """Return the wish that control carries out by ending the stream; None without one."""
        return next((wish for call_id, wish in self._wishes.items() if self.calls.get(call_id).is_open), None)

    def on_end(self, *, has_left: bool) -> None:
        """Give up a wish to leave a stream that ended for another reason."""
        wish = self.leaves_for()
        if wish is not None and not has_left:
            self._events.cancel_job(self.calls.job_id(wish.call_id))

    def on_return(self, resumed: Resumed, left: str, parked: Leave | None) -> None:
        """Record the output of the call that left the former stream.

        `left`: the wish, by control; empty if unknown. `parked`: the wish of a kept session.
        """
        try:
            wish = decode_leave(left) if left else parked
        except ProtocolError:
            wish = parked
        if wish is None or not wish.call_id:
            return
        self.is_back = True
        output = output_of(resumed.outcome)
        self.calls.on_returned(wish.call_id, wish.tool, wish.arguments, output, self._now_ms())
        self._note_end(wish.tool, self.calls.job_id(wish.call_id), "ok", self._now_ms())
