"""Declarations of all metric families: names, help texts, label values and histogram buckets.

A family is one constant here and one line of `FAMILIES`. Labels are closed sets: all values of a label are listed, so each
series has a fixed place in a page and is exported as 0 from the start. Counting is in `metrics.page`. This module imports
nothing of the gateway; a test compares the lists copied from it.
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
    """Bucket edges from 10^first to 10^last seconds. Parsed from decimals, so that the 1 ms edge is exactly the float 0.001."""
    edges = [float(f"{mantissa}e{decade}") for decade in range(first_decade, last_decade) for mantissa in mantissas]
    return (*edges, float(f"1e{last_decade}"))


#: 10 us to 1 s, eight edges per decade (a factor of about 4/3 each). The edge at exactly 1 ms is the limit of the promise.
BOUNDS: Final = _bounds(-5, 0, ("1", "1.3", "1.8", "2.4", "3.2", "4", "5", "7"))
#: From here a frame counts as late. Twilio's cushion (`media.lead_ms`) hides it.
LATE_S: Final = 0.005
#: 1 ms to 10 s, five edges per decade, for waiting times of callers. The edge at 0.25 s is the limit of the recording trigger.
WAIT_BOUNDS: Final = _bounds(-3, 1, ("1", "1.6", "2.5", "4", "6.3"))
#: 1 ms to 100 s: a tool may take a minute.
HOOK_BOUNDS: Final = _bounds(-3, 2, ("1", "1.6", "2.5", "4", "6.3"))


@dataclass(frozen=True)
class _Family:
    """One metric family. `labels` maps each label to all its possible values."""

    name: str
    help: str
    labels: Labels = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not a metric name: expected gw_ and lower-case words joined by _")
        for label, values in self.labels.items():
            if not values or len(set(values)) != len(values) or not all(_VALUE.fullmatch(value) for value in values):
                raise ValueError(f"{self.name}: label {label!r} needs distinct values of lower-case letters, digits and _")

    def series(self) -> Iterator[tuple[str, ...]]:
        """Yield the label values of every series, in the page's order: one empty tuple for a family without labels."""
        return itertools.product(*self.labels.values())


@dataclass(frozen=True)
class Counter(_Family):
    """A sum that only increases."""

    kind: Literal["counter"] = "counter"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.endswith("_total"):
            raise ValueError(f"{self.name}: a counter's name must end in _total")


@dataclass(frozen=True)
class Gauge(_Family):
    """A level. The values of a process that has ended are not counted."""

    kind: Literal["gauge"] = "gauge"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name.endswith(("_total", "_count", "_sum", "_bucket")):
            raise ValueError(f"{self.name}: a gauge's name must not end in _total, _count, _sum or _bucket")


@dataclass(frozen=True)
class Histogram(_Family):
    """Durations in seconds, by bucket. `bounds` are the inclusive upper edges; +Inf is implied."""

    bounds: tuple[float, ...] = BOUNDS
    kind: Literal["histogram"] = "histogram"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.endswith("_seconds"):
            raise ValueError(f"{self.name}: a histogram's name must end in _seconds")
        if not self.bounds or list(self.bounds) != sorted(set(self.bounds)) or "le" in self.labels:
            raise ValueError(f"{self.name}: bounds must ascend, and no label may be named le")


Family = Counter | Gauge | Histogram


@dataclass(frozen=True)
class _Configured:
    """A family whose label values are names of the configuration, with `other` for all others.

    A page has no place for it: control counts it in memory, from events, and exports it beside the pages. It begins anew with
    each control process.
    """

    name: str
    help: str
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not a metric name: expected gw_ and lower-case words joined by _")


@dataclass(frozen=True)
class ConfiguredCounter(_Configured):
    """A sum that only increases."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.endswith("_total"):
            raise ValueError(f"{self.name}: a counter's name must end in _total")


@dataclass(frozen=True)
class ConfiguredInfo(_Configured):
    """One series with the value 1, whose labels are facts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.endswith("_info"):
            raise ValueError(f"{self.name}: the name must end in _info")


@dataclass(frozen=True)
class ConfiguredHistogram(_Configured):
    """Durations in seconds, by bucket."""

    bounds: tuple[float, ...] = WAIT_BOUNDS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.endswith("_seconds"):
            raise ValueError(f"{self.name}: a histogram's name must end in _seconds")


