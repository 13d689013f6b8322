"""Dashboard *Calls*: calls in progress, their starts and ends, and strangers at the public port."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, metrics_dashboard
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, bars, curves, number, quantile
from metrics.declare import (
    BARGEIN,
    CALL_CAPACITY,
    CALL_SURPLUS,
    CALLS,
    CALLS_ENDED,
    CALLS_RESERVED,
    CONNECTIONS,
    INTERRUPTIONS,
    LOCKS_BUSY,
    OVERFLOW,
    PONGS,
    REQUESTS_REFUSED,
    RX_DROPPED,
    STREAMS_MISSED,
    STREAMS_REFUSED,
    TRANSFERS,
    TX_DROPPED,
    TX_HELD,
    WEBHOOKS,
)

#: Reasons of a normal end.
_GOOD = "caller_hangup|ai_hangup|admin_hangup|idle_limit|duration_limit|budget|transferred|digits_sent|machine|shutdown"


def calls() -> dashboard.Dashboard:
    """Build the dashboard."""
    return metrics_dashboard(
        "calls",
        "Calls",
        "Calls in progress, their starts and ends, and strangers at the public port.",
        [("Now", _now()), ("Starts and ends", _ends()), ("Caller experience", _noticed()), ("Strangers", _strangers())],
    )


def _now() -> list[AnyPanel]:
    ended = f"sum (increase({CALLS_ENDED.name}{{{CHOSEN}}}[$__range]))"
    return [
        number(
            "Calls in progress",
            "In any state.",
            f"sum ({CALLS.name}{{{CHOSEN}}})",
            unit="short",
            steps=[(None, "text")],
            span=8,
        ),
        number("Calls ended", "In the selected time range.", ended, unit="short", steps=[(None, "text")], decimals=0),
        number(
            "Ended normally",
            "Share of calls ended by the caller, the agent, an operator or a configured limit.",
            f'sum (increase({CALLS_ENDED.name}{{{CHOSEN}, reason=~"{_GOOD}"}}[$__range])) / {ended}',
            unit="percentunit",
            steps=[(None, RED), (0.95, YELLOW), (0.99, GREEN)],
            decimals=1,
        ),
        number(
            "Turned away",
            "Callers not admitted: the machine was full, its workers were late, or it was drained.",
            f"sum (increase({OVERFLOW.name}{{{CHOSEN}}}[$__range]))",
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            decimals=0,
        ),
        number(
            "Lost by the gateway",
            "Calls that ended because a worker died or the gateway had an internal error.",
            f'sum (increase({CALLS_ENDED.name}{{{CHOSEN}, reason=~"worker_lost|internal_error"}}[$__range]))',
            unit="short",
            steps=[(None, GREEN), (1.0, RED)],
            decimals=0,
        ),
        curves(
            "Calls",
            "In progress, by state.",
            [(f"sum by (state) ({CALLS.name}{{{CHOSEN}}})", "{{state}}")],
            unit="short",
            decimals=0,
            stacked=True,
            span=8,
        ),
        curves(
            "Call slots",
            "Capacity of the workers that accept calls, slots in use, and slots reserved until the call's stream starts. A "
            "reserved number that stays high means that streams do not arrive.",
            [
                (f"sum ({CALL_CAPACITY.name}{{{CHOSEN}}})", "capacity"),
                (f"sum ({CALLS.name}{{{CHOSEN}}})", "in use"),
                (f"sum ({CALLS_RESERVED.name}{{{CHOSEN}}})", "reserved"),
            ],
            unit="short",
            decimals=0,
            span=8,
        ),
        curves(
            "Calls by worker",
            "A full or late worker accepts fewer.",
            [(f"sum by (instance, worker) (gw_worker_calls{{{CHOSEN}}})", "{{instance}} {{worker}}")],
            unit="short",
            decimals=0,
            span=8,
        ),
    ]


def _ends() -> list[AnyPanel]:
    return [
        curves(
            "Webhooks per minute",
            "Requests from Twilio, by outcome. Many refused ones mean a wrong `server.public_url` or auth token.",
            [(f"60 * sum by (outcome) (rate({WEBHOOKS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{outcome}}")],
            unit="short",
        ),
        curves(
            "Streams refused per minute",
            "Media streams not admitted, by reason; missed: admitted calls whose stream did not start.",
            [
                (f"60 * sum by (reason) (rate({STREAMS_REFUSED.name}{{{CHOSEN}}}[$__rate_interval]))", "{{reason}}"),
                (f"60 * sum (rate({STREAMS_MISSED.name}{{{CHOSEN}}}[$__rate_interval]))", "missed"),
            ],
            unit="short",
        ),
        curves(
            "Ends per minute",
            "By reason, without zeros. `deploy/reasons.md` explains each reason and the next step.",
            [(f"60 * sum by (reason) (rate({CALLS_ENDED.name}{{{CHOSEN}}}[$__rate_interval])) > 0", "{{reason}}")],
            unit="short",
            stacked=True,
        ),
        bars(
            "Ends by reason",
            "In the selected time range, most frequent first.",
            [(f"sort_desc(sum by (reason) (increase({CALLS_ENDED.name}{{{CHOSEN}}}[$__range])) > 0)", "{{reason}}")],
            unit="short",
            steps=[(None, "blue")],
            decimals=0,
        ),
    ]


def _noticed() -> list[AnyPanel]:
    return [
        curves(
            "Barge-in",
            "Time from the AI's `speech_started` to the `clear` that makes Twilio stop playing.",
            [(quantile(q, BARGEIN), name) for q, name in ((0.5, "p50"), (0.99, "p99"))],
            unit="s",
            log=True,
        ),
        bars(
            "Interruptions by verdict",
            "In the selected time range. `model` is the AI's own; the others are the gateway's. Many `resumed` beside "
            "few cuts: noise, or callers who only show attention.",
            [(f"sum by (verdict) (increase({INTERRUPTIONS.name}{{{CHOSEN}}}[$__range]))", "{{verdict}}")],
            unit="short",
            steps=[(None, "blue")],
            decimals=0,
        ),
        curves(
            "Transfers per minute",
            "Transfers that ended, by outcome. After all but `completed` and `canceled` the caller is back with the agent.",
            [(f"60 * sum by (outcome) (rate({TRANSFERS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{outcome}}")],
            unit="short",
        ),
        curves(
            "Silence of dismissed interruptions, per second",
            "Pauses in the agent's speech that callers heard, summed over all calls.",
            [(f"sum (rate({TX_HELD.name}{{{CHOSEN}}}[$__rate_interval]))", "silence")],
            unit="s",
        ),
        curves(
            "Frames to callers dropped, per second",
            "`bargein` is expected after an interruption; `overrun` means that the AI sent more than the buffer's bound.",
            [(f"sum by (reason) (rate({TX_DROPPED.name}{{{CHOSEN}}}[$__rate_interval]))", "{{reason}}")],
            unit="short",
        ),
        curves(
            "Messages from callers dropped, per second",
            "Mostly audio that arrived before the AI leg was connected, or while it was congested.",
            [(f"sum by (reason) (rate({RX_DROPPED.name}{{{CHOSEN}}}[$__rate_interval]))", "{{reason}}")],
            unit="short",
        ),
    ]


def _strangers() -> list[AnyPanel]:
    return [
        curves(
            "Connections",
            "To the public port, by state. Many in `head` or `idle` belong to strangers, who are limited in number and time; "
            "`stream` is a call.",
            [(f"sum by (state) ({CONNECTIONS.name}{{{CHOSEN}}})", "{{state}}")],
            unit="short",
            decimals=0,
            stacked=True,
            span=8,
        ),
        curves(
            "Requests refused per minute",
            "The most frequent reasons. `displaced` and `address_limit` mean that connections compete for room. "
            "Beside them: streams admitted with an unchecked token, because a lock between workers was busy.",
            [
                (f"60 * topk(8, sum by (reason) (rate({REQUESTS_REFUSED.name}{{{CHOSEN}}}[$__rate_interval])))", "{{reason}}"),
                (f"60 * sum(rate({LOCKS_BUSY.name}{{{CHOSEN}}}[$__rate_interval]))", "token unchecked"),
            ],
            unit="short",
            span=8,
        ),
        curves(
            "Surplus dropped, per second",
            "Audio beyond real time, echoes of unknown marks, events beyond the limit of their kind, and pings. An interruption "
            "returns marks that count as unknown; the rest is a fault or an attack of Twilio's side or of the AI.",
            [
                (
                    f'sum by (reason) (rate({RX_DROPPED.name}{{{CHOSEN}, reason=~"surplus|unknown_.+"}}[$__rate_interval]))',
                    "{{reason}}",
                ),
                (f"sum by (leg) (rate({PONGS.name}{{{CHOSEN}}}[$__rate_interval]))", "pings, {{leg}}"),
                (f"sum by (kind) (rate({CALL_SURPLUS.name}{{{CHOSEN}}}[$__rate_interval]))", "{{kind}}"),
            ],
            unit="short",
            span=8,
        ),
    ]
