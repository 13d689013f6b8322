"""Open tool calls: what each waits for, its result, and the call that ends the stream."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import answers
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import rules as limits
from gw.call.dialogue.commands import Prompt, ToolOutcome
from gw.call.dialogue.facts import NEVER, Facts, Floor, OpenTool, Phase, Response, kept
from gw.call.dialogue.rules import ToolRules

#: The response of tools that were called in an earlier stream.
EARLIER: Final = "earlier"


def is_known(facts: Facts, call_id: str) -> bool:
    """The call came before. A call in the background is answered, and may be open."""
    if call_id in facts.answered or any(call_id == one for one, _ in facts.held_results):
        return True
    return any(tool.call_id == call_id for tool in facts.open_tools)


def is_too_much(facts: Facts, rules: ToolRules) -> bool:
    """One more call is refused: the bounds are reached, or the call leaves the stream already."""
    leaves = bool(facts.leaving) and rules.leaves is not None
    return leaves or len(facts.open_tools) >= limits.MAX_OPEN_TOOLS or facts.tools > limits.MAX_TOOLS


def open_tool(facts: Facts, event: given.ToolCall, rules: ToolRules) -> None:
    """Have a call carried out: by control, or by the caller who types digits; or leave the stream later."""
    yield_tools(facts)
    if rules.leaves is not None:
        facts.open_tools = (*facts.open_tools, OpenTool(event.call_id, event.response_id, event.name, NEVER))
        facts.leaving = event.call_id  # the stream, once all words are heard
        return
    tool = OpenTool(event.call_id, event.response_id, event.name, facts.now + rules.timeout_ms + limits.TOOL_MARGIN_MS)
    facts.open_tools = (*facts.open_tools, tool)
    facts.tools_by = min(facts.tools_by, tool.by_ms)
    if rules.collects:
        return
    facts.out.append(do.WantTool(event.call_id))
    if not rules.waits:
        answer_tool(facts, event.call_id, "started")


def on_tool_resumed(facts: Facts, event: given.ToolResumed) -> None:
    """Wait for a result that an earlier stream of the call did not receive. Before the first session."""
    rules = facts.rules.tools.get(event.name)
    if rules is None or is_known(facts, event.call_id) or len(facts.open_tools) >= limits.MAX_OPEN_TOOLS:
        return
    facts.tools += 1
    by_ms = facts.now + max(0, min(event.left_ms, rules.timeout_ms)) + limits.TOOL_MARGIN_MS
    facts.open_tools = (*facts.open_tools, OpenTool(event.call_id, EARLIER, event.name, by_ms))
    facts.tools_by = min(facts.tools_by, by_ms)
    if not rules.waits:  # the earlier session has the first output
        facts.answered = kept(facts.answered, event.call_id, limits.MAX_KNOWN_TOOLS)
    facts.out.append(do.WantTool(event.call_id))


def close_tool(facts: Facts, tool: OpenTool) -> None:
    """Take a call from the open ones, with everything that waits for it alone."""
    if facts.collection is not None and facts.collection.call_id == tool.call_id:
        close_collection(facts)
    facts.open_tools = tuple(one for one in facts.open_tools if one is not tool)
    if tool.call_id == facts.leaving:
        facts.leaving, facts.left_for = "", None
    facts.tools_by = min((one.by_ms for one in facts.open_tools), default=NEVER)
    if not facts.awaits_tool():
        facts.filling = ""


def close_collection(facts: Facts) -> None:
    """Let AI and recording hear the caller again, and drop the digits."""
    if facts.collection is not None and facts.collection.asked.is_sensitive:
        facts.out.append(do.Conceal(False))
    facts.collection, facts.digits_at = None, NEVER


def yield_tools(facts: Facts) -> None:
    """Close what only waited for the AI to continue."""
    for tool in facts.open_tools:
        if facts.rules.tools[tool.name].yields:
            close_tool(facts, tool)
            answer_tool(facts, tool.call_id, "yielded")


def has_left(facts: Facts, tool: OpenTool) -> bool:
    """Return whether control was asked to end the stream for this call."""
    return tool.call_id == facts.leaving and facts.left_for is not None


def cancel_tools(facts: Facts) -> None:
    """Give up the tools that an interruption ends."""
    for tool in facts.open_tools:
        if facts.rules.tools[tool.name].cancels and facts.waits(tool) and not has_left(facts, tool):
            close_tool(facts, tool)
            answer_tool(facts, tool.call_id, "cancelled")
            facts.out.append(do.CancelTool(tool.call_id))


def answer_tool(facts: Facts, call_id: str, result: ToolOutcome) -> None:
    """Send the one output of a call."""
    facts.answered = kept(facts.answered, call_id, limits.MAX_KNOWN_TOOLS)
    facts.out.append(do.ToolOutput(call_id, result))


def give_result(facts: Facts, call_id: str, result: ToolOutcome) -> None:
    """Send the AI a result: as the call's output, or as a system item if the call was answered when it started."""
    if call_id in facts.answered:
        facts.out.append(do.ToolResult(call_id, result))
    else:
        answer_tool(facts, call_id, result)


def pass_on(facts: Facts, call_id: str, result: ToolOutcome) -> None:
    """Send the AI a result now, or once a session is ready."""
    if facts.is_ready:
        give_result(facts, call_id, result)
    else:
        facts.held_results = (*facts.held_results, (call_id, result))


def on_tool_settled(facts: Facts, event: given.ToolSettled) -> None:
    """Pass on what control has for an open call; a late result has no effect."""
    for tool in facts.open_tools:
        if tool.call_id == event.call_id:
            settle_tool(facts, tool, "settled")


def on_tools_by(facts: Facts) -> None:
    """Control did not settle a tool in time: it may have been carried out."""
    for tool in facts.open_tools:
        if tool.by_ms <= facts.now:
            settle_tool(facts, tool, "unknown_outcome")


def settle_tool(facts: Facts, tool: OpenTool, result: ToolOutcome) -> None:
    """Pass a result on as it comes. The answer waits for the other calls of its response, and for its end."""
    close_tool(facts, tool)
    pass_on(facts, tool.call_id, result)
    is_active = facts.response is Response.ACTIVE and facts.response_id == tool.response_id
    if is_active or (facts.waits(tool) and facts.awaits_tool(tool.response_id)):
        return
    own_ms = facts.ask_at - facts.now if facts.debt is Prompt.ANSWER and facts.ask_at != NEVER else 0
    answers.owe(facts, Prompt.ANSWER, min(own_ms, limits.AFTER_TOOL_MS), insists=True)


def may_leave(facts: Facts) -> bool:
    """Nothing is being said, heard or owed, and no other tool is awaited."""
    if facts.phase is not Phase.TALK or facts.speaks or facts.plays or facts.keys or facts.floor is not Floor.OPEN:
        return False
    if facts.debt is not None or facts.response not in (Response.NONE, Response.CUT):
        return False
    return not any(facts.waits(tool) for tool in facts.open_tools if tool.call_id != facts.leaving)


def leave(facts: Facts) -> None:
    """Have control end the stream. Its end is expected until the deadline of the call."""
    (tool,) = (one for one in facts.open_tools if one.call_id == facts.leaving)
    rules = facts.rules.tools[tool.name]
    begun = tool._replace(by_ms=facts.now + rules.timeout_ms + limits.TOOL_MARGIN_MS)
    facts.open_tools = tuple(begun if one is tool else one for one in facts.open_tools)
    facts.tools_by = min(facts.tools_by, begun.by_ms)
    facts.left_for = rules.leaves
    facts.out.append(do.WantTool(tool.call_id))
