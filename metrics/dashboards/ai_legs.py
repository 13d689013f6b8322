"""Dashboard *AI legs*: response time, failures and cost of the AI, and their effect on callers."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, metrics_dashboard
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, bars, buckets, curves, number, quantile
from metrics.declare import (
    AI_COST,
    AI_ERRORS,
    AI_RECONNECTS,
    AI_TOKENS,
    BUDGET_DAY,
    CALLS_ENDED,
    FIRST_AUDIO,
    RX_DROPPED,
    TX_DROPPED,
    WARM_LEGS,
)

#: Ends caused by a failure of the AI, including those with a fallback.
_BY_AI = 'reason=~"ai_.+|fallback_.+", reason!="ai_hangup"'


def ai_legs() -> dashboard.Dashboard:
    """Build the dashboard."""
    return metrics_dashboard(
        "ai",
        "AI legs",
        "Response time, failures and cost of the AI, and their effect on callers.",
        [("Summary", _numbers()), ("Response time", _speed()), ("Failures", _failures()), ("Cost", _cost())],
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
            span=6,
            decimals=1,
        ),
        number(
            "Errors",
            "Error events from the AI, without the harmless ones of a barge-in.",
            f'sum (increase({AI_ERRORS.name}{{{CHOSEN}, kind=~"error|fatal"}}[$__range]))',
            unit="short",
            steps=[(None, GREEN), (1.0, YELLOW), (10.0, RED)],
            span=6,
            decimals=0,
        ),
        number(
            "Legs replaced",
            "AI legs replaced after a failure. Planned replacements at the end of a session are not counted.",
            f'sum (increase({AI_RECONNECTS.name}{{{CHOSEN}, reason!="expiring"}}[$__range]))',
            unit="short",
            steps=[(None, GREEN), (1.0, YELLOW), (10.0, RED)],
            span=6,
            decimals=0,
        ),
        number(
            "First word, p50",
            "Half of the callers waited longer than this.",
            quantile(0.5, FIRST_AUDIO, window="$__range"),
            unit="s",
            steps=[(None, GREEN), (1.6, YELLOW), (2.5, RED)],
            span=6,
        ),
    ]


def _speed() -> list[AnyPanel]:
    return [
        curves(
            "First word",
            "Wait for the agent's first audio: from the stream's start, or, without a greeting, from the first request.",
            [(quantile(q, FIRST_AUDIO), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))],
            unit="s",
        ),
        buckets(
            "First word, within 4 s",
            "Callers by their waiting time.",
            FIRST_AUDIO,
            edge=4.0,
            beyond=False,
            height=8,
        ),
        curves(
            "Warm legs per minute",
            "AI legs opened at the voice webhook, by outcome. `elsewhere`: the stream reached another worker.",
            [(f"60 * sum by (outcome) (rate({WARM_LEGS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{outcome}}")],
            unit="short",
            span=24,
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
        curves(
            "Frames from the AI dropped, per second",
            "Frames no caller heard: after an interruption, beyond the buffer's bound, or after the call's end.",
            [(f"sum by (reason) (rate({TX_DROPPED.name}{{{CHOSEN}}}[$__rate_interval]))", "{{reason}}")],
            unit="short",
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
        bars(
            "Calls the AI ended",
            "In the selected time range, by reason. `deploy/reasons.md` has the next step for each reason.",
            [
                (
                    f"sort_desc(topk(6, sum by (reason) (increase({CALLS_ENDED.name}{{{CHOSEN}, {_BY_AI}}}[$__range]))))",
                    "{{reason}}",
                )
            ],
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            span=24,
            decimals=0,
        ),
    ]


def _cost() -> list[AnyPanel]:
    spent = f"sum (increase({AI_COST.name}{{{CHOSEN}}}[$__range]))"
    return [
        number(
            "Cost",
            "In USD, in the selected time range, by `[prices]`.",
            spent,
            unit="currencyUSD",
            steps=[(None, GREEN)],
            span=8,
            decimals=2,
        ),
        number(
            "Cost per call",
            "In USD, by calls that ended in the selected time range.",
            f"{spent} / sum (increase({CALLS_ENDED.name}{{{CHOSEN}}}[$__range]))",
            unit="currencyUSD",
            steps=[(None, GREEN)],
            span=8,
            decimals=4,
        ),
        number(
            "Budget of the day",
            "Spent share of `budget.day_usd`, since midnight UTC; at 100 % calls end and new callers hear the overflow.",
            f"max ({BUDGET_DAY.name}{{{CHOSEN}}})",
            unit="percentunit",
            steps=[(None, GREEN), (0.8, YELLOW), (1.0, RED)],
            span=8,
            decimals=1,
        ),
        curves(
            "Cost per hour",
            "In USD, by agent.",
            [(f"3600 * sum by (agent) (rate({AI_COST.name}{{{CHOSEN}}}[$__rate_interval]))", "{{agent}}")],
            unit="currencyUSD",
        ),
        curves(
            "Tokens per minute",
            "By model and kind; the provider's limit is by the minute. `*_in` without the cached tokens.",
            [(f"60 * sum by (model, kind) (rate({AI_TOKENS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{model}} {{kind}}")],
            unit="short",
        ),
    ]
