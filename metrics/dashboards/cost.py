"""Dashboard *Tokens and cost*: usage of AI models, by model and by agent."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, metrics_dashboard
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, bars, curves, number
from metrics.declare import AI_COST, AI_TOKENS, BUDGET_DAY, CALLS_ENDED


def cost() -> dashboard.Dashboard:
    """Build the dashboard."""
    return metrics_dashboard(
        "cost",
        "Tokens and cost",
        "Usage of AI models, by model and by agent, and the day's budget.",
        [("Cost", _cost()), ("Tokens", _tokens())],
        last="24h",
    )


def _cost() -> list[AnyPanel]:
    spent = f"sum (increase({AI_COST.name}{{{CHOSEN}}}[$__range]))"
    return [
        number(
            "Cost",
            "In USD, in the selected time range, by `[prices]`.",
            spent,
            unit="currencyUSD",
            steps=[(None, "text")],
            span=8,
            decimals=2,
        ),
        number(
            "Cost per call",
            "In USD, by calls that ended in the selected time range.",
            f"{spent} / sum (increase({CALLS_ENDED.name}{{{CHOSEN}}}[$__range]))",
            unit="currencyUSD",
            steps=[(None, "text")],
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
            stacked=True,
        ),
        bars(
            "Cost by agent",
            "In USD, in the selected time range. `other`: agents that are no longer configured.",
            [(f"sort_desc(sum by (agent) (increase({AI_COST.name}{{{CHOSEN}}}[$__range])))", "{{agent}}")],
            unit="currencyUSD",
            steps=[(None, "blue")],
            decimals=2,
        ),
    ]


def _tokens() -> list[AnyPanel]:
    def used(kinds: str) -> str:
        return f'sum (increase({AI_TOKENS.name}{{{CHOSEN}, kind=~"{kinds}"}}[$__range]))'

    return [
        number("Tokens", "Of all models, in the selected time range.", used(".+"), unit="short", steps=[(None, "text")], span=12),
        number(
            "Input from the cache",
            "Share of input tokens that the provider had cached, which cost a fraction.",
            f"{used('.+_cached')} / {used('.+_cached|.+_in')}",
            unit="percentunit",
            steps=[(None, "text")],
            span=12,
            decimals=1,
        ),
        curves(
            "Tokens per minute",
            "By model and kind; the provider's limit is by the minute. `*_in` without the cached tokens.",
            [(f"60 * sum by (model, kind) (rate({AI_TOKENS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{model}} {{kind}}")],
            unit="short",
            height=10,
        ),
        bars(
            "Tokens by kind",
            "Of all models, in the selected time range.",
            [(f"sort_desc(sum by (kind) (increase({AI_TOKENS.name}{{{CHOSEN}}}[$__range])))", "{{kind}}")],
            unit="short",
            steps=[(None, "blue")],
            height=10,
        ),
    ]
