"""Result of a demo run: summary, table, picture and verdict.

Pure but for the files it writes. Percentiles never flatter: the upper edge of their histogram bucket, or the true maximum where
that is lower.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from gw.bench.histogram import QUANTILES, LatencyHistogram
from gw.bench.pictures import finish, pyplot
from gw.bench.result import PROMISE_MS
from gw.terminal import figure_table, ms


@dataclass(frozen=True)
class CallResult:
    """One call, as measured at both far ends and recorded in the gateway's store."""

    call_sid: str
    first_audio_ms: int | None  # from the stream's start to the caller's first frame
    frames_expected: int  # the AI twin's audio, cut into frames
    frames_sent: int  # by the gateway's own count
    audio_exact: bool  # received equals sent, byte for byte, padding aside
    underrun_ms: int  # by the gateway's own count
    recordings_started: int  # by the Twilio twin's count
    ended: str
    ear_gap_ms: int = 0  # silence inside speech, as the caller heard it
    recording_state: str = "-"
    recording_trigger_ms: int | None = None
    tools: Sequence[str] = ()  # of tool calls: name, status and time, by the gateway's own notes
    tools_wanted: int = 0  # by the AI twin's count
    complaints: Sequence[str] = ()  # entries of Twilio's debugger


@dataclass(frozen=True)
class DemoReport:
    """Result of a whole run."""

    calls: Sequence[CallResult]
    send: LatencyHistogram
    lateness: LatencyHistogram
    twin_lateness_ms: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    left: int = 0  # processes that still exist after the gateway's stop
    expected_end: str = "ai_hangup"

    def broken(self) -> list[str]:
        """Return a sentence for each promise that this run did not keep."""
        found: list[str] = []
        for n, call in enumerate(self.calls, 1):
            if not call.audio_exact:
                found.append(f"call {n}: what the caller received is not what the AI sent")
            if call.frames_sent != call.frames_expected:
                found.append(f"call {n}: {call.frames_sent} frames sent, {call.frames_expected} expected")
            if call.underrun_ms or call.ear_gap_ms:
                found.append(f"call {n}: {max(call.underrun_ms, call.ear_gap_ms)} ms of silence inside speech")
            if call.recordings_started != 1:
                found.append(f"call {n}: {call.recordings_started} recordings started, one expected")
            if call.recording_trigger_ms is None or call.recording_trigger_ms > 250:
                found.append(f"call {n}: the recording was not triggered within 250 ms of the first audio")
            if len([tool for tool in call.tools if " ok," in tool]) != call.tools_wanted:
                found.append(f"call {n}: {call.tools_wanted} tool calls, with the results: {'; '.join(call.tools) or 'none'}")
            found += [f"call {n}: Twilio's debugger says {complaint}" for complaint in call.complaints]
            if call.ended != self.expected_end:
                found.append(f"call {n}: ended by {call.ended}, not by {self.expected_end}")
        send_p999 = self.send.quantile_ms(0.999)
        if send_p999 is None:
            found.append("no frame was sent")
        elif send_p999 > PROMISE_MS:
            found.append(f"TX send p99.9 is {send_p999} ms, over {PROMISE_MS:g} ms")
        if self.left:
            found.append(f"{self.left} processes were left behind")
        return found

    def summary(self) -> dict[str, Any]:
        """Return the document that scripts read; keys are added, never renamed."""
        broken = self.broken()
        return {
            "calls": [asdict(call) for call in self.calls],
            "tx_send_ms": self.send.summary(),
            "tx_lateness_ms": self.lateness.summary(),
            "tx_frames": self.send.total,
            "twin_lateness_ms": dict(self.twin_lateness_ms),
            "seconds": round(self.seconds, 1),
            "processes_left": self.left,
            "ok": not broken,
            "broken": broken,
        }

    def write_summary(self, path: Path) -> None:
        path.write_text(json.dumps(self.summary(), indent=2) + "\n")


def tables(report: DemoReport) -> Group:
    """Return the tables and the verdict, for people."""
    calls = figure_table("call", ">first audio", ">frames", "audio", ">underrun", "recording", "tools", "ended")
    for n, call in enumerate(report.calls, 1):
        frames = f"{call.frames_sent}/{call.frames_expected}"
        calls.add_row(
            str(n),
            "-" if call.first_audio_ms is None else f"{call.first_audio_ms} ms",
            frames if call.frames_sent == call.frames_expected else Text(frames, "red"),
            Text("exact", "green") if call.audio_exact else Text("differs", "red"),
            Text(f"{call.underrun_ms} ms", "red" if call.underrun_ms else ""),
            f"{call.recording_state}" if call.recordings_started == 1 else Text(f"{call.recordings_started} started", "red"),
            "; ".join(call.tools) or "-",
            call.ended,
        )
    timing = figure_table("ms", ">p50", ">p99", ">p99.9", ">max")
    for name, histogram in (("TX send", report.send), ("TX lateness", report.lateness)):
        numbers = histogram.summary()
        timing.add_row(name, *(ms(numbers[key]) for key in (*QUANTILES, "max")))
    if report.twin_lateness_ms:
        timing.add_row("the twin's own", *(ms(report.twin_lateness_ms.get(key)) for key in (*QUANTILES, "max")), style="dim")
    broken = report.broken()
    verdict = [Text(f"broken guarantee: {sentence}", "red") for sentence in broken]
    return Group(Text(), calls, Text(), timing, Text(), *(verdict or [Text("All guarantees hold.", "green")]))


def draw(report: DemoReport, path: Path) -> None:
    """Draw send and lateness on logarithmic time, with the bound of 1 ms."""
    plt = pyplot()
    figure, axes = plt.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    shown = ((report.send, "TX send: handing one frame to the kernel"), (report.lateness, "TX lateness: sent after its deadline"))
    for axis, (histogram, title) in zip(axes, shown, strict=True):
        lefts, widths, heights = _bars(histogram)
        axis.bar(lefts, heights, width=widths, align="edge", color="#3b6ea5", edgecolor="white", linewidth=0.6)
        axis.set_xscale("log")
        axis.axvline(PROMISE_MS, color="#b3312c", linewidth=1.4)
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_ylabel("frames")
        axis.margins(y=0.18)
        numbers = histogram.summary()
        text = "   ".join(f"{key} {ms(numbers[key])}" for key in (*QUANTILES, "max"))
        axis.text(0.995, 0.95, f"{histogram.total} frames\n{text} ms", transform=axis.transAxes, ha="right", va="top", fontsize=9)
    axes[0].text(PROMISE_MS * 1.06, 0.62, "1 ms", color="#b3312c", fontsize=9, transform=axes[0].get_xaxis_transform())
    axes[1].set_xlabel("milliseconds")
    axes[1].set_xlim(0.005, 1000)
    axes[1].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    finish(plt, figure, axes, path)


def _bars(histogram: LatencyHistogram) -> tuple[list[float], list[float], list[int]]:
    """Left edges, widths and heights in ms and frames; values above the last finite edge get one more bar."""
    edges_ms = [edge * 1000 for edge in histogram.edges_s if math.isfinite(edge)]
    if not edges_ms:
        return [], [], []
    lefts = [edges_ms[0] / 1.8, *edges_ms]
    rights = [*edges_ms, edges_ms[-1] * 1.8]
    heights = [after - before for before, after in zip((0, *histogram.counts), histogram.counts, strict=False)]
    return lefts, [right - left for left, right in zip(lefts, rights, strict=True)], heights
