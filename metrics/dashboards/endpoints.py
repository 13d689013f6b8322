"""Dashboard *Endpoints*: requests to the user's own endpoints, by kind and outcome, and their duration."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, metrics_dashboard
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, curves, number, quantile
from metrics.declare import HOOK_REQUESTS, HOOK_SECONDS


def endpoints() -> dashboard.Dashboard:
    """Build the dashboard."""
    return metrics_dashboard(
        "endpoints",
        "Endpoints",
        "Requests to your own endpoints: tools, events and routes.",
        [("Requests", _requests())],
    )


def _requests() -> list[AnyPanel]:
    def total(outcomes: str) -> str:
        return f'sum (increase({HOOK_REQUESTS.name}{{{CHOSEN}, outcome=~"{outcomes}"}}[$__range]))'

    return [
        number(
            "Answered",
            "In the selected time range, with 2xx.",
            total("ok"),
            unit="short",
            steps=[(None, "text")],
            span=6,
            decimals=0,
        ),
        number(
            "Failed",
            "No connection, a lost one, no whole answer in time, or a status 5xx.",
            total("unreachable|lost|timeout|server_error"),
            unit="short",
            steps=[(None, GREEN), (1.0, YELLOW), (10.0, RED)],
            span=6,
            decimals=0,
        ),
        number(
            "Held back",
            "Not sent: the circuit was open after five failures, or the queue was full.",
            total("busy"),
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            span=6,
            decimals=0,
        ),
        number(
            "Misconfigured",
            "Redirects, which are not followed, addresses that are not allowed, and answers beyond the limit.",
            total("redirect|refused|too_large"),
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            span=6,
            decimals=0,
        ),
        curves(
            "Requests per minute",
            "By kind and outcome. `lost` is a connection that ended after the request was sent.",
            [
                (
                    f"60 * sum by (kind, outcome) (rate({HOOK_REQUESTS.name}{{{CHOSEN}}}[$__rate_interval])) > 0"
                    f" or sum by (kind) (0 * {HOOK_REQUESTS.name}{{{CHOSEN}}})",
                    "{{kind}} {{outcome}}",
                )
            ],
            unit="short",
        ),
        curves(
            "Duration",
            "With the wait for a connection. A request that was held back or refused counts too.",
            [(_duration(q), f"{{{{kind}}}} {name}") for q, name in ((0.5, "p50"), (0.95, "p95"))],
            unit="s",
        ),
    ]


def _duration(q: float) -> str:
    """Return a quantile by kind, and 0 for a kind without requests."""
    none = f"sum by (kind) (0 * {HOOK_SECONDS.name}_count{{{CHOSEN}}})"
    return f"({quantile(q, HOOK_SECONDS, by='kind')} >= 0) or {none}"
