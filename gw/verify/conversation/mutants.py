"""Defects put into the dialogue on purpose: `verify conversation` must find each.

A mutant is a change of the machine's source, and the scenario that exposes it. So the table shows which rule guards which line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from gw.call.dialogue import machine, rules
from gw.verify.changes import Change, Value, changed
from gw.verify.conversation import check
from gw.verify.conversation.state import Scenario

RULES: Final = rules.__name__


class Mutant(NamedTuple):
    """A defect of the machine. `scenario`: exposes it."""

    name: str
    change: Change
    scenario: Scenario


class Caught(NamedTuple):
    """One mutant's fate. `rules`: those it breaks; empty: no scenario noticed."""

    mutant: Mutant
    rules: tuple[str, ...]
    transcript: tuple[str, ...]


def hunt(mutants: Sequence[Mutant], on_caught: Callable[[Caught], None] = lambda caught: None) -> list[Caught]:
    """Put in each mutant, one after the other, and explore its scenario."""
    found = []
    for mutant in mutants:
        with changed(mutant.change):
            explored = check.explore(mutant.scenario, stop_at_first=True)
            if not explored.violations:  # a region that is never left shows at the end of the search only
                explored = check.explore(mutant.scenario)
        violations = explored.violations
        broken = tuple(sorted(one.invariant for one in violations))
        found.append(Caught(mutant, broken, violations[0].steps if violations else ()))
        on_caught(found[-1])
    return found


def _in(method: str, old: str, new: str) -> Change:
    return Change(f"{machine.__name__}:Dialogue.{method}", old, new)


