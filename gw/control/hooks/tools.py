"""Calls of the user's tools: checks the arguments, sends the request, turns whatever follows into the output for the AI.

A call has one attempt. An idempotent tool is tried once more, within the same time, after a failed connection or a status 5xx.
Never raises for anything that a model or an endpoint does; the log has the cause, and neither arguments nor results.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

import gevent

from gw.call.digits import mask
from gw.config import Config, Tool
from gw.config.json_schema import Schema
from gw.control.hooks.client import HookAnswer, HookClient, HookError
from gw.errors import ProtocolError
from gw.protocol.hooks.tool_call import (
    ErrorWord,
    ToolAnswer,
    ToolCall,
    failed,
    idempotency_key,
    read_answer,
    read_arguments,
    request_body,
    with_digits,
    without_digits,
)

log = logging.getLogger(__name__)

#: Pause before the second attempt: an endpoint that is replaced refuses connections for a moment.
PAUSE_S: Final = 0.2
#: A second attempt needs at least this much time.
LEAST_S: Final = 0.1

#: Sentences for the AI, which may read them to the caller: no host, no address.
_DETAILS: Final[Mapping[ErrorWord, str]] = {
    "refused": "The tool's endpoint has an address that may not be called.",
    "unavailable": "The tool's endpoint cannot be reached.",
    "busy": "The tool is overloaded or failed several times; try again later.",
    "timeout": "The tool did not answer in time.",
    "unknown_outcome": "The connection was lost; whether the tool did it is unknown.",
}


class Tools:
    """The configured tools. `call` blocks its greenlet; killing that closes the connection."""

    def __init__(
        self, config: Config, client: HookClient, digits_of: Callable[[str], Mapping[str, str]] = lambda call_sid: {}
    ) -> None:
        """`digits_of`: sensitive digits of a call, by reference. Only a request to a tool has them."""
        self._digits_of = digits_of
        self._tools = dict(config.tools)
        self._schemas = {name: Schema(tool.parameters) for name, tool in self._tools.items()}
        self._client = client
        if any(tool.url.startswith("https:") for tool in self._tools.values()):
            client.open_tls()

    def call(self, body: ToolCall, *, attempt: int, deadline_s: float) -> ToolAnswer:
        """Call a tool and return the output for the AI.

        `attempt`: 1, more if the job is repeated after a restart. `deadline_s`: on the clock of `time.monotonic`; the tool's own
        `timeout_s` ends the call before it. The status is `unknown_outcome` if the request was sent, the connection was lost, and
        the tool is not idempotent.
        """
        digits = self._digits_of(body.call.sid)
        tool = self._tools.get(body.tool)
        if tool is None:
            return self._told(body, failed("invalid_arguments", "There is no tool of this name."), "an unknown tool")
        try:
            asked = read_arguments(body.arguments)
            arguments = with_digits(asked, digits)
            problem = self._schemas[body.tool].problem(arguments.value)
        except ProtocolError as error:
            return self._told(body, failed("invalid_arguments", f"{error.detail[:1].upper()}{error.detail[1:]}."), error.detail)
        except RecursionError:
            problem = "they are nested too deeply"
        secrets = [] if arguments is asked else list(digits.values())
        if problem:
            problem = without_digits(problem, secrets, mask)
            answer = failed("invalid_arguments", f"The arguments do not fit the tool's parameters: {problem}.")
            return self._told(body, answer, "the arguments do not fit the schema")
        answer = self._send(tool, body, arguments.json, attempt, min(deadline_s, time.monotonic() + tool.timeout_s))
        return answer._replace(output=without_digits(answer.output, secrets, mask)) if secrets else answer

    def _send(self, tool: Tool, body: ToolCall, arguments: bytes, attempt: int, deadline_s: float) -> ToolAnswer:
        answer, again = self._attempt(tool, body, arguments, attempt, deadline_s)
        if again and tool.idempotent and deadline_s - time.monotonic() > PAUSE_S + LEAST_S:
            gevent.sleep(PAUSE_S)
            answer, _ = self._attempt(tool, body, arguments, attempt + 1, deadline_s)
        return answer

    def _attempt(self, tool: Tool, body: ToolCall, arguments: bytes, attempt: int, deadline_s: float) -> tuple[ToolAnswer, bool]:
        """Send one request. Returns the output, and whether another attempt may succeed."""
        left_ms = max(1, round(1000 * (deadline_s - time.monotonic())))
        content = request_body(body, arguments, attempt=attempt, deadline_ms=left_ms)
        request = self._client.prepare(tool.url, content, idempotency_key(body.id))
        try:
            received = self._client.send(request, deadline_s=deadline_s, max_bytes=tool.max_result_bytes)
        except HookError as error:
            word = _word(error, idempotent=tool.idempotent)
            return self._told(body, failed(word, _DETAILS[word]), str(error)), error.kind in ("unreachable", "lost")
        answer = read_answer(received.status, received.body, max_bytes=tool.max_result_bytes)
        return self._told(body, answer, _cause(received, answer)), received.status >= 500

    def _told(self, body: ToolCall, answer: ToolAnswer, cause: str) -> ToolAnswer:
        if answer.status != "ok":
            log.warning("tool %s: %s: %s", body.tool[:64], answer.status, cause, extra={"call_sid": body.call.sid})
        return answer


def _word(error: HookError, *, idempotent: bool) -> ErrorWord:
    if error.kind == "lost":
        return "unavailable" if idempotent else "unknown_outcome"
    return "unavailable" if error.kind == "unreachable" else error.kind


def _cause(received: HookAnswer, answer: ToolAnswer) -> str:
    """Return the cause of a failure for the log, without the endpoint's text."""
    return "the answer is too long" if answer.status == "too_large" else f"HTTP {received.status}"
