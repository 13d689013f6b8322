"""Dashboard *Recording and store*: recordings, events on their way to the store, processes."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, metrics_dashboard
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, bars, buckets, curves, number, quantile, within
from metrics.declare import (
    BUS_DROPPED,
    BUS_UNACKED,
    CALLS_PURGED,
    PROCESS_STARTS,
    RECORDING_CLAIMS_HELD,
    RECORDING_PAUSES,
    RECORDING_TRIGGER,
    RECORDINGS,
    RECORDINGS_DELETED,
    RECORDINGS_FETCHED,
    RECORDINGS_OVERDUE,
    STORE_BACKLOG,
    STORE_REFUSED,
    TWILIO_CIRCUIT_OPEN,
    WORKERS,
)
from metrics.exposition import PAGES_NAME

#: Limit of the promise: from the first frame to the request to record.
_EDGE_S = 0.25


def recording_and_store() -> dashboard.Dashboard:
    """Build the dashboard."""
    return metrics_dashboard(
        "recording",
        "Recording and store",
        "Recordings and their delay, events that wait for the store or were lost, and processes.",
        [("Recording", _recording()), ("Events on their way to the store", _events()), ("Processes", _processes())],
    )


def _recording() -> list[AnyPanel]:
    def total(outcome: str) -> str:
        return f'sum (increase({RECORDINGS.name}{{{CHOSEN}, outcome=~"{outcome}"}}[$__range]))'

    return [
        number("Started", "In the selected time range.", total("started"), unit="short", steps=[(None, "text")], decimals=0),
        number("Completed", "As reported by Twilio.", total("completed"), unit="short", steps=[(None, "text")], decimals=0),
        number(
            "Failed or absent",
            "Calls that should have a recording and have none.",
            total("failed|absent"),
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            decimals=0,
        ),
        number(
            "Overdue",
            "Recordings without a final status an hour after they started.",
            f"sum ({RECORDINGS_OVERDUE.name}{{{CHOSEN}}})",
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
        ),
        number(
            "Requested within 250 ms",
            "Share of recordings, from the first frame sent to the caller to the request to record.",
            within(RECORDING_TRIGGER, _EDGE_S, window="$__range"),
            unit="percentunit",
            steps=[(None, RED), (0.95, YELLOW), (0.99, GREEN)],
            decimals=1,
        ),
        number(
            "Trigger p99",
            "1 % of recordings were requested later than this after the first frame.",
            quantile(0.99, RECORDING_TRIGGER, window="$__range"),
            unit="s",
            steps=[(None, GREEN), (_EDGE_S, RED)],
        ),
        curves(
            "Trigger",
            "Time from the first frame sent to the caller to the request to record; the line is 250 ms.",
            [(quantile(q, RECORDING_TRIGGER), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))],
            unit="s",
            line_at=_EDGE_S,
        ),
        buckets(
            "Trigger, within 250 ms",
            "Recordings requested in time, by delay.",
            RECORDING_TRIGGER,
            edge=_EDGE_S,
            beyond=False,
        ),
        curves(
            "Outcomes per minute",
            "`duplicate` is a second event for a call that has its recording, and harmless. `skipped` means no credentials.",
            [(f"60 * sum by (outcome) (rate({RECORDINGS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{outcome}}")],
            unit="short",
        ),
        curves(
            "Pauses per minute",
            "Pauses while callers type sensitive digits. `pause_failed`: the tool failed, and no digit was collected. "
            "`resume_retried`: Twilio did not let a recording continue yet.",
            [(f"60 * sum by (outcome) (rate({RECORDING_PAUSES.name}{{{CHOSEN}}}[$__rate_interval]))", "{{outcome}}")],
            unit="short",
        ),
        curves(
            "Waiting recordings",
            "`circuit open`: 1 while Twilio's REST API is down and only an occasional request is sent. `claims in the spool`: "
            "recordings started while the store was unavailable, copied to it when it returns.",
            [
                (f"max by (instance) ({TWILIO_CIRCUIT_OPEN.name}{{{CHOSEN}}})", "{{instance}} circuit open"),
                (f"sum by (instance) ({RECORDING_CLAIMS_HELD.name}{{{CHOSEN}}})", "{{instance}} claims in the spool"),
            ],
            unit="short",
            decimals=0,
        ),
        curves(
            "Retention per minute",
            "Recordings downloaded and deleted at Twilio, and calls removed from the store because of their age.",
            [
                (
                    f"60 * sum by (outcome) (rate({RECORDINGS_FETCHED.name}{{{CHOSEN}}}[$__rate_interval]))",
                    "download {{outcome}}",
                ),
                (f"60 * sum (rate({RECORDINGS_DELETED.name}{{{CHOSEN}}}[$__rate_interval]))", "deleted at Twilio"),
                (f"60 * sum (rate({CALLS_PURGED.name}{{{CHOSEN}}}[$__rate_interval]))", "calls removed"),
            ],
            unit="short",
        ),
    ]


def _events() -> list[AnyPanel]:
    return [
        number(
            "Backlog",
            "Events in the spool not yet written to the store.",
            f"sum ({STORE_BACKLOG.name}{{{CHOSEN}}})",
            unit="short",
            steps=[(None, GREEN), (20.0, YELLOW), (1000.0, RED)],
            span=6,
        ),
        number(
            "Refused",
            "Events permanently refused by the store. `gateway.py db poison list` shows them.",
            f"sum ({STORE_REFUSED.name}{{{CHOSEN}}})",
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            span=6,
        ),
        number(
            "Unacknowledged",
            "Events held by workers until control acknowledges them.",
            f"sum ({BUS_UNACKED.name}{{{CHOSEN}}})",
            unit="short",
            steps=[(None, GREEN), (20.0, YELLOW), (1000.0, RED)],
            span=6,
        ),
        number(
            "Lost",
            "Events dropped by a worker because its buffer was full. They cannot be recovered.",
            f"sum (increase({BUS_DROPPED.name}{{{CHOSEN}}}[$__range]))",
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            span=6,
            decimals=0,
        ),
        curves(
            "Waiting for the store",
            "By gateway. It rises while the store is unavailable, and falls automatically afterwards.",
            [(f"sum by (instance) ({STORE_BACKLOG.name}{{{CHOSEN}}})", "{{instance}}")],
            unit="short",
            decimals=0,
        ),
        curves(
            "Waiting in the workers",
            "By gateway. It rises while control is down or cannot write its spool.",
            [(f"sum by (instance) ({BUS_UNACKED.name}{{{CHOSEN}}})", "{{instance}}")],
            unit="short",
            decimals=0,
        ),
        bars(
            "Lost, by kind",
            "Events dropped in the selected time range. A lost `start_recording` is a call without a recording.",
            [(f"sum by (kind) (increase({BUS_DROPPED.name}{{{CHOSEN}}}[$__range]))", "{{kind}}")],
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            span=24,
            height=7,
            decimals=0,
        ),
    ]


def _processes() -> list[AnyPanel]:
    return [
        curves(
            "Workers",
            "By state. A `lost` worker has no connection to control.",
            [(f"sum by (state) ({WORKERS.name}{{{CHOSEN}}})", "{{state}}")],
            unit="short",
            decimals=0,
            stacked=True,
            span=8,
        ),
        curves(
            "Process starts in five minutes",
            "A reload starts each worker once more. Repeated starts mean a process that dies.",
            [(f"sum by (instance, process) (increase({PROCESS_STARTS.name}{{{CHOSEN}}}[5m]))", "{{instance}} {{process}}")],
            unit="short",
            decimals=0,
            span=8,
        ),
        curves(
            "Metric pages",
            "Sources of these figures. `live`: the page of a running process. `left`: of an ended process, whose sums still "
            "count. `other_version`: skipped, so that process is missing from all figures.",
            [(f"sum by (state) ({PAGES_NAME}{{{CHOSEN}}})", "{{state}}")],
            unit="short",
            decimals=0,
            span=8,
        ),
    ]
