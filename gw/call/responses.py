"""When the AI may be asked for a response: never while one is under way.

The one place that decides `response.create`. Server-side turn detection creates responses too, so ours can cross one of its: that
is an error both sides expect, and the response that exists is the answer.
"""

from __future__ import annotations

from enum import StrEnum


class _State(StrEnum):
    IDLE = "idle"
    REQUESTED = "requested"  # we asked, the AI has not said response.created
    ACTIVE = "active"


class Responses:
    """One AI session's responses."""

    __slots__ = ("_state", "_wanted", "active_id")

    def __init__(self) -> None:
        self._state = _State.IDLE
        self._wanted = False
        self.active_id: str | None = None

    def want(self) -> bool:
        """Something calls for a response. True: ask now. False: one is under way, and one more is asked for after it."""
        if self._state is _State.IDLE:
            self._state = _State.REQUESTED
            return True
        self._wanted = True
        return False

    def on_started(self, response_id: str) -> None:
        """The AI began a response, ours or its own."""
        self._state = _State.ACTIVE
        self.active_id = response_id

    def on_refused(self) -> None:
        """Our request crossed a response of the AI's own: that one is the answer."""
        if self._state is _State.REQUESTED:
            self._state = _State.ACTIVE

    def on_failed(self) -> None:
        """Our request was refused for good: no response comes of it, the caller's next words call for one."""
        if self._state is _State.REQUESTED:
            self._state, self._wanted = _State.IDLE, False

    def on_done(self, response_id: str) -> bool:
        """A response ended. True: one was wanted meanwhile, ask for it now."""
        if self.active_id is not None and response_id != self.active_id:
            return False  # an older one's end: the newer goes on
        self.active_id = None
        self._state = _State.IDLE
        if not self._wanted:
            return False
        self._wanted = False
        self._state = _State.REQUESTED
        return True

    def on_lost(self) -> None:
        """The AI is gone: no response will come."""
        self._state, self._wanted, self.active_id = _State.IDLE, False, None

    @property
    def is_idle(self) -> bool:
        """No response is under way or asked for."""
        return self._state is _State.IDLE
