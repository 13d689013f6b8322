"""Defects of `gw.call.dialogue.answers`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import answers
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Row, mutants

MUTANTS: Final = mutants(
    answers,
    may_ask=(
        Row("a response is requested while the caller speaks", check.TOOLS, "or facts.speaks ", ""),
        Row(
            "a response is requested while an interruption is judged",
            check.JUDGED_GOODBYE,
            " or facts.floor is not Floor.OPEN",
            "",
        ),
        Row(
            "closing words interrupt a sentence",
            check.LIMIT_IN_SPEECH,
            "facts.plays and facts.debt in (Prompt.CLOSING, Prompt.GOODBYE)",
            "False",
        ),
    ),
    ask=(
        Row("a request has no deadline", check.PLAIN, "facts.answer_by = facts.now + facts.rules.answer_ms"),
        Row("a slow answer costs the session too soon", check.PLAIN, "facts.now + facts.rules.answer_ms", "facts.now + 900"),
    ),
    wait=(Row("a rate limit's wait is ignored", check.FAILURES, "max(limits.RETRY_PAUSES_MS[-1], wait_ms)", "300"),),
    cancel_request=(
        Row("a cut request is not cancelled", check.PLAIN, "facts.out.append(do.Cancel())"),
        Row("a cut request's response is played", check.PLAIN, "facts.cut_requests += 1"),
    ),
    on_cancel_by=(
        Row("a cut response's end does not release the next request", check.JUDGED_SESSIONS, "facts.response = Response.NONE"),
        Row("a session is silent as soon as a cut response is slow to end", check.JUDGED_SESSIONS, "facts.response_id:", "True:"),
    ),
)
