"""*Calls*: how many there are, how they begin, and how and why they end."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.board import AnyPanel, board
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, bars, curves, number, quantile
from metrics.declare import (
    BARGEIN,
    CALL_CAPACITY,
    CALLS,
    CALLS_ENDED,
    CALLS_RESERVED,
    FIRST_AUDIO,
    OVERFLOW,
    RX_DROPPED,
    STREAMS_REFUSED,
    TX_DROPPED,
    WEBHOOKS,
)

#: Ends that are nobody's fault.
_GOOD = "caller_hangup|ai_hangup|admin_hangup|idle_limit|duration_limit|shutdown"


def calls() -> dashboard.Dashboard:
    """The dashboard."""
    return board(
        "calls",
        "Calls",
        "How many calls there are, how they begin, and how and why they end.",
        [("Now", _now()), ("Beginnings and ends", _ends()), ("What a caller notices", _noticed())],
    )


def _now() -> list[AnyPanel]:
    ended = f"sum (increase({CALLS_ENDED.name}{{{CHOSEN}}}[$__range]))"
    return [
        number("Calls alive", "In any state.", f"sum ({CALLS.name}{{{CHOSEN}}})", unit="short", steps=[(None, "text")]),
        number("Calls ended", "In the chosen time.", ended, unit="short", steps=[(None, "text")], decimals=0),
        number(
            "Ended well",
            "The share of ends that were somebody's intention: the caller's, the agent's, an operator's, a limit's.",
            f'sum (increase({CALLS_ENDED.name}{{{CHOSEN}, reason=~"{_GOOD}"}}[$__range])) / {ended}',
            unit="percentunit",
            steps=[(None, RED), (0.95, YELLOW), (0.99, GREEN)],
            decimals=1,
        ),
        number(
            "First word, p95",
            "One caller in twenty waited longer than this, from the stream's start to the first frame.",
            quantile(0.95, FIRST_AUDIO, window="$__range"),
            unit="s",
            steps=[(None, GREEN), (2.5, YELLOW), (4.0, RED)],
        ),
        number(
            "Turned away",
            "Callers who were not taken: the machine was full, its workers late, or it was drained.",
            f"sum (increase({OVERFLOW.name}{{{CHOSEN}}}[$__range]))",
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            decimals=0,
        ),
        number(
            "Lost by us",
            "Calls that ended because a worker died or one of our own parts failed.",
            f'sum (increase({CALLS_ENDED.name}{{{CHOSEN}, reason=~"worker_lost|internal_error"}}[$__range]))',
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            decimals=0,
        ),
        curves(
            "Calls",
            "Alive, by state.",
            [(f"sum by (state) ({CALLS.name}{{{CHOSEN}}})", "{{state}}")],
            unit="short",
            stacked=True,
            span=8,
        ),
        curves(
            "Places",
            "What the workers that take calls may have at once, how many are taken, and how many are kept for calls whose stream "
            "is about to come. Kept ones that stay are streams that do not come.",
            [
                (f"sum ({CALL_CAPACITY.name}{{{CHOSEN}}})", "there are"),
                (f"sum ({CALLS.name}{{{CHOSEN}}})", "taken"),
                (f"sum ({CALLS_RESERVED.name}{{{CHOSEN}}})", "kept"),
            ],
            unit="short",
            span=8,
        ),
        curves(
            "Calls by worker",
            "A worker that is full or late takes fewer.",
            [(f"sum by (instance, worker) (gw_worker_calls{{{CHOSEN}}})", "{{instance}} {{worker}}")],
            unit="short",
            span=8,
        ),
    ]


def _ends() -> list[AnyPanel]:
    return [
        curves(
            "Webhooks per minute",
            "What Twilio asked, by what became of it. Refused ones in numbers mean a wrong `server.public_url` or token.",
            [(f"60 * sum by (outcome) (rate({WEBHOOKS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{outcome}}")],
            unit="short",
        ),
        curves(
            "Streams refused per minute",
            "Media streams that were not let in, by reason.",
            [(f"60 * sum by (reason) (rate({STREAMS_REFUSED.name}{{{CHOSEN}}}[$__rate_interval]))", "{{reason}}")],
            unit="short",
        ),
        curves(
            "Ends per minute",
            "By reason, those that happened. `deploy/reasons.md` says what each means and where to look.",
            [(f"60 * sum by (reason) (rate({CALLS_ENDED.name}{{{CHOSEN}}}[$__rate_interval])) > 0", "{{reason}}")],
            unit="short",
            stacked=True,
        ),
        bars(
            "Why calls ended",
            "In the chosen time, most frequent first.",
            [(f"sort_desc(sum by (reason) (increase({CALLS_ENDED.name}{{{CHOSEN}}}[$__range])) > 0)", "{{reason}}")],
            unit="short",
            steps=[(None, "blue")],
            decimals=0,
        ),
    ]


def _noticed() -> list[AnyPanel]:
    return [
        curves(
            "The first word",
            "From the stream's start to the first frame sent: the AI's connect, its session and its first response.",
            [(quantile(q, FIRST_AUDIO), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))],
            unit="s",
        ),
        curves(
            "Barge-in",
            "From the AI's word that the caller speaks to the order that makes Twilio fall silent.",
            [(quantile(q, BARGEIN), name) for q, name in ((0.5, "p50"), (0.99, "p99"))],
            unit="s",
            log=True,
        ),
        curves(
            "Frames towards callers dropped, per second",
            "`bargein` is what a caller's interruption threw away, as it should; `overrun` is an AI that sent more than fits.",
            [(f"sum by (reason) (rate({TX_DROPPED.name}{{{CHOSEN}}}[$__rate_interval]))", "{{reason}}")],
            unit="short",
        ),
        curves(
            "Messages from callers dropped, per second",
            "What a caller said before the AI was there, or while it took nothing.",
            [(f"sum by (reason) (rate({RX_DROPPED.name}{{{CHOSEN}}}[$__rate_interval]))", "{{reason}}")],
            unit="short",
        ),
    ]
