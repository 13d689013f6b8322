"""Dashboard *Latency*: the 1 ms promise, and the causes of delay."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, metrics_dashboard
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, bars, buckets, curves, number, quantile, within
from metrics.declare import GC_PAUSE, HUB_HOLD, HUB_HOLD_CPU, LATE_S, TX_FRAMES, TX_LATENESS, TX_SEND, TX_UNDERRUN

#: The promise: the share of frames handed to the kernel within the limit.
_EDGE_S = 0.001
_OBJECTIVE = 0.999
_QUANTILES = ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))


def latency() -> dashboard.Dashboard:
    """Build the dashboard."""
    return metrics_dashboard(
        "latency",
        "Latency",
        "Share of frames handed to the kernel within 1 ms, lateness of frames, and holds of the event loop.",
        [
            ("The promise", _promise()),
            ("Send and lateness", _frames()),
            ("Causes of delay", _culprits()),
        ],
    )


def _promise() -> list[AnyPanel]:
    slow = f'sum by (instance) (rate({TX_SEND.name}_bucket{{{CHOSEN}, le="{_EDGE_S}"}}[1h]))'
    burn = f"(1 - {slow} / sum by (instance) (rate({TX_SEND.name}_count{{{CHOSEN}}}[1h]))) / {1 - _OBJECTIVE:.3f}"
    return [
        number(
            "Frames within 1 ms",
            "Share of frames handed to the kernel within 1 ms, in the selected time range. The promise is 99.9 %.",
            within(TX_SEND, _EDGE_S, window="$__range"),
            unit="percentunit",
            steps=[(None, RED), (_OBJECTIVE, GREEN)],
            decimals=3,
        ),
        number(
            "Send p99.9",
            "0.1 % of frames took longer than this to hand to the kernel.",
            quantile(0.999, TX_SEND, window="$__range"),
            unit="s",
            steps=[(None, GREEN), (_EDGE_S, RED)],
        ),
        number(
            "Lateness p99",
            "1 % of frames were sent later than this after their deadline. Callers hear it only near `media.lead_ms`.",
            quantile(0.99, TX_LATENESS, window="$__range"),
            unit="s",
            steps=[(None, GREEN), (LATE_S, RED)],
        ),
        number(
            "Silence heard",
            "Gaps in speech, summed over all callers, because the gateway sent a frame after its lead was used up.",
            f'sum (increase({TX_UNDERRUN.name}{{{CHOSEN}, cause="gateway"}}[$__range]))',
            unit="s",
            steps=[(None, GREEN), (0.001, YELLOW), (1.0, RED)],
        ),
        number(
            "Hub p99.9",
            "0.1 % of the sampled holds of the event loop, by any greenlet, were longer than this.",
            quantile(0.999, HUB_HOLD, window="$__range"),
            unit="s",
            steps=[(None, GREEN), (_EDGE_S, YELLOW), (0.005, RED)],
        ),
        number(
            "Frames sent",
            "Frames of 20 ms in the selected time range.",
            f"sum (increase({TX_FRAMES.name}{{{CHOSEN}}}[$__range]))",
            unit="short",
            steps=[(None, "text")],
            decimals=0,
        ),
        curves(
            "Share of frames within 1 ms",
            "By gateway. The line is the promise, 99.9 %.",
            [(within(TX_SEND, _EDGE_S, "instance"), "{{instance}}")],
            unit="percentunit",
            line_at=_OBJECTIVE,
            low=None,
            high=1.0,
        ),
        curves(
            "Error budget burn rate",
            "0.1 % of frames may be slow. At 1 a month's budget lasts a month; at 14.4 it lasts two days, and an alert pages.",
            [(burn, "{{instance}}")],
            unit="short",
            line_at=14.4,
        ),
    ]


def _frames() -> list[AnyPanel]:
    pairs = (
        (TX_SEND, _EDGE_S, "Send", "Time to hand frames to the kernel"),
        (TX_LATENESS, LATE_S, "Lateness", "Time from deadline to send"),
    )
    return [
        *(
            buckets(
                f"{title}: over {edge_s * 1000:.0f} ms",
                f"{measured}, of frames beyond the limit. The border to the panel below is the {edge_s * 1000:.0f} ms line.",
                histogram,
                edge=edge_s,
                beyond=True,
                height=6,
            )
            for histogram, edge_s, title, measured in pairs
        ),
        *(
            buckets(
                f"{title}: within {edge_s * 1000:.0f} ms",
                f"{measured}, of frames within the limit. The border to the panel above is the {edge_s * 1000:.0f} ms line.",
                histogram,
                edge=edge_s,
                beyond=False,
            )
            for histogram, edge_s, title, measured in pairs
        ),
        *(
            curves(
                f"{title}: quantiles",
                f"Over all selected gateways; the line is {edge_s * 1000:.0f} ms. Bucket edges are a third apart, which limits "
                "the precision.",
                [(quantile(q, histogram), name) for q, name in _QUANTILES],
                unit="s",
                line_at=edge_s,
                log=True,
            )
            for histogram, edge_s, title, _ in pairs
        ),
    ]


def _culprits() -> list[AnyPanel]:
    late, sent = "gw_worker_tx_late_frames_total", "gw_worker_tx_frames_total"
    silent = "gw_worker_tx_underrun_seconds_total"
    by = "sum by (instance, worker)"
    long_holds = (
        f"60 * (sum by (greenlet) (rate({HUB_HOLD.name}_count{{{CHOSEN}}}[$__rate_interval]))"
        f' - sum by (greenlet) (rate({HUB_HOLD.name}_bucket{{{CHOSEN}, le="{_EDGE_S}"}}[$__rate_interval])))'
    )
    on_the_core = (
        f"sum by (greenlet) (rate({HUB_HOLD_CPU.name}_sum{{{CHOSEN}}}[$__rate_interval]))"
        f" / sum by (greenlet) (rate({HUB_HOLD.name}_sum{{{CHOSEN}}}[$__rate_interval])) > 0"
    )
    long_pauses = (
        f"60 * (sum (rate({GC_PAUSE.name}_count{{{CHOSEN}}}[$__rate_interval]))"
        f' - sum (rate({GC_PAUSE.name}_bucket{{{CHOSEN}, le="{_EDGE_S}"}}[$__rate_interval])))'
    )
    return [
        bars(
            "Worst workers",
            "Share of a worker's frames sent more than 5 ms late, the ten worst. A single high worker has a hold or a busy core; "
            "if all are high, the machine is full.",
            [
                (
                    f"sort_desc(topk(10, {by} (rate({late}{{{CHOSEN}}}[$__range])) / {by} (rate({sent}{{{CHOSEN}}}[$__range]))))",
                    "{{instance}} {{worker}}",
                )
            ],
            unit="percentunit",
            steps=[(None, GREEN), (0.01, YELLOW), (0.05, RED)],
        ),
        curves(
            "Silence heard, by worker",
            "Seconds of gaps in speech per second of the gateway, the ten worst workers. It should be 0.",
            [(f"topk(10, {by} (rate({silent}{{{CHOSEN}}}[$__rate_interval])))", "{{instance}} {{worker}}")],
            unit="s",
        ),
        curves(
            "Silence heard, by cause",
            "Seconds of gaps in speech per second. `ai`: the AI paused within its answer. `gateway`: audio left late.",
            [(f"sum by (cause) (rate({TX_UNDERRUN.name}{{{CHOSEN}}}[$__rate_interval]))", "{{cause}}")],
            unit="s",
            span=24,
        ),
        curves(
            "Hub holds: p99.9 by greenlet",
            "Time without a switch that 0.1 % of the sampled holds exceed, by kind of greenlet.",
            [(quantile(0.999, HUB_HOLD, "greenlet"), "{{greenlet}}")],
            unit="s",
            line_at=_EDGE_S,
            log=True,
            span=8,
        ),
        curves(
            "Hub holds over 1 ms, per minute",
            "By kind of greenlet. `gateway.py status --holds` shows the stacks of the longest.",
            [(long_holds, "{{greenlet}}")],
            unit="short",
            stacked=True,
            span=8,
        ),
        curves(
            "Hub holds: CPU share",
            "CPU time as a share of the holds' duration. Far below 100 % means that the machine took the core away, and not that "
            'the code is slow. Needs `ops.hold_monitor = "always"`.',
            [(on_the_core, "{{greenlet}}")],
            unit="percentunit",
            span=8,
        ),
        curves(
            "Garbage collection: share of time",
            "Share of time a media process was stopped by the collector. Objects from the start are frozen, so it should be low.",
            [(f"sum by (instance) (rate({GC_PAUSE.name}_sum{{{CHOSEN}}}[$__rate_interval]))", "{{instance}}")],
            unit="percentunit",
        ),
        curves(
            "Garbage collection: pauses over 1 ms, per minute",
            "Each pause delays every frame of its worker that is due.",
            [(long_pauses, "over 1 ms")],
            unit="short",
        ),
    ]
