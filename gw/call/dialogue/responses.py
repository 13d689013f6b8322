"""Reports of the AI about a response: its start, audio, tool calls, end, failure."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import answers, ending, keys, playback, sessions, tools
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import rules as limits
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Facts, Floor, Phase, Response
from gw.call.dialogue.inputs import Trouble
from gw.call.state import Reason

#: Ended responses kept: late audio belongs to the last one or two.
MAX_ENDED: Final = 4
#: Causes of the fallback by the trouble of the last answer; AI_NO_ANSWER for every other.
_CAUSES: Final = {Trouble.LASTING: Reason.AI_REFUSED, Trouble.RATE_LIMIT: Reason.AI_RATE_LIMITED}


def on_response_started(facts: Facts, event: given.ResponseStarted) -> None:
    if event.response_id and event.response_id in facts.dropped:
        return
    facts.dropped = tuple(one for one in facts.dropped if one)  # a response without an identifier is a new one
    if facts.speaks or facts.cut_requests or not ending.accepts_words(facts):
        cancel, facts.cut_requests = not facts.cut_requests, max(0, facts.cut_requests - 1)
        _take_response(facts, event.response_id)
        answers.drop_response(facts, cancel=cancel)
        return
    _take_response(facts, event.response_id)
    if facts.debt is None and facts.phase is Phase.TALK:
        facts.debt = Prompt.ANSWER  # if it fails, it is requested again


def _take_response(facts: Facts, response_id: str) -> None:
    if facts.open_tools:
        tools.yield_tools(facts)
    if facts.response is not Response.REQUESTED:
        facts.asked, facts.survives = None, facts.insists and facts.debt is not None
    facts.response, facts.response_id = Response.ACTIVE, response_id
    facts.has_audio = facts.has_tool = facts.has_new_tool = False
    facts.cancel_by = NEVER
    if not facts.survives:
        facts.ask_at = NEVER
    facts.answer_by = facts.now + facts.rules.answer_ms


def on_alive(facts: Facts, _: given.Alive) -> None:
    if facts.response is Response.ACTIVE and facts.has_audio:
        facts.answer_by = facts.now + facts.rules.stall_ms


def on_audio(facts: Facts, event: given.Audio) -> None:
    if event.response_id in facts.dropped or not ending.accepts_words(facts):
        return
    if facts.speaks and facts.floor is Floor.OPEN and not facts.plays:
        if facts.response is Response.ACTIVE and event.response_id == facts.response_id:
            answers.drop_response(facts, cancel=True)  # it would begin in mid-sentence later
        return
    if facts.response is Response.REQUESTED and event.response_id not in facts.ended:
        _take_response(facts, event.response_id)  # its start was not reported
    if facts.response is Response.ACTIVE and event.response_id == facts.response_id:
        _on_first_words(facts)
    facts.plays, facts.starved = True, False
    playback.expect_heard(facts, event.queued_ms)
    facts.out.append(do.Play())


def _on_first_words(facts: Facts) -> None:
    """The active response speaks: it pays the debt, unless it began before the reason for the debt."""
    if Prompt.GREETING in (facts.asked, facts.debt) and not facts.has_audio:
        playback.protect(facts)
    facts.has_audio = True
    facts.answer_by = facts.now + facts.rules.stall_ms
    if not facts.survives:
        facts.debt, facts.insists, facts.sent_keys = None, False, ""
    if facts.phase is Phase.CLOSING and (facts.closing is Reason.AI_HANGUP or facts.asked in (Prompt.CLOSING, Prompt.GOODBYE)):
        facts.has_spoken = True


def on_response_done(facts: Facts, event: given.ResponseDone) -> None:
    if event.response_id in facts.dropped:
        if facts.response is Response.CUT and event.response_id == facts.response_id:
            answers.end_cut_response(facts)
        return
    if facts.response not in (Response.ACTIVE, Response.REQUESTED) or event.response_id != facts.response_id != "":
        return  # an older response
    has_audio, has_tool, has_new_tool = facts.has_audio, facts.has_tool, facts.has_new_tool
    answers.clear_response(facts)
    facts.ended = (*facts.ended[-MAX_ENDED + 1 :], event.response_id)
    if has_tool:
        _on_tools_called(facts, event.response_id if has_new_tool else None)
    elif has_audio and event.completed:
        facts.attempts = 0
        if facts.debt is not None and facts.ask_at == NEVER:
            facts.ask_at = facts.now  # the answer this response could not be
    elif has_audio:
        facts.debt = facts.debt or (Prompt.CONTINUE if facts.phase is Phase.TALK else None)
        facts.has_spoken = False
        _retry(facts, event.trouble, event.wait_ms)
    else:
        _retry(facts, event.trouble, event.wait_ms)


def _retry(facts: Facts, trouble: Trouble, wait_ms: int) -> None:
    """Request an answer that failed once more, or let the fallback speak."""
    if trouble is Trouble.RATE_LIMIT:
        answers.wait(facts, wait_ms)
    if facts.debt is None:
        return
    facts.attempts += 1
    if facts.debt in (Prompt.ARE_YOU_THERE, Prompt.FILLER) and trouble is not Trouble.LASTING:
        facts.debt = None  # a silent caller is owed nothing, and a tool is bridged by the holding sound
        return
    if trouble is Trouble.LASTING or facts.attempts > len(limits.RETRY_PAUSES_MS):
        if facts.phase is Phase.CLOSING:
            facts.debt = None  # Twilio speaks
            return
        ending.fall_back(facts, _CAUSES.get(trouble, Reason.AI_NO_ANSWER))
        return
    facts.ask_at = facts.now + limits.RETRY_PAUSES_MS[facts.attempts - 1]
    facts.out.append(do.Note("answer_failed"))


def on_create_refused(facts: Facts, event: given.CreateRefused) -> None:
    if event.trouble is Trouble.RATE_LIMIT:
        answers.wait(facts, event.wait_ms)
    if facts.cut_requests:
        facts.cut_requests -= 1
        if facts.response is Response.CUT and not facts.response_id and not facts.cut_requests:
            answers.end_cut_response(facts)
    elif event.trouble is Trouble.CROSSED and facts.response is Response.ACTIVE:
        if facts.asked is not None and facts.asked_insists:  # the response that the AI began itself is not the answer
            facts.debt, facts.insists, facts.survives = facts.debt or facts.asked, True, True
            facts.asked, facts.has_spoken = None, False
            if facts.phase is Phase.CLOSING:
                facts.ask_at = facts.now  # whatever that response does
    elif facts.response is Response.REQUESTED:
        answers.clear_response(facts)
        if event.trouble is Trouble.CROSSED:
            facts.out.append(do.Cancel())  # a cut response continues
        _retry(facts, event.trouble, event.wait_ms)


def on_answer_by(facts: Facts) -> None:
    """A response gave no sign for too long: the session is at fault."""
    facts.attempts += 1
    if facts.attempts > len(limits.RETRY_PAUSES_MS):
        ending.fall_back(facts, Reason.AI_STALLED)
    else:
        sessions.on_session_lost(facts, given.SessionLost(Reason.AI_STALLED))


def on_tool_call(facts: Facts, event: given.ToolCall) -> None:
    """Answer a call that is not carried out. Every other one is opened."""
    is_cut = event.response_id in facts.dropped
    is_known = tools.is_known(facts, event.call_id)
    if facts.response is Response.ACTIVE and not is_cut:
        facts.has_tool, facts.has_new_tool = True, facts.has_new_tool or not is_known
        facts.answer_by = facts.now + facts.rules.answer_ms
    if is_known:
        facts.out.append(do.Note("tool_repeated"))
        return
    facts.tools += 1
    rules = facts.rules.tools.get(event.name)
    if facts.phase is Phase.CLOSING:
        tools.answer_tool(facts, event.call_id, "cancelled")
    elif event.name == facts.rules.hang_up_tool:
        tools.answer_tool(facts, event.call_id, "ok")
        if not is_cut:
            ending.hang_up(facts)
    elif rules is None:
        tools.answer_tool(facts, event.call_id, "unknown_tool")
    elif not event.is_readable:
        tools.answer_tool(facts, event.call_id, "invalid_arguments")
    elif tools.is_too_much(facts, rules) or (rules.collects and facts.collection is not None):
        tools.answer_tool(facts, event.call_id, "busy")
    else:
        tools.open_tool(facts, event, rules)
        if rules.collects:
            keys.open_collection(facts, event)


def _on_tools_called(facts: Facts, response_id: str | None) -> None:
    """A response that called tools ended: its answer follows once those are settled that it waits for.

    `response_id`: None if earlier responses made all its calls; then one answer is owed, unless their results still come.
    """
    facts.attempts = 0
    waits = facts.awaits_tool(response_id)
    if facts.ask_at == NEVER:
        facts.debt = None
    if facts.phase is Phase.CLOSING:
        ending.ask_goodbye(facts)
    elif not waits:
        answers.owe(facts, Prompt.ANSWER, insists=True)
