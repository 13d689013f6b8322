"""*Recording and store*: whether every call is recorded in time, and whether anything is stuck on its way to the store."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.board import AnyPanel, board
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, bars, buckets, curves, number, quantile, within
from metrics.declare import (
    BUS_DROPPED,
    BUS_UNACKED,
    PROCESS_STARTS,
    RECORDING_CLAIMS_HELD,
    RECORDING_TRIGGER,
    RECORDINGS,
    RECORDINGS_OVERDUE,
    STORE_BACKLOG,
    STORE_REFUSED,
    TWILIO_CIRCUIT_OPEN,
    WORKERS,
)
from metrics.exposition import PAGES_NAME

#: From the first frame to the request.
_EDGE_S = 0.25


def recording_and_store() -> dashboard.Dashboard:
    """The dashboard."""
    return board(
        "recording",
        "Recording and store",
        "Whether every call is recorded, in time, and whether anything waits or was lost on its way to the store.",
        [("Recording", _recording()), ("Events on their way to the store", _events()), ("Processes", _processes())],
    )


def _recording() -> list[AnyPanel]:
    def how_many(outcome: str) -> str:
        return f'sum (increase({RECORDINGS.name}{{{CHOSEN}, outcome=~"{outcome}"}}[$__range]))'

    return [
        number("Started", "In the chosen time.", how_many("started"), unit="short", steps=[(None, "text")], decimals=0),
        number("Completed", "As Twilio told.", how_many("completed"), unit="short", steps=[(None, "text")], decimals=0),
        number(
            "Failed or absent",
            "Calls without a recording although one was wanted.",
            how_many("failed|absent"),
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            decimals=0,
        ),
        number(
            "Overdue",
            "Recordings whose end nobody knows an hour after they began.",
            f"sum ({RECORDINGS_OVERDUE.name}{{{CHOSEN}}})",
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
        ),
        number(
            "Asked for within 250 ms",
            "From the first frame a caller was sent to the request to record.",
            within(RECORDING_TRIGGER, _EDGE_S, window="$__range"),
            unit="percentunit",
            steps=[(None, RED), (0.95, YELLOW), (0.99, GREEN)],
            decimals=1,
        ),
        number(
            "Trigger p99",
            "One recording in a hundred was asked for later than this.",
            quantile(0.99, RECORDING_TRIGGER, window="$__range"),
            unit="s",
            steps=[(None, GREEN), (_EDGE_S, RED)],
        ),
        curves(
            "Trigger",
            "From the first frame a caller was sent to the request to record; the line is 250 ms.",
            [(quantile(q, RECORDING_TRIGGER), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))],
            unit="s",
            line_at=_EDGE_S,
        ),
        buckets(
            "Trigger, within 250 ms",
            "The recordings asked for in time, by how soon.",
            RECORDING_TRIGGER,
            edge=_EDGE_S,
            beyond=False,
            height=8,
        ),
        curves(
            "Outcomes per minute",
            "`duplicate` is a second event for a call that has its recording: harmless. `skipped` has no credentials.",
            [(f"60 * sum by (outcome) (rate({RECORDINGS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{outcome}}")],
            unit="short",
        ),
        curves(
            "What recordings wait for",
            "`Twilio is down`: 1 while its REST API is, and one request now and then tries. `claims in the spool`: recordings "
            "that were begun while the store was away, and are brought to it when it is back.",
            [
                (f"max by (instance) ({TWILIO_CIRCUIT_OPEN.name}{{{CHOSEN}}})", "{{instance}} Twilio is down"),
                (f"sum by (instance) ({RECORDING_CLAIMS_HELD.name}{{{CHOSEN}}})", "{{instance}} claims in the spool"),
            ],
            unit="short",
        ),
    ]


def _events() -> list[AnyPanel]:
    return [
        number(
            "Backlog",
            "Events in the spool that the store has not taken.",
            f"sum ({STORE_BACKLOG.name}{{{CHOSEN}}})",
            unit="short",
            steps=[(None, GREEN), (20.0, YELLOW), (1000.0, RED)],
            span=6,
        ),
        number(
            "Refused",
            "Events the store refused for good; kept aside until somebody looks.",
            f"sum ({STORE_REFUSED.name}{{{CHOSEN}}})",
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            span=6,
        ),
        number(
            "Unacknowledged",
            "Events that workers keep because control has not taken them.",
            f"sum ({BUS_UNACKED.name}{{{CHOSEN}}})",
            unit="short",
            steps=[(None, GREEN), (20.0, YELLOW), (1000.0, RED)],
            span=6,
        ),
        number(
            "Lost",
            "Events a worker dropped because its buffer was full. They are gone.",
            f"sum (increase({BUS_DROPPED.name}{{{CHOSEN}}}[$__range]))",
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            span=6,
            decimals=0,
        ),
        curves(
            "Waiting for the store",
            "By gateway. It rises while the store is away and falls by itself.",
            [(f"sum by (instance) ({STORE_BACKLOG.name}{{{CHOSEN}}})", "{{instance}}")],
            unit="short",
        ),
        curves(
            "Waiting in the workers",
            "By gateway. It rises while control is away or cannot write its spool.",
            [(f"sum by (instance) ({BUS_UNACKED.name}{{{CHOSEN}}})", "{{instance}}")],
            unit="short",
        ),
        bars(
            "Lost, by kind",
            "What was dropped in the chosen time: a lost `start_recording` is a call without a recording.",
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
            "As control sees them: `lost` has no connection.",
            [(f"sum by (state) ({WORKERS.name}{{{CHOSEN}}})", "{{state}}")],
            unit="short",
            stacked=True,
            span=8,
        ),
        curves(
            "Starts in five minutes",
            "A rollover starts each worker once more; starts that repeat are something that dies.",
            [(f"sum by (instance, process) (increase({PROCESS_STARTS.name}{{{CHOSEN}}}[5m]))", "{{instance}} {{process}}")],
            unit="short",
            span=8,
        ),
        curves(
            "Pages of figures",
            "What these dashboards are made of: `live` is a process that runs, `left` one that ended, whose sums still count. "
            "`other_version` is left out: what such a process did is not in any figure here.",
            [(f"sum by (state) ({PAGES_NAME}{{{CHOSEN}}})", "{{state}}")],
            unit="short",
            span=8,
        ),
    ]
