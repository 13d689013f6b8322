"""Defects of `gw.call.dialogue.playback`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import playback
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Row, mutants

MUTANTS: Final = mutants(
    playback,
    on_recorded=(
        Row("a recorded greeting is not heard", check.RECORDED, "facts.out.append(do.Play())"),
        Row("the agent greets after a recorded greeting", check.RECORDED, "has_greeted or event.greets", "has_greeted"),
        Row("a recorded greeting cannot be interrupted", check.RECORDED, "plays, facts.has_greeted = True,", "has_greeted ="),
        Row("a recorded greeting is not protected", check.RECORDED_JUDGED, "protect(facts)"),
        Row("a notice is interrupted", check.NOTICED, "if event.notice_ms:", "if False:"),
        Row("a notice is interrupted at its end", check.NOTICED, "facts.now + event.notice_ms +", "facts.now +"),
        Row(
            "a notice that is late is interrupted",
            check.NOTICED,
            "max(facts.heard_ms, facts.rules.protect_greeting_ms * event.greets)",
            "0",
        ),
        Row("a notice counts as the greeting", check.NOTICED_ALONE, "facts.has_greeted or event.greets", "True"),
    ),
    on_notice_heard=(
        Row("a notice is protected after its end", check.NOTICED, "facts.protect_by = NEVER"),
        Row("a greeting behind a notice is not protected", check.NOTICED, "protect(facts)"),
        Row("a notice ends in a judged interruption, and protects", check.NOTICED, " and facts.floor is Floor.OPEN", ""),
    ),
    protect=(
        Row("the greeting is protected for ever", check.PROTECTED, "now + facts.rules.protect_greeting_ms", "now + 60_000"),
        Row(
            "a greeting ends the protection of the notice",
            check.NOTICED_PROTECTED,
            "max(notice_by, facts.now + facts.rules.protect_greeting_ms)",
            "facts.now + facts.rules.protect_greeting_ms",
        ),
    ),
    on_starved=(
        Row("a response that falls silent has no holding sound", check.HOLD_JUDGED, "facts.starved = facts.plays"),
        Row(
            "the caller of a slow tool waits for a mark before the holding sound",
            check.FILLER_SOUND,
            "facts.starved = facts.plays",
            "facts.starved = facts.plays and facts.has_audio",
        ),
    ),
    all_heard=(
        Row(
            "heard audio counts as unheard for ever",
            check.SILENCE,
            "facts.plays, facts.starved, facts.heard_by = False, False, NEVER",
            "facts.heard_by = NEVER",
        ),
    ),
    on_heard_by=(Row("closing words count as heard that no report confirms", check.TOOLS, "facts.has_spoken = False"),),
    hold=(
        Row("a judged interruption does not pause", check.JUDGED, "facts.out.append(do.HoldAudio())"),
        Row("a long pause counts as hearing", check.LONG_HOLD, "facts.heard_by += facts.rules.resume_after_ms"),
    ),
    release=(Row("a pause is never released", check.JUDGED, "facts.out.append(do.ReleaseAudio())"),),
    discard=(
        Row("an interruption clears nothing", check.PLAIN, "do.Interrupt(_VERDICTS[facts.floor])", "do.Note('nothing')"),
        Row(
            "an interruption has the wrong cause",
            check.JUDGED,
            "_VERDICTS[facts.floor]",
            '"cut" if facts.floor is Floor.HELD else "model"',
        ),
    ),
)
