"""Defects of `gw.call.dialogue.responses`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import responses
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Row, mutants

MUTANTS: Final = mutants(
    responses,
    on_response_started=(Row("a response that begins while the caller speaks is played", check.ODD, "facts.speaks or ", ""),),
    _take_response=(Row("a response leaves an approval open", check.APPROVAL, "tools.yield_tools(facts)"),),
    on_audio=(
        Row("late audio of an interrupted response is played", check.PLAIN, "event.response_id in facts.dropped or ", ""),
        Row(
            "an agent that finishes begins in mid-sentence",
            check.FINISHES,
            "answers.drop_response(facts, cancel=True)  # it would begin in mid-sentence later",
        ),
    ),
    _on_first_words=(
        Row(
            "a response that stalls is awaited as one that has not begun",
            check.PLAIN,
            "facts.answer_by = facts.now + facts.rules.stall_ms",
        ),
    ),
    on_response_done=(
        Row(
            "an empty response counts as an answer",
            check.FAILURES,
            "else:\n        _retry(facts, event.trouble, event.wait_ms)",
            "else:\n        facts.debt = None",
        ),
        Row(
            "a response that breaks off is not continued",
            check.FAILURES,
            "facts.debt = facts.debt or (Prompt.CONTINUE if facts.phase is Phase.TALK else None)",
        ),
        Row(
            "a response that cannot pay is not followed by another",
            check.TOOLS,
            "facts.ask_at = facts.now  # the answer this response could not be",
        ),
        Row(
            "a repeated call is answered before its result comes",
            check.TOOLS,
            "event.response_id if has_new_tool else None",
            "event.response_id",
        ),
        Row("half-spoken closing words count as heard", check.CLOSING_FAILS, "facts.has_spoken = False"),
    ),
    _retry=(
        Row(
            "a failed answer is not asked again",
            check.FAILURES,
            "facts.ask_at = facts.now + limits.RETRY_PAUSES_MS[facts.attempts - 1]",
        ),
        Row("a lasting refusal is tried again", check.FAILURES, "trouble is Trouble.LASTING or ", ""),
        Row("answers are retried for ever", check.RETRIES, "or facts.attempts > len(limits.RETRY_PAUSES_MS)", "or False"),
        Row(
            "a rate limit costs the session",
            check.FAILURES,
            "answers.wait(facts, wait_ms)",
            "sessions.on_session_lost(facts, given.SessionLost(Reason.AI_RATE_LIMITED))",
        ),
        Row(
            "a failed idle prompt is requested again",
            check.IDLE_FAILS,
            "facts.debt in (Prompt.ARE_YOU_THERE, Prompt.FILLER) and",
            "facts.debt is Prompt.FILLER and",
        ),
        Row(
            "the rate limit of an idle prompt is ignored",
            check.IDLE_FAILS,
            "if trouble is Trouble.RATE_LIMIT:",
            "if trouble is Trouble.RATE_LIMIT and facts.debt is Prompt.ANSWER:",
        ),
        Row("closing words that fail are the fallback's", check.CLOSING_FAILS, "if facts.phase is Phase.CLOSING:", "if False:"),
    ),
    on_create_refused=(
        Row(
            "a tool call of a crossing answer drops the closing words",
            check.SPENT,
            "if facts.phase is Phase.CLOSING:",
            "if False:",
        ),
        Row("a refused request is ignored", check.FAILURES, "_retry(facts, event.trouble, event.wait_ms)"),
        Row(
            "a crossed answer pays for keys",
            check.KEYS,
            "facts.debt, facts.insists, facts.survives = facts.debt or facts.asked, True, True",
        ),
    ),
    on_answer_by=(
        Row(
            "a silent response has no consequence",
            check.PLAIN,
            "sessions.on_session_lost(facts, given.SessionLost(Reason.AI_STALLED))",
        ),
    ),
    on_tool_call=(
        Row("the agent's hang-up is ignored", check.TOOLS, "ending.hang_up(facts)"),
        Row("an unknown tool is not answered", check.UNKNOWN_TOOL, 'tools.answer_tool(facts, event.call_id, "unknown_tool")'),
        Row(
            "a call while closing is not answered", check.TOOL_IN_CLOSING, 'tools.answer_tool(facts, event.call_id, "cancelled")'
        ),
        Row("the answer to hang_up is missing", check.TOOLS, 'tools.answer_tool(facts, event.call_id, "ok")'),
        Row(
            "a second collection replaces the first",
            check.SECRET_TWICE,
            "(rules.collects and facts.collection is not None)",
            "False",
        ),
    ),
)
