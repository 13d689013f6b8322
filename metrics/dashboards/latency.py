"""*Latency*: whether the promise of 1 ms is kept, and who is in the way when it is not."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.board import AnyPanel, board
from metrics.dashboards.panels import CHOSEN, GREEN, RED, YELLOW, bars, buckets, curves, number, quantile, within
from metrics.declare import GC_PAUSE, HUB_HOLD, HUB_HOLD_CPU, TX_FRAMES, TX_LATENESS, TX_SEND, TX_UNDERRUN

#: The promise.
_EDGE_S = 0.001
_OBJECTIVE = 0.999
_QUANTILES = ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))


def latency() -> dashboard.Dashboard:
    """The dashboard."""
    return board(
        "latency",
        "Latency",
        "Whether every frame is handed to the kernel within 1 ms, how late frames leave, and what held the event loop.",
        [
            ("The promise", _promise()),
            ("Send and lateness", _frames()),
            ("Who is in the way", _culprits()),
        ],
    )


def _promise() -> list[AnyPanel]:
    slow = f'sum by (instance) (rate({TX_SEND.name}_bucket{{{CHOSEN}, le="{_EDGE_S}"}}[1h]))'
    burn = f"(1 - {slow} / sum by (instance) (rate({TX_SEND.name}_count{{{CHOSEN}}}[1h]))) / {1 - _OBJECTIVE:.3f}"
    return [
        number(
            "Frames within 1 ms",
            "Of all frames in the chosen time, the share that was handed over within 1 ms. The promise is 99.9 %.",
            within(TX_SEND, _EDGE_S, window="$__range"),
            unit="percentunit",
            steps=[(None, RED), (_OBJECTIVE, YELLOW), (0.9999, GREEN)],
            decimals=3,
        ),
        number(
            "Send p99.9",
            "One frame in a thousand took longer than this to hand to the kernel.",
            quantile(0.999, TX_SEND, window="$__range"),
            unit="s",
            steps=[(None, GREEN), (_EDGE_S, RED)],
        ),
        number(
            "Lateness p99",
            "One frame in a hundred left later than this after its deadline. The lead hides what is far below it.",
            quantile(0.99, TX_LATENESS, window="$__range"),
            unit="s",
            steps=[(None, GREEN), (0.005, YELLOW), (0.02, RED)],
        ),
        number(
            "Silence callers heard",
            "Gaps in speech, all callers together, because a frame came after its lead was used up.",
            f"sum (increase({TX_UNDERRUN.name}{{{CHOSEN}}}[$__range]))",
            unit="s",
            steps=[(None, GREEN), (0.001, YELLOW), (1.0, RED)],
        ),
        number(
            "Hub p99.9",
            "One hold of the event loop in a thousand was longer than this, whoever held it, while it was watched.",
            quantile(0.999, HUB_HOLD, window="$__range"),
            unit="s",
            steps=[(None, GREEN), (_EDGE_S, YELLOW), (0.005, RED)],
        ),
        number(
            "Frames sent",
            "Frames of 20 ms in the chosen time.",
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
            "Budget used, as a multiple of what lasts",
            "One in a thousand frames may be slow. At 1 a month's budget lasts a month, at 14.4 two days: somebody is paged.",
            [(burn, "{{instance}}")],
            unit="short",
            line_at=14.4,
        ),
    ]


def _frames() -> list[AnyPanel]:
    border = "The border between this panel and the one {} is the 1 ms line."
    pairs = ((TX_SEND, "Send", "took to hand to the kernel"), (TX_LATENESS, "Lateness", "left after their deadline"))
    return [
        *(
            buckets(
                f"{title}: over 1 ms",
                f"How long frames {verb}, of those that broke the promise. {border.format('below')}",
                histogram,
                edge=_EDGE_S,
                beyond=True,
                height=6,
            )
            for histogram, title, verb in pairs
        ),
        *(
            buckets(
                f"{title}: within 1 ms",
                f"How long frames {verb}, of those that kept the promise. {border.format('above')}",
                histogram,
                edge=_EDGE_S,
                beyond=False,
            )
            for histogram, title, verb in pairs
        ),
        *(
            curves(
                f"{title}: quantiles",
                "All chosen gateways together; the line is 1 ms. A quantile is read off buckets a third apart.",
                [(quantile(q, histogram), name) for q, name in _QUANTILES],
                unit="s",
                line_at=_EDGE_S,
                log=True,
            )
            for histogram, title, _ in pairs
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
            "Share of a worker's frames that left more than 1 ms late, the ten worst. One alone has a hold or a hot core; all of "
            "them are on a machine that is full.",
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
            "Silence callers heard",
            "Seconds of gap a second, the ten worst workers: 0 is what everybody should hear.",
            [(f"topk(10, {by} (rate({silent}{{{CHOSEN}}}[$__rate_interval])))", "{{instance}} {{worker}}")],
            unit="s",
        ),
        curves(
            "Hub holds: p99.9 by greenlet",
            "How long each kind of greenlet held the event loop without a switch, one hold in a thousand; while it was watched.",
            [(quantile(0.999, HUB_HOLD, "greenlet"), "{{greenlet}}")],
            unit="s",
            line_at=_EDGE_S,
            log=True,
            span=8,
        ),
        curves(
            "Hub holds over 1 ms, per minute",
            "By the kind of greenlet that held it. `gateway.py status --holds` shows the stacks of the worst.",
            [(long_holds, "{{greenlet}}")],
            unit="short",
            stacked=True,
            span=8,
        ),
        curves(
            "Hub holds: share on the core",
            "How much of the time that a greenlet held the loop it ran. Far below 100 %: the machine took the core away, and no "
            "code of ours is slow. Shown where `ops.hold_monitor` is `always`.",
            [(on_the_core, "{{greenlet}}")],
            unit="percentunit",
            span=8,
        ),
        curves(
            "Garbage collection: share of time",
            "How much of its time the collector stopped a media process. What lives since the start is frozen, so it is little.",
            [(f"sum by (instance) (rate({GC_PAUSE.name}_sum{{{CHOSEN}}}[$__rate_interval]))", "{{instance}}")],
            unit="percentunit",
        ),
        curves(
            "Garbage collection: pauses over 1 ms, per minute",
            "Each of them delayed every frame of its worker that was due.",
            [(long_pauses, "over 1 ms")],
            unit="short",
        ),
    ]
