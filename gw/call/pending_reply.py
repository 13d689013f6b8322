"""Who owes whom an answer, so that an AI that takes over in the middle of a conversation goes on where it stands.

Follows what caller and agent do. `owed` says what the new session is to be asked for: the answer the caller waits for, the rest
of a sentence that broke off, the caller's words once more where they were lost with the old session. Decides nothing about when.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

CONTINUE: Final = "A technical fault cut off your last sentence. Go on from where it broke off, without repeating what was said."
REPEAT: Final = "A technical fault swallowed the caller's last words. Apologise in a few words and ask the caller to repeat them."
RETURN: Final = (
    "The line broke off for a moment and stands again. Say so in a few words, and go on where the conversation stopped."
)


class ReplyRequest(NamedTuple):
    """A response to ask for. `unless_caller_speaks`: only if the new session does not hear the caller by itself."""

    instructions: str
    unless_caller_speaks: bool = False


class _Caller(StrEnum):
    ANSWERED = "answered"
    SPEAKING = "speaking"
    WAITING = "waiting"


class PendingReply:
    """One call's side of who is to speak."""

    __slots__ = ("_asked", "_audio", "_caller", "_item", "_running", "_words")

    def __init__(self) -> None:
        self._caller = _Caller.ANSWERED
        self._item = ""  # the caller's turn spoken last
        self._words = False  # and whether its words came
        self._asked: str | None = None  # what we asked for, until it is done
        self._running = False  # a response began and is not done
        self._audio = False  # and some of it came

    # -- the caller -----------------------------------------------------------------------------------------------------

    def on_caller_started(self, item_id: str) -> None:
        """The caller began to talk. An agent who was speaking has stopped."""
        self._caller, self._item, self._words = _Caller.SPEAKING, item_id, False
        self._asked, self._running, self._audio = None, False, False

    def on_caller_stopped(self) -> None:
        """The caller's turn is over, and calls for an answer."""
        self._caller = _Caller.WAITING

    def on_caller_text(self, item_id: str) -> None:
        """The caller's words came."""
        self._words = self._words or item_id == self._item

    @property
    def caller_speaks(self) -> bool:
        """The caller's turn is under way."""
        return self._caller is _Caller.SPEAKING

    # -- the agent ------------------------------------------------------------------------------------------------------

    def on_requested(self, instructions: str) -> None:
        """We asked for a response."""
        self._asked = instructions

    def on_started(self) -> None:
        """A response began."""
        self._running, self._audio = True, False

    def on_audio(self) -> None:
        """Some of it came."""
        self._running = self._audio = True

    def on_done(self, *, complete: bool) -> None:
        """A response ended. `complete`: by itself, not cut short by the caller or by a fault."""
        self._running, self._asked = False, None
        if complete and self._caller is _Caller.WAITING:
            self._caller = _Caller.ANSWERED

    # -- a new session --------------------------------------------------------------------------------------------------

    def request(self) -> ReplyRequest | None:
        """What the session that takes over is to be asked for; None: to listen."""
        if self._running and self._audio:
            return ReplyRequest(CONTINUE)
        if self._caller is _Caller.SPEAKING:
            return ReplyRequest(REPEAT, unless_caller_speaks=True)
        if self._caller is _Caller.WAITING:
            return ReplyRequest("") if self._words else ReplyRequest(REPEAT, unless_caller_speaks=True)
        if self._asked is not None or self._running:
            return ReplyRequest(self._asked or "")
        return None

    def on_takeover(self) -> None:
        """A new session stands and was asked for what is owed: what the old one was about is over."""
        self._caller, self._asked, self._running, self._audio = _Caller.ANSWERED, None, False, False
