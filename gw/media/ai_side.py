"""One call's AI side: the current leg, its requests, and the state that a successor needs.

Reads nothing: AI-in reads the leg, and `gw.media.ai_failover` decides which leg is in place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Final

from gw.call.conversation import Conversation
from gw.call.pending_reply import PendingReply
from gw.call.playout import Truncation
from gw.call.responses import Responses
from gw.call.state import State
from gw.config import Agent
from gw.media.ai.leg import AiLeg
from gw.media.ai.watchdog import Problem, Watchdog
from gw.media.context import MediaContext
from gw.media.hub.greenlets import KindGreenlet, spawn
from gw.media.uplink import Uplink

#: Items of one AI session that may be truncated: those of its last responses.
MAX_ITEMS: Final = 64
#: Keys kept while no AI leg is ready.
MAX_KEYS: Final = 32
#: Greenlets that open and close AI legs. They end without help; the end of the call kills the last ones that did not.
MAX_GREENLETS: Final = 16


class AiSide:
    """One call's AI leg in place, with everything that outlives a leg."""

    def __init__(self, context: MediaContext, agent: Agent, began_ms: int) -> None:
        """`began_ms`: the call's time at this stream's start."""
        media = context.config.media
        self.new_leg = partial(context.ai_leg, agent)
        self.leg: AiLeg = self.new_leg()
        self.ready = False  # the current leg confirmed its formats
        self._stall_s = media.ai_stall_s
        self.watchdog = Watchdog(self._stall_s)
        self.failure: Problem | None = None  # the watchdog's finding, until AI-in takes it
        self.uplink = Uplink(self.leg, media.ai_connect_s, context.uplink_cells)
        self.responses = Responses()
        self.pending_reply = PendingReply()
        self.conversation = Conversation()
        self.greenlets: deque[KindGreenlet] = deque(maxlen=MAX_GREENLETS)
        self._items: deque[str] = deque(maxlen=MAX_ITEMS)  # of the current session
        self._keys: list[str] = []
        self.session_began_ms = began_ms  # the call's time at the first audio that the current session heard
        self.last_event_s = 0.0  # the last event of a response under way
        self.asked_s = 0.0  # when the first response was requested
        self.first_audio_ms = -1

    # -- to the AI --------------------------------------------------------------------------------------------------------

    def request(self, instructions: str, *, insist: bool = False) -> None:
        """Request a response, now or after the one under way."""
        if self.responses.request(insist=insist):
            self.create_response(instructions)
            self.asked_s = self.asked_s or self.last_event_s

    def create_response(self, instructions: str) -> None:
        """Send a request for a response that `Responses` allowed."""
        self.last_event_s = monotonic()
        self.pending_reply.on_requested(instructions)
        if instructions:
            self.leg.say("system", instructions)
        self.leg.create_response()

    def truncate(self, truncations: Iterable[Truncation]) -> None:
        """Send how much the caller heard of the current session's items."""
        for item_id, heard_ms in truncations:
            if item_id in self._items:
                self.leg.truncate(item_id, heard_ms)

    def on_key(self, digit: str, state: State) -> None:
        """Send a key, or keep it while no AI leg is ready."""
        if state is State.ACTIVE:
            self.leg.send_keys(digit)
        elif state is State.CONNECTING and len(self._keys) < MAX_KEYS:
            self._keys.append(digit)

    def start_uplink(self) -> None:
        """Send the caller's audio to the current session; kept audio and keys first."""
        self.uplink.on_ready()
        for digit in self._keys:
            self.leg.send_keys(digit)
        self._keys.clear()

    # -- from the AI ------------------------------------------------------------------------------------------------------

    def on_audio(self, item_id: str) -> None:
        """Record that audio of this item came from the current session."""
        self.pending_reply.on_audio()
        if not self._items or self._items[-1] != item_id:
            self._items.append(item_id)

    # -- the leg ----------------------------------------------------------------------------------------------------------

    def check(self, now_s: float) -> None:
        """Let the watchdog check the current leg."""
        found = self.watchdog.check(self.leg, now_s, None if self.responses.is_idle else self.last_event_s)
        if found is not None:
            self.fail(found)

    def fail(self, problem: Problem) -> None:
        """Give up the current leg: AI-in wakes and replaces it."""
        self.failure = problem
        self.leg.wake()

    def replace(self, leg: AiLeg, *, ready: bool) -> None:
        """Make `leg` the current leg, and close the one before. The uplink keeps the caller's audio until `start_uplink`."""
        old, self.leg, self.ready = self.leg, leg, ready
        self.failure = None
        self.uplink.on_lost(leg)
        self._items.clear()
        self.watchdog = Watchdog(self._stall_s)
        spawn("other", old.close)  # bounded; it sends a close frame to an AI that still reads
