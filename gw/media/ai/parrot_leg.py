"""AI leg for the embedded parrot agent: no network, no API key, the same events."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from time import monotonic
from typing import Final

from gevent.event import Event

from gw.media.ai.leg import Role
from gw.media.hub.clock import turn_loop
from gw.protocol.ai import AiEvent, SessionCreated, SessionReady
from gw.protocol.audio import decode_base64
from gw.protocol.parrot import Parrot

_PROMPTS: Final = Path(__file__).parent / "prompts"
#: Events returned by one read: the longest answer is a hundred deltas, half a millisecond of the hub's time.
BATCH_EVENTS: Final = 32


class Prompts:
    """The parrot's recorded prompts, read once per worker. Mu-law, 8 kHz."""

    __slots__ = ("goodbye", "greeting")

    def __init__(self, folder: Path = _PROMPTS) -> None:
        self.greeting = (folder / "greeting.ulaw").read_bytes()
        self.goodbye = (folder / "goodbye.ulaw").read_bytes()


class ParrotLeg:
    """One call's parrot. `gw.protocol.parrot` answers immediately; AI-in reads the answers from a queue."""

    __slots__ = ("_events", "_is_in_answer", "_parrot", "_ready", "_woken")

    def __init__(self, prompts: Prompts) -> None:
        self._parrot = Parrot(prompts.greeting, prompts.goodbye)
        self._events: deque[AiEvent] = deque()  # bounded: the parrot repeats at most what it captured
        self._ready = Event()
        self._woken = False
        self._is_in_answer = False  # the last read left events

    def connect(self) -> None:
        self._say([SessionCreated(0.0), SessionReady()])

    def read(self) -> list[AiEvent]:
        if not self._events and not self._woken:
            self._ready.clear()
            self._ready.wait()
        elif self._is_in_answer:
            turn_loop()  # let other greenlets run before the next batch
        self._woken = False
        events = [self._events.popleft() for _ in range(min(len(self._events), BATCH_EVENTS))]
        self._is_in_answer = bool(self._events)
        return events

    @property
    def is_congested(self) -> bool:
        return False

    def send_audio(self, payload: str) -> None:
        self._say(self._parrot.on_audio(decode_base64(payload)))

    @property
    def heard_s(self) -> float:
        return monotonic()  # always there

    def ping(self) -> None:
        """Do nothing: the parrot is always there."""

    def say(self, role: Role, text: str, item_id: str = "", after: str = "") -> None:
        """Do nothing: the parrot keeps no history, and follows no directions."""

    def delete_item(self, item_id: str) -> None:
        """Do nothing: the parrot keeps no history."""

    def send_keys(self, keys: str) -> None:
        self._say(self._parrot.on_keys(keys))

    def create_response(self, *, with_tools: bool = True) -> None:
        self._say(self._parrot.create_response())

    def cancel(self) -> None:
        """Do nothing: the parrot's responses are complete when they begin."""

    def truncate(self, item_id: str, heard_ms: int) -> None:
        """Do nothing: the parrot keeps no history."""

    def state_call(self, call_id: str, name: str, arguments: str) -> None:
        """Do nothing: the parrot keeps no history."""

    def tool_output(self, call_id: str, output: str) -> None:
        """Do nothing: the parrot's only tool is hanging up."""

    def approve_mcp(self, request_id: str, *, approves: bool) -> None:
        """Do nothing: the parrot has no provider."""

    def wake(self) -> None:
        self._woken = True
        self._ready.set()

    def close(self) -> None:
        self.wake()

    def _say(self, events: list[AiEvent]) -> None:
        if events:
            self._events.extend(events)
            self._ready.set()
