"""Defects of `gw.call.dialogue.machine`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import machine
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Row, mutants

MUTANTS: Final = mutants(
    machine.Dialogue,
    begin=(Row("the first session has no deadline", check.PLAIN, "made.open_by = now_ms + rules.open_ms"),),
    _settle=(
        Row("a transfer is asked for again", check.LEAVING, "self.left_for is None and ", ""),  # prose: quotation
        Row("a transfer never begins", check.LEAVING, "tools.leave(self)"),
    ),
)
