"""What control is told of one call: its start, its first audio, the wish to record it, what was said and noted, and its end.

AI-out is given methods of this object and not of the call, and nothing here knows the call: what an ended call is made of is then
free with the last reference, and the collector has nothing to look for. Never waits: the bus keeps what control does not take.
"""

from __future__ import annotations

import time

from gw import bus
from gw.call.resume import parse_resumed
from gw.call.turns import Turn
from gw.media.context import MediaContext
from gw.media.tx import Tx
from gw.protocol.twilio import Start


class CallEvents:
    """One call's words to control."""

    __slots__ = ("_account_sid", "_context", "_is_resumed", "_started_at", "_started_s", "_tx", "sid")

    def __init__(self, context: MediaContext, start: Start, tx: Tx, *, started_s: float, started_at: float) -> None:
        """The call's start, monotonic and in epoch seconds."""
        self._context = context
        self._tx = tx
        self._account_sid = start.account_sid
        self._is_resumed = parse_resumed(start.parameters, started_at) is not None
        self._started_s = started_s
        self._started_at = started_at
        self.sid = start.call_sid

    def emit(self, event: bus.Event) -> None:
        """Tell control."""
        self._context.emit(event)

    def on_start(self, start: Start, agent_name: str, voice_at: float | None) -> None:
        """The call was let in. `voice_at`: when the voice webhook was answered."""
        said = start.parameters
        self.emit(
            bus.CallStarted(
                self.sid,
                start.stream_sid,
                start.account_sid,
                agent_name,
                said.get("direction", "inbound"),
                said.get("caller", ""),
                said.get("called", ""),
                voice_at if voice_at is not None else self._started_at,
                self._started_at,
            )
        )

    def note(self, kind: str, **data: str | int | float | bool | None) -> None:
        """Keep something of this call in the events table."""
        self.emit(bus.CallEvent(self.sid, kind, time.time(), data))

    def report_turns(self, turns: list[Turn]) -> None:
        """Keep turns that are whole."""
        for turn in turns:
            self.emit(bus.Turn(self.sid, *turn))

    # -- AI-out's ---------------------------------------------------------------------------------------------------------

    def on_first_audio(self) -> None:
        """The caller hears the agent's first frame."""
        self._context.cells.first_audio.observe(self._tx.first_audio_s - self._started_s)
        self.emit(bus.FirstAudio(self.sid, self._first_audio_at))

    def pool_has_room(self) -> bool:
        """Whether a recording's start can be asked for now."""
        return not self._context.recording_pool.full()

    def on_record(self) -> None:
        """The recording may start."""
        wish = bus.StartRecording(self.sid, self._account_sid, self._first_audio_at, self._is_resumed)
        self._context.recording_pool.spawn(self.emit, wish)

    @property
    def _first_audio_at(self) -> float:
        return self._started_at + self._tx.first_audio_s - self._started_s
