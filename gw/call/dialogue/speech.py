"""The caller speaks: turns, and interruptions that the AI or the gateway judges."""

from __future__ import annotations

from gw.call.dialogue import answers, ending, playback, tools
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import rules as limits
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Facts, Floor, Phase, Response, kept


def on_speech_started(facts: Facts, event: given.SpeechStarted) -> None:
    facts.item, facts.has_text, facts.prompts = event.item_id, False, 0
    facts.speaks, facts.speech_by = True, facts.now + limits.MAX_SPEECH_MS
    if facts.phase is Phase.CLOSING and not ending.may_take_back(facts):
        return
    if facts.rules.interruptions == "none" or facts.protect_by != NEVER:
        ending.take_back(facts)
    elif facts.rules.interruptions == "gateway" and facts.plays:
        playback.hold(facts)
        facts.cut_at = facts.now + facts.rules.cut_after_ms
    else:
        cut(facts)


def cut(facts: Facts) -> None:
    """Give the caller the floor: what the agent has not said is not said."""
    ending.take_back(facts)
    for response_id in facts.ended:  # their late audio too
        facts.dropped = kept(facts.dropped, response_id)
    facts.ended = ()
    if facts.phase is Phase.TALK:
        answers.owe_only(facts, None)
        facts.sent_keys = ""
    elif facts.plays:
        facts.has_spoken = False
    if facts.response is Response.ACTIVE:
        answers.drop_response(facts, cancel=facts.rules.interruptions == "gateway")
    elif facts.response is Response.REQUESTED:
        answers.cancel_request(facts)
    playback.discard(facts)
    tools.cancel_tools(facts)


def resume(facts: Facts) -> None:
    """Return to the agent's words: the interruption was noise, or a sign of attention."""
    facts.speaks, facts.speech_by = False, NEVER
    facts.out.append(do.DeleteItem(facts.item))
    playback.release(facts)


def on_speech_stopped(facts: Facts, event: given.SpeechStopped) -> None:
    if event.item_id != facts.item:
        on_speech_started(facts, given.SpeechStarted(event.item_id))  # its start was not reported
    if not facts.speaks:
        return
    facts.speaks, facts.speech_by = False, NEVER
    if facts.floor is Floor.HELD:  # silent for the AI's whole pause already: noise, as long as no words come
        playback.release(facts)
        facts.floor, facts.judge_at = Floor.JUDGED, facts.now + limits.JUDGE_MS
    else:
        _await_own_response(facts)


def _await_own_response(facts: Facts) -> None:
    """Owe an answer to a turn. The AI begins it itself, unless the gateway judges, with the results so far."""
    if facts.rules.interruptions == "gateway":
        answers.owe(facts, Prompt.ANSWER)
        return
    if facts.phase is not Phase.TALK:
        return
    has_result = facts.debt is not None and facts.insists
    facts.insists = facts.insists and bool(facts.sent_keys)
    answers.owe(facts, Prompt.ANSWER, limits.AFTER_TOOL_MS if has_result else limits.OWN_RESPONSE_MS)


def on_speech_by(facts: Facts) -> None:
    on_speech_stopped(facts, given.SpeechStopped(facts.item))


def on_caller_text(facts: Facts, event: given.CallerText) -> None:
    if event.item_id != facts.item:
        return
    facts.has_text = True
    if facts.floor is Floor.JUDGED and event.meaningful:
        cut(facts)
        answers.owe(facts, Prompt.ANSWER)
    elif facts.floor is Floor.JUDGED:
        resume(facts)


def on_heard_out(facts: Facts, _: given.HeardOut) -> None:
    """Nothing is left that an interruption could cut: what the caller says is an ordinary turn."""
    playback.all_heard(facts)
    if facts.floor is Floor.HELD:
        ending.take_back(facts)
        playback.release(facts)
        tools.cancel_tools(facts)
    elif facts.floor is Floor.JUDGED and facts.phase is Phase.TALK:
        playback.release(facts)
        tools.cancel_tools(facts)
        answers.owe(facts, Prompt.ANSWER)
