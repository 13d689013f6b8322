"""Dashboard *Turns*: how long callers wait for the first word and for each answer."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, metrics_dashboard
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, Query, buckets, curves, number, numbers, quantile
from metrics.declare import FIRST_AUDIO, TURN_LATENCY, TURN_PART, WARM_LEGS, ConfiguredHistogram, Histogram

#: Waits from which callers hesitate, and from which they ask whether the line is dead.
_SLOW_S = 1.5
_DEAD_S = 3.0


def turns() -> dashboard.Dashboard:
    """Build the dashboard."""
    return metrics_dashboard(
        "turns",
        "Turns",
        "How long callers wait for the first word and for each answer, and for what.",
        [("Answers", _answers()), ("First word", _first_word())],
    )


def _percentiles(waits: Histogram | ConfiguredHistogram) -> list[Query]:
    """Return the median and the 95th percentile of the selected time range."""
    return [(quantile(q, waits, window="$__range"), name) for q, name in ((0.5, "p50"), (0.95, "p95"))]


def _answers() -> list[AnyPanel]:
    spent, turns_answered = (
        f"sum by (part) (rate({TURN_PART.name}_{what}{{{CHOSEN}}}[$__rate_interval]))" for what in ("sum", "count")
    )
    steps = [(None, GREEN), (_SLOW_S, YELLOW), (_DEAD_S, RED)]
    return [
        numbers(
            "Answer",
            "Half of the answers, and 5 % of them, began later than this after the caller's last sound.",
            _percentiles(TURN_LATENCY),
            unit="s",
            steps=steps,
            span=12,
        ),
        number(
            "Gateway's part, p95",
            "In 5 % of the turns, judging interruptions and queued audio took longer than this.",
            quantile(0.95, TURN_PART, only='part="gateway"', window="$__range"),
            unit="s",
            steps=[(None, GREEN), (0.1, YELLOW), (0.4, RED)],
            span=6,
        ),
        number(
            "Turns answered",
            "Spoken turns of callers, in the selected time range.",
            f"sum (increase({TURN_LATENCY.name}_count{{{CHOSEN}}}[$__range]))",
            unit="short",
            steps=[(None, "text")],
            span=6,
        ),
        curves(
            "Wait for an answer",
            "From the caller's last sound to the answer's first frame.",
            [(quantile(q, TURN_LATENCY), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))],
            unit="s",
        ),
        curves(
            "Wait for an answer: mean by part",
            "`pause`: the voice detection waits for the end of the turn (`turns.silence_ms`). `ai`: until its first audio. "
            "`tool`: a tool runs. `gateway`: interruptions are judged, or the answer waits behind queued audio.",
            [(f"{spent} / {turns_answered}", "{{part}}")],
            unit="s",
            stacked=True,
        ),
        curves(
            "Wait for an answer: p95 by agent",
            "`other`: calls of agents that are no longer configured.",
            [(quantile(0.95, TURN_LATENCY, "agent"), "{{agent}}")],
            unit="s",
        ),
        curves(
            "Wait for an answer: p95 by part",
            "Each part alone: they do not add up to the p95 of the whole.",
            [(quantile(0.95, TURN_PART, "part"), "{{part}}")],
            unit="s",
        ),
    ]


def _first_word() -> list[AnyPanel]:
    steps = [(None, GREEN), (2.5, YELLOW), (4.0, RED)]
    return [
        numbers(
            "First word",
            "Half of the callers, and 5 % of them, waited longer than this for the agent's first audio.",
            _percentiles(FIRST_AUDIO),
            unit="s",
            steps=steps,
            span=24,
        ),
        curves(
            "Wait for the first word",
            "Wait for the agent's first audio: from the stream's start, or, without a greeting, from the first request.",
            [(quantile(q, FIRST_AUDIO), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))],
            unit="s",
            span=8,
        ),
        buckets("First word, within 4 s", "Callers by their waiting time.", FIRST_AUDIO, edge=4.0, beyond=False, span=8),
        curves(
            "Warm legs per minute",
            "AI legs opened at the voice webhook, by outcome. `elsewhere`: the stream reached another worker.",
            [(f"60 * sum by (outcome) (rate({WARM_LEGS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{outcome}}")],
            unit="short",
            span=8,
        ),
    ]
