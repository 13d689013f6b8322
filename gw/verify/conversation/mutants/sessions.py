"""Defects of `gw.call.dialogue.sessions`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import sessions
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Row, mutants

MUTANTS: Final = mutants(
    sessions,
    on_session_ready=(
        Row(
            "the caller is not greeted",
            check.SILENCE,
            "answers.owe(facts, Prompt.RETURN if facts.rules.resumes else Prompt.GREETING)",
        ),
        Row("a return is not answered", check.RETURNED, "answers.owe(facts, Prompt.RETURNED, insists=True)"),
    ),
    _use_session=(
        Row("the conversation is not restated", check.PLAIN, "facts.out.append(do.Restate())"),
        Row("keys pressed without a session are lost", check.KEYS_UNHEARD, "facts.out.append(do.SendKeys(facts.held_keys))"),
        Row(
            "a request precedes the conversation so far",
            check.PLAIN,
            "facts.out.append(do.Restate())",
            "facts.out.append(do.Create(Prompt.ANSWER)); facts.out.append(do.Restate())",
        ),
        Row("a result that came without a session is lost", check.TOOL_ELSEWHERE, "tools.give_result(facts, call_id, result)"),
        Row("an implausible lifetime is believed", check.WRONG_CLOCK, "lifetime_ms < limits.MIN_LIFETIME_MS", "lifetime_ms <= 0"),
    ),
    on_session_lost=(
        Row(
            "an attempt at a session has no deadline",
            check.SESSIONS,
            "facts.open_by = facts.now + pause_ms + min(facts.rules.open_ms, left_ms)",
        ),
        Row("an attempt at a session is cut short", check.SESSIONS, "pause_ms + min(facts.rules.open_ms, left_ms)", "100"),
        Row("a session that is ready does not replace a lost one", check.ROLLOVER, "has_other and facts.", "False and facts."),
        Row(
            "the failure of the first session leaves no trace",
            check.SESSIONS,
            "elif facts.ready_ms == NEVER and not facts.opens:",
            "elif False:",
        ),
    ),
    _leave_session=(
        Row("the rest of a sentence is not asked for", check.SESSIONS, "facts.debt = facts.debt or Prompt.CONTINUE"),
        Row(
            "lost words of the caller are not asked for",
            check.SESSIONS,
            "facts.debt = Prompt.REPEAT",
        ),
        Row(
            "a result that preceded its response's end is lost with the session",
            check.TOOL_ELSEWHERE,
            "facts.debt, facts.insists = Prompt.ANSWER, True  # to the results",
        ),
        Row("a sentence for a tool outlives its session", check.FILLER_ELSEWHERE, "if facts.debt is Prompt.FILLER:", "if False:"),
        Row(
            "keys that no session answered are lost with it",
            check.KEYS_UNHEARD,
            'facts.held_keys, facts.sent_keys = facts.sent_keys, ""',
        ),
    ),
    on_unreadable=(
        Row(
            "unreadable events never cost the session",
            check.UNREADABLE,
            "on_session_lost(facts, given.SessionLost(event.reason))",
        ),
        Row(
            "unreadable events are counted for ever",
            check.UNREADABLE_SLOWLY,
            "if facts.now - at < limits.UNREADABLE_WINDOW_MS",
            "",
        ),
    ),
    on_quiet_at=(Row("a swap happens before the successor is ready", check.ROLLOVER, "Successor.OPENING", "Successor.READY"),),
    on_successor_failed=(
        Row(
            "a failed successor is used",
            check.ROLLOVER,
            "facts.successor, facts.quiet_at = Successor.NONE, facts.now + limits.ROLLOVER_RETRY_MS",
            "facts.successor = Successor.READY",
        ),
    ),
    may_swap=(
        Row("a rollover interrupts", check.ROLLOVER, "not (facts.speaks or facts.plays) and ", ""),
        Row("a rollover breaks off a response", check.ROLLOVER, " and facts.response is Response.NONE", ""),
    ),
    awaits_text=(Row("a rollover loses the caller's words", check.ROLLOVER, "return True", "return False"),),
    on_text_by=(Row("a rollover awaits the caller's words for ever", check.ROLLOVER, 'facts.item = ""'),),
)
