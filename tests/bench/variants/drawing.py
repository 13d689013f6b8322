"""Picture of the study: ratios of each variant at each number of calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gw.bench.pictures import finish, pyplot

_SHOWN: Final = (
    ("CPU of a call", "cpu_ms_per_call_s"),
    ("TX lateness p50", "tx_p50_ms"),
    ("TX lateness p99", "tx_p99_ms"),
    ("TX lateness p99.9", "tx_p99.9_ms"),
)
_COLOURS: Final = ("#9dbbd8", "#6a97c3", "#3b6ea5", "#1f4068", "#0d2036")


def draw_study(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw a panel per figure, a line per variant.

    Large dots are median ratios, small ones the rounds'.
    """
    plt = pyplot()
    names = list(dict.fromkeys(row["variant"] for row in rows))
    calls = sorted({row["calls"] for row in rows})
    figure, axes = plt.subplots(1, len(_SHOWN), figsize=(14, 1.6 + 0.42 * len(names)), sharey=True, layout="constrained")
    for axis, (title, key) in zip(axes, _SHOWN, strict=True):
        for row in rows:
            if key not in row["ratio"]:
                continue
            place = calls.index(row["calls"])
            colour = _COLOURS[place % len(_COLOURS)]
            y = names.index(row["variant"]) + (place - (len(calls) - 1) / 2) * 0.18
            each = [pair["with"][key] / pair["without"][key] for pair in row["rounds"] if pair["without"].get(key)]
            axis.plot(each, [y] * len(each), ".", markersize=3, color=colour)
            axis.plot([row["ratio"][key]], [y], "o", markersize=6, color=colour)
        axis.axvline(1.0, color="#b3312c", linewidth=1.0)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if value in (0.5, 0.7, 2.0) else "")
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_xlabel("with / without")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    for place, count in enumerate(calls):
        axes[-1].plot([], [], "o", color=_COLOURS[place % len(_COLOURS)], label=f"{count} calls")
    axes[-1].legend(frameon=False, fontsize=8)
    finish(plt, figure, axes, path)
