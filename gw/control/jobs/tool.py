"""Jobs of kind `tool`: calls of a user's tools for the AI.

A tool has `timeout_s` from the AI's call; a repetition after a restart has all of it again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, Protocol

from gw.config import Config
from gw.control.jobs.lifecycle import Ended, Job
from gw.errors import ProtocolError
from gw.protocol.hooks.tool_call import ToolAnswer, ToolCall, decode_call, failed
from metrics.page import Page

#: Tool calls under way at a time, which is the number of connections to endpoints.
RUNNERS: Final = 64
#: Waiting tool calls: with 64 runners and a second each, they would be late by minutes.
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

    kind: Final = "tool"
    runners: Final = RUNNERS
    capacity: Final = CAPACITY
    limit_s: Final = LIMIT_S

    def __init__(self, caller: Caller, tools: Mapping[str, ToolKeys]) -> None:
        """`tools`: the configured tools by name."""
        self._caller = caller
        self._tools = tools

    def repeats(self, job: Job) -> float | None:
        try:
            tool = self._tools.get(decode_call(job.body).tool)
        except ProtocolError:
            return None
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


def tool_handlers(config: Config, page: Page) -> list[ToolHandler]:
    """Return the handler of tool calls; none where no tool is configured."""
    if not config.tools:
        return []
    from gw.control.hooks.client import client_of
    from gw.control.hooks.tools import Tools

    return [ToolHandler(Tools(config, client_of(config, "tool", page)), config.tools)]
