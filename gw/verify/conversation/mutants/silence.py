"""Defects of `gw.call.dialogue.silence`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import silence
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Row, mutants

MUTANTS: Final = mutants(
    silence,
    update_hold_sound=(
        Row(
            "an answer under way has no holding sound",
            check.HOLD_JUDGED,
            "facts.is_owing or",
            "facts.is_owing or facts.response is Response.ACTIVE or",
        ),
        Row("the holding sound comes too late", check.HOLD, "facts.rules.hold_after_ms", "2000"),
        Row("the holding sound plays on", check.HOLD, "facts.out.append(do.HoldSound(False))"),
    ),
    fillers=(Row("the sound for a slow tool comes too late", check.FILLER_SOUND, "rules.filler_after_ms, tool.", "5000, tool."),),
    on_filler_at=(Row("a sentence bridges one wait again and again", check.FILLER_TWICE, "not facts.filling and ", ""),),
    update_idle=(Row("an idle call never ends", check.SILENCE, "facts.idle_at = facts.now + facts.rules.idle_ms"),),
    on_idle_at=(
        Row("the idle limit ends without a prompt", check.SILENCE, "facts.prompts < facts.rules.idle_prompts", "False"),
        Row(
            "the idle limit ends without closing words",
            check.SILENCE,
            "ending.announce_end(facts, Reason.IDLE_LIMIT)",
            "facts.closing = Reason.IDLE_LIMIT; facts.has_spoken = True; ending.end(facts)",
        ),
    ),
    on_frames_missing=(
        Row("missing frames are not replaced", check.ODD, "facts.out.append(do.FillSilence(True))"),
        Row(
            "missing frames end the call",
            check.ODD,
            "facts.fills_silence = True",
            "facts.closing = Reason.PHONE_SILENT; ending.end(facts); return",
        ),
    ),
    on_frames_back=(Row("silence is sent beside the caller's frames", check.ODD, "facts.out.append(do.FillSilence(False))"),),
)
