"""gw.call.dialogue.commands: purposes of a response, digits in no text, the defaults of commands."""

from __future__ import annotations

from typing import get_args

from gw.call.dialogue import commands as do
from gw.call.dialogue.commands import Command, Prompt
from gw.call.state import Reason


def test_the_name_of_a_purpose_is_its_value() -> None:
    assert [prompt.value for prompt in Prompt] == [prompt.name.lower() for prompt in Prompt]


def test_digits_are_in_no_text() -> None:
    taken = do.TakeDigits("t1", "1234", "timeout", is_sensitive=True, keeps=False)
    assert repr(taken) == "TakeDigits('t1', 4 digits, 'timeout')"


def test_commands_have_ordinary_defaults() -> None:
    assert do.Create(Prompt.ANSWER) == do.Create(Prompt.ANSWER, "")
    assert do.WarnOfEnd() == do.WarnOfEnd("time")
    assert do.Interrupt() == do.Interrupt("model")
    assert do.Note("tool_repeated") == do.Note("tool_repeated", None)
    assert do.Note("fallback", Reason.AI_LOST).reason is Reason.AI_LOST


def test_commands_of_different_kinds_are_not_equal() -> None:
    assert do.Cancel() != do.Play()
    assert do.ToolOutput("t1", "settled") != do.ToolResult("t1", "settled")


def test_each_command_is_one_of_them() -> None:
    assert {made for made in vars(do).values() if isinstance(made, type) and made.__module__ == do.__name__} == {
        *get_args(Command),
        Prompt,
    }
