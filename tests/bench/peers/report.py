"""Table, sentences and picture of the comparison with other designs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from gw.bench.pictures import finish, pyplot
from gw.terminal import figure_table, ms

ORDER: Final = ("gateway", "floor", "pipecat", "threads")
_COLOURS: Final = {"gateway": "#3b6ea5", "floor": "#9a9a9a", "pipecat": "#b3312c", "threads": "#c98a2b"}
_STYLES: Final = {"p50": ":", "p99": "--", "p99.9": "-"}


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return one line per subject and number of calls.

    Lateness is the caller's; `times` is CPU in gateways at as many calls.
    """
    made = figure_table(">calls", "", ">CPU ms/s", ">times", ">core", ">KB/call", ">late p50", ">p99", ">p99.9", ">underruns", "")
    shown = 0
    gateway = {row["calls"]: row["cpu_ms_per_call_s"] for row in rows if row["subject"] == "gateway"}
    for row in sorted(rows, key=lambda row: (row["calls"], ORDER.index(row["subject"]))):
        late = row["far_lateness_ms"]
        why = row["void"] or row["broken"] or row["beyond"]
        style = "yellow" if row["void"] else "red" if row["broken"] else "yellow" if row["beyond"] else "green"
        made.add_row(
            "" if row["calls"] == shown else str(row["calls"]),
            row["subject"],
            f"{row['cpu_ms_per_call_s']:.3f}",
            f"{row['cpu_ms_per_call_s'] / gateway[row['calls']]:.2f}" if gateway.get(row["calls"]) else "",
            f"{row['core']:.0%}",
            f"{row['pss_per_call_kb']:.0f}",
            *(ms(late[name]) for name in _STYLES),
            str(row["far_underruns"]),
            Text(("void: " if row["void"] else "") + why[0] if why else "held", style),
        )
        shown = row["calls"]
    return made


def sentences(document: Mapping[str, Any]) -> list[str]:
    """Return the verdict, one sentence per subject and per ratio."""
    found = []
    for name in ORDER:
        if name not in document["held"]:
            continue
        strictly, calls = document["held"][name], document["held_without_underrun"][name]
        kb = document["further_call_kb"][name]
        memory = "" if kb is None else f"; one more call takes {kb:.0f} KB"
        found.append(f"{name}: {strictly} calls held by the rule of `bench ramp`, {calls} without an underrun{memory}.")
    for ratio in document["ratios"]:
        peer, calls, most = ratio["peer"], ratio["calls"], ratio["gateway_calls"]
        same, own = ratio["at_the_same_calls"], ratio["each_at_its_largest"]
        found.append(
            f"{peer} at {calls} calls, its most, costs {same:g} times the gateway's CPU at as many, "
            f"{own:g} times the gateway's at {most}."
        )
    return found


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw CPU, lateness and memory of a call against the number of calls."""
    plt = pyplot()
    figure, axes = plt.subplots(3, 1, figsize=(9, 11), sharex=True, layout="constrained")
    for subject in ORDER:
        found = sorted((row for row in rows if row["subject"] == subject and not row["void"]), key=lambda row: row["calls"])
        if not found:
            continue
        calls, colour = [row["calls"] for row in found], _COLOURS[subject]
        axes[0].plot(calls, [row["cpu_ms_per_call_s"] for row in found], "o-", color=colour, label=subject)
        for name, style in _STYLES.items():
            values = [row["far_lateness_ms"][name] for row in found]
            axes[1].plot(calls, values, style, marker=".", color=colour, label=f"{subject} {name}")
        axes[2].plot(calls, [row["pss_per_call_kb"] for row in found], "o-", color=colour, label=subject)
        broken = [row for row in found if row["broken"]]
        for axis, key in ((axes[0], "cpu_ms_per_call_s"), (axes[2], "pss_per_call_kb")):
            axis.plot([row["calls"] for row in broken], [row[key] for row in broken], "x", color="black", markersize=9)
    for axis, title in (
        (axes[0], "CPU of a call, all processes, ms each second (x: a caller would have noticed)"),
        (axes[1], "Lateness at the caller, ms"),
        (axes[2], "Memory of a call (PSS), KB"),
    ):
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=7, ncols=2 if axis is axes[1] else 1)
    axes[2].set_xscale("log")
    axes[2].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[2].set_xlabel("calls at once")
    finish(plt, figure, axes, path)
