"""Dashboard *Fleet*: all gateways side by side, and the alerts that fire."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, metrics_dashboard
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, Column, alerts, curves, gateways, quantile
from metrics.declare import (
    BUILD_INFO,
    CALL_CAPACITY,
    CALLS,
    CALLS_RESERVED,
    DRAINED,
    LATE_S,
    PROCESS_CPU,
    PROCESS_FDS,
    PROCESS_RSS,
    READY,
    START_TIME,
    TX_LATENESS,
    TX_SEND,
)

_DETAILS: Final = "/d/submilli-latency?var-instance=${__value.raw}&${__url_time_range}"


def fleet() -> dashboard.Dashboard:
    """Build the dashboard."""
    return metrics_dashboard(
        "fleet",
        "Fleet",
        "All gateways side by side, the alerts that fire, and the resources of their processes.",
        [("Gateways", _gateways()), ("Load", _load()), ("Processes", _processes())],
    )


def _gateways() -> list[AnyPanel]:
    by = "by (instance)"
    late = f'sum {by} (increase({TX_LATENESS.name}_bucket{{{CHOSEN}, le="{LATE_S}"}}[$__range]))'
    return [
        gateways(
            "Gateways",
            "One row per gateway. Late: share of frames sent more than 5 ms after their deadline, in the selected time range. "
            "Uptime: since the start or the last reload. Click a gateway for its latency.",
            [
                Column("ready", f"max {by} ({READY.name}{{{CHOSEN}}})", unit="bool_yes_no", steps=[(None, RED), (1.0, GREEN)]),
                Column(
                    "drained", f"max {by} ({DRAINED.name}{{{CHOSEN}}})", unit="bool_yes_no", steps=[(None, "text"), (1.0, YELLOW)]
                ),
                Column("calls", f"sum {by} ({CALLS.name}{{{CHOSEN}}})"),
                Column("reserved", f"sum {by} ({CALLS_RESERVED.name}{{{CHOSEN}}})"),
                Column("slots", f"sum {by} ({CALL_CAPACITY.name}{{{CHOSEN}}})"),
                Column(
                    "late",
                    f"1 - {late} / sum {by} (increase({TX_LATENESS.name}_count{{{CHOSEN}}}[$__range]))",
                    unit="percentunit",
                    decimals=2,
                    steps=[(None, GREEN), (0.01, YELLOW), (0.05, RED)],
                ),
                Column(
                    "send p99.9",
                    quantile(0.999, TX_SEND, "instance", window="$__range"),
                    unit="s",
                    decimals=2,
                    steps=[(None, GREEN), (0.001, RED)],
                ),
                Column("version", f"max by (instance, version) ({BUILD_INFO.name}{{{CHOSEN}}})", label="version"),
                Column("uptime", f"time() - max {by} ({START_TIME.name}{{{CHOSEN}}})", unit="s", decimals=0),
            ],
            link=_DETAILS,
        ),
        alerts(
            "Alerts",
            "Alerts of these gateways, `pending` until their cause has lasted as long as the alert requires. Empty: none. "
            "`deploy/prometheus/RUNBOOK.md` has a section for each.",
        ),
    ]


def _load() -> list[AnyPanel]:
    late = f'sum by (instance) (rate({TX_LATENESS.name}_bucket{{{CHOSEN}, le="{LATE_S}"}}[$__rate_interval]))'
    return [
        curves(
            "Slots in use by gateway",
            "Calls and reservations as a share of the slots.",
            [
                (
                    f"(sum by (instance) ({CALLS.name}{{{CHOSEN}}}) + sum by (instance) ({CALLS_RESERVED.name}{{{CHOSEN}}}))"
                    f" / (sum by (instance) ({CALL_CAPACITY.name}{{{CHOSEN}}}) > 0)",
                    "{{instance}}",
                )
            ],
            unit="percentunit",
            line_at=0.9,
        ),
        curves(
            "Late frames by gateway",
            "Share of frames sent more than 5 ms after their deadline.",
            [(f"1 - {late} / sum by (instance) (rate({TX_LATENESS.name}_count{{{CHOSEN}}}[$__rate_interval]))", "{{instance}}")],
            unit="percentunit",
        ),
    ]


def _processes() -> list[AnyPanel]:
    by = "sum by (instance, process)"
    return [
        curves(
            "CPU",
            "Cores in use, by kind of process. `worker`: all media workers of a gateway.",
            [(f"{by} (rate({PROCESS_CPU.name}{{{CHOSEN}}}[$__rate_interval]))", "{{instance}} {{process}}")],
            unit="cores",
            span=8,
        ),
        curves(
            "Memory",
            "Resident memory by kind of process. Pages that workers share count in each of them.",
            [(f"{by} ({PROCESS_RSS.name}{{{CHOSEN}}})", "{{instance}} {{process}}")],
            unit="bytes",
            span=8,
        ),
        curves(
            "Descriptors",
            "Open descriptors by kind of process: two for each call, and some for the gateway itself.",
            [(f"{by} ({PROCESS_FDS.name}{{{CHOSEN}}})", "{{instance}} {{process}}")],
            unit="short",
            decimals=0,
            span=8,
        ),
    ]
