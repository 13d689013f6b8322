"""gw.protocol.ai: the events of an AI leg are complete, distinct, and harmless by default."""

from __future__ import annotations

from typing import get_args

from msgspec import Struct

from gw.protocol import ai


def test_the_union_has_every_event() -> None:
    events = {value for value in vars(ai).values() if isinstance(value, type) and issubclass(value, Struct)}
    assert set(get_args(ai.AiEvent)) == events - {Struct}
    assert len(events) == 22


def test_an_error_is_harmless_by_default() -> None:
    error = ai.AiError("code", "message", fatal=False)
    assert (error.trouble, error.wait_ms, error.refuses) == ("", 0, "")
    assert ai.ResponseDone("r", "completed", "") == ai.ResponseDone("r", "completed", "", "", 0, ai.NO_TOKENS)


def test_the_tool_that_every_agent_has() -> None:
    assert ai.HANG_UP_TOOL == "hang_up"
