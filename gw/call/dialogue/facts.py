"""The facts of a dialogue, and what they imply.

Every part of the machine reads and writes them. Only the parts decide, each in its own module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Literal, NamedTuple

from gw.call.dialogue import rules as limits
from gw.call.dialogue.commands import Command, Prompt, ToolOutcome
from gw.call.dialogue.rules import Rules
from gw.call.digits import Collection
from gw.call.state import Reason

#: The time of a timer that is not set.
NEVER: Final = 1 << 60
#: Identifiers of dropped responses that are kept.
MAX_IDS: Final = 100


class Phase(Enum):
    """Phase of a dialogue."""

    TALK = auto()
    CLOSING = auto()  # the end is decided; last words are requested or heard
    ENDED = auto()


class Response(Enum):
    """The response under way."""

    NONE = auto()
    REQUESTED = auto()  # by us; the AI has not begun it
    ACTIVE = auto()
    CUT = auto()  # cancelled or interrupted; the AI has not ended it


class Floor(Enum):
    """State of an interruption that the gateway judges."""

    OPEN = auto()
    HELD = auto()  # playout paused, the caller speaks
    JUDGED = auto()  # the caller stopped, the playout runs again; words that come now still decide


#: Whom a caller waits for who is owed an answer.
Party = Literal["ai", "tool", "gateway"]


class Successor(Enum):
    """A second session, to replace one that expires."""

    NONE = auto()
    OPENING = auto()
    READY = auto()


class OpenTool(NamedTuple):
    """A tool call that control has not settled. `by_ms`: its deadline; NEVER while it waits for the agent's words."""

    call_id: str
    response_id: str
    name: str
    by_ms: int


