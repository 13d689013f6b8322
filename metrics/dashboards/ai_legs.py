"""Dashboard *AI legs*: failures of the AI, and their effect on callers."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, metrics_dashboard
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, bars, curves, number
from metrics.declare import AI_ERRORS, AI_RECONNECTS, CALLS_ENDED, RX_DROPPED

#: Ends caused by a failure of the AI, including those with a fallback.
_BY_AI = 'reason=~"ai_.+|fallback_.+", reason!="ai_hangup"'


def ai_legs() -> dashboard.Dashboard:
    """Build the dashboard."""
    return metrics_dashboard(
        "ai",
        "AI legs",
        "Failures of the AI, and their effect on callers.",
        [("Summary", _numbers()), ("Failures", _failures())],
    )


def _numbers() -> list[AnyPanel]:
    ended = f"sum (increase({CALLS_ENDED.name}{{{CHOSEN}, {_BY_AI}}}[$__range]))"
    return [
        number(
            "Calls the AI ended",
            "Share of ended calls that ended because the AI failed.",
            f"{ended} / sum (increase({CALLS_ENDED.name}{{{CHOSEN}}}[$__range]))",
            unit="percentunit",
            steps=[(None, GREEN), (0.01, YELLOW), (0.05, RED)],
            span=8,
            decimals=1,
        ),
        number(
            "Errors",
            "Error events from the AI, without the harmless ones of a barge-in.",
            f'sum (increase({AI_ERRORS.name}{{{CHOSEN}, kind=~"error|fatal"}}[$__range]))',
            unit="short",
            steps=[(None, GREEN), (1.0, YELLOW), (10.0, RED)],
            span=8,
            decimals=0,
        ),
        number(
            "Legs replaced",
            "AI legs replaced after a failure. Planned replacements at the end of a session are not counted.",
            f'sum (increase({AI_RECONNECTS.name}{{{CHOSEN}, reason!="expiring"}}[$__range]))',
            unit="short",
            steps=[(None, GREEN), (1.0, YELLOW), (10.0, RED)],
            span=8,
            decimals=0,
        ),
    ]


def _failures() -> list[AnyPanel]:
    return [
        curves(
            "Errors per minute",
            "`benign` is an expected race of a barge-in, `error` costs a response, `fatal` ends the session.",
            [(f"60 * sum by (kind) (rate({AI_ERRORS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{kind}}")],
            unit="short",
        ),
        curves(
            "Legs replaced per minute",
            "By reason. `expiring` is a planned replacement before the end of the session.",
            [(f"60 * sum by (reason) (rate({AI_RECONNECTS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{reason}}")],
            unit="short",
        ),
        curves(
            "Frames to the AI dropped, per second",
            "Frames from callers dropped because the AI leg was not connected or was congested.",
            [
                (
                    f'sum by (reason) (rate({RX_DROPPED.name}{{{CHOSEN}, reason=~"ai_.+"}}[$__rate_interval]))',
                    "{{reason}}",
                )
            ],
            unit="short",
        ),
        bars(
            "Calls the AI ended, by reason",
            "In the selected time range, by reason. `deploy/reasons.md` has the next step for each reason.",
            [
                (
                    f"sort_desc(topk(6, sum by (reason) (increase({CALLS_ENDED.name}{{{CHOSEN}, {_BY_AI}}}[$__range]))))",
                    "{{reason}}",
                )
            ],
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            decimals=0,
        ),
    ]
