"""The end of a call: why, the last words, and how a caller who speaks takes it back.

Four ends begin here: the agent hangs up, a limit is reached, the AI is given up, no person answered an outbound call.
"""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import answers, playback, tools
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import rules as limits
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Facts, Floor, Phase, Response
from gw.call.state import Reason

#: Ends that the caller may take back by speaking.
_REVERSIBLE: Final = frozenset({Reason.AI_HANGUP, Reason.IDLE_LIMIT})
#: Ends before which the agent speaks.
_WITH_WORDS: Final = _REVERSIBLE | {Reason.DURATION_LIMIT, Reason.BUDGET}


def hang_up(facts: Facts) -> None:
    """End once the goodbye is heard, unless the caller speaks into it already."""
    if facts.speaks and facts.floor is Floor.OPEN and facts.taken_back < limits.MAX_TAKEN_BACK:
        facts.taken_back += 1
        facts.out.append(do.Note("goodbye_taken_back"))
        return
    spoken = facts.plays or facts.has_audio
    begin_closing(facts, Reason.AI_HANGUP, facts.rules.goodbye_ms)
    facts.has_spoken = spoken
    if facts.response is not Response.ACTIVE:
        ask_goodbye(facts)


def ask_goodbye(facts: Facts) -> None:
    """Request a goodbye once, from an agent that hung up without a word."""
    if facts.closing is Reason.AI_HANGUP and not facts.has_spoken and not facts.has_asked_goodbye and facts.is_ready:
        facts.has_asked_goodbye = True
        answers.owe_only(facts, Prompt.GOODBYE)


def may_take_back(facts: Facts) -> bool:
    """The end that was decided may be given up for a caller who speaks: within the longest call and the budget."""
    if facts.closing not in _REVERSIBLE or not facts.is_ready or facts.limit_at == NEVER or facts.spent:
        return False
    return facts.closing is not Reason.AI_HANGUP or facts.taken_back < limits.MAX_TAKEN_BACK


def take_back(facts: Facts) -> None:
    """Return to the conversation: the caller speaks into the goodbye."""
    if facts.phase is not Phase.CLOSING or not may_take_back(facts):
        return
    facts.taken_back += facts.closing is Reason.AI_HANGUP
    facts.phase, facts.closing, facts.close_by = Phase.TALK, None, NEVER
    facts.has_spoken = facts.has_asked_goodbye = False
    answers.owe_only(facts, None)
    facts.out.append(do.Note("goodbye_taken_back"))


def begin_closing(facts: Facts, reason: Reason, bound_ms: int) -> None:
    """Decide the end. Nothing is owed any more but last words, within `bound_ms` beyond the queued audio."""
    facts.phase, facts.closing, facts.has_spoken = Phase.CLOSING, reason, False
    answers.owe_only(facts, None)
    ended = tuple(tool for tool in facts.open_tools if not tools.has_left(facts, tool))
    for tool in ended:
        if tool.call_id not in facts.answered:
            tools.pass_on(facts, tool.call_id, "cancelled")
    tools.close_collection(facts)
    facts.open_tools = tuple(tool for tool in facts.open_tools if tool not in ended or not facts.waits(tool))
    facts.tools_by = min((tool.by_ms for tool in facts.open_tools), default=NEVER)
    facts.filling = ""
    if facts.left_for is None:
        facts.leaving = ""
    facts.keys, facts.keys_at = "", NEVER
    facts.close_by = max(facts.now, facts.heard_by if facts.plays else 0) + bound_ms


def fall_back(facts: Facts, reason: Reason) -> None:
    """Give up the AI: what is queued is heard, then Twilio speaks or transfers."""
    facts.out.append(do.Note("fallback", reason))
    if facts.floor is Floor.HELD:
        playback.discard(facts)
    begin_closing(facts, Reason.FALLBACK_GOODBYE, facts.rules.goodbye_ms)
    answers.clear_response(facts)


def announce_limit(facts: Facts) -> None:
    """Announce the end if a limit is reached. A call that leaves its stream is not held back for it."""
    if facts.left_for is None and (facts.spent or facts.limit_at == NEVER):
        announce_end(facts, Reason.BUDGET if facts.spent else Reason.DURATION_LIMIT)


def announce_end(facts: Facts, reason: Reason) -> None:
    """Have the agent speak closing words, after the present sentence, then end."""
    if facts.phase is not Phase.TALK:
        return
    begin_closing(facts, reason, limits.CLOSING_MS)
    if facts.is_ready:
        answers.owe_only(facts, Prompt.CLOSING, insists=True)


def on_answered_by(facts: Facts, event: given.AnsweredBy) -> None:
    """End a call that no person answered: after the message, if there is one. The first verdict counts."""
    if facts.party:
        return
    facts.party = event.party
    if event.party == "person":
        return
    if facts.response is Response.ACTIVE:
        answers.drop_response(facts, cancel=True)
    elif facts.response is Response.REQUESTED:
        answers.cancel_request(facts)
    if facts.plays:
        facts.out.append(do.Interrupt("machine"))
        playback.all_heard(facts)
    playback.release(facts)
    begin_closing(facts, Reason.MACHINE, facts.rules.goodbye_ms)
    if event.party == "machine" and event.message_ms:
        facts.plays = True
        playback.expect_heard(facts, event.message_ms)
        facts.out.append(do.Play())


def on_limit_at(facts: Facts) -> None:
    """The call has lasted the longest time: `announce_limit` reads the timer."""


def on_final_at(facts: Facts) -> None:
    facts.closing = facts.closing or Reason.DURATION_LIMIT
    end(facts)


def on_warn_at(facts: Facts) -> None:
    if facts.is_ready and facts.phase is Phase.TALK:
        facts.out.append(do.WarnOfEnd())


def on_budget_near(facts: Facts, _: given.BudgetNear) -> None:
    if facts.is_ready and facts.phase is Phase.TALK:
        facts.out.append(do.WarnOfEnd("budget"))


def on_budget_spent(facts: Facts, _: given.BudgetSpent) -> None:
    facts.spent = True


def on_stream_ended(facts: Facts, event: given.StreamEnded) -> None:
    if facts.left_for is not None and event.reason is Reason.CALLER_HANGUP:
        facts.closing = facts.left_for  # Twilio's `stop` is the same for both
    elif facts.closing is None or (event.reason is Reason.CALLER_HANGUP and facts.closing is not Reason.FALLBACK_GOODBYE):
        facts.closing = event.reason
    end(facts, hung_up=event.reason is Reason.CALLER_HANGUP)


def on_end_wanted(facts: Facts, event: given.EndWanted) -> None:
    facts.closing, facts.has_spoken = event.reason, False
    end(facts)


def accepts_words(facts: Facts) -> bool:
    """The agent may speak: before the end, and as its last words."""
    return facts.phase is Phase.TALK or facts.closing in _WITH_WORDS


def is_over(facts: Facts) -> bool:
    """The last words are heard, or none will come, and no transfer is under way."""
    is_heard = not facts.plays and facts.floor is not Floor.JUDGED
    is_silent = facts.debt is None and facts.response in (Response.NONE, Response.CUT)
    return is_heard and is_silent and facts.left_for is None


def end(facts: Facts, *, hung_up: bool = False) -> None:
    """End the call. Twilio speaks where the agent's last words were not heard. `hung_up`: by the caller."""
    assert facts.closing is not None
    tools.close_collection(facts)
    facts.phase = Phase.ENDED
    speak = not hung_up and facts.closing is not Reason.MACHINE and not (facts.has_spoken and not facts.plays)
    facts.out.append(do.End(facts.closing, speak))
