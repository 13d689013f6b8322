"""What is measured: every metric family, its label values and its buckets.

A family is a value, declared in one line of `FAMILIES`. Labels are closed sets: the values a label can take are listed here, so
a page has a fixed place for each series and every series stands at 0 from the start. Nothing here counts anything
(`metrics.page` does) and nothing here knows the gateway; what is copied from it is compared with it by a test.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]
Labels = Mapping[str, tuple[str, ...]]

_NAME: Final = re.compile(r"gw(_[a-z0-9]+)+")
_VALUE: Final = re.compile(r"[a-z][a-z0-9_]*")


def _bounds(first_decade: int, last_decade: int, mantissas: tuple[str, ...]) -> tuple[float, ...]:
    """Bucket edges from 10^first to 10^last seconds. Written as decimals, so that 1 ms is the float 0.001 and no neighbour."""
    edges = [float(f"{mantissa}e{decade}") for decade in range(first_decade, last_decade) for mantissa in mantissas]
    return (*edges, float(f"1e{last_decade}"))


#: 10 us to 1 s, eight a decade (a factor of about 4/3 each), an edge at exactly 1 ms: the promise can be read off it.
BOUNDS: Final = _bounds(-5, 0, ("1", "1.3", "1.8", "2.4", "3.2", "4.2", "5.6", "7.5"))
#: 1 ms to 10 s, five a decade, an edge at 0.25 s (the recording's trigger): what a caller waits for.
WAIT_BOUNDS: Final = _bounds(-3, 1, ("1", "1.6", "2.5", "4", "6.3"))


@dataclass(frozen=True)
class _Family:
    """One metric family. `labels` maps each label to all the values it can take."""

    name: str
    help: str
    labels: Labels = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no metric name of ours")
        for label, values in self.labels.items():
            if not values or len(set(values)) != len(values) or not all(_VALUE.fullmatch(value) for value in values):
                raise ValueError(f"{self.name}: the values of label {label!r} are not a closed set of plain words")

    def series(self) -> Iterator[tuple[str, ...]]:
        """The label values of every series, in the order a page keeps them; one empty tuple where there are no labels."""
        return itertools.product(*self.labels.values())


@dataclass(frozen=True)
class Counter(_Family):
    """A sum that only grows."""

    kind: Literal["counter"] = "counter"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.endswith("_total"):
            raise ValueError(f"{self.name}: a counter ends in _total")


@dataclass(frozen=True)
class Gauge(_Family):
    """A level that goes up and down, and is 0 when its process is gone."""

    kind: Literal["gauge"] = "gauge"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name.endswith(("_total", "_count", "_sum", "_bucket")):
            raise ValueError(f"{self.name}: a gauge's name has no counting suffix")


@dataclass(frozen=True)
class Histogram(_Family):
    """Durations in seconds, by bucket. `bounds` are the upper edges, included; +Inf is implied."""

    bounds: tuple[float, ...] = BOUNDS
    kind: Literal["histogram"] = "histogram"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.endswith("_seconds"):
            raise ValueError(f"{self.name}: a histogram of durations ends in _seconds")
        if not self.bounds or list(self.bounds) != sorted(set(self.bounds)) or "le" in self.labels:
            raise ValueError(f"{self.name}: bounds must ascend, and no label may be called le")


Family = Counter | Gauge | Histogram

# -- ring 1: the TX loop ----------------------------------------------------------------------------------------------

TX_SEND: Final = Histogram("gw_tx_send_seconds", "Time to hand one frame to the kernel.")
TX_LATENESS: Final = Histogram("gw_tx_lateness_seconds", "How long after its deadline a frame was sent, within a talkspurt.")
TX_FRAMES: Final = Counter("gw_tx_frames_total", "Frames sent to callers.")
TX_UNDERRUN: Final = Counter(
    "gw_tx_underrun_seconds_total", "Silence a caller heard because a frame came after its lead was used up."
)
TX_DROPPED: Final = Counter(
    "gw_tx_dropped_frames_total",
    "Frames towards callers that were dropped.",
    {"reason": ("bargein", "overrun", "call_ended")},
)

# -- ring 2: the media plane ------------------------------------------------------------------------------------------

HUB_HOLD: Final = Histogram(
    "gw_hub_hold_seconds",
    "How long a greenlet held the hub without a switch, or the hub itself (hub), while it was watched.",
    {"greenlet": ("tx", "rx", "ai_in", "ai_out", "server", "bus", "pool", "hub", "other")},
)
HUB_HOLD_CPU: Final = Histogram(
    "gw_hub_hold_cpu_seconds",
    "CPU time of each hold of the hub, while it is watched all the time (ops.hold_monitor); else nothing.",
    HUB_HOLD.labels,
)
GC_PAUSE: Final = Histogram(
    "gw_gc_pause_seconds",
    "Time the garbage collector stopped a media process, by the generation it looked at.",
    {"generation": ("young", "middle", "full")},
)
BARGEIN: Final = Histogram("gw_bargein_seconds", "From the AI's speech_started to the clear written to the caller.")
FIRST_AUDIO: Final = Histogram(
    "gw_first_audio_seconds", "From the stream's start to the first frame sent to the caller.", bounds=WAIT_BOUNDS
)
AI_RECONNECTS: Final = Counter(
    "gw_ai_reconnects_total",
    "AI legs replaced while their call went on.",
    {"reason": ("expiring", "closed", "lost", "stalled", "rate_limited", "failed")},
)
AI_ERRORS: Final = Counter(
    "gw_ai_errors_total",
    "Error events of an AI: benign is a race both sides expect, fatal ends the session.",
    {"kind": ("benign", "error", "fatal")},
)
RX_DROPPED: Final = Counter(
    "gw_rx_dropped_frames_total",
    "Messages from callers that did not reach the AI.",
    {"reason": ("ai_connecting", "ai_leg_busy", "unknown_event", "other_track", "call_ended")},
)
CALLS: Final = Gauge("gw_calls", "Calls alive, by state.", {"state": ("waiting", "connecting", "active", "closing")})
CALLS_ENDED: Final = Counter(
    "gw_calls_ended_total",
    "Calls ended, by reason.",
    {
        "reason": (
            "caller_hangup",
            "ai_hangup",
            "admin_hangup",
            "idle_limit",
            "duration_limit",
            "shutdown",
            "start_timeout",
            "wrong_account",
            "token_missing",
            "token_forged",
            "token_expired",
            "token_used",
            "unknown_agent",
            "phone_lost",
            "phone_silent",
            "phone_leg_stalled",
            "phone_bad_json",
            "phone_bad_type",
            "phone_missing_field",
            "phone_bad_utf8",
            "phone_bad_base64",
            "phone_binary_message",
            "phone_oversize_message",
            "phone_bad_websocket",
            "phone_media_before_start",
            "phone_second_start",
            "phone_wrong_stream",
            "phone_wrong_format",
            "ai_unreachable",
            "ai_refused",
            "ai_rate_limited",
            "ai_timeout",
            "ai_closed",
            "ai_lost",
            "ai_stalled",
            "ai_leg_stalled",
            "ai_bad_json",
            "ai_bad_type",
            "ai_missing_field",
            "ai_bad_utf8",
            "ai_bad_base64",
            "ai_binary_message",
            "ai_oversize_message",
            "ai_bad_websocket",
            "ai_wrong_format",
            "fallback_transfer",
            "fallback_goodbye",
            "internal_error",
            "worker_lost",
        )
    },
)
STREAMS_REFUSED: Final = Counter(
    "gw_streams_refused_total",
    "Media streams refused, before the upgrade or at their start.",
    {
        "reason": (
            "bad_signature",
            "bad_request",
            "not_found",
            "start_timeout",
            "wrong_account",
            "token_missing",
            "token_forged",
            "token_expired",
            "token_used",
            "busy",
        )
    },
)
WEBHOOKS: Final = Counter(
    "gw_webhooks_total",
    "Webhooks of Twilio's, by kind and what became of them.",
    {
        "kind": ("voice", "status", "recording", "stream", "action"),
        "outcome": ("accepted", "bad_signature", "bad_request", "busy", "failed"),
    },
)
OVERFLOW: Final = Counter(
    "gw_overflow_calls_total",
    "Calls that were not taken, by why: the machine is full, its workers are late, or it was drained.",
    {"reason": ("full", "late", "drained")},
)
CALL_CAPACITY: Final = Gauge("gw_call_capacity", "Calls the workers that take any may have at once.")
CALLS_RESERVED: Final = Gauge("gw_calls_reserved", "Places kept for calls that were let in and whose stream has not come.")
BUS_UNACKED: Final = Gauge("gw_bus_unacked_events", "Events workers keep because control has not acknowledged them.")
BUS_DROPPED: Final = Counter(
    "gw_bus_dropped_events_total",
    "Events a worker dropped because its buffer towards control was full.",
    {"kind": ("call_started", "first_audio", "start_recording", "turn", "call_ended", "call_event", "webhook")},
)

# -- ring 3: the control plane ----------------------------------------------------------------------------------------

RECORDING_TRIGGER: Final = Histogram(
    "gw_recording_trigger_seconds", "From the first frame a caller was sent to the first request to record.", bounds=WAIT_BOUNDS
)
RECORDINGS: Final = Counter(
    "gw_recordings_total",
    "Recordings, by outcome.",
    {"outcome": ("started", "completed", "failed", "absent", "skipped", "duplicate", "twice")},
)
RECORDING_CLAIMS_HELD: Final = Gauge(
    "gw_recording_claims_held", "Recordings claimed in the spool because the store was away, and not brought to it yet."
)
TWILIO_CIRCUIT_OPEN: Final = Gauge(
    "gw_twilio_circuit_open", "1 while Twilio's REST API is down: recordings wait, and one request now and then tries."
)
RECORDINGS_OVERDUE: Final = Gauge(
    "gw_recordings_overdue", "Recordings without a last word an hour after they began, of calls that are not alive here."
)
STORE_BACKLOG: Final = Gauge("gw_store_backlog_events", "Events in the spool that the store has not taken.")
STORE_REFUSED: Final = Gauge("gw_store_refused_events", "Events the store refused for good, set aside in the spool.")
WORKERS: Final = Gauge("gw_workers", "Media workers, by state.", {"state": ("up", "draining", "lost")})

# -- every process ----------------------------------------------------------------------------------------------------

PROCESS_STARTS: Final = Counter(
    "gw_process_starts_total", "Starts of a process, the first one included.", {"process": ("control", "worker")}
)

#: All of them, in the order a page keeps them. A new family is one more line.
FAMILIES: Final[tuple[Family, ...]] = (
    TX_SEND,
    TX_LATENESS,
    TX_FRAMES,
    TX_UNDERRUN,
    TX_DROPPED,
    HUB_HOLD,
    HUB_HOLD_CPU,
    GC_PAUSE,
    BARGEIN,
    FIRST_AUDIO,
    AI_RECONNECTS,
    AI_ERRORS,
    RX_DROPPED,
    CALLS,
    CALLS_ENDED,
    STREAMS_REFUSED,
    WEBHOOKS,
    OVERFLOW,
    CALL_CAPACITY,
    CALLS_RESERVED,
    BUS_UNACKED,
    BUS_DROPPED,
    RECORDING_TRIGGER,
    RECORDINGS,
    RECORDING_CLAIMS_HELD,
    TWILIO_CIRCUIT_OPEN,
    RECORDINGS_OVERDUE,
    STORE_BACKLOG,
    STORE_REFUSED,
    WORKERS,
    PROCESS_STARTS,
)
