"""The ledger of a run: what each side saw of each call, side by side.

The callers', Twilio's, the AI's and the store's word, what the workers sent on the bus and what is left of the processes. Plain
values that are written as JSON and judged by `laws.py`. Times are seconds since the run began.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Struck:
    """A fault that was done. `about`: what it met, in words; `calls`: whose it was, None for every call of its time."""

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
    # the caller's word
    streamed: bool = False  # Twilio's `start` was sent
    closed_by: str = ""
    close_reason: str = ""
    error: str = ""
    received_bytes: int = 0
    received_sha: str = ""  # of everything received
    cleared: bool = False  # something was taken back: the caller interrupted
    heard_bytes: int = 0
    underrun_60_ms: float = 0.0  # behind a jitter buffer of 60 ms
    forgiven_ms: float = 0.0  # of it, at most so much was the machine's: it did not run the bench or a worker
    # Twilio's word
    recordings: int = 0  # that really were made
    recording_sids: list[str] = field(default_factory=list)
    starts: int = 0  # requests that Twilio granted
    callback_lost: bool = False  # the gateway did not take Twilio's word on how the recording ended
    # the AI's word: of the session that knew this caller
    said_bytes: int = 0
    said_sha: str = ""  # filled up to whole frames
    sessions: int = 0
    said_all: bool = False  # each response came to its end
    # the bus
    legs_lost: int = 0  # AI legs a worker gave up
    wished_s: float | None = None  # the first audio after which a worker asked for the recording
    # the store's word
    row: dict[str, Any] | None = None
    recording: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None


@dataclass
class Census:
    """A process of the gateway that stood at the end, at rest, beside one of its role that was fresh."""

    role: str
    pid: int
    descriptors: int
    descriptors_fresh: int
    greenlets: int
    greenlets_fresh: int
    kinds: dict[str, int] = field(default_factory=dict)


@dataclass
class StoreReturn:
    """The store came back; `caught_up_s`: until the spool was empty, None if it never was."""

    at_s: float
    backlog: int
    caught_up_s: float | None


@dataclass
class Ledger:
    """All of one run."""

    scenario: str
    seed: str
    seconds: float
    began_at: float = 0.0  # epoch seconds: the rows' times are such
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
    bench_errors: list[str] = field(default_factory=list)  # the bench's own failures: then nothing was proven

    def met(self, call: CallLine, before_s: float = 0.0, after_s: float = 0.0) -> list[Struck]:
        """The faults that met a call, those of its time give or take."""
        return [
            one
            for one in self.struck
            if (one.calls is None and one.from_s <= call.ended_s + after_s and one.to_s >= call.placed_s - before_s)
            or (one.calls is not None and call.number in one.calls)
        ]
