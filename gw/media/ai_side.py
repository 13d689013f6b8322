"""One call's AI side: the leg in place, all that is sent to it, and what a successor receives.

Decides and reads nothing: the dialogue decides which leg is in place and what is sent, AI-in reads the leg.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Final

from gevent import sleep

from gw.call.audio.playout import Truncation
from gw.call.conversation import Conversation, Utterance
from gw.call.dialogue.inputs import Input
from gw.call.leave import Leave
from gw.call.tool_calls import Stated, ToolCalls
from gw.call.turns import Turn
from gw.config import Agent
from gw.media.ai.leg import AiLeg
from gw.media.ai.parked import LEAST_LIFETIME_MS, ParkedLeg
from gw.media.ai.successor import Successor
from gw.media.ai.warm import WarmLeg
from gw.media.ai.watchdog import Problem, Watchdog
from gw.media.hub.clock import turn_loop
from gw.media.hub.greenlets import KindGreenlet, spawn
from gw.media.shared.context import MediaContext
from gw.media.uplink import Uplink

#: Items of one AI session that may be truncated: those of its last responses.
MAX_ITEMS: Final = 64
#: Greenlets that open and close AI legs. They end without help; the end of the call kills the last ones that did not.
MAX_GREENLETS: Final = 16
#: Pause before an AI that takes too little is looked at again.
CONGESTED_S: Final = 0.02
#: Messages sent in one slice of the hub: each is built, masked and sent in some 20 us.
SEND_BATCH: Final = 16


class AiSide:
    """One call's AI leg in place, with everything that outlives a leg."""

    def __init__(
        self,
        context: MediaContext,
        agent: Agent,
        began_ms: int,
        started_s: float,
        on_crash: Callable[[KindGreenlet], None],
        warm: WarmLeg | ParkedLeg | None = None,
    ) -> None:
        """`began_ms`: the call's time at this stream's start, which was at `started_s`, monotonic.

        `on_crash`: ends the call for a greenlet that failed. `warm`: a leg opened before the stream, or kept from the one before.
        """
        self._on_crash = on_crash
        media = context.config.media
        self._new_leg = partial(context.ai_leg, agent)
        self._began_ms, self._started_s = began_ms, started_s
        self._stall_s = media.ai_stall_s
        self._connect_s = media.ai_connect_s
        self.warm = warm  # until AI-in reads its leg
        self.leg: AiLeg = self._new_leg() if warm is None else warm.leg
        self._parked = warm if isinstance(warm, ParkedLeg) else None  # its session has the conversation
        self.number = 0  # of the leg in place
        self.open_s: float | None = monotonic()  # when the leg in place is to be opened; None: it is open, or opening
        self.is_wanted = True  # a leg, by the dialogue
        self.successor: Successor | None = None
        self._watchdog = Watchdog(self._stall_s)
        self.uplink = Uplink(self.leg, media.ai_connect_s, context.uplink_cells)
        self.conversation = Conversation()
        self.greenlets: deque[KindGreenlet] = deque(maxlen=MAX_GREENLETS)
        self._items: deque[str] = deque(maxlen=MAX_ITEMS)  # of the current session
        self._waiting: deque[Callable[[], None]] = deque()  # messages behind a long history
        self.session_began_ms = began_ms  # the call's time at the first audio that the current session heard
        self._is_first = True
        self.asked_s = 0.0  # when the first response was requested, by the gateway or by the AI's own turn detection
        self.first_audio_ms = -1

    # -- to the AI --------------------------------------------------------------------------------------------------------

    def create_response(self, announcement: str, *, with_tools: bool = True) -> None:
        """Request a response, after a system item with the announcement, if there is one."""
        self.on_requested()
        if announcement:
            self.say_system(announcement)
        self._send(self.leg.create_response if with_tools else partial(self.leg.create_response, with_tools=False))

    def on_requested(self) -> None:
        """Record that a response was requested."""
        self.asked_s = self.asked_s or monotonic()

    def say_system(self, text: str) -> None:
        """Send the agent directions that the caller does not hear."""
        self._send(partial(self.leg.say, "system", text))

    def cancel(self) -> None:
        """Request the end of the response under way."""
        self._send(self.leg.cancel)

    def delete_item(self, item_id: str) -> None:
        """Remove an item from the AI's conversation."""
        self._send(partial(self.leg.delete_item, item_id))

    def send_keys(self, keys: str) -> None:
        """Send the caller's keys as text."""
        self._send(partial(self.leg.send_keys, keys))

    def tool_output(self, call_id: str, output: str) -> None:
        """Send a tool's output."""
        self._send(partial(self.leg.tool_output, call_id, output))

    def approve_mcp(self, request_id: str, *, approves: bool) -> None:
        """Answer whether the provider may call a tool of a remote MCP server."""
        self._send(partial(self.leg.approve_mcp, request_id, approves=approves))

    def truncate(self, truncations: Iterable[Truncation]) -> None:
        """Send how much the caller heard of the current session's items."""
        for item_id, heard_ms in truncations:
            if item_id in self._items:
                self._send(partial(self.leg.truncate, item_id, heard_ms))

    def _send(self, *messages: Callable[[], None]) -> None:
        """Send messages, a slice now. The rest, and whatever comes after it, follows in further slices."""
        is_waiting = bool(self._waiting)
        self._waiting.extend(messages)
        if not is_waiting:
            self._send_batch()
            if self._waiting:
                self._spawn(self._send_waiting)

    def _send_batch(self) -> None:
        """Send a slice. An AI that takes too little, because results of tools are long, gets the rest later."""
        for _ in range(min(SEND_BATCH, len(self._waiting))):
            if self.leg.is_congested:
                break
            self._waiting.popleft()()

    def _send_waiting(self) -> None:
        while self._waiting:
            if self.leg.is_congested:
                sleep(CONGESTED_S)
            else:
                turn_loop()
            self._send_batch()

    def restate(self, in_progress: Iterable[Turn], tools: ToolCalls, leaving: str = "") -> None:
        """Send the conversation so far to a new session, then the caller's audio.

        `in_progress`: turns being heard. `leaving`: the tool call that leaves the stream once all words are heard; empty: none.
        """
        if self._parked is not None:
            call_id = self._parked.wish.call_id
            output = tools.get(call_id).output if tools.has(call_id) else None
            given = [] if output is None else [partial(self.leg.tool_output, call_id, output)]
            self._send(*given, self._start_uplink)
            return
        in_progress = list(in_progress)
        utterances = self.conversation.restate(in_progress)
        history = tools.restate(utterances, self.conversation.starts_ms(in_progress), leaving)
        self._send(*(partial(self._restate_one, one) for one in history), self._start_uplink)

    def _restate_one(self, one: Utterance | Stated) -> None:
        if isinstance(one, Utterance):
            self._say(one)
            return
        self.leg.state_call(one.call_id, one.name, one.arguments)
        if one.output is not None:
            self.leg.tool_output(one.call_id, one.output)

    def add_turns(self, turns: list[Turn]) -> None:
        """Keep finished turns for later sessions, and correct the present one's belief."""
        self.conversation.add(turns)
        for delete, after, said in self.conversation.corrections(turns):
            if delete:
                self.delete_item(delete)
            if said is not None:
                self._send(partial(self._say, said, after))

    def _say(self, said: Utterance, after: str = "") -> None:
        self.leg.say("agent" if said.role == "agent" else "caller", said.text, said.item_id, after)

    def _start_uplink(self) -> None:
        if not self._is_first or self._parked is not None:
            heard_ms = 0 if self._parked is None else self._parked.session_ms
            self.session_began_ms = max(0, self._now_ms() - self.uplink.kept_ms - heard_ms)
        self._is_first = False
        self._parked = None  # a later session is given everything
        self.uplink.on_ready()

    def _now_ms(self) -> int:
        return self._began_ms + round((monotonic() - self._started_s) * 1000)

    def park(self, lifetime_ms: int, wish: Leave) -> ParkedLeg | None:
        """Keep the session for the call's return. None: it ends too soon, or messages for it still wait.

        `lifetime_ms`: of the session. `wish`: what left the stream.
        """
        if lifetime_ms < LEAST_LIFETIME_MS or self._waiting or not self.is_wanted:
            return None
        return ParkedLeg(self.leg, lifetime_ms, self._now_ms() - self.session_began_ms, wish)

    # -- from the AI ------------------------------------------------------------------------------------------------------

    def is_new_item(self, item_id: str) -> bool:
        """Record that audio of this item came from the current session. Returns whether the last audio was another item's."""
        if self._items and self._items[-1] == item_id:
            return False
        self._items.append(item_id)
        return True

    def on_dropped_audio(self, item_id: str) -> bool:
        """Report to the AI that the caller hears nothing of this item. Returns False, without effect, if it was reported."""
        if item_id in self._items:
            return False
        self._items.append(item_id)
        self._send(partial(self.leg.truncate, item_id, 0))
        return True

    def _spawn(self, body: Callable[[], None]) -> KindGreenlet:
        greenlet = spawn("ai_in", body)
        greenlet.link_exception(self._on_crash)
        self.greenlets.append(greenlet)
        return greenlet

    # -- the leg ----------------------------------------------------------------------------------------------------------

    def check(self, now_s: float) -> Problem | None:
        """Return the problem of a leg that is dead, or None. No call on it has failed."""
        return self._watchdog.check(self.leg, now_s)

    def reopen(self, at_s: float) -> None:
        """Put a new leg in place, to be opened at this monotonic time. The uplink keeps the caller's audio meanwhile."""
        self.drop_successor()
        self.open_s = at_s
        self._replace(self._new_leg())

    def open_successor(self, report: Callable[[Input], None]) -> None:
        """Open a second leg beside the one in place. `report` receives SuccessorReady or SuccessorFailed."""
        self.drop_successor()
        self.successor = successor = Successor(self._new_leg(), self._connect_s, report)
        successor.greenlet = self._spawn(successor.run)

    def swap(self) -> None:
        """Put the successor in the place of the present leg."""
        if self.successor is not None:
            self.successor.take()
            self._replace(self.successor.leg)

    def drop_successor(self) -> None:
        """Close the successor, if there is one."""
        successor, self.successor = self.successor, None
        if successor is not None:
            successor.drop()

    def give_up(self) -> None:
        """Close the leg in place: no other follows."""
        self.is_wanted = False
        self.drop_successor()
        self.uplink.on_lost(self.leg)
        self.leg.wake()
        spawn("other", self.leg.close)

    def _replace(self, leg: AiLeg) -> None:
        old, self.leg, self._parked = self.leg, leg, None
        self.number += 1
        self._items.clear()
        self._waiting.clear()
        self._watchdog = Watchdog(self._stall_s)
        self.uplink.on_lost(leg)
        old.wake()
        spawn("other", old.close)  # bounded; it sends a close frame to an AI that still reads
