"""Pictures of a bench: histograms with the 1 ms line, lateness over time, cost against the number of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gw.errors import GatewayError

_COLOURS: Final = {"gateway": "#3b6ea5", "floor": "#9a9a9a"}
_LINE: Final = "#b3312c"


class NoPicturesError(GatewayError):
    """matplotlib is not installed; `make setup` leaves it out."""

    code = "no_pictures"


def see(draw: Callable[[Path], None], path: Path) -> str:
    """Draw into `path`. Returns where to look, or how to install what is missing."""
    try:
        draw(path)
    except NoPicturesError as error:
        return str(error)
    return f"See: {path}"


def pyplot() -> Any:
    """Return matplotlib's pyplot, set up for files. Raises NoPicturesError."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise NoPicturesError("No picture: matplotlib is not installed; in the source folder: make instruments.") from None

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw send and lateness on logarithmic time, and the lateness of each second."""
    plt = pyplot()
    subjects = [document] + ([document["floor"]] if document.get("floor") else [])
    figure, axes = plt.subplots(3, 1, figsize=(9, 9), layout="constrained")
    for axis, key, title in (
        (axes[0], "send", "TX send: handing one frame to the kernel"),
        (axes[1], "lateness", "TX lateness: sent after its deadline"),
    ):
        for summary in subjects:
            buckets, numbers = summary[f"{key}_buckets"], summary[f"tx_{key}_ms"]
            if buckets is None or not numbers:
                continue
            edges_ms, shares = _steps(buckets)
            text = "  ".join(f"{name} {numbers[name]:g}" for name in ("p50", "p99", "p99.9", "max") if numbers[name] is not None)
            colour = _COLOURS[summary["subject"]]
            axis.stairs(shares, edges_ms, fill=True, alpha=0.35, color=colour)
            axis.stairs(shares, edges_ms, color=colour, label=f"{summary['subject']}: {text} ms")
        axis.set_xscale("log")
        axis.set_xlim(0.005, 1000)
        axis.set_ylim(bottom=0)
        axis.margins(y=0.25)
        axis.axvline(1.0, color=_LINE, linewidth=1.4)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_ylabel("% of frames")
        axis.set_title(f"{title}, {document['calls']} calls, {document['pattern']}", loc="left", fontsize=11)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8, loc="upper right")
    axes[1].set_xlabel("milliseconds")
    over = document["over_time"]
    far = document["far_over_time"]
    axes[2].plot([row[0] for row in over], [row[1] for row in over], color=_COLOURS["gateway"], label="TX lateness p99")
    axes[2].plot([row[0] for row in far], [row[1] for row in far], color="#c98a2b", label="at the caller, p99")
    axes[2].plot([row[0] for row in far], [row[2] for row in far], color="#c98a2b", linewidth=0.7, label="at the caller, max")
    axes[2].axhline(1.0, color=_LINE, linewidth=1.0)
    axes[2].set_yscale("log")
    axes[2].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[2].set_xlabel("second")
    axes[2].set_ylabel("ms")
    axes[2].set_title("Lateness over time", loc="left", fontsize=11)
    axes[2].legend(frameon=False, fontsize=8)
    finish(plt, figure, axes, path)


def draw_ramp(steps: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw CPU, lateness and memory of a call against the number of calls."""
    plt = pyplot()
    figure, axes = plt.subplots(3, 1, figsize=(9, 9), sharex=True, layout="constrained")
    good = [step for step in steps if not step["void"]]
    for subject in ("gateway", "floor"):
        rows = [(step["calls"], step[subject]) for step in good if step[subject]]
        if not rows:
            continue
        calls, colour = [n for n, _ in rows], _COLOURS[subject]
        axes[0].plot(calls, [row["cpu_ms_per_call_s"] for _, row in rows], "o-", color=colour, label=subject)
        for name, style in (("p50", ":"), ("p99", "--"), ("p99.9", "-")):
            values = [(row["tx_lateness_ms"] or {}).get(name) for _, row in rows]
            axes[1].plot(calls, values, style, marker=".", color=colour, label=f"{subject} {name}")
        axes[2].plot(calls, [row["pss_per_call_kb"] for _, row in rows], "o-", color=colour, label=subject)
    axes[0].set_title("CPU of a call, all processes, ms each second", loc="left", fontsize=11)
    axes[0].set_ylim(bottom=0)
    axes[1].set_title("TX lateness", loc="left", fontsize=11)
    axes[1].set_yscale("log")
    axes[1].axhline(1.0, color=_LINE, linewidth=1.0)
    axes[1].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[1].set_ylabel("ms")
    axes[2].set_title("Memory of a call (PSS), KB", loc="left", fontsize=11)
    axes[2].set_ylim(bottom=0)
    axes[2].set_xlabel("calls at once")
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
    finish(plt, figure, axes, path)


def draw_growth(steps: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw CPU and memory of a call in one chart; overloads are hollow."""
    plt = pyplot()
    figure, cpu = plt.subplots(figsize=(9, 5), layout="constrained")
    memory = cpu.twinx()
    good = [step for step in steps if not step["void"]]
    for axis, key, style, what in (
        (cpu, "cpu_ms_per_call_s", "-", "CPU, ms each second"),
        (memory, "pss_per_call_kb", "--", "memory, KB"),
    ):
        for subject in ("gateway", "floor"):
            rows = [(step["calls"], step[subject][key], step["full"]) for step in good if step[subject]]
            if not rows:
                continue
            colour = _COLOURS[subject]
            axis.plot([row[0] for row in rows], [row[1] for row in rows], style, color=colour, label=f"{subject}: {what}")
            for calls, value, full in rows:
                axis.plot([calls], [value], "o", color=colour, fillstyle="none" if full else "full")
        axis.set_ylim(bottom=0)
        axis.set_ylabel(f"{what}, per call")
    cpu.set_xlabel("calls at once")
    cpu.set_title("What a call costs against how many there are", loc="left", fontsize=11)
    lines = [axis.get_legend_handles_labels() for axis in (cpu, memory)]
    cpu.legend(lines[0][0] + lines[1][0], lines[0][1] + lines[1][1], frameon=False, fontsize=8, loc="lower right")
    finish(plt, figure, [cpu, memory], path)


def _steps(buckets: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Edges in ms and the share of each bucket in percent; the outer buckets get an edge each."""
    edges_ms = [edge * 1000 for edge in buckets["edges_s"]]
    counts = buckets["counts"]
    total = counts[-1] or 1
    shares = [(after - before) * 100 / total for before, after in zip((0, *counts), counts, strict=False)]
    return [edges_ms[0] / 1.8, *edges_ms, edges_ms[-1] * 1.8], shares


def finish(plt: Any, figure: Any, axes: Any, path: Path) -> None:
    """Write the figure to `path`, without the upper and right frame lines."""
    for axis in axes:
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
