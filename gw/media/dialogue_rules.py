"""Derives the rules of a dialogue from an agent's configuration."""

from __future__ import annotations

from gw.call.dialogue.rules import Rules
from gw.config import Agent, Media


def rules_of(agent: Agent, media: Media, *, resumes: bool, elapsed_ms: int = 0) -> Rules:
    """Return the rules of one call.

    `resumes`: the stream continues a call. `elapsed_ms`: the call's time on earlier streams, part of the longest call.
    """
    turns = agent.turns
    is_parrot = agent.provider == "parrot"  # it cannot be prompted, and the key "#" is its command to hang up
    prompts = turns.idle_prompts if turns.idle_prompt_s and not is_parrot else 0
    idle_s = media.idle_limit_s / (prompts + 1)  # the limit bounds the whole silence
    return Rules(
        greets=bool(agent.greeting),
        resumes=resumes,
        interruptions=turns.interruptions,
        min_speech_ms=turns.min_speech_ms,
        resume_after_ms=_ms(turns.resume_after_s),
        protect_greeting_ms=turns.protect_greeting_ms,
        answer_ms=_ms(media.ai_answer_s),
        stall_ms=_ms(media.ai_stall_s),
        open_ms=_ms(media.ai_connect_s),
        window_ms=_ms(media.ai_reconnect_s),
        goodbye_ms=_ms(media.goodbye_s),
        idle_ms=_ms(min(turns.idle_prompt_s, idle_s) if prompts else idle_s),
        idle_prompts=prompts,
        max_call_ms=max(0, _ms(media.max_call_s) - elapsed_ms),
        warn_ms=_ms(turns.warn_before_end_s),
        collect_keys=agent.keys.mode == "collect" and not is_parrot,
        max_keys=agent.keys.max_digits,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
