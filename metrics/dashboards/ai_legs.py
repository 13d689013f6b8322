"""*AI legs*: how the AI's side behaves: how soon it speaks, how it fails, and what that costs callers."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.board import AnyPanel, board
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, bars, buckets, curves, number, quantile
from metrics.declare import AI_ERRORS, AI_RECONNECTS, CALLS_ENDED, FIRST_AUDIO, RX_DROPPED, TX_DROPPED

#: Ends that are the AI's failure, be it that the caller was told so.
_BY_AI = 'reason=~"ai_.+|fallback_.+", reason!="ai_hangup"'


def ai_legs() -> dashboard.Dashboard:
    """The dashboard."""
    return board(
        "ai",
        "AI legs",
        "How soon the AI speaks, how its connections fail, and what that costs callers.",
        [("The AI's side", _numbers()), ("How soon it speaks", _speed()), ("How it fails", _failures())],
    )


def _numbers() -> list[AnyPanel]:
    ended = f"sum (increase({CALLS_ENDED.name}{{{CHOSEN}, {_BY_AI}}}[$__range]))"
    return [
        number(
            "Calls the AI ended",
            "The share of ended calls whose end was the AI's failure.",
            f"{ended} / sum (increase({CALLS_ENDED.name}{{{CHOSEN}}}[$__range]))",
            unit="percentunit",
            steps=[(None, GREEN), (0.01, YELLOW), (0.05, RED)],
            span=6,
            decimals=1,
        ),
        number(
            "Errors",
            "Error events that were not the harmless ones of a barge-in.",
            f'sum (increase({AI_ERRORS.name}{{{CHOSEN}, kind=~"error|fatal"}}[$__range]))',
            unit="short",
            steps=[(None, GREEN), (1.0, YELLOW), (10.0, RED)],
            span=6,
            decimals=0,
        ),
        number(
            "Legs replaced",
            "Because they broke; those that came of age are not counted.",
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
            "The first word",
            "From the stream's start to the first frame sent.",
            [(quantile(q, FIRST_AUDIO), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))],
            unit="s",
        ),
        buckets(
            "The first word, within 4 s",
            "Callers by how long they waited.",
            FIRST_AUDIO,
            edge=4.0,
            beyond=False,
            height=8,
        ),
        curves(
            "Said before the AI listened, per second",
            "Frames from callers that were dropped because the AI was not connected yet, or took nothing.",
            [
                (
                    f'sum by (reason) (rate({RX_DROPPED.name}{{{CHOSEN}, reason=~"ai_.+"}}[$__rate_interval]))',
                    "{{reason}}",
                )
            ],
            unit="short",
        ),
        curves(
            "Speech thrown away, per second",
            "Frames of the AI's that nobody heard: interrupted, more than fits, or the call was over.",
            [(f"sum by (reason) (rate({TX_DROPPED.name}{{{CHOSEN}}}[$__rate_interval]))", "{{reason}}")],
            unit="short",
        ),
    ]


def _failures() -> list[AnyPanel]:
    return [
        curves(
            "Errors per minute",
            "`benign` comes with barge-ins, `error` costs a response, `fatal` ends the session.",
            [(f"60 * sum by (kind) (rate({AI_ERRORS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{kind}}")],
            unit="short",
        ),
        curves(
            "Legs replaced per minute",
            "By reason. `expiring` is planned: the session comes to its end and another takes over.",
            [(f"60 * sum by (reason) (rate({AI_RECONNECTS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{reason}}")],
            unit="short",
        ),
        bars(
            "Calls the AI ended",
            "In the chosen time, by reason. `deploy/reasons.md` says of each where to look.",
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
