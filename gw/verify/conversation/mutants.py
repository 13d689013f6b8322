"""Defects put into the dialogue on purpose: `verify conversation` must find each.

A mutant is a change of one part of the machine, and the scenario that exposes it. So the table shows which rule guards which
line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Final, NamedTuple

from gw.call.dialogue import answers, ending, facts, keys, machine, playback, responses, rules, sessions, silence, speech, tools
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


def _in(part: ModuleType, function: str, old: str, new: str) -> Change:
    return Change(f"{part.__name__}:{function}", old, new)


#: In the order of the rules they aim at.
MUTANTS: Final = (
    Mutant(
        "an answer to speech is not owed", _in(speech, "on_speech_stopped", "_await_own_response(facts)", "pass"), check.PLAIN
    ),
    Mutant(
        "a turn whose start was not reported is not answered",
        _in(speech, "on_speech_stopped", "on_speech_started(facts, given.SpeechStarted(event.item_id))", "pass"),
        check.ODD,
    ),
    Mutant(
        "a response that falls silent has no holding sound",
        _in(playback, "on_starved", "facts.starved = facts.plays and facts.response is Response.ACTIVE", "pass"),
        check.HOLD_JUDGED,
    ),
    Mutant(
        "an answer under way has no holding sound",
        _in(silence, "update_hold_sound", "not facts.is_owing or", "not facts.is_owing or facts.response is Response.ACTIVE or"),
        check.HOLD_JUDGED,
    ),
    Mutant(
        "the holding sound comes too late", _in(silence, "update_hold_sound", "facts.rules.hold_after_ms", "2000"), check.HOLD
    ),
    Mutant(
        "the holding sound plays on",
        _in(silence, "update_hold_sound", "facts.out.append(do.HoldSound(False))", "pass"),
        check.HOLD,
    ),
    Mutant("the AI's own response is awaited too long", Value(f"{RULES}:OWN_RESPONSE_MS", 3000), check.PLAIN),
    Mutant(
        "a failed answer is not asked again",
        _in(responses, "_retry", "facts.ask_at = facts.now + limits.RETRY_PAUSES_MS[facts.attempts - 1]", "pass"),
        check.FAILURES,
    ),
    Mutant("the pause before a retry is too long", Value(f"{RULES}:RETRY_PAUSES_MS", (300, 5000)), check.FAILURES),
    Mutant(
        "an empty response counts as an answer",
        _in(
            responses,
            "on_response_done",
            "else:\n        _retry(facts, event.trouble, event.wait_ms)",
            "else:\n        facts.debt = None",
        ),
        check.FAILURES,
    ),
    Mutant(
        "a response that breaks off is not continued",
        _in(
            responses,
            "on_response_done",
            "facts.debt = facts.debt or (Prompt.CONTINUE if facts.phase is Phase.TALK else None)",
            "pass",
        ),
        check.FAILURES,
    ),
    Mutant(
        "keys are not answered", _in(keys, "send_keys", "answers.owe(facts, Prompt.ANSWER, 0, insists=True)", "pass"), check.KEYS
    ),
    Mutant(
        "a tool's result is not answered",
        _in(
            tools,
            "settle_tool",
            "answers.owe(facts, Prompt.ANSWER, max(0, min(own_ms, limits.AFTER_TOOL_MS)), insists=True)",
            "pass",
        ),
        check.TOOLS,
    ),
    Mutant(
        "a tool of an earlier stream has no deadline",
        _in(tools, "on_tool_resumed", "facts.tools_by = min(facts.tools_by, by_ms)", "pass"),
        check.RESUMED_TOOL,
    ),
    Mutant(
        "a tool of an earlier stream is dropped",
        _in(tools, "on_tool_resumed", "facts.open_tools = (*facts.open_tools,", "_ = (*facts.open_tools,"),
        check.RESUMED_TOOL,
    ),
    Mutant(
        "a started tool of an earlier stream is answered anew",
        _in(tools, "on_tool_resumed", "if not rules.waits:", "if False:"),
        check.RESUMED_BACKGROUND,
    ),
    Mutant(
        "a request has no deadline",
        _in(answers, "ask", "facts.answer_by = facts.now + facts.rules.answer_ms", "pass"),
        check.PLAIN,
    ),
    Mutant(
        "a silent response has no consequence",
        _in(responses, "on_answer_by", "sessions.on_session_lost(facts, given.SessionLost(Reason.AI_STALLED))", "pass"),
        check.PLAIN,
    ),
    Mutant(
        "an attempt at a session has no deadline",
        _in(sessions, "on_session_lost", "facts.open_by = facts.now + pause_ms + min(facts.rules.open_ms, left_ms)", "pass"),
        check.SESSIONS,
    ),
    Mutant(
        "the first session has no deadline",
        _in(machine, "Dialogue.begin", "made.open_by = now_ms + rules.open_ms", "pass"),
        check.PLAIN,
    ),
    Mutant(
        "a refused request is ignored",
        _in(responses, "on_create_refused", "_retry(facts, event.trouble, event.wait_ms)", "pass"),
        check.FAILURES,
    ),
    Mutant("a lasting refusal is tried again", _in(responses, "_retry", "trouble is Trouble.LASTING or ", ""), check.FAILURES),
    Mutant(
        "answers are retried for ever",
        _in(responses, "_retry", "or facts.attempts > len(limits.RETRY_PAUSES_MS)", "or False"),
        check.RETRIES,
    ),
    Mutant(
        "a crossed answer pays for keys",
        _in(responses, "on_create_refused", "facts.debt, facts.survives = facts.debt or facts.asked, True", "pass"),
        check.KEYS,
    ),
    Mutant(
        "the caller is not greeted",
        _in(
            sessions,
            "on_session_ready",
            "answers.owe(facts, Prompt.RETURN if facts.rules.resumes else Prompt.GREETING, 0)",
            "pass",
        ),
        check.SILENCE,
    ),
    Mutant(
        "a response that cannot pay is not followed by another",
        _in(responses, "on_response_done", "facts.ask_at = facts.now  # the answer this response could not be", "pass"),
        check.TOOLS,
    ),
    Mutant(
        "a cut response's end does not release the next request",
        _in(answers, "on_cancel_by", "facts.response = Response.NONE", "pass"),
        check.JUDGED_SESSIONS,
    ),
    Mutant(
        "a session is silent as soon as a cut response is slow to end",
        _in(answers, "on_cancel_by", "if facts.response_id:", "if True:"),
        check.JUDGED_SESSIONS,
    ),
    Mutant("a response is requested while the caller speaks", _in(answers, "may_ask", "or facts.speaks ", ""), check.TOOLS),
    Mutant(
        "a response is requested while an interruption is judged",
        _in(answers, "may_ask", " or facts.floor is not Floor.OPEN", ""),
        check.JUDGED_GOODBYE,
    ),
    Mutant(
        "a response that begins while the caller speaks is played",
        _in(responses, "on_response_started", "facts.speaks or ", ""),
        check.ODD,
    ),
    Mutant(
        "an interruption clears nothing",
        _in(playback, "discard", "do.Interrupt(_VERDICTS[facts.floor])", "do.Note('nothing')"),
        check.PLAIN,
    ),
    Mutant(
        "late audio of an interrupted response is played",
        _in(responses, "on_audio", "event.response_id in facts.dropped or ", ""),
        check.PLAIN,
    ),
    Mutant(
        "an interrupted response is not dropped",
        _in(speech, "cut", 'answers.drop_response(facts, cancel=facts.rules.interruptions == "gateway")', "pass"),
        check.PLAIN,
    ),
    Mutant(
        "an ended response that was interrupted is not dropped",
        _in(speech, "cut", "facts.dropped = kept(facts.dropped, response_id)", "pass"),
        check.ODD,
    ),
    Mutant(
        "a cut request is not cancelled", _in(answers, "cancel_request", "facts.out.append(do.Cancel())", "pass"), check.PLAIN
    ),
    Mutant("a cut request's response is played", _in(answers, "cancel_request", "facts.cut_requests += 1", "pass"), check.PLAIN),
    Mutant(
        "the gateway does not cancel what it interrupts",
        _in(speech, "cut", 'cancel=facts.rules.interruptions == "gateway"', "cancel=False"),
        check.JUDGED,
    ),
    Mutant(
        "a judged interruption does not pause", _in(playback, "hold", "facts.out.append(do.HoldAudio())", "pass"), check.JUDGED
    ),
    Mutant(
        "a judged interruption is never decided",
        _in(speech, "on_speech_stopped", "facts.now + limits.JUDGE_MS", "NEVER"),
        check.JUDGED,
    ),
    Mutant(
        "a pause outlasts a short sound", _in(speech, "on_speech_stopped", "        playback.release(facts)\n", ""), check.JUDGED
    ),
    Mutant(
        "words of a short sound come too late",
        _in(speech, "on_speech_stopped", "Floor.JUDGED, facts.now + limits.JUDGE_MS", "Floor.OPEN, NEVER"),
        check.JUDGED,
    ),
    Mutant(
        "words resume the agent",
        _in(
            speech, "on_caller_text", "        cut(facts)\n        answers.owe(facts, Prompt.ANSWER, 0)", "        resume(facts)"
        ),
        check.JUDGED,
    ),
    Mutant(
        "long speech does not cut",
        _in(
            speech,
            "on_speech_started",
            "facts.cut_at, facts.resume_at = facts.now + facts.rules.cut_after_ms,",
            "facts.cut_at, facts.resume_at = NEVER,",
        ),
        check.JUDGED,
    ),
    Mutant("a pause is never released", _in(playback, "release", "facts.out.append(do.ReleaseAudio())", "pass"), check.JUDGED),
    Mutant(
        "the conversation is not restated", _in(sessions, "_use_session", "facts.out.append(do.Restate())", "pass"), check.PLAIN
    ),
    Mutant(
        "keys pressed without a session are lost",
        _in(sessions, "_use_session", "facts.out.append(do.SendKeys(facts.held_keys))", "pass"),
        check.KEYS_UNHEARD,
    ),
    Mutant(
        "the rest of a sentence is not asked for",
        _in(sessions, "_leave_session", "facts.debt = facts.debt or Prompt.CONTINUE", "pass"),
        check.SESSIONS,
    ),
    Mutant(
        "lost words of the caller are not asked for",
        _in(sessions, "_leave_session", "facts.debt = Prompt.REPEAT if facts.phase is Phase.TALK else None", "pass"),
        check.SESSIONS,
    ),
    Mutant(
        "a request precedes the conversation so far",
        _in(
            sessions,
            "_use_session",
            "facts.out.append(do.Restate())",
            "facts.out.append(do.Create(Prompt.ANSWER)); facts.out.append(do.Restate())",
        ),
        check.PLAIN,
    ),
    Mutant(
        "closing words count as heard that no report confirms",
        _in(playback, "on_heard_by", "facts.has_spoken = False", "pass"),
        check.TOOLS,
    ),
    Mutant(
        "a short answer at the end of the agent's words is noise",
        _in(speech, "on_heard_out", "answers.owe(facts, Prompt.ANSWER, 0)", "pass"),
        check.JUDGED,
    ),
    Mutant("hanging up does not wait for the goodbye", _in(ending, "is_over", "not facts.plays and", ""), check.TOOLS),
    Mutant(
        "a goodbye cannot be taken back",
        _in(
            ending,
            "may_take_back",
            "return facts.closing is not Reason.AI_HANGUP or facts.taken_back < limits.MAX_TAKEN_BACK",
            "return facts.closing is not Reason.AI_HANGUP",
        ),
        check.GOODBYE,
    ),
    Mutant(
        "a goodbye can be taken back for ever",
        _in(
            ending,
            "may_take_back",
            "return facts.closing is not Reason.AI_HANGUP or facts.taken_back < limits.MAX_TAKEN_BACK",
            "return True",
        ),
        check.LAST_GOODBYE,
    ),
    Mutant(
        "a silent hang-up is not asked for a goodbye",
        _in(
            ending,
            "ask_goodbye",
            "facts.debt, facts.insists, facts.attempts, facts.ask_at = Prompt.GOODBYE, False, 0, facts.now",
            "pass",
        ),
        check.TOOLS,
    ),
    Mutant(
        "a goodbye is asked for again and again",
        _in(ending, "ask_goodbye", " and not facts.has_asked_goodbye", ""),
        check.GOODBYE,
    ),
    Mutant(
        "a goodbye counts as heard that was not spoken",
        _in(ending, "hang_up", "facts.has_spoken = spoken", "facts.has_spoken = True"),
        check.TOOLS,
    ),
    Mutant(
        "a goodbye that is taken back still ends the call",
        _in(
            ending,
            "take_back",
            "facts.phase, facts.closing, facts.close_by = Phase.TALK, None, NEVER",
            "facts.phase, facts.closing = Phase.TALK, None",
        ),
        check.GOODBYE,
    ),
    Mutant("the agent's hang-up is ignored", _in(responses, "on_tool_call", "ending.hang_up(facts)", "pass"), check.TOOLS),
    Mutant(
        "a repeated call is answered again",
        _in(
            tools,
            "is_known",
            "call_id in facts.answered or any(call_id == one for one, _ in facts.held_results)",
            "False",
        ),
        check.TOOLS,
    ),
    Mutant(
        "an open call is wanted again",
        _in(tools, "is_known", "any(tool.call_id == call_id for tool in facts.open_tools)", "False"),
        check.LATE_RESULTS,
    ),
    Mutant(
        "a late result is sent",
        _in(tools, "settle_tool", "close_tool(facts, tool)", "pass"),
        check.LATE_RESULTS,
    ),
    Mutant(
        "an unknown tool is not answered",
        _in(responses, "on_tool_call", 'tools.answer_tool(facts, event.call_id, "unknown_tool")', "pass"),
        check.UNKNOWN_TOOL,
    ),
    Mutant(
        "a tool that is never settled stays open",
        _in(tools, "on_tools_by", 'settle_tool(facts, tool, "unknown_outcome")', "pass"),
        check.LATE_RESULTS,
    ),
    Mutant(
        "a tool has no bound", _in(tools, "open_tool", "facts.tools_by = min(facts.tools_by, tool.by_ms)", "pass"), check.TOOLS
    ),
    Mutant(
        "the end leaves a call open",
        _in(ending, "begin_closing", 'tools.answer_tool(facts, tool.call_id, "cancelled")', "pass"),
        check.TOOLS,
    ),
    Mutant(
        "a call while closing is not answered",
        _in(responses, "on_tool_call", 'tools.answer_tool(facts, event.call_id, "cancelled")', "pass"),
        check.TOOL_IN_CLOSING,
    ),
    Mutant(
        "the answer to hang_up is missing",
        _in(responses, "on_tool_call", 'tools.answer_tool(facts, event.call_id, "ok")', "pass"),
        check.TOOLS,
    ),
    Mutant(
        "a result that came without a session is lost",
        _in(sessions, "_use_session", "tools.give_result(facts, call_id, result)", "pass"),
        check.TOOL_ELSEWHERE,
    ),
    Mutant(
        "a result is kept for the next session and sent now too",
        _in(
            tools,
            "settle_tool",
            "    if facts.is_ready:\n        give_result(facts, tool.call_id, result)\n    else:",
            "    if facts.is_ready:\n        give_result(facts, tool.call_id, result)\n    if True:",
        ),
        check.TOOL_ELSEWHERE,
    ),
    Mutant(
        "the idle limit ends without a prompt",
        _in(silence, "on_idle_at", "facts.prompts < facts.rules.idle_prompts", "False"),
        check.SILENCE,
    ),
    Mutant(
        "the idle limit ends without closing words",
        _in(
            silence,
            "on_idle_at",
            "ending.announce_end(facts, Reason.IDLE_LIMIT)",
            "facts.closing = Reason.IDLE_LIMIT; facts.has_spoken = True; ending.end(facts)",
        ),
        check.SILENCE,
    ),
    Mutant(
        "an answer does not wait for its response's other calls",
        _in(tools, "settle_tool", "(facts.waits(tool) and facts.awaits_tool(tool.response_id))", "False"),
        check.TWO_TOOLS,
    ),
    Mutant(
        "an answer to results does not wait for the response that calls",
        _in(tools, "settle_tool", "is_active or ", ""),
        check.TWO_TOOLS,
    ),
    Mutant(
        "a repeated call is answered before its result comes",
        _in(responses, "on_response_done", "event.response_id if has_new_tool else None", "event.response_id"),
        check.TOOLS,
    ),
    Mutant(
        "a result is kept from the AI", _in(tools, "settle_tool", "give_result(facts, tool.call_id, result)", "pass"), check.TOOLS
    ),
    Mutant(
        "a result that preceded its response's end is lost with the session",
        _in(sessions, "_leave_session", "facts.debt, facts.insists = Prompt.ANSWER, True  # to the results", "pass"),
        check.TOOL_ELSEWHERE,
    ),
    Mutant(
        "a tool in the background has no first output",
        _in(tools, "open_tool", 'answer_tool(facts, event.call_id, "started")', "pass"),
        check.BACKGROUND,
    ),
    Mutant(
        "the caller waits for a tool in the background",
        _in(facts, "Facts.waits", "return self.rules.tools[tool.name].waits", "return True"),
        check.BACKGROUND,
    ),
    Mutant(
        "the result from the background is a second output",
        _in(tools, "give_result", "if call_id in facts.answered:", "if False:"),
        check.BACKGROUND_LATE,
    ),
    Mutant(
        "the result from the background is lost",
        _in(tools, "give_result", "facts.out.append(do.ToolResult(call_id, result))", "pass"),
        check.BACKGROUND,
    ),
    Mutant("an interruption leaves tools under way", _in(speech, "cut", "tools.cancel_tools(facts)", "pass"), check.CANCELLED),
    Mutant(
        "an interruption leaves tools under way once all is heard",
        _in(
            speech,
            "on_heard_out",
            "playback.release(facts)\n        tools.cancel_tools(facts)\n    elif",
            "playback.release(facts)\n    elif",
        ),
        check.CANCELLED_JUDGED,
    ),
    Mutant(
        "a response leaves an approval open", _in(responses, "_take_response", "tools.yield_tools(facts)", "pass"), check.APPROVAL
    ),
    Mutant("a call leaves an approval open", _in(tools, "open_tool", "yield_tools(facts)", "pass"), check.APPROVAL),
    Mutant("an approval that yields stays open", _in(tools, "yield_tools", "close_tool(facts, tool)", "pass"), check.APPROVAL),
    Mutant("every tool yields", _in(tools, "yield_tools", "if facts.rules.tools[tool.name].yields:", "if True:"), check.APPROVAL),
    Mutant(
        "an interrupted tool continues",
        _in(tools, "cancel_tools", "facts.out.append(do.CancelTool(tool.call_id))", "pass"),
        check.CANCELLED,
    ),
    Mutant(
        "an interruption ends every tool",
        _in(tools, "cancel_tools", "facts.rules.tools[tool.name].cancels and ", ""),
        check.TWO_TOOLS_SPOKEN_INTO,
    ),
    Mutant(
        "a sentence bridges one wait again and again",
        _in(silence, "on_filler_at", "not facts.filling and ", ""),
        check.FILLER_TWICE,
    ),
    Mutant(
        "a sentence for a tool outlives its session",
        _in(sessions, "_leave_session", "if facts.debt is Prompt.FILLER:", "if False:"),
        check.FILLER_ELSEWHERE,
    ),
    Mutant(
        "a sentence for a tool counts as the answer",
        _in(tools, "settle_tool", "limits.AFTER_TOOL_MS)), insists=True)", "limits.AFTER_TOOL_MS)))"),
        check.FILLER,
    ),
    Mutant(
        "the sound for a slow tool comes too late",
        _in(silence, "fillers", "rules.filler_after_ms, tool.name", "5000, tool.name"),
        check.FILLER_SOUND,
    ),
    Mutant(
        "the idle limit counts while a tool is open",
        _in(facts, "Facts.is_quiet", " and not self.open_tools", ""),
        check.SLOW_TOOL,
    ),
    Mutant(
        "the idle limit counts while the agent is heard",
        _in(facts, "Facts.is_quiet", "self.speaks or self.plays or self.keys", "self.speaks or self.keys"),
        check.LONG_SPEECH,
    ),
    Mutant(
        "the idle limit counts while the caller speaks",
        _in(facts, "Facts.is_quiet", "self.speaks or self.plays or self.keys", "self.plays or self.keys"),
        check.IDLE_CALLER,
    ),
    Mutant(
        "the longest call ends in mid-sentence",
        _in(
            ending,
            "on_limit_at",
            "announce_end(facts, Reason.DURATION_LIMIT)",
            "facts.closing = Reason.DURATION_LIMIT; facts.has_spoken = True; end(facts)",
        ),
        check.LIMIT,
    ),
    Mutant(
        "a spent budget ends in mid-sentence",
        _in(
            ending,
            "on_budget_spent",
            "announce_end(facts, Reason.BUDGET)",
            "facts.closing = Reason.BUDGET; facts.has_spoken = True; end(facts)",
        ),
        check.SPENT,
    ),
    Mutant(
        "a spent budget is ignored", _in(ending, "on_budget_spent", "announce_end(facts, Reason.BUDGET)", "pass"), check.SPENT
    ),
    Mutant("a spent budget can be taken back", _in(ending, "may_take_back", " or facts.spent", ""), check.SPENT),
    Mutant(
        "the end of the longest call is not announced",
        _in(ending, "on_warn_at", "facts.out.append(do.WarnOfEnd())", "pass"),
        check.LIMIT,
    ),
    Mutant(
        "closing words interrupt a sentence",
        _in(answers, "may_ask", "facts.plays and facts.debt in (Prompt.CLOSING, Prompt.GOODBYE)", "False"),
        check.LIMIT_IN_SPEECH,
    ),
    Mutant(
        "a limit can be taken back",
        _in(ending, "may_take_back", " or facts.limit_at == NEVER", ""),
        check.LIMIT_JUDGED,
    ),
    Mutant(
        "a judged interruption drops the limit",
        _in(ending, "take_back", " or not may_take_back(facts)", ""),
        check.LIMIT_JUDGED,
    ),
    Mutant(
        "a judged interruption drops the closing words",
        _in(speech, "cut", "if facts.phase is Phase.TALK:", "if True:"),
        check.LIMIT_JUDGED,
    ),
    Mutant("a goodbye that was cut counts as heard", _in(speech, "cut", "facts.has_spoken = False", "pass"), check.LIMIT_JUDGED),
    Mutant(
        "a goodbye ends while its interruption is judged",
        _in(ending, "is_over", "not facts.plays and facts.floor is not Floor.JUDGED", "not facts.plays"),
        check.JUDGED_GOODBYE,
    ),
    Mutant(
        "an idle caller who speaks again is hung up on",
        _in(
            ending,
            "may_take_back",
            "return facts.closing is not Reason.AI_HANGUP or",
            "return facts.closing is not Reason.IDLE_LIMIT and",
        ),
        check.IDLE_CALLER,
    ),
    Mutant(
        "a broken stream counts as a hang-up",
        _in(ending, "on_stream_ended", "facts.closing = event.reason", "facts.closing = Reason.CALLER_HANGUP"),
        check.ODD,
    ),
    Mutant(
        "missing frames are not replaced",
        _in(silence, "on_frames_missing", "facts.out.append(do.FillSilence(True))", "pass"),
        check.ODD,
    ),
    Mutant(
        "silence is sent beside the caller's frames",
        _in(silence, "on_frames_back", "facts.out.append(do.FillSilence(False))", "pass"),
        check.ODD,
    ),
    Mutant(
        "missing frames end the call",
        _in(
            silence,
            "on_frames_missing",
            "facts.fills_silence = True",
            "facts.closing = Reason.PHONE_SILENT; ending.end(facts); return",
        ),
        check.ODD,
    ),
    Mutant(
        "a rate limit costs the session",
        _in(
            responses,
            "_retry",
            "answers.wait(facts, wait_ms)",
            "sessions.on_session_lost(facts, given.SessionLost(Reason.AI_RATE_LIMITED))",
        ),
        check.FAILURES,
    ),
    Mutant(
        "a rate limit's wait is ignored", _in(answers, "wait", "max(limits.RETRY_PAUSES_MS[-1], wait_ms)", "300"), check.FAILURES
    ),
    Mutant(
        "an attempt at a session is cut short",
        _in(
            sessions,
            "on_session_lost",
            "facts.open_by = facts.now + pause_ms + min(facts.rules.open_ms, left_ms)",
            "facts.open_by = facts.now + 100",
        ),
        check.SESSIONS,
    ),
    Mutant(
        "a slow answer costs the session too soon",
        _in(answers, "ask", "facts.now + facts.rules.answer_ms", "facts.now + 900"),
        check.PLAIN,
    ),
    Mutant(
        "an implausible lifetime is believed",
        _in(sessions, "_use_session", "lifetime_ms < limits.MIN_LIFETIME_MS", "lifetime_ms <= 0"),
        check.WRONG_CLOCK,
    ),
    Mutant("a rollover interrupts", _in(sessions, "may_swap", "not (facts.speaks or facts.plays) and ", ""), check.ROLLOVER),
    Mutant(
        "a rollover interrupts a quiet caller",
        _in(facts, "Facts.is_quiet", "not (self.speaks or self.plays or self.keys)", "not self.keys"),
        check.ROLLOVER,
    ),
    Mutant("a rollover loses the caller's words", _in(sessions, "awaits_text", "return True", "return False"), check.ROLLOVER),
    Mutant(
        "a rollover awaits the caller's words for ever", _in(sessions, "on_text_by", 'facts.item = ""', "pass"), check.ROLLOVER
    ),
    Mutant(
        "a session that is ready does not replace a lost one",
        _in(sessions, "on_session_lost", "has_other and facts.phase", "False and facts.phase"),
        check.ROLLOVER,
    ),
    Mutant(
        "a rollover breaks off a response", _in(sessions, "may_swap", " and facts.response is Response.NONE", ""), check.ROLLOVER
    ),
    Mutant(
        "a swap happens before the successor is ready",
        _in(sessions, "on_quiet_at", "facts.successor = Successor.OPENING", "facts.successor = Successor.READY"),
        check.ROLLOVER,
    ),
    Mutant(
        "a failed successor is used",
        _in(
            sessions,
            "on_successor_failed",
            "facts.successor, facts.quiet_at = Successor.NONE, facts.now + limits.ROLLOVER_RETRY_MS",
            "facts.successor = Successor.READY",
        ),
        check.ROLLOVER,
    ),
    Mutant("one unreadable event costs the session", Value(f"{RULES}:MAX_UNREADABLE", 1), check.UNREADABLE),
    Mutant(
        "unreadable events never cost the session",
        _in(sessions, "on_unreadable", "on_session_lost(facts, given.SessionLost(event.reason))", "pass"),
        check.UNREADABLE,
    ),
    Mutant(
        "unreadable events are counted for ever",
        _in(sessions, "on_unreadable", "if facts.now - at < limits.UNREADABLE_WINDOW_MS", ""),
        check.UNREADABLE_SLOWLY,
    ),
    Mutant("an end is not final", _in(ending, "end", "facts.phase = Phase.ENDED", "pass"), check.PLAIN),
    Mutant(
        "the fallback is silent",
        _in(ending, "end", "speak = not hung_up and", "speak = False and"),
        check.FAILURES,
    ),
    Mutant("a caller who hung up is spoken to", _in(ending, "end", "not hung_up and ", ""), check.ODD),
    Mutant(
        "an operator's end is silent",
        _in(
            ending,
            "on_end_wanted",
            "facts.closing, facts.has_spoken = event.reason, False",
            "facts.closing, facts.has_spoken = event.reason, True",
        ),
        check.ODD,
    ),
    Mutant(
        "a stream's end does not end",
        _in(ending, "on_stream_ended", "end(facts, hung_up=event.reason is Reason.CALLER_HANGUP)", "pass"),
        check.ODD,
    ),
    Mutant(
        "an idle call never ends",
        _in(silence, "update_idle", "facts.idle_at = facts.now + facts.rules.idle_ms", "pass"),
        check.SILENCE,
    ),
    Mutant("the fallback never ends", _in(ending, "is_over", "return is_heard and", "return False and"), check.FAILURES),
    Mutant(
        "heard audio counts as unheard for ever",
        _in(playback, "all_heard", "facts.plays, facts.starved, facts.heard_by = False, False, NEVER", "facts.heard_by = NEVER"),
        check.SILENCE,
    ),
    Mutant(
        "a failed idle prompt is requested again",
        _in(responses, "_retry", "facts.debt in (Prompt.ARE_YOU_THERE, Prompt.FILLER) and", "facts.debt is Prompt.FILLER and"),
        check.IDLE_FAILS,
    ),
    Mutant(
        "the rate limit of an idle prompt is ignored",
        _in(
            responses,
            "_retry",
            "if trouble is Trouble.RATE_LIMIT:",
            "if trouble is Trouble.RATE_LIMIT and facts.debt is Prompt.ANSWER:",
        ),
        check.IDLE_FAILS,
    ),
    Mutant(
        "closing words that fail are the fallback's",
        _in(responses, "_retry", "if facts.phase is Phase.CLOSING:", "if False:"),
        check.CLOSING_FAILS,
    ),
    Mutant(
        "a protected greeting is interrupted",
        _in(speech, "on_speech_started", "or facts.protect_by != NEVER", ""),
        check.PROTECTED,
    ),
    Mutant(
        "the greeting is protected for ever",
        _in(playback, "protect", "facts.now + facts.rules.protect_greeting_ms", "facts.now + 60_000"),
        check.PROTECTED,
    ),
    Mutant(
        "an agent that finishes begins in mid-sentence",
        _in(responses, "on_audio", "answers.drop_response(facts, cancel=True)  # it would begin in mid-sentence later", "pass"),
        check.FINISHES,
    ),
    Mutant(
        "a goodbye into which the caller speaks ends the call",
        _in(ending, "hang_up", "facts.speaks and facts.floor is Floor.OPEN", "False"),
        check.FINISHES_GOODBYE,
    ),
    Mutant(
        "a response that stalls is awaited as one that has not begun",
        _in(responses, "_on_first_words", "facts.answer_by = facts.now + facts.rules.stall_ms", "pass"),
        check.PLAIN,
    ),
    Mutant(
        "the failure of the first session leaves no trace",
        _in(sessions, "on_session_lost", "elif facts.ready_ms == NEVER and not facts.opens:", "elif False:"),
        check.SESSIONS,
    ),
    Mutant(
        "an interruption has the wrong cause",
        _in(playback, "discard", "_VERDICTS[facts.floor]", '"cut" if facts.floor is Floor.HELD else "model"'),
        check.JUDGED,
    ),
    Mutant(
        "a long pause counts as hearing",
        _in(playback, "hold", "facts.heard_by += facts.rules.resume_after_ms", "pass"),
        check.LONG_HOLD,
    ),
    Mutant(
        "a recorded greeting is not heard", _in(playback, "on_recorded", "facts.out.append(do.Play())", "pass"), check.RECORDED
    ),
    Mutant(
        "the agent greets after a recorded greeting",
        _in(playback, "on_recorded", "facts.has_greeted or event.greets", "facts.has_greeted"),
        check.RECORDED,
    ),
    Mutant(
        "a recorded greeting cannot be interrupted",
        _in(playback, "on_recorded", "facts.plays, facts.has_greeted = True, ", "facts.has_greeted = "),
        check.RECORDED,
    ),
    Mutant("a recorded greeting is not protected", _in(playback, "on_recorded", "protect(facts)", "pass"), check.RECORDED_JUDGED),
    Mutant(
        "a second verdict cuts a person off",
        _in(ending, "on_answered_by", "if facts.party:", 'if facts.party not in ("", "person"):'),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "a second verdict repeats the message",
        _in(ending, "on_answered_by", "if facts.party:", "if False:"),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "the agent keeps talking to an answering machine",
        _in(ending, "on_answered_by", "begin_closing(facts, Reason.MACHINE, facts.rules.goodbye_ms)", "pass"),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "the message for a machine follows the agent's words",
        _in(ending, "on_answered_by", 'facts.out.append(do.Interrupt("machine"))', "pass"),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "a machine is not left the message",
        _in(ending, "on_answered_by", "facts.out.append(do.Play())", "pass"),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "the message for a machine is cut off",
        _in(ending, "on_answered_by", "facts.plays = True", "pass"),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "a fax is left the message",
        _in(ending, "on_answered_by", 'event.party == "machine" and event.message_ms', "True"),
        check.MACHINE,
    ),
    Mutant(
        "words by TwiML follow the message for a machine",
        _in(ending, "end", "and facts.closing is not Reason.MACHINE ", ""),
        check.MACHINE_JUDGED,
    ),
    Mutant(
        "a response under way is heard after the message for a machine",
        _in(ending, "on_answered_by", "answers.drop_response(facts, cancel=True)", "pass"),
        check.MACHINE_TOOL,
    ),
    Mutant(
        "a request under way holds up the end of a machine's call",
        _in(ending, "on_answered_by", "answers.cancel_request(facts)", "pass"),
        check.MACHINE_TOOL,
    ),
    Mutant(
        "keys that no session answered are lost with it",
        _in(sessions, "_leave_session", 'facts.held_keys, facts.sent_keys = facts.sent_keys, ""', "pass"),
        check.KEYS_UNHEARD,
    ),
    Mutant(
        "half-spoken closing words count as heard",
        _in(responses, "on_response_done", "facts.has_spoken = False", "pass"),
        check.CLOSING_FAILS,
    ),
    Mutant("a transfer cuts the agent's words", _in(tools, "may_leave", "or facts.plays", ""), check.LEAVING),
    Mutant("a transfer cuts the caller's words", _in(tools, "may_leave", "or facts.speaks", ""), check.LEAVING_FINISHES),
    Mutant("a transfer leaves keys unsent", _in(tools, "may_leave", "or facts.keys", ""), check.LEAVING_KEYS),
    Mutant("a transfer leaves an answer owed", _in(tools, "may_leave", "facts.debt is not None or", ""), check.LEAVING_KEYS),
    Mutant(
        "a transfer cuts a response",
        _in(tools, "may_leave", "or facts.response not in (Response.NONE, Response.CUT)", ""),
        check.LEAVING_KEYS,
    ),
    Mutant(
        "a transfer leaves another tool open",
        _in(
            tools,
            "may_leave",
            "return not any(facts.waits(tool) for tool in facts.open_tools if tool.call_id != facts.leaving)",
            "return True",
        ),
        check.LEAVING_LATER,
    ),
    Mutant(
        "a transfer is asked for again",
        _in(machine, "Dialogue._settle", "self.left_for is None and ", ""),  # prose: quotation
        check.LEAVING,
    ),
    Mutant("a transfer never begins", _in(machine, "Dialogue._settle", "tools.leave(self)", "pass"), check.LEAVING),
    Mutant("a transfer under way is cancelled", _in(tools, "cancel_tools", " and not is_left", ""), check.LEAVING),
    Mutant(
        "a transfer has no deadline",
        _in(tools, "leave", "facts.tools_by = min(facts.tools_by, begun.by_ms)", "pass"),
        check.LEAVING,
    ),
    Mutant(
        "the stop of a transferred stream is a hang-up",
        _in(ending, "on_stream_ended", "facts.left_for is not None", "False"),
        check.LEAVING,
    ),
    Mutant(
        "a transfer that failed is remembered",
        _in(tools, "close_tool", 'facts.leaving, facts.left_for = "", None', "pass"),
        check.LEAVING,
    ),
    Mutant(
        "a second transfer replaces the first", _in(tools, "is_too_much", "bool(facts.leaving)", "False"), check.LEAVING_LATER
    ),
    Mutant(
        "a return is not answered",
        _in(sessions, "on_session_ready", "answers.owe(facts, Prompt.RETURNED, 0, insists=True)", "pass"),
        check.RETURNED,
    ),
    Mutant(
        "keys typed for a tool go to the AI", _in(keys, "on_key", "if facts.collection is not None:", "if False:"), check.DIGITS
    ),
    Mutant(
        "keys pressed before a collection are lost", _in(keys, "open_collection", "_collect(facts, keys)", "pass"), check.DIGITS
    ),
    Mutant(
        "keys pressed before a collection go to the AI too",
        _in(keys, "open_collection", '(facts.keys, "", NEVER)', "(facts.keys, facts.keys, facts.keys_at)"),
        check.DIGITS,
    ),
    Mutant("a terminator ends no collection", _in(keys, "_collect", "key == made.asked.finish_on", "False"), check.DIGITS),
    Mutant("the last digit ends no collection", _in(keys, "_collect", "if made.is_full:", "if False:"), check.DIGITS),
    Mutant(
        "a key does not begin a pause anew",
        _in(keys, "_collect", "facts.digits_at = facts.now + made.asked.pause_ms", "pass"),
        check.DIGITS,
    ),
    Mutant("a pause ends no collection", _in(keys, "on_digits_at", '_take_digits(facts, "timeout")', "pass"), check.DIGITS),
    Mutant(
        "a collection ends before the agent has asked",
        _in(keys, "on_digits_at", "facts.now if facts.plays or facts.quiet_ms == NEVER else facts.quiet_ms", "0"),
        check.DIGITS,
    ),
    Mutant("too few digits count as enough", _in(keys, "_take_digits", "made.shortfall(why)", '""'), check.DIGITS),
    Mutant(
        "a second collection replaces the first",
        _in(responses, "on_tool_call", "(rules.collects and facts.collection is not None)", "False"),
        check.SECRET_TWICE,
    ),
    Mutant(
        "the caller's secret is heard", _in(keys, "open_collection", "facts.out.append(do.Conceal(True))", "pass"), check.SECRET
    ),
    Mutant(
        "digits count before the pause",
        _in(keys, "open_collection", "is_open=not asked.is_sensitive", "is_open=True"),
        check.SECRET,
    ),
    Mutant("digits typed before the pause count", _in(keys, "on_concealed", 'digits="", ', ""), check.SECRET),
    Mutant(
        "digits typed before the pause are dropped without a word",
        _in(keys, "on_concealed", "is_partial=bool(early) and event.was_heard", "is_partial=False"),
        check.SECRET,
    ),
    Mutant(
        "digits that no recording heard are dropped",
        _in(keys, "on_concealed", "if not event.was_heard:", "if False:"),
        check.SECRET,
    ),
    Mutant(
        "a recording that cannot be paused is awaited",
        _in(keys, "on_not_concealed", '_settle_collection(facts, "not_paused")', "pass"),
        check.SECRET,
    ),
    Mutant(
        "keys behind the end of a collection count", _in(keys, "_take_digits", "is_taken=True", "is_taken=False"), check.SECRET
    ),
    Mutant("digits are settled before control keeps them", _in(keys, "_take_digits", "if not keeps:", "if True:"), check.SECRET),
    Mutant("control keeps a part of the digits", _in(keys, "_take_digits", ' and shortfall != "too_early"', ""), check.SECRET),
    Mutant(
        "control is awaited for ever",
        _in(keys, "on_digits_at", '_settle_collection(facts, "unknown_outcome")', "pass"),
        check.SECRET,
    ),
    Mutant(
        "the caller stays concealed after the digits",
        _in(tools, "close_collection", "facts.out.append(do.Conceal(False))", "pass"),
        check.SECRET,
    ),
    Mutant(
        "the caller stays concealed after the stream",
        _in(ending, "end", "tools.close_collection(facts)", "pass"),
        check.SECRET_ENDS,
    ),
    Mutant(
        "the caller stays concealed while the call ends",
        _in(ending, "begin_closing", "tools.close_collection(facts)", "pass"),
        check.SECRET_ENDS,
    ),
    Mutant("a notice is interrupted", _in(playback, "on_recorded", "if event.notice_ms:", "if False:"), check.NOTICED),
    Mutant(
        "a notice is interrupted at its end",
        _in(playback, "on_recorded", "facts.now + event.notice_ms +", "facts.now +"),
        check.NOTICED,
    ),
    Mutant(
        "a notice that is late is interrupted",
        _in(playback, "on_recorded", "max(facts.heard_ms, facts.rules.protect_greeting_ms * event.greets)", "0"),
        check.NOTICED,
    ),
    Mutant(
        "a greeting ends the protection of the notice",
        _in(
            playback,
            "protect",
            "max(notice_by, facts.now + facts.rules.protect_greeting_ms)",
            "facts.now + facts.rules.protect_greeting_ms",
        ),
        check.NOTICED_PROTECTED,
    ),
    Mutant(
        "a notice is protected after its end", _in(playback, "on_notice_heard", "facts.protect_by = NEVER", "pass"), check.NOTICED
    ),
    Mutant(
        "a greeting behind a notice is not protected", _in(playback, "on_notice_heard", "protect(facts)", "pass"), check.NOTICED
    ),
    Mutant(
        "a notice ends in a judged interruption, and protects",
        _in(playback, "on_notice_heard", " and facts.floor is Floor.OPEN", ""),
        check.NOTICED,
    ),
    Mutant(
        "a notice counts as the greeting",
        _in(playback, "on_recorded", "facts.has_greeted or event.greets", "True"),
        check.NOTICED_ALONE,
    ),
)
