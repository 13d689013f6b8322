"""Defects of `gw.call.dialogue.speech`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import speech
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Row, mutants

MUTANTS: Final = mutants(
    speech,
    on_speech_started=(
        Row("long speech does not cut", check.JUDGED, "facts.cut_at = facts.now + facts.rules.cut_after_ms"),
        Row("a protected greeting is interrupted", check.PROTECTED, "or facts.protect_by != NEVER", ""),
    ),
    cut=(
        Row(
            "an interrupted response is not dropped",
            check.PLAIN,
            'answers.drop_response(facts, cancel=facts.rules.interruptions == "gateway")',
        ),
        Row(
            "an ended response that was interrupted is not dropped", check.ODD, "facts.dropped = kept(facts.dropped, response_id)"
        ),
        Row("the gateway does not cancel what it interrupts", check.JUDGED, 'facts.rules.interruptions == "gateway"', "False"),
        Row("an interruption leaves tools under way", check.CANCELLED, "tools.cancel_tools(facts)"),
        Row("a judged interruption drops the closing words", check.LIMIT_JUDGED, "if facts.phase is Phase.TALK:", "if True:"),
        Row("a goodbye that was cut counts as heard", check.LIMIT_JUDGED, "facts.has_spoken = False"),
    ),
    on_speech_stopped=(
        Row("an answer to speech is not owed", check.PLAIN, "_await_own_response(facts)"),
        Row(
            "a turn whose start was not reported is not answered",
            check.ODD,
            "on_speech_started(facts, given.SpeechStarted(event.item_id))",
        ),
        Row("a judged interruption is never decided", check.JUDGED, "facts.now + limits.JUDGE_MS", "NEVER"),
        Row("a pause outlasts a short sound", check.JUDGED, "        playback.release(facts)\n", ""),
        Row("words of a short sound come too late", check.JUDGED, "JUDGED, facts.now + limits.JUDGE_MS", "OPEN, NEVER"),
    ),
    _await_own_response=(
        Row(
            "the answer to speech while closing counts as the closing words",
            check.SPENT,
            "if facts.phase is not Phase.TALK:",
            "if False:",
        ),
    ),
    on_caller_text=(
        Row("words resume the agent", check.JUDGED, "cut(facts)\n        answers.owe(facts, Prompt.ANSWER)", "resume(facts)"),
    ),
    on_heard_out=(
        Row("a short answer at the end of the agent's words is noise", check.JUDGED, "answers.owe(facts, Prompt.ANSWER)"),
        Row(
            "an interruption leaves tools under way once all is heard",
            check.CANCELLED_JUDGED,
            "playback.release(facts)\n        tools.cancel_tools(facts)\n    elif",
            "playback.release(facts)\n    elif",
        ),
    ),
)
