"""Inputs of the dialogue: what an edge reports, as values.

Identifiers are the AI's own; the machine only compares them. Times are passed beside an input, never inside.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal

from msgspec import Struct

from gw.call.digits import Asked
from gw.call.state import Reason


class Trouble(Enum):
    """Kind of a failure that the AI reports."""

    NONE = auto()
    PASSING = auto()  # another attempt may succeed
    LASTING = auto()  # every attempt would fail alike: no quota, no valid key
    RATE_LIMIT = auto()  # the session is healthy; wait, then try again
    CROSSED = auto()  # our request met a response that the AI had begun itself


# -- the AI -----------------------------------------------------------------------------------------------------------


class SessionReady(Struct, frozen=True):
    """A session confirmed its formats. `lifetime_ms`: until it expires, by the AI's own account; 0: unknown."""

    lifetime_ms: int = 0


class SessionLost(Struct, frozen=True):
    """The session, or an attempt at one, failed."""

    reason: Reason
    trouble: Trouble = Trouble.PASSING
    wait_ms: int = 0


class SuccessorReady(Struct, frozen=True):
    """A second session is ready to take the place of the present one."""

    lifetime_ms: int = 0


class SuccessorFailed(Struct, frozen=True):
    """The second session could not be opened, or broke before it was used."""


class ResponseStarted(Struct, frozen=True):
    """The AI began a response."""

    response_id: str


class Alive(Struct, frozen=True):
    """Any other event of the AI came: arguments of a tool call, a part of a text."""


class Audio(Struct, frozen=True):
    """A chunk of a response's audio came. `queued_ms`: until the caller will have heard it, if it is played."""

    response_id: str
    queued_ms: int = 0


class ResponseDone(Struct, frozen=True):
    """The AI ended a response. `completed`: by the AI's own account."""

    response_id: str
    completed: bool = True
    trouble: Trouble = Trouble.NONE
    wait_ms: int = 0


class CreateRefused(Struct, frozen=True):
    """The AI refused a request for a response."""

    trouble: Trouble
    wait_ms: int = 0


class SpeechStarted(Struct, frozen=True):
    """The caller began to speak."""

    item_id: str


class SpeechStopped(Struct, frozen=True):
    """The caller stopped speaking."""

    item_id: str


class CallerText(Struct, frozen=True):
    """The words of a caller's turn came. `meaningful`: more than a backchannel such as "mhm"."""

    item_id: str
    meaningful: bool = True


class ToolCall(Struct, frozen=True):
    """The agent calls a tool. `is_readable`: its arguments are within their bound, those for digits valid. `asked`: digits."""

    response_id: str
    call_id: str
    name: str
    is_readable: bool = True
    asked: Asked | None = None


class ToolResumed(Struct, frozen=True):
    """A tool call of an earlier stream, whose result the AI does not have. `left_ms`: of its time."""

    call_id: str
    name: str
    left_ms: int


class Unreadable(Struct, frozen=True):
    """An event of the AI could not be read. `reason`: why, and why the session is lost if too many follow."""

    reason: Reason = Reason.AI_BAD_JSON


# -- the caller's leg -------------------------------------------------------------------------------------------------


class HeardOut(Struct, frozen=True):
    """The caller has heard everything that was queued."""


class Starved(Struct, frozen=True):
    """The caller has heard what came so far, by the clock of what was sent: more may come, or Twilio's report of it."""


class Delayed(Struct, frozen=True):
    """This process was stopped: its audio is heard later than announced. `queued_ms`: until the caller has heard all of it."""

    queued_ms: int


class Key(Struct, frozen=True):
    """The caller pressed a key: 0 to 9, *, # or A to D."""

    digit: str


class Recorded(Struct, frozen=True):
    """The stream begins with recorded words. `length_ms`: until the caller has heard them.

    `notice_ms`: of these, until the end of the notice that the call is recorded. `greets`: the rest is the greeting.
    """

    length_ms: int
    notice_ms: int = 0
    greets: bool = True


class NoticeHeard(Struct, frozen=True):
    """The caller has heard that the call is recorded."""


#: The party that answered an outbound call.
Party = Literal["person", "machine", "fax"]


def party_of(verdict: str) -> Party | None:
    """Return the party of Twilio's verdict; None while an answering machine still speaks its announcement.

    Source: Twilio, Answering Machine Detection: human | machine_start | machine_end_* | fax | unknown.
    """
    if verdict == "machine_start":
        return None
    return "machine" if verdict.startswith("machine") else "fax" if verdict == "fax" else "person"


class AnsweredBy(Struct, frozen=True):
    """Twilio's verdict on the party that answered an outbound call. May come late, twice and wrong.

    `message_ms`: length of the message that is left to an answering machine; 0: none.
    """

    party: Party
    message_ms: int = 0


class FramesMissing(Struct, frozen=True):
    """No audio frame of the caller came for 150 ms."""


class FramesBack(Struct, frozen=True):
    """Audio frames of the caller come again."""


class StreamEnded(Struct, frozen=True):
    """The media stream is over. `reason`: why; the call may continue on another stream."""

    reason: Reason


# -- control ----------------------------------------------------------------------------------------------------------


class ToolSettled(Struct, frozen=True):
    """A tool called by the agent has an output."""

    call_id: str


class Concealed(Struct, frozen=True):
    """AI and recording do not hear the caller now. `was_heard`: a recording did, until its pause."""

    was_heard: bool = True


class NotConcealed(Struct, frozen=True):
    """The recording cannot be paused."""


class BudgetNear(Struct, frozen=True):
    """A limit on cost is nearly reached."""


class BudgetSpent(Struct, frozen=True):
    """A limit on cost is reached: the call ends with words."""


class EndWanted(Struct, frozen=True):
    """An operator, a stopping gateway or the gateway itself ends the call."""

    reason: Reason


Input = (
    SessionReady
    | SessionLost
    | SuccessorReady
    | SuccessorFailed
    | ResponseStarted
    | Alive
    | Audio
    | ResponseDone
    | CreateRefused
    | SpeechStarted
    | SpeechStopped
    | CallerText
    | ToolCall
    | Unreadable
    | HeardOut
    | Starved
    | Delayed
    | Key
    | Recorded
    | AnsweredBy
    | NoticeHeard
    | FramesMissing
    | FramesBack
    | StreamEnded
    | ToolSettled
    | Concealed
    | NotConcealed
    | ToolResumed
    | BudgetNear
    | BudgetSpent
    | EndWanted
)
