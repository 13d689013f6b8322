"""Admission slots: decides whether this machine and this worker take one more call.

The voice webhook reserves a slot of the machine for one call SID, whichever worker its stream will reach. The stream's `start`
turns the reservation into a call of the worker it reached; a reservation whose stream does not come expires after RESERVED_S.
Free are the slots of all punctual workers, less the reserved ones. They are counted and written under one lock, so two workers
never give one slot away twice.

A worker that is full, late, or more than SPREAD sockets ahead leaves a waiting connection to the other workers. A connection
counts as a socket from its accept until its request is complete, so that this also holds for many at the same time. A connection
left for too long is taken by any worker, since a caller must at least hear that no line is free.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from hashlib import blake2b
from math import inf
from typing import Final

from gw.media.admission.shared_lock import SharedBusyError, locked
from gw.scoreboard import KEY_BYTES, MAX_RESERVATIONS, Flag, ProcessState, Scoreboard, ScoreboardRow

#: From the webhook's answer to the stream's start. Twilio mostly connects within a second; its bound is not published.
RESERVED_S: Final = 20.0
#: Sockets a worker may be ahead of the emptiest one and still accept, so they differ by one more than this.
SPREAD: Final = 1
#: Time a connection is left to a less loaded worker. A worker that does not take it by then does not run.
DELAY_S: Final = 0.5
#: The same while incomplete requests hide which worker is less loaded: most are complete within a millisecond.
SHORT_DELAY_S: Final = 0.2
#: A worker whose loop has not turned for this long gets no connection left.
STALLED_S: Final = 1.0

#: Entries of the table that a key may be in, from its hash on.
PROBES: Final = 64
_NS: Final = 1_000_000_000


class AdmissionSlots:
    """One worker's view of the machine's slots. Only this object writes `calls`, `streams` and `pending` of its row."""

    def __init__(self, scoreboard: Scoreboard, row: ScoreboardRow, capacity: int, *, reserved_s: float = RESERVED_S) -> None:
        self._scoreboard = scoreboard
        self._row = row
        self._reserved_ns = int(reserved_s * _NS)
        self._keys, self._lapses = scoreboard.reservation_keys, scoreboard.reservation_expiries
        row.capacity = capacity
        row.heartbeat()

    @classmethod
    def alone(cls, capacity: int) -> AdmissionSlots:
        """Make the slots of a worker that is alone on its machine."""
        scoreboard = Scoreboard.private()
        row = scoreboard.take_row(0)
        row.state = ProcessState.UP
        return cls(scoreboard, row, capacity)

    # -- a call's way -----------------------------------------------------------------------------------------------------

    def reserve(self, call_sid: str) -> str:
        """Reserve a slot for an announced call. A repeated request for a call renews its reservation.

        Returns: "", or the refusal: full | late.
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

    def is_reserved(self, call_sid: str) -> bool:
        """Return whether an announced call's stream has not come to any worker. Reads without the lock."""
        return self._find(_key(call_sid)) >= 0

    def renew(self, call_sid: str) -> None:
        """Renew the reservation of an announced call, if it has one."""
        try:
            with self._lock():
                index = self._find(_key(call_sid))
                if index >= 0:
                    self._lapses[index] = time.monotonic_ns() + self._reserved_ns
        except SharedBusyError:
            return  # it lasts longer than Twilio waits

    def occupy(self, call_sid: str) -> None:
        """Turn the reservation of a started stream into a call, in one step.

        While other workers hold the lock, the call also keeps its reservation until that expires: one slot too few is free.
        """
        try:
            with self._lock():
                index = self._find(_key(call_sid))
                if index >= 0:
                    self._lapses[index] = 0
                self._row.calls += 1
        except SharedBusyError:
            self._row.calls += 1

    def release(self) -> None:
        """Release the slot of a call that has ended."""
        self._row.calls -= 1

    @property
    def reserved(self) -> int:
        """Slots reserved for streams that have not come."""
        return self._scoreboard.reserved

    def release_expired(self) -> int:
        """Release expired reservations. Returns their number. Takes 0.1 ms; once a second is enough."""
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
            return 0  # done in the next second

    # -- this worker ------------------------------------------------------------------------------------------------------

    def publish(self, *, streams: int, pending: int, draining: bool, leaving: bool, late: bool) -> None:
        """Publish this worker's load and flags to the other workers."""
        self._row.streams = streams
        self._row.pending = pending
        self._row.flags = draining * Flag.DRAINING | leaving * Flag.LEAVING | late * Flag.LATE

    def heartbeat(self, lateness_p99_s: float, hold_max_s: float) -> None:
        """Publish that the loop turns, and how punctual it is."""
        self._row.lateness_p99_us = _us(lateness_p99_s)
        self._row.hold_max_us = _us(hold_max_s)
        self._row.heartbeat()

    def accept_delay_s(self) -> float:
        """Seconds a waiting connection is left to the other workers; 0.0: accept now.

        Compares first whether a worker can serve one more, then sockets. This worker counts all its incomplete requests as
        sockets.
        """
        row = self._row
        if row.flags & Flag.LEAVING:
            return inf
        others = [other for other in self._serving() if other.index != row.index]
        if not others:
            return 0.0
        closed, sockets = _rank(row, row.streams + row.pending)
        best_closed, best_sockets = min(_rank(other, other.streams) for other in others)
        if (closed, sockets) <= (best_closed, best_sockets + SPREAD):
            return 0.0
        is_best = (closed, sockets) <= min(_rank(other, other.streams + other.pending) for other in others)
        return SHORT_DELAY_S if is_best else DELAY_S

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self._scoreboard.fd, 0, 1)

    def _serving(self) -> list[ScoreboardRow]:
        """Workers that accept connections and whose loops turn; this one also before it is ready."""
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
        """Free slots, and whether a late worker has slots that are not given."""
        free, late = -self.reserved, False
        for row in self._serving():
            if row.flags & Flag.LATE:
                late = late or row.calls < row.capacity
            elif not row.flags & Flag.DRAINING:
                free += max(0, row.capacity - row.calls)
        return free, late

    def _find(self, key: bytes) -> int:
        """Index of the key's reservation, or -1."""
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


def _rank(row: ScoreboardRow, sockets: int) -> tuple[bool, int]:
    """Rank of a worker with so many sockets: the worker with the lowest rank accepts."""
    return bool(row.flags & Flag.LATE) or sockets >= row.capacity, sockets


def _key(call_sid: str) -> bytes:
    return blake2b(call_sid.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def _start(key: bytes) -> int:
    return int.from_bytes(key[:4], "big") % (MAX_RESERVATIONS - PROBES)


def _us(seconds: float) -> int:
    return -1 if seconds < 0 else int(seconds * 1e6)