ConfiguredFamily = ConfiguredCounter | ConfiguredInfo | ConfiguredHistogram


# -- ring 1: the TX loop ----------------------------------------------------------------------------------------------

TX_SEND: Final = Histogram("gw_tx_send_seconds", "Time to hand one frame to the kernel.")
TX_LATENESS: Final = Histogram("gw_tx_lateness_seconds", "Delay of a frame's send after its deadline, within a talkspurt.")
TX_FRAMES: Final = Counter("gw_tx_frames_total", "Frames sent to callers.")
TX_UNDERRUN: Final = Counter(
    "gw_tx_underrun_seconds_total",
    "Silence heard by callers within the agent's speech, by cause: the AI's audio came too late (ai), or a frame that was there"
    " was sent too late (gateway).",
    {"cause": ("ai", "gateway")},
)
TX_HELD: Final = Counter(
    "gw_tx_held_seconds_total", "Silence heard by callers within the agent's speech: interruptions judged and dismissed."
)
TX_DROPPED: Final = Counter(
    "gw_tx_dropped_frames_total",
    "Frames to callers that were dropped, by reason.",
    {"reason": ("bargein", "overrun", "call_ended")},
)

# -- ring 2: the media plane ------------------------------------------------------------------------------------------

HUB_HOLD: Final = Histogram(
    "gw_hub_hold_seconds",
    "Time a greenlet, or the hub itself (hub), held the hub without a switch. Sampled while the hold monitor is on.",
    {"greenlet": ("tx", "rx", "ai_in", "ai_out", "server", "bus", "pool", "hub", "other")},
)
HUB_HOLD_CPU: Final = Histogram(
    "gw_hub_hold_cpu_seconds",
    "CPU time of each hold of the hub. Recorded only with ops.hold_monitor = always.",
    HUB_HOLD.labels,
)
GC_PAUSE: Final = Histogram(
    "gw_gc_pause_seconds",
    "Time the garbage collector stopped a media process, by the generation collected.",
    {"generation": ("young", "middle", "full")},
)
BARGEIN: Final = Histogram("gw_bargein_seconds", "From the AI's speech_started to the clear written to the caller.")
INTERRUPTIONS: Final = Counter(
    "gw_interruptions_total",
    "Times the caller spoke while the agent was heard, by verdict: model is a cut by the AI's voice detection; cut is the"
    " gateway's for the length of the speech, cut_words for its words; resumed is noise or a sign of attention; machine is an"
    " answering machine or a fax.",
    {"verdict": ("model", "cut", "cut_words", "resumed", "machine")},
)
FIRST_AUDIO: Final = Histogram(
    "gw_first_audio_seconds",
    "The caller's wait for the agent's first audio: from the stream's start, or, without a greeting, from the first request.",
    bounds=WAIT_BOUNDS,
)
WARM_LEGS: Final = Counter(
    "gw_warm_legs_total",
    "AI legs opened at the voice webhook, by outcome. elsewhere: the stream reached another worker. full: none was opened.",
    {"outcome": ("used", "unused", "failed", "full", "elsewhere")},
)
AI_RECONNECTS: Final = Counter(
    "gw_ai_reconnects_total",
    "AI legs replaced during a call, by reason.",
    {"reason": ("expiring", "closed", "lost", "stalled", "rate_limited", "failed")},
)
AI_ERRORS: Final = Counter(
    "gw_ai_errors_total",
    "Errors of the AI: benign is an expected race of a barge-in, error costs a response, fatal ends the session, unreadable is an"
    " event that was skipped.",
    {"kind": ("benign", "error", "fatal", "unreadable")},
)
RX_DROPPED: Final = Counter(
    "gw_rx_dropped_frames_total",
    "Messages from callers that did not reach the AI, by reason.",
    {
        "reason": (
            "ai_connecting",
            "ai_leg_busy",
            "surplus",  # beyond real time
            "empty",
            "unknown_event",
            "unknown_mark",  # also of a mark that a clear returned
            "other_track",
            "call_ended",
        )
    },
)
CALL_SURPLUS: Final = Counter(
    "gw_call_surplus_events_total",
    "Events of calls ignored beyond the limit of their kind: keys and interruptions of a caller, errors, tool calls and turns.",
    {"kind": ("keys", "interruption", "turn", "tool_call", "ai_error", "response_failed", "response_incomplete", "other")},
)
LOCKS_BUSY: Final = Counter(
    "gw_locks_busy_total",
    "Calls admitted without a check of their token's use, because other workers held its lock for too long.",
)
PONGS: Final = Counter(
    "gw_pongs_total",
    "Pings of peers that were answered, by leg. Twilio and OpenAI send a few a minute; of many at a time the last are answered.",
    {"leg": ("phone", "ai")},
)
CALLS: Final = Gauge("gw_calls", "Calls in progress, by state.", {"state": ("waiting", "connecting", "active", "closing")})
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
            "budget",
            "transferred",
            "digits_sent",
            "machine",
            "shutdown",
            "no_stream",
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
            "phone_frame_flood",
            "phone_message_flood",
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
            "ai_frame_flood",
            "ai_wrong_format",
            "ai_no_answer",
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
CONNECTIONS: Final = Gauge(
    "gw_connections",
    "Connections to the public port, by state: no complete head yet (head), in a request (request), idle after an answer (idle),"
    " a media socket (stream).",
    {"state": ("head", "request", "idle", "stream")},
)
REQUESTS_REFUSED: Final = Counter(
    "gw_requests_refused_total",
    "HTTP requests refused, and connections closed without a complete request, by reason.",
    {
        "reason": (
            # the head or body is not valid HTTP
            "bad_octet",
            "bad_request_line",
            "bad_version",
            "bad_field",
            "bad_host",
            "bad_framing",
            "bad_expectation",
            "bad_chunk",
            "line_too_long",
            "head_too_long",
            "body_too_long",
            "cut_off",
            # too slow, or too many
            "head_timeout",
            "body_timeout",
            "displaced",
            "address_limit",
            # no right to what was requested
            "not_found",
            "bad_method",
            "bad_upgrade",
            "bad_form",
            "no_signature",
            "bad_signature",
            "wrong_account",
            "foreign_host",
            "foreign_origin",
        )
    },
)
WEBHOOKS: Final = Counter(
    "gw_webhooks_total",
    "Webhooks from Twilio, by kind and outcome.",
    {
        "kind": ("voice", "status", "recording", "stream", "action", "whisper", "amd"),
        "outcome": ("accepted", "repeated", "bad_signature", "wrong_account", "bad_request", "busy", "failed"),
    },
)
TRANSFERS: Final = Counter(
    "gw_transfers_total",
    "Transfers that Twilio ended, by outcome. Completed: the two were connected; canceled: the caller left first.",
    {"outcome": ("completed", "no_answer", "busy", "declined", "failed", "canceled")},
)
OVERFLOW: Final = Counter(
    "gw_overflow_calls_total",
    "Calls turned away, by reason: the machine is full, its workers are late, it is drained, a day's budget is spent, or the AI"
    " allows too few tokens in this minute.",
    {"reason": ("full", "late", "drained", "budget", "tokens")},
)
CALL_CAPACITY: Final = Gauge("gw_call_capacity", "Call slots of all workers that accept calls.")
CALLS_RESERVED: Final = Gauge("gw_calls_reserved", "Call slots reserved for admitted calls whose media stream has not started.")
STREAMS_MISSED: Final = Counter(
    "gw_streams_missed_total", "Admitted calls whose media stream did not start in time: their reserved slot was released."
)
BUS_UNACKED: Final = Gauge("gw_bus_unacked_events", "Events held by workers until control acknowledges them.")
BUS_DROPPED: Final = Counter(
    "gw_bus_dropped_events_total",
    "Events dropped by a worker because its buffer to control was full, by kind.",
    {
        "kind": (
            "call_started",
            "first_audio",
            "start_recording",
            "turn",
            "call_ended",
            "usage",
            "call_event",
            "webhook",
            "job_wanted",
        )
    },
)

