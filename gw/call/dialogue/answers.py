"""The answer that the caller is owed: its request, the wait for a rate limit, and the end of the response under way."""

from __future__ import annotations

from gw.call.dialogue import commands as do
from gw.call.dialogue import rules as limits
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Facts, Floor, Phase, Response, kept


def may_ask(facts: Facts) -> bool:
    """A response may be requested: the caller is silent, and none is under way."""
    if facts.debt is None or not facts.is_ready or facts.speaks or facts.floor is not Floor.OPEN:
        return False
    if facts.wait_by != NEVER:
        return False
    if facts.plays and facts.debt in (Prompt.CLOSING, Prompt.GOODBYE):
        return False  # after the sentence
    return facts.response is Response.NONE


def ask(facts: Facts) -> None:
    """Request the owed answer."""
    assert facts.debt is not None
    facts.asked, facts.asked_insists, facts.ask_at = facts.debt, facts.insists, NEVER
    facts.response, facts.response_id = Response.REQUESTED, ""
    facts.has_audio = facts.has_tool = facts.has_new_tool = facts.survives = False
    facts.answer_by = facts.now + facts.rules.answer_ms
    facts.out.append(do.Create(facts.debt, facts.filling if facts.debt is Prompt.FILLER else ""))


def owe(facts: Facts, prompt: Prompt, after_ms: int = 0, *, insists: bool = False) -> None:
    """Owe the caller an answer. It is requested after `after_ms`, unless the AI begins one itself."""
    if facts.phase is not Phase.TALK:
        return
    facts.insists = insists or (facts.insists and facts.debt is not None)
    facts.debt, facts.attempts = prompt, 0
    facts.survives = facts.response is Response.ACTIVE or (insists and facts.response is Response.REQUESTED)
    ahead_at = facts.heard_by - facts.heard_ms - limits.AHEAD_MS if facts.plays else 0
    facts.ask_at = max(facts.now + after_ms, ahead_at)


def owe_only(facts: Facts, prompt: Prompt | None, *, insists: bool = False) -> None:
    """Owe this and nothing else, immediately; None: nothing at all. `insists`: an earlier response cannot pay it."""
    facts.debt, facts.insists, facts.asked_insists, facts.attempts = prompt, insists, False, 0
    facts.survives = insists and facts.response in (Response.ACTIVE, Response.REQUESTED)
    facts.ask_at = NEVER if prompt is None else facts.now


def wait(facts: Facts, wait_ms: int) -> None:
    """Request nothing for as long as the AI's rate limit asks."""
    facts.wait_by = facts.now + min(max(limits.RETRY_PAUSES_MS[-1], wait_ms), limits.MAX_WAIT_MS)


def on_wait_by(facts: Facts) -> None:
    """The rate limit is over: `may_ask` reads the timer."""


def drop_response(facts: Facts, *, cancel: bool) -> None:
    """Play nothing more of the active response. The AI has to end it."""
    facts.dropped = kept(facts.dropped, facts.response_id)
    facts.response, facts.answer_by = Response.CUT, NEVER
    facts.cancel_by = facts.now + limits.CANCEL_MS
    if cancel:
        facts.out.append(do.Cancel())


def cancel_request(facts: Facts) -> None:
    """Give up a response that the AI has not begun: it begins and ends it."""
    facts.response, facts.answer_by, facts.cancel_by = Response.CUT, NEVER, facts.now + limits.CANCEL_MS
    facts.cut_requests += 1
    facts.out.append(do.Cancel())


def on_cancel_by(facts: Facts) -> None:
    """Take a response whose end never came for ended. If it had begun and nothing else comes either, the session is at fault."""
    if facts.response is Response.CUT:
        facts.response = Response.NONE
        if facts.response_id:
            facts.silent_by = facts.now + limits.SILENT_MS
        if facts.debt is not None and facts.ask_at == NEVER:
            facts.ask_at = facts.now


def end_cut_response(facts: Facts) -> None:
    """The AI ended a response that was cut, or refused to begin it: an owed answer is requested."""
    clear_response(facts)
    if facts.debt is not None and facts.ask_at == NEVER:
        facts.ask_at = facts.now


def clear_response(facts: Facts) -> None:
    """Clear the response under way: it ended, or its session is gone."""
    facts.response, facts.response_id, facts.asked, facts.answer_by, facts.cancel_by = Response.NONE, "", None, NEVER, NEVER
    facts.has_audio = facts.has_tool = facts.has_new_tool = facts.survives = False
