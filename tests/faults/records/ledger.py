"""Ledger of a run: the records of caller, Twilio, AI, bus and store for each call.

Plain values that are written as JSON and judged by `laws.py`. Times are seconds since the start of the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Struck:
    """A fault that was done.

    `about`: its target, as text. `calls`: the calls it met, None for every call of its time.
    """

    name: str
    link: str
    spoils: list[str]
    from_s: float
    to_s: float
    about: str = ""
    calls: list[int] | None = None  # by number


@dataclass
class CallLine:
    """One call."""

    number: int
    call_sid: str
    placed_s: float
    ended_s: float
    over: bool = True
    # from the caller
    streamed: bool = False  # Twilio's `start` was sent
    closed_by: str = ""
    close_reason: str = ""
    error: str = ""
    received_bytes: int = 0
    received_sha: str = ""  # of everything received
    cleared: bool = False  # by a clear: the caller interrupted
    heard_bytes: int = 0
    underrun_60_ms: float = 0.0  # behind a jitter buffer of 60 ms
    allowed_ms: float = 0.0  # allowance: time in which the machine did not run the bench or a worker
    # from Twilio
    recordings: int = 0  # number of recordings made
    recording_sids: list[str] = field(default_factory=list)
    starts: int = 0  # granted requests
    callback_lost: bool = False  # the gateway did not accept the webhook with the recording's end
    # from the AI: the caller's first session
    said_bytes: int = 0
    said_sha: str = ""  # padded to whole frames
    sessions: int = 0
    said_all: bool = False  # every response was completed
    # from the bus
    legs_lost: int = 0  # AI legs that a worker gave up
    requested_s: float | None = None  # first audio, as in the worker's request for the recording
    # from the store
    row: dict[str, Any] | None = None
    recording: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None


@dataclass
class Census:
    """Descriptors and greenlets of a process at the end, and of a fresh one."""

    role: str
    pid: int
    descriptors: int
    descriptors_fresh: int
    greenlets: int
    greenlets_fresh: int
    kinds: dict[str, int] = field(default_factory=dict)


@dataclass
class StoreReturn:
    """A return of the store.

    `caught_up_s`: seconds until the spool was empty, None if it never was.
    """

    at_s: float
    backlog: int
    caught_up_s: float | None


@dataclass
class Ledger:
    """Records of one run."""

    scenario: str
    seed: str
    seconds: float
    began_at: float = 0.0  # epoch seconds, as in the rows
    struck: list[Struck] = field(default_factory=list)
    calls: list[CallLine] = field(default_factory=list)
    sent: list[list[Any]] = field(default_factory=list)  # bus_tap.Sent, one each
    stored: dict[str, list[list[Any]]] = field(default_factory=dict)  # turns, events: their keys
    poison: int = 0
    backlog: int = 0
    open_recordings: list[dict[str, Any]] = field(default_factory=list)
    returns: list[StoreReturn] = field(default_factory=list)
    census: list[Census] = field(default_factory=list)
    left_processes: list[int] = field(default_factory=list)
    bench_errors: list[str] = field(default_factory=list)  # failures of the bench itself: the run proves nothing

    def met(self, call: CallLine, before_s: float = 0.0, after_s: float = 0.0) -> list[Struck]:
        """Return the faults that met a call, with margins before and after."""
        return [
            one
            for one in self.struck
            if (one.calls is None and one.from_s <= call.ended_s + after_s and one.to_s >= call.placed_s - before_s)
            or (one.calls is not None and call.number in one.calls)
        ]
