"""A dialogue that tests talk with."""

from __future__ import annotations

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Command, Prompt
from gw.call.dialogue.inputs import Input
from gw.call.dialogue.machine import Dialogue
from gw.call.dialogue.rules import Rules, ToolRules


class Talk:
    """A dialogue and its clock."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.machine = Dialogue.begin(rules or Rules(tools={"lookup": ToolRules()}), 0)
        self.now_ms = 0

    def on(self, *events: Input) -> list[Command]:
        """Take inputs at the present time."""
        return [command for event in events for command in self.machine.on(event, self.now_ms)]

    def wait(self, ms: int) -> list[Command]:
        """Let time pass, with every tick that comes."""
        until_ms, out = self.now_ms + ms, []
        while self.machine.deadline_ms <= until_ms:
            self.now_ms = self.machine.deadline_ms
            out += self.machine.tick(self.now_ms)
        self.now_ms = until_ms
        return out

    def greet(self) -> None:
        """Let the agent greet the caller, and the caller hear it."""
        assert self.on(given.SessionReady()) == [do.Restate(), do.Create(Prompt.GREETING)]
        self.speak("r0")

    def speak(self, response_id: str) -> None:
        """Let the AI speak a whole response, and the caller hear it."""
        self.on(given.ResponseStarted(response_id), given.Audio(response_id), given.ResponseDone(response_id), given.HeardOut())

    def call(self, *tools: str) -> list[Command]:
        """Let the AI call tools in a response without words: t1, t2 and so on."""
        calls = [given.ToolCall("r1", f"t{n}", name) for n, name in enumerate(tools, 1)]
        return self.on(given.ResponseStarted("r1"), *calls, given.ResponseDone("r1"))