@dataclass(slots=True)
class Facts:
    """One dialogue. `out`: the commands of the present input."""

    rules: Rules
    phase: Phase = Phase.TALK
    # the session
    is_ready: bool = False
    has_greeted: bool = False
    opens: int = 0  # further attempts since a session lasted
    window_ms: int = 0  # left for attempts
    ready_ms: int = NEVER
    lost_ms: int = 0  # when the last session was lost, or the call began
    successor: Successor = Successor.NONE
    successor_lifetime_ms: int = 0
    unreadable: tuple[int, ...] = ()  # times
    # the caller
    speaks: bool = False
    item: str = ""  # the caller's last turn
    has_text: bool = False  # its words came
    floor: Floor = Floor.OPEN
    fills_silence: bool = False
    keys: str = ""
    held_keys: str = ""  # complete, but no session was ready
    sent_keys: str = ""  # not answered yet: another session needs them again
    # the answer that is owed
    debt: Prompt | None = None
    insists: bool = False  # a response that has begun cannot pay it
    survives: bool = False  # the response under way does not pay it
    attempts: int = 0
    # the response under way
    response: Response = Response.NONE
    response_id: str = ""
    asked: Prompt | None = None  # the debt it was requested for
    asked_insists: bool = False  # no other response pays that
    cut_requests: int = 0  # cancelled before the AI began them: it begins and ends them
    has_audio: bool = False
    has_tool: bool = False
    has_new_tool: bool = False  # one that no earlier response called
    ended: tuple[str, ...] = ()  # the last responses that the AI ended
    dropped: tuple[str, ...] = ()  # responses whose audio is not played
    # the caller's ear
    plays: bool = False
    held_at: int = NEVER  # since when a judged interruption holds the audio, as far as `heard_by` does not count it
    starved: bool = False  # what plays has fallen silent, by the clock of what was sent
    holds_sound: bool = False
    quiet_ms: int = NEVER  # since when the caller hears nothing and does not speak
    # tools
    open_tools: tuple[OpenTool, ...] = ()
    held_results: tuple[tuple[str, ToolOutcome], ...] = ()  # by call, settled while no session was ready
    answered: tuple[str, ...] = ()
    tools: int = 0
    leaving: str = ""  # the call that ends the stream, once all words are heard
    left_for: Reason | None = None  # control was asked to end the stream for it
    collection: Collection | None = None  # digits that the caller types for an open tool
    filling: str = ""  # the tool for which the agent was asked to say a filler; one filler bridges one wait
    # the end
    party: str = ""  # Twilio's first verdict: person, machine or fax
    closing: Reason | None = None
    has_spoken: bool = False  # the agent's last words were queued whole
    has_asked_goodbye: bool = False
    spent: bool = False  # a limit on cost is reached: the call ends
    taken_back: int = 0
    prompts: int = 0  # idle prompts in a row
    # timers
    ask_at: int = NEVER
    wait_by: int = NEVER  # the AI's rate limit: no request before
    answer_by: int = NEVER
    cancel_by: int = NEVER
    silent_by: int = NEVER  # a cut response did not end: anything else of the AI has to come by then
    speech_by: int = NEVER
    heard_by: int = NEVER
    hold_at: int = NEVER
    filler_at: int = NEVER  # the same while a tool is all that is awaited
    protect_by: int = NEVER  # the greeting is not interrupted before
    open_by: int = NEVER
    cut_at: int = NEVER
    judge_at: int = NEVER
    keys_at: int = NEVER
    tools_by: int = NEVER
    digits_at: int = NEVER
    idle_at: int = NEVER
    close_by: int = NEVER
    warn_at: int = NEVER
    limit_at: int = NEVER
    final_at: int = NEVER
    quiet_at: int = NEVER
    forced_at: int = NEVER
    text_by: int = NEVER  # a swap waits for the caller's words
    now: int = 0
    out: list[Command] = field(default_factory=list)

    @property
    def is_owing(self) -> bool:
        """The caller waits for the agent, or for a tool."""
        is_served = any(self.waits(tool) and not self.rules.tools[tool.name].collects for tool in self.open_tools)
        return self.awaits_agent() or is_served

    @property
    def waits_for(self) -> Party | None:
        """Whom the caller's next answer waits for; None if no answer is owed."""
        if self.floor is Floor.JUDGED:
            return "gateway"
        if not self.is_owing or self.phase is Phase.ENDED:
            return None
        if self.awaits_tool() and (self.filling or not self.awaits_agent()):
            return "tool"
        return "gateway" if self.is_heard else "ai"

    def awaits_agent(self) -> bool:
        is_answering = self.response is Response.REQUESTED or (self.response is Response.ACTIVE and not self._has_called())
        return self.debt is not None or not self.is_ready or is_answering

    def _has_called(self) -> bool:
        """The response under way called a tool that is not settled: it ends now."""
        return self.has_new_tool and self.awaits_tool(self.response_id)

    def awaits_tool(self, response_id: str | None = None) -> bool:
        """A tool is under way whose result an answer waits for. `response_id`: of this response's calls."""
        return any(self.waits(tool) and response_id in (None, tool.response_id) for tool in self.open_tools)

    def waits(self, tool: OpenTool) -> bool:
        return self.rules.tools[tool.name].waits

    @property
    def is_heard(self) -> bool:
        """The caller hears the agent."""
        return self.plays and not self.starved

    @property
    def heard_ms(self) -> int:
        return min(limits.HEARD_MS, self.rules.goodbye_ms)

    def is_quiet(self) -> bool:
        """Neither side speaks, is heard, or owes the other anything."""
        return (
            self.phase is Phase.TALK
            and self.is_ready
            and not (self.speaks or self.plays or self.keys)
            and self.floor is Floor.OPEN
            and self.response in (Response.NONE, Response.CUT)
            and self.debt is None
            and not self.open_tools
        )


def kept(ids: tuple[str, ...], new: str, bound: int = MAX_IDS) -> tuple[str, ...]:
    """Append an identifier, within the bound."""
    return ids if new in ids else (*ids[-bound + 1 :], new)
