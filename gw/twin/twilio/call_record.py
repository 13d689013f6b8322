"""Record of a call, during it and after, for comparison with the gateway's own figures.

Written by `TwinCall`, read by tests, demo and bench. Times named `_s` are `time.monotonic()`, times named `_at` epoch seconds.
"""

from __future__ import annotations

import time
import uuid
from array import array
from collections.abc import Callable
from typing import Literal, Self

from gevent.event import Event
from gevent.pool import Group

from gw.twin.polling import wait_until
from gw.twin.twilio.player import Player
from gw.twin.twilio.receiver import Cleared, DebuggerEntry, MarkTime, StreamReceiver
from gw.twin.twilio.steps import Step
from gw.twin.twilio.webhooks import Posted

ClosedBy = Literal["", "caller", "gateway", "rest", "limit", "twin", "network"]


class CallRecord:
    """A call as seen by Twilio and by the caller."""

    def __init__(self, number: int, account_sid: str) -> None:
        self.number = number
        self.account_sid = account_sid
        self.call_sid = f"CA{uuid.uuid4().hex}"
        self.stream_sid = f"MZ{uuid.uuid4().hex}"
        self.status = "queued"  # Twilio's CallStatus
        self.closed_by: ClosedBy = ""
        self.close_code: int | None = None  # of the gateway's close frame
        self.close_reason = ""
        self.error = ""  # a failure of the twin
        self.http_status: int | None = None  # of a refused upgrade
        self.parameters: dict[str, str] = {}
        self.spoken: list[str] = []  # words of <Say>, reasons of <Reject>, in sequence
        self.dialled: list[str] = []  # destinations of <Dial>
        self.tones = ""  # sent by <Play digits>
        self.tones_s: list[float] = []  # when each of them ended
        self.voice: Posted | None = None
        self.placed_s = time.monotonic()
        self.answered_at: float | None = None  # epoch seconds, for REST
        self.ended_at: float | None = None
        self.started_s: float | None = None  # time of the present stream's `start`
        self.streams_s: list[float] = []  # time of each stream's `start`
        self.ended_s: float | None = None
        self.frames_sent = 0
        self.lateness_s = array("d")  # of the twin itself, one for each frame
        self.notices: list[DebuggerEntry] = []  # about streams that ended or failed to open
        self.sent_speech = bytearray()  # the caller's audio, silence included, frame by frame
        self.sent_s = array("d")  # when each of these frames left
        self.done: list[tuple[float, Step]] = []  # steps of the plan, and when
        self._greenlets = Group()
        self._receiver = StreamReceiver(self.stream_sid, self._echo, self._greenlets)
        self._done = Event()

    def _echo(self, name: str) -> bool:
        """Send a mark back. Returns whether it was sent: a record alone has no stream."""
        return False

    @property
    def is_over(self) -> bool:
        return self._done.is_set()

    @property
    def player(self) -> Player:
        """Playout buffer: arrivals, gaps, underrun."""
        return self._receiver.player

    @property
    def warnings(self) -> list[DebuggerEntry]:
        """The gateway's mistakes, with the debugger's codes; empty for a correct gateway."""
        return self._receiver.warnings

    @property
    def marks(self) -> list[MarkTime]:
        return self._receiver.marks

    @property
    def echoes(self) -> list[MarkTime]:
        return self._receiver.echoes

    @property
    def clears(self) -> list[Cleared]:
        return self._receiver.clears

    @property
    def received_audio(self) -> bytes:
        """Audio of all media messages, in sequence."""
        return bytes(self._receiver.received)

    @property
    def heard_audio(self) -> bytes:
        """Audio played to the caller, without gaps."""
        return self._receiver.player.heard(self._now_s)

    @property
    def played(self) -> list[tuple[float, bytes]]:
        """Each piece of audio played to the caller, and when its playout began."""
        return self._receiver.player.played(self._now_s)

    @property
    def heard_with_gaps(self) -> bytes:
        """Audio played from the stream's start to its end, silence included."""
        return self._receiver.player.heard(self._now_s, self.started_s if self.started_s is not None else self._now_s)

    @property
    def _now_s(self) -> float:
        return self.ended_s if self.ended_s is not None else time.monotonic()

    @property
    def first_heard_ms(self) -> float | None:
        """From the stream's start to the first audio played."""
        first_s = self._receiver.player.first_heard_s
        return None if first_s is None or self.started_s is None else (first_s - self.started_s) * 1000

    @property
    def late_max_s(self) -> float:
        """The twin's own largest lateness."""
        return max(self.lateness_s, default=0.0)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the call's end. Returns whether it has ended."""
        return self._done.wait(timeout_s)

    def wait_for(self, condition: Callable[[Self], bool], timeout_s: float = 5.0) -> bool:
        """Wait until `condition` holds. Returns whether it held."""
        return wait_until(lambda: condition(self), timeout_s)