# -- ring 3: the control plane ----------------------------------------------------------------------------------------

TURN_LATENCY: Final = ConfiguredHistogram(
    "gw_turn_latency_seconds",
    "The caller's wait for an answer, from their last sound to the answer's first frame, by agent. Agents that are not configured"
    " are other.",
    ("agent",),
)
TURN_PART: Final = ConfiguredHistogram(
    "gw_turn_latency_part_seconds",
    "Parts of gw_turn_latency_seconds: the voice detection's pause (pause), the AI until its first audio (ai), tools (tool),"
    " judging interruptions and queued audio (gateway).",
    ("part",),
)
HOOK_BACKLOG: Final = Gauge("gw_hook_backlog", "Requests to the user's endpoints without a result: waiting or under way.")
HOOK_OLDEST: Final = Gauge("gw_hook_oldest_seconds", "Age of the oldest request in gw_hook_backlog.")
TOOL_SECONDS: Final = Histogram(
    "gw_tool_seconds",
    "From the acceptance of a tool call to its result, by outcome.",
    {
        "outcome": (
            *("ok", "timeout", "refused", "unavailable", "busy", "too_large", "invalid_arguments", "unknown_outcome"),
            "cancelled",
        )
    },
    bounds=HOOK_BOUNDS,
)
RECORDING_TRIGGER: Final = Histogram(
    "gw_recording_trigger_seconds",
    "From the agent's first frame to the first request to record.",
    bounds=WAIT_BOUNDS,
)
RECORDINGS: Final = Counter(
    "gw_recordings_total",
    "Recordings, by outcome.",
    {"outcome": ("started", "completed", "failed", "absent", "call_over", "skipped", "duplicate", "twice")},
)
RECORDING_PAUSES: Final = Counter(
    "gw_recording_pauses_total",
    "Pauses of recordings while callers type sensitive digits, by outcome.",
    {"outcome": ("paused", "resumed", "pause_failed", "resume_retried")},
)
RECORDING_CLAIMS_HELD: Final = Gauge(
    "gw_recording_claims_held", "Recording claims kept in the spool while the store is unavailable, not yet copied to it."
)
TWILIO_CIRCUIT_OPEN: Final = Gauge(
    "gw_twilio_circuit_open", "1 while the circuit breaker for Twilio's REST API is open: only an occasional request is sent."
)
RECORDINGS_OVERDUE: Final = Gauge(
    "gw_recordings_overdue", "Recordings without a final status an hour after they started, of calls not in progress here."
)
RECORDINGS_FETCHED: Final = Counter(
    "gw_recordings_fetched_total",
    "Downloads of finished recordings, by outcome; a failed one is repeated.",
    {"outcome": ("fetched", "failed", "gone")},
)
RECORDINGS_DELETED: Final = Counter("gw_recordings_deleted_total", "Recordings deleted at Twilio.")
CALLS_PURGED: Final = Counter("gw_purged_calls_total", "Calls removed from the store because of their age.")
HOOK_REQUESTS: Final = Counter(
    "gw_hook_requests_total",
    "Requests to the user's endpoints, by kind and outcome.",
    {
        "kind": ("tool", "event", "route"),
        "outcome": (
            "ok",
            "too_large",
            "redirect",
            "client_error",
            "server_error",
            "refused",
            "busy",
            "unreachable",
            "timeout",
            "lost",
        ),
    },
)
HOOK_SECONDS: Final = Histogram(
    "gw_hook_seconds",
    "Duration of a request to a user's endpoint, with the wait for a connection.",
    {"kind": ("tool", "event", "route")},
    bounds=HOOK_BOUNDS,
)
ROUTE_LOOKUPS: Final = Counter(
    "gw_route_lookups_total",
    "Questions to the user's endpoint who answers a call, by outcome; all but ok are decided by route.on_failure.",
    {"outcome": ("ok", "bad_answer", "timeout", "refused", "unavailable", "busy")},
)
STORE_BACKLOG: Final = Gauge("gw_store_backlog_events", "Events in the spool not yet written to the store.")
STORE_REFUSED: Final = Gauge("gw_store_refused_events", "Events permanently refused by the store, kept aside in the spool.")
STORE_REFUSES: Final = Gauge(
    "gw_store_refuses_all", "1 while the store refuses every event of a batch: none is set aside, all wait in the spool."
)
AI_TOKENS: Final = ConfiguredCounter(
    "gw_ai_tokens_total",
    "Tokens used of AI models, by kind; *_in without the cached ones. Models that are not configured are other.",
    ("model", "kind"),
)
AI_COST: Final = ConfiguredCounter(
    "gw_ai_cost_usd_total",
    "Cost of the AI in USD, by the configured prices. Agents that are not configured are other.",
    ("agent",),
)
BUDGET_DAY: Final = Gauge("gw_budget_day_spent_ratio", "Spent share of budget.day_usd, since midnight UTC; 0 without that limit.")
WORKERS: Final = Gauge("gw_workers", "Media workers, by state.", {"state": ("up", "draining", "lost")})

