"""Compares the short way of a chunk of audio with the long one."""

from __future__ import annotations

from copy import copy

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Command
from gw.call.dialogue.inputs import Input
from gw.call.dialogue.machine import Dialogue


def compare(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let `plays_on` compare itself with `on`, and `on` try it for audio. Returns the chunks taken, which grow."""
    plays_on, on = Dialogue.plays_on, Dialogue.on
    taken: list[str] = []

    def compared(machine: Dialogue, response_id: str, queued_ms: int, now_ms: int) -> bool:
        other = copy(machine)
        is_taken = plays_on(machine, response_id, queued_ms, now_ms)
        if is_taken:
            taken.append(response_id)
            assert on(other, given.Audio(response_id, queued_ms), now_ms) == [do.Play()]
        other.out = machine.out
        assert other == machine
        return is_taken

    def tried(machine: Dialogue, event: Input, now_ms: int) -> list[Command]:
        if isinstance(event, given.Audio):
            compared(copy(machine), event.response_id, event.queued_ms, now_ms)
        return on(machine, event, now_ms)

    monkeypatch.setattr(Dialogue, "plays_on", compared)
    monkeypatch.setattr(Dialogue, "on", tried)
    return taken