#: In the order of the rules they aim at.
MUTANTS: Final = (
    Mutant("an answer to speech is not owed", _in("_on_speech_stopped", "self._await_own_response()", "pass"), check.PLAIN),
    Mutant(
        "a turn whose start was not reported is not answered",
        _in("_on_speech_stopped", "self._on_speech_started(given.SpeechStarted(event.item_id))", "pass"),
        check.ODD,
    ),
    Mutant(
        "a response that falls silent has no holding sound",
        _in("_on_starved", "self.starved = self.plays and self.response is Response.ACTIVE", "pass"),
        check.HOLD_JUDGED,
    ),
    Mutant(
        "an answer under way has no holding sound",
        _in("_update_hold_sound", "not self.is_owing or", "not self.is_owing or self.response is Response.ACTIVE or"),
        check.HOLD_JUDGED,
    ),
    Mutant("the holding sound comes too late", _in("_update_hold_sound", "self.rules.hold_after_ms", "2000"), check.HOLD),
    Mutant("the holding sound plays on", _in("_update_hold_sound", "self.out.append(do.HoldSound(False))", "pass"), check.HOLD),
    Mutant("the AI's own response is awaited too long", Value(f"{RULES}:OWN_RESPONSE_MS", 3000), check.PLAIN),
    Mutant(
        "a failed answer is not asked again",
        _in("_retry", "self.ask_at = self.now + limits.RETRY_PAUSES_MS[self.attempts - 1]", "pass"),
        check.FAILURES,
    ),
    Mutant("the pause before a retry is too long", Value(f"{RULES}:RETRY_PAUSES_MS", (300, 5000)), check.FAILURES),
    Mutant(
        "an empty response counts as an answer",
        _in("_on_response_done", "else:\n        self._retry(event.trouble, event.wait_ms)", "else:\n        self.debt = None"),
        check.FAILURES,
    ),
    Mutant(
        "a response that breaks off is not continued",
        _in("_on_response_done", "self.debt = self.debt or (Prompt.CONTINUE if self.phase is Phase.TALK else None)", "pass"),
        check.FAILURES,
    ),
    Mutant("keys are not answered", _in("_send_keys", "self._owe(Prompt.ANSWER, 0, insists=True)", "pass"), check.KEYS),
    Mutant(
        "a tool's result is not answered",
        _in("_settle_tool", "self._owe(Prompt.ANSWER, max(0, min(own_ms, limits.AFTER_TOOL_MS)), insists=True)", "pass"),
        check.TOOLS,
    ),
    Mutant(
        "a tool of an earlier stream has no deadline",
        _in("_on_tool_resumed", "self.tools_by = min(self.tools_by, by_ms)", "pass"),
        check.RESUMED_TOOL,
    ),
    Mutant(
        "a tool of an earlier stream is dropped",
        _in("_on_tool_resumed", "self.open_tools = (*self.open_tools,", "_ = (*self.open_tools,"),
        check.RESUMED_TOOL,
    ),
    Mutant(
        "a started tool of an earlier stream is answered anew",
        _in("_on_tool_resumed", "if not rules.waits:", "if False:"),
        check.RESUMED_BACKGROUND,
    ),
    Mutant("a request has no deadline", _in("_ask", "self.answer_by = self.now + self.rules.answer_ms", "pass"), check.PLAIN),
    Mutant(
        "a silent response has no consequence",
        _in("_on_answer_by", "self._on_session_lost(given.SessionLost(Reason.AI_STALLED))", "pass"),
        check.PLAIN,
    ),
    Mutant(
        "an attempt at a session has no deadline",
        _in("_on_session_lost", "self.open_by = self.now + pause_ms + min(self.rules.open_ms, left_ms)", "pass"),
        check.SESSIONS,
    ),
    Mutant("the first session has no deadline", _in("begin", "made.open_by = now_ms + rules.open_ms", "pass"), check.PLAIN),
    Mutant(
        "a refused request is ignored",
        _in("_on_create_refused", "self._retry(event.trouble, event.wait_ms)", "pass"),
        check.FAILURES,
    ),
    Mutant("a lasting refusal is tried again", _in("_retry", "trouble is Trouble.LASTING or ", ""), check.FAILURES),
    Mutant(
        "answers are retried for ever", _in("_retry", "or self.attempts > len(limits.RETRY_PAUSES_MS)", "or False"), check.RETRIES
    ),
    Mutant(
        "a crossed answer pays for keys",
        _in("_on_create_refused", "self.debt, self.survives = self.debt or self.asked, True", "pass"),
        check.KEYS,
    ),
    Mutant(
        "the caller is not greeted",
        _in("_on_session_ready", "self._owe(Prompt.RETURN if self.rules.resumes else Prompt.GREETING, 0)", "pass"),
        check.SILENCE,
    ),
    Mutant(
        "a response that cannot pay is not followed by another",
        _in("_on_response_done", "self.ask_at = self.now  # the answer this response could not be", "pass"),
        check.TOOLS,
    ),
    Mutant(
        "a cut response's end does not release the next request",
        _in("_on_cancel_by", "self.response = Response.NONE", "pass"),
        check.JUDGED_SESSIONS,
    ),
    Mutant("a response is requested while the caller speaks", _in("_may_ask", "or self.speaks ", ""), check.TOOLS),
    Mutant(
        "a response is requested while an interruption is judged",
        _in("_may_ask", " or self.floor is not Floor.OPEN", ""),
        check.JUDGED_GOODBYE,
    ),
    Mutant(
        "a response that begins while the caller speaks is played", _in("_on_response_started", "self.speaks or ", ""), check.ODD
    ),
    Mutant(
        "an interruption clears nothing",
        _in("_discard", "do.Interrupt(_VERDICTS[self.floor])", "do.Note('nothing')"),
        check.PLAIN,
    ),
    Mutant(
        "late audio of an interrupted response is played",
        _in("_on_audio", "event.response_id in self.dropped or ", ""),
        check.PLAIN,
    ),
    Mutant(
        "an interrupted response is not dropped",
        _in("_cut", 'self._drop_response(cancel=self.rules.interruptions == "gateway")', "pass"),
        check.PLAIN,
    ),
    Mutant(
        "an ended response that was interrupted is not dropped",
        _in("_cut", "self.dropped = _kept(self.dropped, response_id)", "pass"),
        check.ODD,
    ),
    Mutant("a cut request is not cancelled", _in("_cancel_request", "self.out.append(do.Cancel())", "pass"), check.PLAIN),
    Mutant("a cut request's response is played", _in("_cancel_request", "self.cut_requests += 1", "pass"), check.PLAIN),
    Mutant(
        "the gateway does not cancel what it interrupts",
        _in("_cut", 'cancel=self.rules.interruptions == "gateway"', "cancel=False"),
        check.JUDGED,
    ),
    Mutant("a judged interruption does not pause", _in("_hold", "self.out.append(do.HoldAudio())", "pass"), check.JUDGED),
    Mutant(
        "a judged interruption is never decided",
        _in("_on_speech_stopped", "self.now + limits.JUDGE_MS", "NEVER"),
        check.JUDGED,
    ),
    Mutant("a pause outlasts a short sound", _in("_on_speech_stopped", "        self._release()\n", ""), check.JUDGED),
    Mutant(
        "words of a short sound come too late",
        _in("_on_speech_stopped", "Floor.JUDGED, self.now + limits.JUDGE_MS", "Floor.OPEN, NEVER"),
        check.JUDGED,
    ),
    Mutant(
        "words resume the agent",
        _in("_on_caller_text", "        self._cut()\n        self._owe(Prompt.ANSWER, 0)", "        self._resume()"),
        check.JUDGED,
    ),
    Mutant(
        "long speech does not cut",
        _in(
            "_on_speech_started",
            "self.cut_at, self.resume_at = self.now + self.rules.cut_after_ms,",
            "self.cut_at, self.resume_at = NEVER,",
        ),
        check.JUDGED,
    ),
    Mutant("a pause is never released", _in("_release", "self.out.append(do.ReleaseAudio())", "pass"), check.JUDGED),
    Mutant("the conversation is not restated", _in("_use_session", "self.out.append(do.Restate())", "pass"), check.PLAIN),
    Mutant(
        "keys pressed without a session are lost",
        _in("_use_session", "self.out.append(do.SendKeys(self.held_keys))", "pass"),
        check.KEYS_UNHEARD,
    ),
    Mutant(
        "the rest of a sentence is not asked for",
        _in("_leave_session", "self.debt = self.debt or Prompt.CONTINUE", "pass"),
        check.SESSIONS,
    ),
    Mutant(
        "lost words of the caller are not asked for",
        _in("_leave_session", "self.debt = Prompt.REPEAT if self.phase is Phase.TALK else None", "pass"),
        check.SESSIONS,
    ),
    Mutant(
        "a request precedes the conversation so far",
        _in(
            "_use_session",
            "self.out.append(do.Restate())",
            "self.out.append(do.Create(Prompt.ANSWER)); self.out.append(do.Restate())",
        ),
        check.PLAIN,
    ),
    Mutant(
        "closing words count as heard that no report confirms",
        _in("_on_heard_by", "self.has_spoken = False", "pass"),
        check.TOOLS,
    ),
    Mutant(
        "a short answer at the end of the agent's words is noise",
        _in("_on_all_heard", "self._owe(Prompt.ANSWER, 0)", "pass"),
        check.JUDGED,
    ),
    Mutant("hanging up does not wait for the goodbye", _in("_is_over", "not self.plays and", ""), check.TOOLS),
    Mutant(
        "a goodbye cannot be taken back",
        _in(
            "_may_take_back",
            "return self.closing is not Reason.AI_HANGUP or self.taken_back < limits.MAX_TAKEN_BACK",
            "return self.closing is not Reason.AI_HANGUP",
        ),
        check.GOODBYE,
    ),
    Mutant(
        "a goodbye can be taken back for ever",
        _in(
            "_may_take_back",
            "return self.closing is not Reason.AI_HANGUP or self.taken_back < limits.MAX_TAKEN_BACK",
            "return True",
        ),
        check.LAST_GOODBYE,
    ),
    Mutant(
        "a silent hang-up is not asked for a goodbye",
        _in("_ask_goodbye", "self.debt, self.insists, self.attempts, self.ask_at = Prompt.GOODBYE, False, 0, self.now", "pass"),
        check.TOOLS,
    ),
    Mutant("a goodbye is asked for again and again", _in("_ask_goodbye", " and not self.has_asked_goodbye", ""), check.GOODBYE),
    Mutant(
        "a goodbye counts as heard that was not spoken",
        _in("_hang_up", "self.has_spoken = spoken", "self.has_spoken = True"),
        check.TOOLS,
    ),
    Mutant(
        "a goodbye that is taken back still ends the call",
        _in(
            "_take_back",
            "self.phase, self.closing, self.close_by = Phase.TALK, None, NEVER",
            "self.phase, self.closing = Phase.TALK, None",
        ),
        check.GOODBYE,
    ),
    Mutant("the agent's hang-up is ignored", _in("_on_tool_call", "self._hang_up()", "pass"), check.TOOLS),
    Mutant(
        "a repeated call is answered again",
        _in(
            "_is_known",
            "call_id in self.answered or any(call_id == one for one, _ in self.held_results)",
            "False",
        ),
        check.TOOLS,
    ),
    Mutant(
        "an open call is wanted again",
        _in("_is_known", "any(tool.call_id == call_id for tool in self.open_tools)", "False"),
        check.LATE_RESULTS,
    ),
    Mutant(
        "a late result is sent",
        _in("_settle_tool", "self._close_tool(tool)", "pass"),
        check.LATE_RESULTS,
    ),
    Mutant(
        "an unknown tool is not answered",
        _in("_on_tool_call", 'self._answer_tool(event.call_id, "unknown_tool")', "pass"),
        check.UNKNOWN_TOOL,
    ),
    Mutant(
        "a tool that is never settled stays open",
        _in("_on_tools_by", 'self._settle_tool(tool, "unknown_outcome")', "pass"),
        check.LATE_RESULTS,
    ),
    Mutant("a tool has no bound", _in("_open_tool", "self.tools_by = min(self.tools_by, tool.by_ms)", "pass"), check.TOOLS),
    Mutant(
        "the end leaves a call open", _in("_begin_closing", 'self._answer_tool(tool.call_id, "cancelled")', "pass"), check.TOOLS
    ),
    Mutant(
        "a call while closing is not answered",
        _in("_on_tool_call", 'self._answer_tool(event.call_id, "cancelled")', "pass"),
        check.TOOL_IN_CLOSING,
    ),
    Mutant(
        "the answer to hang_up is missing", _in("_on_tool_call", 'self._answer_tool(event.call_id, "ok")', "pass"), check.TOOLS
    ),
    Mutant(
        "a result that came without a session is lost",
        _in("_use_session", "self._give_result(call_id, result)", "pass"),
        check.TOOL_ELSEWHERE,
    ),
    Mutant(
        "a result is kept for the next session and sent now too",
        _in(
            "_settle_tool",
            "    if self.is_ready:\n        self._give_result(tool.call_id, result)\n    else:",
            "    if self.is_ready:\n        self._give_result(tool.call_id, result)\n    if True:",
        ),
        check.TOOL_ELSEWHERE,
    ),
    Mutant(
        "the idle limit ends without a prompt",
        _in("_on_idle_at", "self.prompts < self.rules.idle_prompts", "False"),
        check.SILENCE,
    ),
    Mutant(
        "the idle limit ends without closing words",
        _in(
            "_on_idle_at",
            "self._announce_end(Reason.IDLE_LIMIT)",
            "self.closing = Reason.IDLE_LIMIT; self.has_spoken = True; self._end()",
        ),
        check.SILENCE,
    ),
    Mutant(
        "an answer does not wait for its response's other calls",
        _in("_settle_tool", "(self._waits(tool) and self._awaits_tool(tool.response_id))", "False"),
        check.TWO_TOOLS,
    ),
    Mutant(
        "an answer to results does not wait for the response that calls",
        _in("_settle_tool", "is_active or ", ""),
        check.TWO_TOOLS,
    ),
    Mutant(
        "a repeated call is answered before its result comes",
        _in("_on_response_done", "event.response_id if has_new_tool else None", "event.response_id"),
        check.TOOLS,
    ),
    Mutant("a result is kept from the AI", _in("_settle_tool", "self._give_result(tool.call_id, result)", "pass"), check.TOOLS),
    Mutant(
        "a result that preceded its response's end is lost with the session",
        _in("_leave_session", "self.debt, self.insists = Prompt.ANSWER, True  # to the results", "pass"),
        check.TOOL_ELSEWHERE,
    ),
    Mutant(
        "a tool in the background has no first output",
        _in("_open_tool", 'self._answer_tool(event.call_id, "started")', "pass"),
        check.BACKGROUND,
    ),
    Mutant(
        "the caller waits for a tool in the background",
        _in("_waits", "return self.rules.tools[tool.name].waits", "return True"),
        check.BACKGROUND,
    ),
    Mutant(
        "the result from the background is a second output",
        _in("_give_result", "if call_id in self.answered:", "if False:"),
        check.BACKGROUND_LATE,
    ),
    Mutant(
        "the result from the background is lost",
        _in("_give_result", "self.out.append(do.ToolResult(call_id, result))", "pass"),
        check.BACKGROUND,
    ),
    Mutant("an interruption leaves tools under way", _in("_cut", "self._cancel_tools()", "pass"), check.CANCELLED),
    Mutant(
        "an interruption leaves tools under way once all is heard",
        _in("_on_all_heard", "self._release()\n        self._cancel_tools()\n    elif", "self._release()\n    elif"),
        check.CANCELLED_JUDGED,
    ),
    Mutant("a response leaves an approval open", _in("_take_response", "self._yield_tools()", "pass"), check.APPROVAL),
    Mutant("a call leaves an approval open", _in("_open_tool", "self._yield_tools()", "pass"), check.APPROVAL),
    Mutant("an approval that yields stays open", _in("_yield_tools", "self._close_tool(tool)", "pass"), check.APPROVAL),
    Mutant("every tool yields", _in("_yield_tools", "if self.rules.tools[tool.name].yields:", "if True:"), check.APPROVAL),
    Mutant(
        "an interrupted tool continues",
        _in("_cancel_tools", "self.out.append(do.CancelTool(tool.call_id))", "pass"),
        check.CANCELLED,
    ),
    Mutant(
        "an interruption ends every tool",
        _in("_cancel_tools", "self.rules.tools[tool.name].cancels and ", ""),
        check.TWO_TOOLS_SPOKEN_INTO,
    ),
    Mutant("a sentence bridges one wait again and again", _in("_on_filler_at", "not self.filling and ", ""), check.FILLER_TWICE),
    Mutant(
        "a sentence for a tool outlives its session",
        _in("_leave_session", "if self.debt is Prompt.FILLER:", "if False:"),
        check.FILLER_ELSEWHERE,
    ),
    Mutant(
        "a sentence for a tool counts as the answer",
        _in("_settle_tool", "limits.AFTER_TOOL_MS)), insists=True)", "limits.AFTER_TOOL_MS)))"),
        check.FILLER,
    ),
    Mutant(
        "the sound for a slow tool comes too late",
        _in("_fillers", "rules.filler_after_ms, tool.name", "5000, tool.name"),
        check.FILLER_SOUND,
    ),
    Mutant("the idle limit counts while a tool is open", _in("_is_quiet", " and not self.open_tools", ""), check.SLOW_TOOL),
    Mutant(
        "the idle limit counts while the agent is heard",
        _in("_is_quiet", "self.speaks or self.plays or self.keys", "self.speaks or self.keys"),
        check.LONG_SPEECH,
    ),
    Mutant(
        "the idle limit counts while the caller speaks",
        _in("_is_quiet", "self.speaks or self.plays or self.keys", "self.plays or self.keys"),
        check.IDLE_CALLER,
    ),
    Mutant(
        "the longest call ends in mid-sentence",
        _in(
            "_on_limit_at",
            "self._announce_end(Reason.DURATION_LIMIT)",
            "self.closing = Reason.DURATION_LIMIT; self.has_spoken = True; self._end()",
        ),
        check.LIMIT,
    ),
    Mutant(
        "a spent budget ends in mid-sentence",
        _in(
            "_on_budget_spent",
            "self._announce_end(Reason.BUDGET)",
            "self.closing = Reason.BUDGET; self.has_spoken = True; self._end()",
        ),
        check.SPENT,
    ),
    Mutant("a spent budget is ignored", _in("_on_budget_spent", "self._announce_end(Reason.BUDGET)", "pass"), check.SPENT),
    Mutant("a spent budget can be taken back", _in("_may_take_back", " or self.spent", ""), check.SPENT),
    Mutant(
        "the end of the longest call is not announced", _in("_on_warn_at", "self.out.append(do.WarnOfEnd())", "pass"), check.LIMIT
    ),
    Mutant(
        "closing words interrupt a sentence",
        _in("_may_ask", "self.plays and self.debt in (Prompt.CLOSING, Prompt.GOODBYE)", "False"),
        check.LIMIT_IN_SPEECH,
    ),
    Mutant(
        "a limit can be taken back",
        _in("_may_take_back", " or self.limit_at == NEVER", ""),
        check.LIMIT_JUDGED,
    ),
    Mutant(
        "a judged interruption drops the limit",
        _in("_take_back", " or not self._may_take_back()", ""),
        check.LIMIT_JUDGED,
    ),
    Mutant(
        "a judged interruption drops the closing words",
        _in("_cut", "if self.phase is Phase.TALK:", "if True:"),
        check.LIMIT_JUDGED,
    ),
    Mutant("a goodbye that was cut counts as heard", _in("_cut", "self.has_spoken = False", "pass"), check.LIMIT_JUDGED),
    Mutant(
        "a goodbye ends while its interruption is judged",
        _in("_is_over", "not self.plays and self.floor is not Floor.JUDGED", "not self.plays"),
        check.JUDGED_GOODBYE,
    ),
    Mutant(
        "an idle caller who speaks again is hung up on",
        _in(
            "_may_take_back", "return self.closing is not Reason.AI_HANGUP or", "return self.closing is not Reason.IDLE_LIMIT and"
        ),
        check.IDLE_CALLER,
    ),
    Mutant(
        "a broken stream counts as a hang-up",
        _in("_on_stream_ended", "self.closing = event.reason", "self.closing = Reason.CALLER_HANGUP"),
        check.ODD,
    ),
    Mutant(
        "missing frames are not replaced", _in("_on_frames_missing", "self.out.append(do.FillSilence(True))", "pass"), check.ODD
    ),
    Mutant(
        "silence is sent beside the caller's frames",
        _in("_on_frames_back", "self.out.append(do.FillSilence(False))", "pass"),
        check.ODD,
    ),
    Mutant(
        "missing frames end the call",
        _in("_on_frames_missing", "self.fills_silence = True", "self.closing = Reason.PHONE_SILENT; self._end(); return"),
        check.ODD,
    ),
    Mutant(
        "a rate limit costs the session",
        _in(
            "_wait",
            "self.wait_by = self.now + min(max(limits.RETRY_PAUSES_MS[-1], wait_ms), limits.MAX_WAIT_MS)",
            "self._on_session_lost(given.SessionLost(Reason.AI_RATE_LIMITED))",
        ),
        check.FAILURES,
    ),
    Mutant("a rate limit's wait is ignored", _in("_wait", "max(limits.RETRY_PAUSES_MS[-1], wait_ms)", "300"), check.FAILURES),
    Mutant(
        "an attempt at a session is cut short",
        _in(
            "_on_session_lost",
            "self.open_by = self.now + pause_ms + min(self.rules.open_ms, left_ms)",
            "self.open_by = self.now + 100",
        ),
        check.SESSIONS,
    ),
    Mutant(
        "a slow answer costs the session too soon", _in("_ask", "self.now + self.rules.answer_ms", "self.now + 900"), check.PLAIN
    ),
    Mutant(
        "an implausible lifetime is believed",
        _in("_use_session", "lifetime_ms < limits.MIN_LIFETIME_MS", "lifetime_ms <= 0"),
        check.WRONG_CLOCK,
    ),
    Mutant("a rollover interrupts", _in("_may_swap", "not (self.speaks or self.plays) and ", ""), check.ROLLOVER),
    Mutant(
        "a rollover interrupts a quiet caller",
        _in("_is_quiet", "not (self.speaks or self.plays or self.keys)", "not self.keys"),
        check.ROLLOVER,
    ),
    Mutant("a rollover loses the caller's words", _in("_awaits_text", "return True", "return False"), check.ROLLOVER),
    Mutant("a rollover awaits the caller's words for ever", _in("_on_text_by", 'self.item = ""', "pass"), check.ROLLOVER),
    Mutant(
        "a session that is ready does not replace a lost one",
        _in("_on_session_lost", "has_other and self.phase", "False and self.phase"),
        check.ROLLOVER,
    ),
    Mutant("a rollover breaks off a response", _in("_may_swap", " and self.response is Response.NONE", ""), check.ROLLOVER),
    Mutant(
        "a swap happens before the successor is ready",
        _in("_on_quiet_at", "self.successor = Successor.OPENING", "self.successor = Successor.READY"),
        check.ROLLOVER,
    ),
    Mutant(
        "a failed successor is used",
        _in(
            "_on_successor_failed",
            "self.successor, self.quiet_at = Successor.NONE, self.now + limits.ROLLOVER_RETRY_MS",
            "self.successor = Successor.READY",
        ),
        check.ROLLOVER,
    ),
    Mutant("one unreadable event costs the session", Value(f"{RULES}:MAX_UNREADABLE", 1), check.UNREADABLE),
    Mutant(
        "unreadable events never cost the session",
        _in("_on_unreadable", "self._on_session_lost(given.SessionLost(event.reason))", "pass"),
        check.UNREADABLE,
    ),
    Mutant(
        "unreadable events are counted for ever",
        _in("_on_unreadable", "if self.now - at < limits.UNREADABLE_WINDOW_MS", ""),
        check.UNREADABLE_SLOWLY,
    ),
    Mutant("an end is not final", _in("_end", "self.phase = Phase.ENDED", "pass"), check.PLAIN),
    Mutant(
        "the fallback is silent",
        _in("_end", "speak = not hung_up and", "speak = False and"),
        check.FAILURES,
    ),
    Mutant("a caller who hung up is spoken to", _in("_end", "not hung_up and ", ""), check.ODD),
    Mutant(
        "an operator's end is silent",
        _in(
            "_on_end_wanted",
            "self.closing, self.has_spoken = event.reason, False",
            "self.closing, self.has_spoken = event.reason, True",
        ),
        check.ODD,
    ),
    Mutant(
        "a stream's end does not end",
        _in("_on_stream_ended", "self._end(hung_up=event.reason is Reason.CALLER_HANGUP)", "pass"),
        check.ODD,
    ),
    Mutant(
        "an idle call never ends",
        _in("_update_idle", "self.idle_at = self.now + self.rules.idle_ms", "pass"),
        check.SILENCE,
    ),
    Mutant("the fallback never ends", _in("_is_over", "return is_heard and", "return False and"), check.FAILURES),
    Mutant(
        "heard audio counts as unheard for ever",
        _in("_on_heard_out", "self.plays, self.starved, self.heard_by = False, False, NEVER", "self.heard_by = NEVER"),
        check.SILENCE,
    ),
    Mutant(
        "a failed idle prompt is requested again",
        _in("_retry", "self.debt in (Prompt.ARE_YOU_THERE, Prompt.FILLER) and", "self.debt is Prompt.FILLER and"),
        check.IDLE_FAILS,
    ),
    Mutant(
        "the rate limit of an idle prompt is ignored",
        _in("_retry", "if trouble is Trouble.RATE_LIMIT:", "if trouble is Trouble.RATE_LIMIT and self.debt is Prompt.ANSWER:"),
        check.IDLE_FAILS,
    ),
    Mutant(
        "closing words that fail are the fallback's",
        _in("_retry", "if self.phase is Phase.CLOSING:", "if False:"),
        check.CLOSING_FAILS,
    ),
    Mutant(
        "a protected greeting is interrupted",
        _in("_on_speech_started", "or self.protect_by != NEVER", ""),
        check.PROTECTED,
    ),
    Mutant(
        "the greeting is protected for ever",
        _in("_protect", "self.now + self.rules.protect_greeting_ms", "self.now + 60_000"),
        check.PROTECTED,
    ),
    Mutant(
        "an agent that finishes begins in mid-sentence",
        _in("_on_audio", "self._drop_response(cancel=True)  # it would begin in mid-sentence later", "pass"),
        check.FINISHES,
    ),
    Mutant(
        "a goodbye into which the caller speaks ends the call",
        _in("_hang_up", "self.speaks and self.floor is Floor.OPEN", "False"),
        check.FINISHES_GOODBYE,
    ),
    Mutant(
        "a response that stalls is awaited as one that has not begun",
        _in("_on_first_words", "self.answer_by = self.now + self.rules.stall_ms", "pass"),
        check.PLAIN,
    ),
    Mutant(
        "the failure of the first session leaves no trace",
        _in("_on_session_lost", "elif self.ready_ms == NEVER and not self.opens:", "elif False:"),
        check.SESSIONS,
    ),
    Mutant(
        "an interruption has the wrong cause",
        _in("_discard", "_VERDICTS[self.floor]", '"cut" if self.floor is Floor.HELD else "model"'),
        check.JUDGED,
    ),
    Mutant(
        "a long pause counts as hearing",
        _in("_hold", "self.heard_by += self.rules.resume_after_ms", "pass"),
        check.LONG_HOLD,
    ),
    Mutant("a recorded greeting is not heard", _in("_on_recorded", "self.out.append(do.Play())", "pass"), check.RECORDED),
    Mutant(
        "the agent greets after a recorded greeting",
        _in("_on_recorded", "self.has_greeted or event.greets", "self.has_greeted"),
        check.RECORDED,
    ),
    Mutant(
        "a recorded greeting cannot be interrupted",
        _in("_on_recorded", "self.plays, self.has_greeted = True, ", "self.has_greeted = "),
        check.RECORDED,
    ),
    Mutant("a recorded greeting is not protected", _in("_on_recorded", "self._protect()", "pass"), check.RECORDED_JUDGED),
    Mutant(
        "a second verdict cuts a person off",
        _in("_on_answered_by", "if self.party:", 'if self.party not in ("", "person"):'),
        check.MACHINE_JUDGED,
    ),
    Mutant("a second verdict repeats the message", _in("_on_answered_by", "if self.party:", "if False:"), check.MACHINE_JUDGED),
    Mutant(
        "the agent keeps talking to an answering machine",
        _in("_on_answered_by", "self._begin_closing(Reason.MACHINE, self.rules.goodbye_ms)", "pass"),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "the message for a machine follows the agent's words",
        _in("_on_answered_by", 'self.out.append(do.Interrupt("machine"))', "pass"),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "a machine is not left the message",
        _in("_on_answered_by", "self.out.append(do.Play())", "pass"),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "the message for a machine is cut off",
        _in("_on_answered_by", "self.plays = True", "pass"),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "a fax is left the message",
        _in("_on_answered_by", 'event.party == "machine" and event.message_ms', "True"),
        check.MACHINE,
    ),
    Mutant(
        "words by TwiML follow the message for a machine",
        _in("_end", "and self.closing is not Reason.MACHINE ", ""),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "a response under way is heard after the message for a machine",
        _in("_on_answered_by", "self._drop_response(cancel=True)", "pass"),
        check.MACHINE_TOOL,
    ),
    Mutant(
        "a request under way holds up the end of a machine's call",
        _in("_on_answered_by", "self._cancel_request()", "pass"),
        check.MACHINE_TOOL,
    ),
    Mutant(
        "keys that no session answered are lost with it",
        _in("_leave_session", 'self.held_keys, self.sent_keys = self.sent_keys, ""', "pass"),
        check.KEYS_UNHEARD,
    ),
    Mutant(
        "half-spoken closing words count as heard",
        _in("_on_response_done", "self.has_spoken = False", "pass"),
        check.CLOSING_FAILS,
    ),
    Mutant("a transfer cuts the agent's words", _in("_may_leave", "or self.plays", ""), check.LEAVING),
    Mutant("a transfer cuts the caller's words", _in("_may_leave", "or self.speaks", ""), check.LEAVING_FINISHES),
    Mutant("a transfer leaves keys unsent", _in("_may_leave", "or self.keys", ""), check.LEAVING_KEYS),
    Mutant("a transfer leaves an answer owed", _in("_may_leave", "self.debt is not None or", ""), check.LEAVING_KEYS),
    Mutant(
        "a transfer cuts a response",
        _in("_may_leave", "or self.response not in (Response.NONE, Response.CUT)", ""),
        check.LEAVING_KEYS,
    ),
    Mutant(
        "a transfer leaves another tool open",
        _in(
            "_may_leave",
            "return not any(self._waits(tool) for tool in self.open_tools if tool.call_id != self.leaving)",
            "return True",
        ),
        check.LEAVING_LATER,
    ),
    Mutant(
        "a transfer is asked for again",
        _in("_settle", "self.left_for is None and ", ""),  # prose: quotation
        check.LEAVING,
    ),
    Mutant("a transfer never begins", _in("_settle", "self._leave()", "pass"), check.LEAVING),
    Mutant("a transfer under way is cancelled", _in("_cancel_tools", " and not is_left", ""), check.LEAVING),
    Mutant("a transfer has no deadline", _in("_leave", "self.tools_by = min(self.tools_by, begun.by_ms)", "pass"), check.LEAVING),
    Mutant(
        "the stop of a transferred stream is a hang-up",
        _in("_on_stream_ended", "self.left_for is not None", "False"),
        check.LEAVING,
    ),
    Mutant(
        "a transfer that failed is remembered",
        _in("_close_tool", 'self.leaving, self.left_for = "", None', "pass"),
        check.LEAVING,
    ),
    Mutant("a second transfer replaces the first", _in("_is_too_much", "bool(self.leaving)", "False"), check.LEAVING_LATER),
    Mutant(
        "a return is not answered",
        _in("_on_session_ready", "self._owe(Prompt.RETURNED, 0, insists=True)", "pass"),
        check.RETURNED,
    ),
)
