"""Dashboard *Endpoints*: requests to the user's own endpoints, by kind and outcome, and their duration."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, metrics_dashboard
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, curves, number, quantile
from metrics.declare import HOOK_BACKLOG, HOOK_OLDEST, HOOK_REQUESTS, HOOK_SECONDS, ROUTE_LOOKUPS, TOOL_SECONDS


def endpoints() -> dashboard.Dashboard:
    """Build the dashboard."""
    return metrics_dashboard(
        "endpoints",
        "Endpoints",
        "Requests to your own endpoints: tools, events and routes.",
        [("Requests", _requests()), ("Open requests and tool calls", _jobs()), ("Routes", _routes())],
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


def _jobs() -> list[AnyPanel]:
    count = f"{TOOL_SECONDS.name}_count"
    return [
        number(
            "Open requests",
            "Without a result: waiting or under way.",
            f"sum ({HOOK_BACKLOG.name}{{{CHOSEN}}})",
            unit="short",
            steps=[(None, GREEN), (100.0, YELLOW), (1000.0, RED)],
            span=6,
        ),
        number(
            "Oldest request",
            "Age of the oldest open request.",
            f"max ({HOOK_OLDEST.name}{{{CHOSEN}}})",
            unit="s",
            steps=[(None, GREEN), (60.0, YELLOW), (300.0, RED)],
            span=6,
        ),
        number(
            "Tool calls",
            "In the selected time range.",
            f"sum (increase({count}{{{CHOSEN}}}[$__range]))",
            unit="short",
            steps=[(None, "text")],
            span=6,
            decimals=0,
        ),
        number(
            "Tool calls without a result",
            "In the selected time range: the agent received an error instead.",
            f'sum (increase({count}{{{CHOSEN}, outcome!="ok"}}[$__range]))',
            unit="short",
            steps=[(None, GREEN), (1.0, YELLOW)],
            span=6,
            decimals=0,
        ),
        curves(
            "Tool calls per minute",
            "By outcome; all but `ok` are the errors that the agent received.",
            [(f"60 * sum by (outcome) (rate({count}{{{CHOSEN}}}[$__rate_interval]))", "{{outcome}}")],
            unit="short",
        ),
        curves(
            "Waiting time",
            "Age of the oldest open request by gateway, and the time from a tool call to its result.",
            [
                (f"max by (instance) ({HOOK_OLDEST.name}{{{CHOSEN}}})", "{{instance}} oldest request"),
                *(
                    (f"({quantile(q, TOOL_SECONDS)} >= 0) or vector(0)", f"tool call {name}")
                    for q, name in ((0.5, "p50"), (0.95, "p95"))
                ),
            ],
            unit="s",
        ),
    ]


def _routes() -> list[AnyPanel]:
    name = ROUTE_LOOKUPS.name
    return [
        number(
            "Calls without an answer of the endpoint",
            "In the selected time range: `route.on_failure` decided who answers.",
            f'sum (increase({name}{{{CHOSEN}, outcome!="ok"}}[$__range]))',
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            span=6,
            decimals=0,
        ),
        curves(
            "Questions who answers, per minute",
            "By outcome. `bad_answer` is an answer that cannot be used; the log has the reason.",
            [(f"60 * sum by (outcome) (rate({name}{{{CHOSEN}}}[$__rate_interval]))", "{{outcome}}")],
            unit="short",
        ),
    ]


def _duration(q: float) -> str:
    """Return a quantile by kind, and 0 for a kind without requests."""
    none = f"sum by (kind) (0 * {HOOK_SECONDS.name}_count{{{CHOSEN}}})"
    return f"({quantile(q, HOOK_SECONDS, by='kind')} >= 0) or {none}"
