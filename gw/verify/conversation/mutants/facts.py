"""Defects of `gw.call.dialogue.facts`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import facts
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Row, mutants

MUTANTS: Final = mutants(
    facts.Facts,
    waits=(Row("the caller waits for a tool in the background", check.BACKGROUND, "self.rules.tools[tool.name].waits", "True"),),
    is_quiet=(
        Row("the idle limit counts while a tool is open", check.SLOW_TOOL, " and not self.open_tools", ""),
        Row("the idle limit counts while the agent is heard", check.LONG_SPEECH, "or self.plays or self.keys", "or self.keys"),
        Row("the idle limit counts while the caller speaks", check.IDLE_CALLER, "self.speaks or self.plays or", "self.plays or"),
        Row("a rollover interrupts a quiet caller", check.ROLLOVER, "(self.speaks or self.plays or self.keys)", "self.keys"),
    ),
)