READY: Final = Gauge("gw_ready", "1 while new calls are accepted, as in /readyz.")
DRAINED: Final = Gauge("gw_drained", "1 while an operator has drained the machine.")
START_TIME: Final = Gauge("gw_start_time_seconds", "Start of the gateway, or of its last reload, in epoch seconds.")
RELOAD_TIME: Final = Gauge(
    "gw_reload_time_seconds", "End of the last reload that took effect, in epoch seconds; 0 before the first."
)
BUILD_INFO: Final = ConfiguredInfo("gw_build_info", "1, with the versions of the gateway and of Python.", ("version", "python"))
RELOAD_FAILED: Final = Gauge("gw_reload_failed", "1 if the last reload failed: the processes before it continue.")
DISK_FREE: Final = Gauge("gw_disk_free_bytes", "Free space of the file system of ops.var_dir, which has the spool.")
SPOOL_CORRUPT: Final = Gauge("gw_spool_corrupt_files", "Corrupt spool files that were set aside in ops.var_dir.")
STORE_SCHEMA: Final = Gauge(
    "gw_store_schema",
    "1 for the present state of the store's schema: not checked yet (unknown), usable (ready), newer than this version can use"
    " (ahead), or its check or upgrade fails (failed).",
    {"state": ("unknown", "ready", "ahead", "failed")},
)

