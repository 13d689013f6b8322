"""Tracks the unanswered turn, so that a replacement AI session can continue the conversation.

Follows caller and agent. `request` returns the response a new session is asked for: the answer the caller waits for, the rest of
a broken-off sentence, or the caller's words once more if they were lost with the old session. The session decides when.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

CONTINUE: Final = "A technical fault cut off your last sentence. Continue where it broke off, without repeating your words."
REPEAT: Final = "A technical fault swallowed the caller's last words. Apologise in a few words and ask the caller to repeat them."
RETURN: Final = (
    "The line broke off for a moment and is back. Mention it in a few words, and continue where the conversation stopped."
)


class ReplyRequest(NamedTuple):
    """A response to ask for. `unless_caller_speaks`: only if the new session hears no speech of the caller."""

    instructions: str
    unless_caller_speaks: bool = False


class _Caller(Enum):
    ANSWERED = auto()
    SPEAKING = auto()
    WAITING = auto()


class _Agent(Enum):
    SILENT = auto()
    BEGUN = auto()  # a response began, no audio came
    SPEAKING = auto()


class PendingReply:
    """Tracks whether one call's caller or agent has the next word."""

    __slots__ = ("_agent", "_caller", "_has_text", "_item", "_requested")

    def __init__(self) -> None:
        self._caller = _Caller.ANSWERED
        self._item = ""  # the caller's last turn
        self._has_text = False  # its transcript came
        self._requested: str | None = None  # instructions of the request in progress
        self._agent = _Agent.SILENT

    # -- the caller -----------------------------------------------------------------------------------------------------

    def on_caller_started(self, item_id: str) -> None:
        """Record that the caller began to talk, which stops the agent."""
        self._caller, self._item, self._has_text = _Caller.SPEAKING, item_id, False
        self._requested, self._agent = None, _Agent.SILENT

    def on_caller_stopped(self) -> None:
        """Record the end of the caller's turn, which calls for an answer."""
        self._caller = _Caller.WAITING

    def on_caller_text(self, item_id: str) -> None:
        """Record the transcript of a caller's turn."""
        self._has_text = self._has_text or item_id == self._item

    @property
    def caller_speaks(self) -> bool:
        """True during a turn of the caller."""
        return self._caller is _Caller.SPEAKING

    # -- the agent ------------------------------------------------------------------------------------------------------

    def on_requested(self, instructions: str) -> None:
        """Record our request for a response."""
        self._requested = instructions

    def on_started(self) -> None:
        """Record the start of a response."""
        self._agent = _Agent.BEGUN

    def on_audio(self) -> None:
        """Record audio of the response."""
        self._agent = _Agent.SPEAKING

    def on_done(self, *, complete: bool) -> None:
        """Record the end of a response. `complete`: not cut short by the caller or a fault."""
        self._agent, self._requested = _Agent.SILENT, None
        if complete and self._caller is _Caller.WAITING:
            self._caller = _Caller.ANSWERED

    # -- a new session --------------------------------------------------------------------------------------------------

    def request(self) -> ReplyRequest | None:
        """Return the response a new session is asked for; None: listen."""
        if self._agent is _Agent.SPEAKING:
            return ReplyRequest(CONTINUE)
        if self._caller is _Caller.SPEAKING:
            return ReplyRequest(REPEAT, unless_caller_speaks=True)
        if self._caller is _Caller.WAITING:
            return ReplyRequest("") if self._has_text else ReplyRequest(REPEAT, unless_caller_speaks=True)
        if self._requested is not None or self._agent is _Agent.BEGUN:
            return ReplyRequest(self._requested or "")
        return None

    def on_takeover(self) -> None:
        """Record that a new session took over with its request: state of the old session is dropped."""
        self._caller, self._requested, self._agent = _Caller.ANSWERED, None, _Agent.SILENT
