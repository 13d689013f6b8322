"""Whether one more call is taken: by this machine, and by this worker.

The voice webhook reserves: one place on the machine for one call SID, whichever worker its stream will reach. The stream's
start turns the reservation into a call of the worker it reached; one whose stream does not come lapses after RESERVED_S. What is
free is what the workers that are punctual have left, less what is reserved, looked up and written under one lock, so two workers
never give away one place. A worker that is full, late, or further ahead than SPREAD, leaves a connection that waits to the
others, whatever comes at once: it counts as a socket from its accept on, until it has said what it wants. Left for too long, it
is taken by whoever sees it, since a caller must hear at least that no line is free.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from hashlib import blake2b
from math import inf
from typing import Final

from gw.media.admission.shared_lock import SharedBusyError, locked
from gw.scoreboard import KEY_BYTES, MAX_RESERVATIONS, Flag, ProcessState, Scoreboard, ScoreboardRow

#: From the webhook's answer to the stream's start: Twilio connects at once, mostly within a second; its bound is not published.
RESERVED_S: Final = 20.0
#: Sockets a worker may be ahead of the emptiest before it takes one more, so they differ by one more than this.
SPREAD: Final = 1
#: How long a connection is left to a worker that is better off: one that does not take it in this time does not run.
DELAY_S: Final = 0.5
#: The same, where who is better off shows once connections have said what they want: mostly they have within a millisecond.
SHORT_DELAY_S: Final = 0.2
#: A worker whose loop did not turn for so long is nobody to leave a connection to.
STALLED_S: Final = 1.0

#: A key may lie in any of so many places from its hash.
PROBES: Final = 64
_NS: Final = 1_000_000_000


class AdmissionSlots:
    """One worker's view of the machine's places. `calls`, `streams` and `coming` of its row are written here alone."""

    def __init__(self, scoreboard: Scoreboard, row: ScoreboardRow, capacity: int, *, reserved_s: float = RESERVED_S) -> None:
        self._scoreboard = scoreboard
        self._row = row
        self._reserved_ns = int(reserved_s * _NS)
        self._keys, self._lapses = scoreboard.reservation_keys, scoreboard.reservation_expiries
        row.capacity = capacity
        row.heartbeat()

    @classmethod
    def alone(cls, capacity: int) -> AdmissionSlots:
        """The room of a worker that shares its machine with no other."""
        scoreboard = Scoreboard.private()
        row = scoreboard.take_row(0)
        row.state = ProcessState.UP
        return cls(scoreboard, row, capacity)

    # -- a call's way -----------------------------------------------------------------------------------------------------

    def reserve(self, call_sid: str) -> str:
        """Keep a place for the call that was announced. Returns "", or why there is none: full | late.

        Asked again for a call it has a place for, the same place is kept on.
        """
        try:
            with self._lock():
                key, now_ns = _key(call_sid), time.monotonic_ns()
                index = self._find(key)
                if index < 0:
                    free, late = self._free()
                    if free < 1:
                        return "late" if late else "full"
                    index = self._find_free(key, now_ns)
                    if index < 0:
                        return "full"
                self._keys[index * KEY_BYTES : (index + 1) * KEY_BYTES] = key
                self._lapses[index] = now_ns + self._reserved_ns
                return ""
        except SharedBusyError:
            return "late"

    def occupy(self, call_sid: str) -> None:
        """The call's stream has started: its place is this worker's now, never nobody's in between. Raises SharedBusyError."""
        with self._lock():
            index = self._find(_key(call_sid))
            if index >= 0:
                self._lapses[index] = 0
            self._row.calls += 1

    def release(self) -> None:
        """A call that entered has ended."""
        self._row.calls -= 1

    @property
    def reserved(self) -> int:
        """Places kept for streams that have not come yet."""
        return self._scoreboard.reserved

    def release_expired(self) -> int:
        """Give back the places whose streams did not come. Returns how many. 0.1 ms; once a second is enough."""
        now_ns = time.monotonic_ns()
        if not any(0 < expires_ns <= now_ns for expires_ns in self._lapses.tolist()):
            return 0
        try:
            with self._lock():
                late = [index for index, expires_ns in enumerate(self._lapses.tolist()) if 0 < expires_ns <= now_ns]
                for index in late:
                    self._lapses[index] = 0
                return len(late)
        except SharedBusyError:
            return 0  # the next second does it

    # -- this worker ------------------------------------------------------------------------------------------------------

    def publish(self, *, streams: int, coming: int, draining: bool, leaving: bool, late: bool) -> None:
        """Let the others know how it stands here."""
        self._row.streams = streams
        self._row.pending = coming
        self._row.flags = draining * Flag.DRAINING | leaving * Flag.LEAVING | late * Flag.LATE

    def heartbeat(self, lateness_p99_s: float, hold_max_s: float) -> None:
        """The loop turns; how punctual it is."""
        self._row.lateness_p99_us = _us(lateness_p99_s)
        self._row.hold_max_us = _us(hold_max_s)
        self._row.heartbeat()

    def accept_delay_s(self) -> float:
        """How long a connection that waits is left to the others before this worker takes it: 0.0 where it is this one's turn.

        Compared are sockets, and before them whether one more can be served: of itself a worker supposes that all who come stay.
        """
        row = self._row
        if row.flags & Flag.LEAVING:
            return inf
        others = [other for other in self._serving() if other.index != row.index]
        if not others:
            return 0.0
        closed, sockets = _standing(row, row.streams + row.pending)
        best_closed, best_sockets = min(_standing(other, other.streams) for other in others)
        if (closed, sockets) <= (best_closed, best_sockets + SPREAD):
            return 0.0
        is_best = (closed, sockets) <= min(_standing(other, other.streams + other.pending) for other in others)
        return SHORT_DELAY_S if is_best else DELAY_S

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self._scoreboard.fd, 0, 1)

    def _serving(self) -> list[ScoreboardRow]:
        """The workers that take connections and whose loops turn; this one also before it is known that it is ready."""
        own = self._row.index
        return [
            row
            for row in self._scoreboard.workers()
            if not row.flags & Flag.LEAVING
            and (
                row.state in (ProcessState.STARTING, ProcessState.UP)
                if row.index == own
                else row.state == ProcessState.UP and 0.0 <= row.heartbeat_age_s() < STALLED_S
            )
        ]

    def _free(self) -> tuple[int, bool]:
        """Places nobody has, and whether some are not given because their worker is late."""
        free, late = -self.reserved, False
        for row in self._serving():
            if row.flags & Flag.LATE:
                late = late or row.calls < row.capacity
            elif not row.flags & Flag.DRAINING:
                free += max(0, row.capacity - row.calls)
        return free, late

    def _find(self, key: bytes) -> int:
        """Where the key's place is; -1 where it has none."""
        start = _start(key)
        for index in range(start, start + PROBES):
            if self._lapses[index] and self._keys[index * KEY_BYTES : (index + 1) * KEY_BYTES] == key:
                return index
        return -1

    def _find_free(self, key: bytes, now_ns: int) -> int:
        start = _start(key)
        for index in range(start, start + PROBES):
            if self._lapses[index] <= now_ns:
                return index
        return -1


def _standing(row: ScoreboardRow, sockets: int) -> tuple[bool, int]:
    """How a worker with so many sockets stands beside others: the less, the rather a connection is its own."""
    return bool(row.flags & Flag.LATE) or sockets >= row.capacity, sockets


def _key(call_sid: str) -> bytes:
    return blake2b(call_sid.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def _start(key: bytes) -> int:
    return int.from_bytes(key[:4], "big") % (MAX_RESERVATIONS - PROBES)


def _us(seconds: float) -> int:
    return -1 if seconds < 0 else int(seconds * 1e6)
