"""Decides when the AI may be asked for a response: never during one.

The only place that decides `response.create`. Server-side turn detection creates responses too, so our request can cross one of
the AI's. Both sides expect that error, and the existing response is the answer; except for a request about something that
response cannot contain, a tool's output: then the request is repeated.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Final

#: Ended responses kept: late audio belongs to the last one or two.
MAX_FINISHED: Final = 8


class _State(Enum):
    IDLE = auto()
    REQUESTED = auto()  # asked for, response.created has not come
    ACTIVE = auto()


class Responses:
    """Tracks the responses of one AI session."""

    __slots__ = ("_finished", "_insists", "_queued", "_queued_insists", "_state", "active_id")

    def __init__(self) -> None:
        self._state = _State.IDLE
        self._queued = False  # one more request follows the current response
        self._queued_insists = False
        # Above 0: a response older than the current request does not answer it. Counts down the ends of responses until no
        # refusal can come: one response may be active when the request is sent, another may begin while the request travels.
        self._insists = 0
        self._finished: deque[str] = deque(maxlen=MAX_FINISHED)
        self.active_id: str | None = None

    def request(self, *, insist: bool = False) -> bool:
        """Request a response.

        `insist`: no response that has already begun can be the answer.
        Returns: True: ask now. False: a response is in progress, and another follows it.
        """
        if self._state is _State.IDLE:
            self._state = _State.REQUESTED
            if insist:  # without it, an earlier insisting request keeps its count
                self._insists = 2
            return True
        self._queued, self._queued_insists = True, self._queued_insists or insist
        return False

    def on_started(self, response_id: str) -> None:
        """Record that the AI began a response, requested or not."""
        self._state = _State.ACTIVE
        self.active_id = response_id

    def on_refused(self) -> None:
        """Handle a refusal: the request crossed a response of the AI, which is the answer unless the request insists."""
        if self._insists:
            self._queued, self._insists = True, 0  # any response from here on includes the reason for this request
        if self._state is _State.REQUESTED:
            self._state = _State.ACTIVE

    def on_failed(self) -> None:
        """Handle a permanent refusal: no response comes; the caller's next words call for one."""
        if self._state is _State.REQUESTED:
            self._reset()

    def on_done(self, response_id: str) -> bool:
        """Record the end of a response. Returns True to ask for the queued one now."""
        self._finished.append(response_id)
        if self.active_id is not None and response_id != self.active_id:
            return False  # an older response ended; the newer continues
        self.active_id = None
        self._state, self._insists = _State.IDLE, max(0, self._insists - 1)
        if not self._queued:
            return False
        if self._queued_insists:
            self._insists = 2
        self._queued = self._queued_insists = False
        self._state = _State.REQUESTED
        return True

    def on_lost(self) -> None:
        """Record that the AI is gone: no response will come."""
        self._reset()
        self.active_id = None

    def _reset(self) -> None:
        self._state, self._queued, self._queued_insists, self._insists = _State.IDLE, False, False, 0

    def is_finished(self, response_id: str) -> bool:
        """Return True for a response that the AI has ended."""
        return response_id in self._finished

    @property
    def is_idle(self) -> bool:
        """True if no response is in progress or requested."""
        return self._state is _State.IDLE
