"""Jobs of kind `tool`: calls of a user's tools for the AI.

A tool has `timeout_s` from the AI's call; a repetition after a restart has all of it again. Each host's calls have separate
runners: a host that answers slowly holds back no other host's calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from gw import bus
from gw.config import Config, Tool
from gw.config.hook_url import parse_hook_url
from gw.control.jobs.lifecycle import TOOL, Ended, Job
from gw.errors import ProtocolError
from gw.protocol.hooks.tool_call import ToolAnswer, ToolCall, decode_call, failed, read_arguments, refs_of
from metrics.page import Page

#: Tool calls under way at a time to one host, which is the number of its connections.
RUNNERS: Final = 8
#: Waiting tool calls to one host: with 8 runners and a second each, they would be late by minutes.
CAPACITY: Final = 10_000
#: Longest attempt: the greatest `timeout_s`, and some time for the client to end it.
LIMIT_S: Final = 75.0


class Caller(Protocol):
    """Sends the requests: `gw.control.hooks.tools.Tools`."""

    def call(self, body: ToolCall, *, attempt: int, deadline_s: float) -> ToolAnswer:
        """Call a tool. `deadline_s`: monotonic."""


class ToolKeys(Protocol):
    """The keys of a tool that matter here."""

    @property
    def timeout_s(self) -> float: ...

    @property
    def idempotent(self) -> bool: ...


class ToolHandler:
    """Runs tool calls."""

    runners: Final = RUNNERS
    capacity: Final = CAPACITY
    limit_s: Final = LIMIT_S

    def __init__(self, caller: Caller, tools: Mapping[str, ToolKeys], kind: str = TOOL) -> None:
        """`tools`: the configured tools by name. `kind`: of the calls to one host; plain, of unknown tools."""
        self.kind = kind
        self._caller = caller
        self._tools = tools

    def repeats(self, job: Job) -> float | None:
        try:
            call = decode_call(job.body)
            if refs_of(read_arguments(call.arguments).value):  # to digits that the earlier process had in memory
                return None
        except ProtocolError:
            return None
        tool = self._tools.get(call.tool)
        return tool.timeout_s if tool is not None and tool.idempotent else None

    def run(self, job: Job, attempt: int) -> Ended:
        try:
            call = decode_call(job.body)
        except ProtocolError as error:
            return Ended("failed", "invalid_arguments", failed("invalid_arguments", f"The request is invalid: {error}.").output)
        deadline_s = time.monotonic() + job.deadline_at - time.time()
        answer = self._caller.call(call, attempt=attempt, deadline_s=deadline_s)
        if answer.status == "ok":
            return Ended("done", answer.status, answer.output)
        return Ended("unclear" if answer.status == "unknown_outcome" else "failed", answer.status, answer.output)


class _Named(msgspec.Struct, frozen=True):
    tool: str = ""


_NAMED: Final = msgspec.json.Decoder(_Named)


class ToolKinds:
    """The kinds of tool calls: one for each host."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._kinds = {name: _kind_of(tool.url) for name, tool in tools.items()}

    @property
    def all(self) -> list[str]:
        """Every kind; the plain one is of tools that are not configured any more."""
        return sorted({TOOL, *self._kinds.values()})

    def of(self, wanted: bus.JobWanted) -> str:
        """Return the kind of a worker's job."""
        if wanted.kind != TOOL:
            return wanted.kind
        try:
            return self._kinds.get(_NAMED.decode(wanted.body).tool, TOOL)
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
            return TOOL  # whose handler refuses it


def _kind_of(url: str) -> str:
    try:
        parts = parse_hook_url(url)
    except ValueError:  # `config check` has refused it
        return TOOL
    return f"{TOOL} {parts.host.lower()}:{parts.port}"


def tool_handlers(config: Config, page: Page, digits_of: Callable[[str], Mapping[str, str]]) -> list[ToolHandler]:
    """Return a handler of tool calls for each host; none without a tool.

    `digits_of`: a call's sensitive digits, by reference.
    """
    if not config.tools:
        return []
    from gw.control.hooks.client import client_of
    from gw.control.hooks.tools import Tools

    caller = Tools(config, client_of(config, "tool", page), digits_of)
    return [ToolHandler(caller, config.tools, kind) for kind in ToolKinds(config.tools).all]