# -- every process ----------------------------------------------------------------------------------------------------

PROCESS_STARTS: Final = Counter(
    "gw_process_starts_total", "Process starts, including the first.", {"process": ("control", "worker")}
)
PROCESS_CPU: Final = Counter(
    "gw_process_cpu_seconds_total", "CPU time used, by kind of process.", {"process": ("control", "worker")}
)
PROCESS_RSS: Final = Gauge(
    "gw_process_resident_bytes",
    "Resident memory, by kind of process; shared memory counts in each.",
    {"process": ("control", "worker")},
)
PROCESS_FDS: Final = Gauge("gw_process_open_fds", "Open descriptors, by kind of process.", {"process": ("control", "worker")})

#: Families without a place in the pages.
BESIDE_PAGES: Final[tuple[ConfiguredFamily, ...]] = (TURN_LATENCY, TURN_PART, AI_TOKENS, AI_COST, BUILD_INFO)

#: All families, in the order of a page's series.
FAMILIES: Final[tuple[Family, ...]] = (
    TX_SEND,
    TX_LATENESS,
    TX_FRAMES,
    TX_UNDERRUN,
    TX_HELD,
    TX_DROPPED,
    HUB_HOLD,
    HUB_HOLD_CPU,
    GC_PAUSE,
    BARGEIN,
    INTERRUPTIONS,
    FIRST_AUDIO,
    WARM_LEGS,
    AI_RECONNECTS,
    AI_ERRORS,
    RX_DROPPED,
    CALL_SURPLUS,
    LOCKS_BUSY,
    PONGS,
    CALLS,
    CALLS_ENDED,
    STREAMS_REFUSED,
    CONNECTIONS,
    REQUESTS_REFUSED,
    WEBHOOKS,
    TRANSFERS,
    OVERFLOW,
    CALL_CAPACITY,
    CALLS_RESERVED,
    STREAMS_MISSED,
    BUS_UNACKED,
    BUS_DROPPED,
    HOOK_BACKLOG,
    HOOK_OLDEST,
    TOOL_SECONDS,
    RECORDING_TRIGGER,
    RECORDINGS,
    RECORDING_PAUSES,
    RECORDING_CLAIMS_HELD,
    TWILIO_CIRCUIT_OPEN,
    RECORDINGS_OVERDUE,
    RECORDINGS_FETCHED,
    RECORDINGS_DELETED,
    CALLS_PURGED,
    HOOK_REQUESTS,
    HOOK_SECONDS,
    ROUTE_LOOKUPS,
    STORE_BACKLOG,
    STORE_REFUSED,
    STORE_REFUSES,
    BUDGET_DAY,
    WORKERS,
    READY,
    DRAINED,
    START_TIME,
    RELOAD_TIME,
    RELOAD_FAILED,
    DISK_FREE,
    SPOOL_CORRUPT,
    STORE_SCHEMA,
    PROCESS_STARTS,
    PROCESS_CPU,
    PROCESS_RSS,
    PROCESS_FDS,
)
