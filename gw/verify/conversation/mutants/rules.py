"""Defects of `gw.call.dialogue.rules`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import rules
from gw.verify.changes import Value
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant("the AI's own response is awaited too long", Value(f"{rules.__name__}:OWN_RESPONSE_MS", 3000), check.PLAIN),
    Mutant("the pause before a retry is too long", Value(f"{rules.__name__}:RETRY_PAUSES_MS", (300, 5000)), check.FAILURES),
    Mutant("one unreadable event costs the session", Value(f"{rules.__name__}:MAX_UNREADABLE", 1), check.UNREADABLE),
)
