"""Commands of the dialogue: what an edge carries out, in sequence.

Structs, not tuples, as tuples of different types can be equal: `Cancel()` and `Play()`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from gw.call.digits import Shortfall
from gw.call.state import Reason

#: Cause of an interruption. model: the AI. cut: long speech. cut_words: the words of shorter speech. machine: no person answered.
Verdict = Literal["model", "cut", "cut_words", "machine"]
#: Origin of a tool's output. settled: control. ok: the agent hung up. started: it runs in the background. yielded: it waited for
#: the AI to continue, which it does. not_paused: the recording could not be paused. The others are errors.
ToolOutcome = Literal[
    "settled",
    "ok",
    "started",
    "yielded",
    "not_paused",
    "unknown_tool",
    "invalid_arguments",
    "busy",
    "cancelled",
    "unknown_outcome",
]


class Prompt(StrEnum):
    """Purpose of a requested response. All but ANSWER are announced to the AI by a system item; none replaces the persona."""

    ANSWER = "answer"  # as the conversation calls for
    GREETING = "greeting"
    RETURN = "return"  # the call resumes on another stream
    RETURNED = "returned"  # the call is back from a transfer, or from digits
    CONTINUE = "continue"  # the last sentence broke off
    REPEAT = "repeat"  # the caller's last words were lost
    ARE_YOU_THERE = "are_you_there"  # neither side has spoken for a while
    GOODBYE = "goodbye"  # the agent hung up without a word
    CLOSING = "closing"  # a limit was reached
    FILLER = "filler"  # a tool is slow


# -- to the AI --------------------------------------------------------------------------------------------------------


class OpenSession(Struct, frozen=True):
    """Close the session, if one is left, and open another after about `pause_ms`."""

    pause_ms: int


class OpenSuccessor(Struct, frozen=True):
    """Open a second session beside the present one."""


class Swap(Struct, frozen=True):
    """Put the successor in the place of the present session."""


class Restate(Struct, frozen=True):
    """Send the conversation so far to a new session, then let the caller's audio flow.

    The agent's words are cut to the share that was heard; open tool calls come along.
    """


class Create(Struct, frozen=True):
    """Request a response. `tool`: whose filler it speaks, without the use of tools."""

    prompt: Prompt
    tool: str = ""


class Cancel(Struct, frozen=True):
    """Request the end of the response under way."""


class ToolOutput(Struct, frozen=True):
    """Send a tool's output. `result`: settled, or why no tool gave one."""

    call_id: str
    result: ToolOutcome


class ToolResult(Struct, frozen=True):
    """Send the result of a tool that ran in the background, as a system item. `result`: settled | unknown_outcome."""

    call_id: str
    result: ToolOutcome


class DeleteItem(Struct, frozen=True):
    """Remove an item of the caller from the AI's conversation: it was noise."""

    item_id: str


class SendKeys(Struct, frozen=True):
    """Send the caller's keys as text."""

    keys: str


class WarnOfEnd(Struct, frozen=True):
    """Notify the AI that the call ends soon, without a response. `why`: the limit that is near."""

    why: Literal["time", "budget"] = "time"


# -- to the caller ----------------------------------------------------------------------------------------------------


class Play(Struct, frozen=True):
    """Queue the announced chunk of audio. Without this command it is dropped."""


class Interrupt(Struct, frozen=True):
    """Discard unheard audio, clear Twilio's buffer, and truncate the items at the AI. `verdict`: what decided it."""

    verdict: Verdict = "model"


class HoldAudio(Struct, frozen=True):
    """Pause the playout without discarding anything."""


class ReleaseAudio(Struct, frozen=True):
    """Continue the playout at the next frame."""


class HoldSound(Struct, frozen=True):
    """Start or stop the holding sound."""

    on: bool


class Collect(Struct, frozen=True):
    """Collect digits for a tool call: no job carries it out."""

    call_id: str


class TakeDigits(Struct, frozen=True):
    """Make the output of a collection. `keeps`: control keeps the digits, and settles the call; nothing else has them."""

    call_id: str
    digits: str
    shortfall: Shortfall
    is_sensitive: bool
    keeps: bool

    def __repr__(self) -> str:
        return f"TakeDigits({self.call_id!r}, {len(self.digits)} digits, {self.shortfall!r})"


class Conceal(Struct, frozen=True):
    """Let neither the AI nor the recording hear the caller; or let both hear again."""

    on: bool


class FillSilence(Struct, frozen=True):
    """Start or stop sending silence to the AI in place of the caller's missing frames."""

    on: bool


# -- to control -------------------------------------------------------------------------------------------------------


class WantTool(Struct, frozen=True):
    """Have a tool carried out."""

    call_id: str


class CancelTool(Struct, frozen=True):
    """Give a tool up: the caller interrupted it. Its output was sent."""

    call_id: str


class Note(Struct, frozen=True):
    """Record an event of the call: one log line, one event. `reason`: of a failure."""

    name: str
    reason: Reason | None = None


class End(Struct, frozen=True):
    """End the call. `speak`: Twilio still owes the caller words, by TwiML: the agent's own were not heard."""

    reason: Reason
    speak: bool


Command = (
    OpenSession
    | OpenSuccessor
    | Swap
    | Restate
    | Create
    | Cancel
    | ToolOutput
    | ToolResult
    | DeleteItem
    | SendKeys
    | WarnOfEnd
    | Play
    | Interrupt
    | HoldAudio
    | ReleaseAudio
    | HoldSound
    | Collect
    | TakeDigits
    | Conceal
    | FillSilence
    | WantTool
    | CancelTool
    | Note
    | End
)
