"""gw.demo.report: kept and broken promises, and the files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gw.bench.histogram import LatencyHistogram
from gw.demo.report import CallResult, DemoReport, draw, tables

GOOD = CallResult(
    call_sid="CA1",
    first_audio_ms=40,
    frames_expected=100,
    frames_sent=100,
    audio_exact=True,
    underrun_ms=0,
    recordings_started=1,
    ended="ai_hangup",
    recording_state="completed",
    recording_trigger_ms=80,
)
SEND = LatencyHistogram((1e-5, 1e-4, 1e-3, math.inf), (500, 998, 1000, 1000), 0.0004)
LATENESS = LatencyHistogram((1e-4, 1e-2, math.inf), (10, 99, 100), 0.5)


def report(*calls: CallResult, send: LatencyHistogram = SEND) -> DemoReport:
    return DemoReport(calls or (GOOD,), send, LATENESS, {"p50": 0.1, "p99": 0.2, "p99.9": 0.3, "max": 12.0}, 21.37)


def test_a_good_run_breaks_nothing() -> None:
    assert report().broken() == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"audio_exact": False}, "call 1: what the caller received is not what the AI sent"),
        ({"frames_sent": 99}, "call 1: 99 frames sent, 100 expected"),
        ({"underrun_ms": 20}, "call 1: 20 ms of silence inside speech"),
        ({"ear_gap_ms": 7}, "call 1: 7 ms of silence inside speech"),
        ({"recordings_started": 0}, "call 1: 0 recordings started, one expected"),
        ({"recordings_started": 2}, "call 1: 2 recordings started, one expected"),
        ({"recording_trigger_ms": 251}, "call 1: the recording was not triggered within 250 ms of the first audio"),
        ({"recording_trigger_ms": None}, "call 1: the recording was not triggered within 250 ms of the first audio"),
        ({"tools_wanted": 1}, "call 1: 1 tool calls, with the results: none"),
        ({"tools_wanted": 1, "tools": ["find timeout, 8 ms"]}, "call 1: 1 tool calls, with the results: find timeout, 8 ms"),
        ({"ended": "ai_lost"}, "call 1: ended by ai_lost, not by ai_hangup"),
    ],
)
def test_each_promise_can_be_broken(change: dict[str, object], sentence: str) -> None:
    assert report(replace(GOOD, **change)).broken() == [sentence]  # type: ignore[arg-type]


def test_a_slow_send_breaks_the_golden_rule() -> None:
    slow = LatencyHistogram((1e-3, 1e-2, math.inf), (990, 1000, 1000), 0.0042)
    assert report(send=slow).broken() == ["TX send p99.9 is 4.2 ms, over 1 ms"]
    assert report(send=LatencyHistogram((), (), 0.0)).broken() == ["no frame was sent"]


def test_the_summary_keeps_its_names(tmp_path: Path) -> None:
    report().write_summary(tmp_path / "summary.json")
    document = json.loads((tmp_path / "summary.json").read_text())
    call = {
        "call_sid",
        "first_audio_ms",
        "frames_expected",
        "frames_sent",
        "audio_exact",
        "underrun_ms",
        "recordings_started",
        "ended",
    }
    assert call <= set(document["calls"][0])
    for histogram in ("tx_send_ms", "tx_lateness_ms"):
        assert set(document[histogram]) == {"p50", "p99", "p99.9", "max"}
    assert document["ok"] is True


def test_the_tables_show_broken_promises() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(tables(report(GOOD, replace(GOOD, audio_exact=False, underrun_ms=40))))
    shown = console.export_text()
    assert "differs" in shown
    assert "broken guarantee: call 2: 40 ms of silence inside speech" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw(report(), tmp_path / "latency.png")
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    draw(report(send=LatencyHistogram((), (), 0.0)), tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 1000
