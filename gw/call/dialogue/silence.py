"""Silence: the holding sound, a sentence while a tool is slow, the idle limit, missing frames of the caller."""

from __future__ import annotations

from gw.call.dialogue import answers, ending
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import rules as limits
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Facts, Phase, Response
from gw.call.state import Reason


def update_hold_sound(facts: Facts) -> None:
    """Play the holding sound while the caller waits and hears nothing."""
    is_silent = not (facts.is_heard or facts.speaks)
    facts.quiet_ms = min(facts.quiet_ms, facts.now) if is_silent else NEVER
    if not is_silent or not facts.is_owing or facts.phase is Phase.CLOSING:
        facts.hold_at = facts.filler_at = NEVER
        if facts.holds_sound:
            facts.holds_sound = False
            facts.out.append(do.HoldSound(False))
    elif facts.holds_sound:
        pass
    elif facts.awaits_agent():
        if facts.hold_at == NEVER:
            facts.hold_at = min(facts.now + facts.rules.hold_after_ms, facts.filler_at)
        facts.filler_at = NEVER
    else:
        facts.hold_at, facts.filler_at = NEVER, min((at_ms for at_ms, _ in fillers(facts)), default=NEVER)


def on_hold_at(facts: Facts) -> None:
    facts.holds_sound = True
    facts.out.append(do.HoldSound(True))


def fillers(facts: Facts) -> list[tuple[int, str]]:
    """Tools whose wait is to be bridged, with the time: from the later of the call and the end of what is heard."""
    found = []
    for tool in facts.open_tools:
        rules = facts.rules.tools[tool.name]
        if rules.waits and rules.filler != "none" and tool.by_ms != NEVER:
            called_ms = tool.by_ms - rules.timeout_ms - limits.TOOL_MARGIN_MS
            found.append((max(called_ms, facts.quiet_ms) + rules.filler_after_ms, tool.name))
    return found


def on_filler_at(facts: Facts) -> None:
    """Bridge the wait for a tool: with a sentence once, else with the holding sound."""
    found = fillers(facts)
    if not found:
        return
    _, name = min(found)
    may_speak = not facts.filling and facts.debt is None and facts.wait_by == NEVER and facts.response is Response.NONE
    if may_speak and facts.rules.tools[name].filler == "say":
        facts.filling = name
        answers.owe_only(facts, Prompt.FILLER)
    else:
        on_hold_at(facts)


def update_idle(facts: Facts) -> None:
    """Begin the idle limit in a quiet moment, and end it with the quiet."""
    if not facts.is_quiet():
        facts.idle_at = NEVER
    elif facts.idle_at == NEVER:
        facts.idle_at = facts.now + facts.rules.idle_ms


def on_idle_at(facts: Facts) -> None:
    """Ask whether the caller is there, some times, then end the call."""
    if facts.prompts < facts.rules.idle_prompts:
        facts.prompts += 1
        answers.owe(facts, Prompt.ARE_YOU_THERE)
    else:
        ending.announce_end(facts, Reason.IDLE_LIMIT)


def on_frames_missing(facts: Facts, _: given.FramesMissing) -> None:
    if not facts.fills_silence:
        facts.fills_silence = True
        facts.out.append(do.FillSilence(True))


def on_frames_back(facts: Facts, _: given.FramesBack) -> None:
    if facts.fills_silence:
        facts.fills_silence = False
        facts.out.append(do.FillSilence(False))
