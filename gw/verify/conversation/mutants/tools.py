"""Defects of `gw.call.dialogue.tools`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import tools
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Row, mutants

MUTANTS: Final = mutants(
    tools,
    is_known=(
        Row(
            "a repeated call is answered again",
            check.TOOLS,
            "call_id in facts.answered or any(call_id == one for one, _ in facts.held_results)",
            "False",
        ),
        Row(
            "an open call is wanted again",
            check.LATE_RESULTS,
            "any(tool.call_id == call_id for tool in facts.open_tools)",
            "False",
        ),
    ),
    is_too_much=(Row("a second transfer replaces the first", check.LEAVING_LATER, "bool(facts.leaving)", "False"),),
    open_tool=(
        Row("a tool has no bound", check.TOOLS, "facts.tools_by = min(facts.tools_by, tool.by_ms)"),
        Row("a tool in the background has no first output", check.BACKGROUND, 'answer_tool(facts, event.call_id, "started")'),
        Row(
            "the first output of a tool in the background is a system item",
            check.BACKGROUND,
            'answer_tool(facts, event.call_id, "started")',
            'facts.out.append(do.ToolResult(event.call_id, "started"))',
        ),
        Row("a call leaves an approval open", check.APPROVAL, "yield_tools(facts)"),
    ),
    on_tool_resumed=(
        Row("a tool of an earlier stream has no deadline", check.RESUMED_TOOL, "facts.tools_by = min(facts.tools_by, by_ms)"),
        Row("a tool of an earlier stream is dropped", check.RESUMED_TOOL, "facts.open_tools = (*facts.", "_ = (*facts."),
        Row("a started tool of an earlier stream is answered anew", check.RESUMED_BACKGROUND, "if not rules.waits:", "if False:"),
    ),
    close_tool=(Row("a transfer that failed is remembered", check.LEAVING, 'facts.leaving, facts.left_for = "", None'),),
    close_collection=(Row("the caller stays concealed after the digits", check.SECRET, "facts.out.append(do.Conceal(False))"),),
    yield_tools=(
        Row("an approval that yields stays open", check.APPROVAL, "close_tool(facts, tool)"),
        Row("every tool yields", check.APPROVAL, "if facts.rules.tools[tool.name].yields:", "if True:"),
    ),
    cancel_tools=(
        Row("an interrupted tool continues", check.CANCELLED, "facts.out.append(do.CancelTool(tool.call_id))"),
        Row("an interruption ends every tool", check.TWO_TOOLS_SPOKEN_INTO, "facts.rules.tools[tool.name].cancels and ", ""),
        Row("a transfer under way is cancelled", check.LEAVING, " and not has_left(facts, tool)", ""),
    ),
    give_result=(
        Row("the result from the background is a second output", check.BACKGROUND_LATE, "call_id in facts.answered:", "False:"),
        Row("the result from the background is lost", check.BACKGROUND, "facts.out.append(do.ToolResult(call_id, result))"),
    ),
    pass_on=(Row("a result is kept for the next session and sent now too", check.TOOL_ELSEWHERE, "else:", "if True:"),),
    on_tools_by=(
        Row("a tool that is never settled stays open", check.LATE_RESULTS, 'settle_tool(facts, tool, "unknown_outcome")'),
    ),
    settle_tool=(
        Row(
            "a tool's result is not answered",
            check.TOOLS,
            "answers.owe(facts, Prompt.ANSWER, min(own_ms, limits.AFTER_TOOL_MS), insists=True)",
        ),
        Row("a late result is sent", check.LATE_RESULTS, "close_tool(facts, tool)"),
        Row(
            "an answer does not wait for its response's other calls",
            check.TWO_TOOLS,
            "(facts.waits(tool) and facts.awaits_tool(tool.response_id))",
            "False",
        ),
        Row("an answer to results does not wait for the response that calls", check.TWO_TOOLS, "is_active or ", ""),
        Row("a result is kept from the AI", check.TOOLS, "pass_on(facts, tool.call_id, result)"),
        Row("a sentence for a tool counts as the answer", check.FILLER, "AFTER_TOOL_MS), insists=True)", "AFTER_TOOL_MS))"),
    ),
    may_leave=(
        Row("a transfer cuts the agent's words", check.LEAVING, "or facts.plays", ""),
        Row("a transfer cuts the caller's words", check.LEAVING_FINISHES, "or facts.speaks", ""),
        Row("a transfer leaves keys unsent", check.LEAVING_KEYS, "or facts.keys", ""),
        Row("a transfer leaves an answer owed", check.LEAVING_KEYS, "facts.debt is not None or", ""),
        Row("a transfer cuts a response", check.LEAVING_KEYS, "or facts.response not in (Response.NONE, Response.CUT)", ""),
        Row(
            "a transfer leaves another tool open",
            check.LEAVING_LATER,
            "return not any(facts.waits(tool) for tool in facts.open_tools if tool.call_id != facts.leaving)",
            "return True",
        ),
    ),
    leave=(Row("a transfer has no deadline", check.LEAVING, "facts.tools_by = min(facts.tools_by, begun.by_ms)"),),
)
