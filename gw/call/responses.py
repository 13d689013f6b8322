"""When the AI may be asked for a response: never while one is under way.

The one place that decides `response.create`. Server-side turn detection creates responses too, so ours can cross one of its: that
is an error both sides expect, and the response that exists is the answer; unless ours was to speak of something that response
cannot know, the output of a tool: then it is asked for again.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final

#: Responses whose end is remembered: what comes after it is of the last one or two.
MAX_FINISHED: Final = 8


class _State(StrEnum):
    IDLE = "idle"
    REQUESTED = "requested"  # we asked, the AI has not said response.created
    ACTIVE = "active"


class Responses:
    """One AI session's responses."""

    __slots__ = ("_insists", "_over", "_state", "_wanted", "_wanted_insists", "active_id")

    def __init__(self) -> None:
        self._state = _State.IDLE
        self._wanted = False
        #: Above 0: a response older than the request under way is no answer to it. Counts the ends until no refusal can come any
        #: more: one response may have stood when the request was sent, another may begin while it travels.
        self._insists = 0
        self._wanted_insists = False
        self._over: deque[str] = deque(maxlen=MAX_FINISHED)
        self.active_id: str | None = None

    def request(self, *, insist: bool = False) -> bool:
        """Something calls for a response. True: ask now. False: one is under way, and one more is asked for after it.

        `insist`: what calls for it is unknown to every response that has begun.
        """
        if self._state is _State.IDLE:
            self._state = _State.REQUESTED
            if insist:  # else one that is still on its way goes on insisting
                self._insists = 2
            return True
        self._wanted, self._wanted_insists = True, self._wanted_insists or insist
        return False

    def on_started(self, response_id: str) -> None:
        """The AI began a response, ours or its own."""
        self._state = _State.ACTIVE
        self.active_id = response_id

    def on_refused(self) -> None:
        """Our request crossed a response of the AI's own: that one is the answer, where one was not insisted on."""
        if self._insists:
            self._wanted, self._insists = True, 0  # whatever begins from here on knows what this one was about
        if self._state is _State.REQUESTED:
            self._state = _State.ACTIVE

    def on_failed(self) -> None:
        """Our request was refused for good: no response comes of it, the caller's next words call for one."""
        if self._state is _State.REQUESTED:
            self._forget()

    def on_done(self, response_id: str) -> bool:
        """A response ended. True: one was wanted meanwhile, ask for it now."""
        self._over.append(response_id)
        if self.active_id is not None and response_id != self.active_id:
            return False  # an older one's end: the newer goes on
        self.active_id = None
        self._state, self._insists = _State.IDLE, max(0, self._insists - 1)
        if not self._wanted:
            return False
        if self._wanted_insists:
            self._insists = 2
        self._wanted = self._wanted_insists = False
        self._state = _State.REQUESTED
        return True

    def on_lost(self) -> None:
        """The AI is gone: no response will come."""
        self._forget()
        self.active_id = None

    def _forget(self) -> None:
        self._state, self._wanted, self._wanted_insists, self._insists = _State.IDLE, False, False, 0

    def is_finished(self, response_id: str) -> bool:
        """Whether the AI has said that no more of this response comes."""
        return response_id in self._over

    @property
    def is_idle(self) -> bool:
        """No response is under way or asked for."""
        return self._state is _State.IDLE
