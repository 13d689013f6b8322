"""Sessions of the AI: the first, one in place of a lost one, and a successor before one expires."""

from __future__ import annotations

from gw.call.dialogue import answers, ending, playback, tools
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import rules as limits
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Facts, Floor, Phase, Response, Successor
from gw.call.dialogue.inputs import Trouble
from gw.call.state import Reason


def on_session_ready(facts: Facts, event: given.SessionReady) -> None:
    if facts.is_ready:
        return
    facts.window_ms = max(0, facts.window_ms - (facts.now - facts.lost_ms))
    _use_session(facts, event.lifetime_ms)
    if not facts.has_greeted:
        facts.has_greeted = True
        if facts.debt is None and facts.rules.returns:
            answers.owe(facts, Prompt.RETURNED, insists=True)
        elif facts.debt is None and (facts.rules.resumes or facts.rules.greets):
            answers.owe(facts, Prompt.RETURN if facts.rules.resumes else Prompt.GREETING)
    else:
        _listen_first(facts)


def _use_session(facts: Facts, lifetime_ms: int) -> None:
    """Hand the conversation over to a session."""
    facts.is_ready, facts.ready_ms, facts.open_by, facts.unreadable = True, facts.now, NEVER, ()
    if lifetime_ms < limits.MIN_LIFETIME_MS:
        lifetime_ms = limits.LIFETIME_MS
    lifetime_ms = min(lifetime_ms, limits.LIFETIME_MS)
    facts.quiet_at = facts.now + max(lifetime_ms - limits.ROLLOVER_QUIET_MS, lifetime_ms // 2)
    facts.forced_at = facts.now + lifetime_ms - limits.ROLLOVER_FORCED_MS
    facts.out.append(do.Restate())
    for call_id, result in facts.held_results:
        tools.give_result(facts, call_id, result)
    facts.held_results = ()
    if facts.held_keys:
        facts.out.append(do.SendKeys(facts.held_keys))
        facts.sent_keys, facts.held_keys = facts.held_keys, ""


def _listen_first(facts: Facts) -> None:
    """Request the owed answer after a pause: the caller may be speaking already."""
    if facts.debt is not None:
        facts.ask_at = facts.now + (limits.LISTEN_AGAIN_MS if facts.debt is Prompt.REPEAT else limits.LISTEN_MS)


def on_session_lost(facts: Facts, event: given.SessionLost) -> None:
    if facts.is_ready:
        if facts.now - facts.ready_ms >= limits.STABLE_MS:
            facts.opens, facts.window_ms = 0, facts.rules.window_ms
        facts.lost_ms = facts.now
        facts.out.append(do.Note("ai_leg_lost", event.reason))
        has_other = facts.successor is Successor.READY
        _leave_session(facts)
        if has_other and facts.phase is Phase.TALK:
            swap(facts)
            return
    elif facts.ready_ms == NEVER and not facts.opens:
        facts.out.append(do.Note("ai_leg_lost", event.reason))
    facts.open_by, facts.unreadable = NEVER, ()
    if facts.phase is not Phase.TALK:
        return
    pause_ms = limits.OPEN_PAUSES_MS[min(facts.opens, len(limits.OPEN_PAUSES_MS) - 1)]
    if event.trouble is Trouble.RATE_LIMIT:
        pause_ms = max(pause_ms, event.wait_ms)
    left_ms = facts.window_ms - (facts.now - facts.lost_ms) - pause_ms
    if event.trouble is Trouble.LASTING or facts.opens >= limits.MAX_OPENS or left_ms <= 0:
        ending.fall_back(facts, event.reason)
        return
    facts.opens += 1
    facts.open_by = facts.now + pause_ms + min(facts.rules.open_ms, left_ms)
    facts.out.append(do.OpenSession(pause_ms))


def _leave_session(facts: Facts) -> None:
    """Take over what a session left open, for the next one."""
    if facts.debt is Prompt.FILLER:
        facts.debt = None
    if facts.response is Response.ACTIVE:
        if facts.has_new_tool and not facts.awaits_tool(facts.response_id):
            facts.debt, facts.insists = Prompt.ANSWER, True  # to the results
        elif facts.has_new_tool and facts.ask_at == NEVER:
            facts.debt = None  # until the results come
        elif facts.has_audio:
            facts.debt = facts.debt or Prompt.CONTINUE
    if facts.speaks or (facts.debt is Prompt.ANSWER and not facts.insists and not facts.has_text):
        facts.debt = Prompt.REPEAT
    if facts.phase is Phase.CLOSING:
        facts.debt = None
        if facts.response is Response.ACTIVE:
            facts.has_spoken = False
    facts.is_ready, facts.speaks, facts.speech_by = False, False, NEVER
    facts.held_keys, facts.sent_keys = facts.sent_keys, ""
    facts.successor, facts.quiet_at, facts.forced_at, facts.text_by = Successor.NONE, NEVER, NEVER, NEVER
    facts.ask_at, facts.silent_by, facts.cut_requests = NEVER, NEVER, 0
    answers.clear_response(facts)
    playback.release(facts)


def on_open_by(facts: Facts) -> None:
    on_session_lost(facts, given.SessionLost(Reason.AI_TIMEOUT))


def on_unreadable(facts: Facts, event: given.Unreadable) -> None:
    recent = tuple(at for at in facts.unreadable if facts.now - at < limits.UNREADABLE_WINDOW_MS)
    if not facts.unreadable:
        facts.out.append(do.Note("ai_unreadable"))
    facts.unreadable = (*recent, facts.now)
    if len(facts.unreadable) >= limits.MAX_UNREADABLE:
        on_session_lost(facts, given.SessionLost(event.reason))


def on_quiet_at(facts: Facts) -> None:
    if facts.successor is Successor.NONE and facts.is_ready and facts.phase is Phase.TALK:
        facts.successor = Successor.OPENING
        facts.out.append(do.OpenSuccessor())


def on_successor_ready(facts: Facts, event: given.SuccessorReady) -> None:
    if facts.successor is Successor.OPENING:
        facts.successor, facts.successor_lifetime_ms = Successor.READY, event.lifetime_ms


def on_successor_failed(facts: Facts, _: given.SuccessorFailed) -> None:
    if facts.successor is not Successor.NONE:
        facts.successor, facts.quiet_at = Successor.NONE, facts.now + limits.ROLLOVER_RETRY_MS


def may_swap(facts: Facts) -> bool:
    """Between two utterances; shortly before the end also if something is owed."""
    if facts.is_quiet():
        return True
    between = facts.phase is Phase.TALK and not (facts.speaks or facts.plays) and facts.response is Response.NONE
    return between and facts.forced_at == NEVER and facts.floor is Floor.OPEN


def awaits_text(facts: Facts) -> bool:
    """Words of the caller's last turn are still to come, within their bound."""
    if not facts.item or facts.has_text:
        return False
    facts.text_by = min(facts.text_by, facts.now + limits.TEXT_MS)
    return True


def on_text_by(facts: Facts) -> None:
    facts.item = ""


def on_forced_at(facts: Facts) -> None:
    """From here on any moment between two utterances will do: `may_swap` reads the timer."""


def swap(facts: Facts) -> None:
    facts.successor, facts.text_by = Successor.NONE, NEVER
    facts.response, facts.cut_requests = Response.NONE, 0
    facts.cancel_by = NEVER
    facts.out.append(do.Swap())
    _use_session(facts, facts.successor_lifetime_ms)
    _listen_first(facts)
