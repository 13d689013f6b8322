"""gw.verify.budget.html: a self-contained report with escaped texts and a bar for each bucket."""

from __future__ import annotations

import re
from typing import Any

from gw.verify.budget.html import histogram, page
from gw.verify.budget.judge import judge
from metrics.declare import BOUNDS
from tests.gw.verify.budget.test_judge import GOOD, NOISE

EDGES = list(BOUNDS)


def cumulative(**counts: int) -> dict[str, Any]:
    """Buckets by edge in microseconds, `beyond` above all."""
    found, total = [], 0
    for edge in EDGES:
        total += counts.get(f"us{round(edge * 1e6)}", 0)
        found.append(total)
    return {"edges_s": EDGES, "counts": [*found, total + counts.get("beyond", 0)]}


RUN = {**GOOD, "send_buckets": cumulative(us18=900, us1000=99, us10000=1), "lateness_buckets": cumulative(us500=100)}


def test_the_file_is_self_contained() -> None:
    text = page("The budget", ["50 calls", "<a machine>"], judge(RUN, NOISE), RUN)
    assert "http" not in text
    assert "<script" not in text
    assert "&lt;a machine&gt;" in text
    assert text.count("<svg") == 2
    assert "The budget is kept." in text


def test_a_broken_promise_is_highlighted() -> None:
    broken = {**RUN, "broken": ["a gap of 40 ms"]}
    text = page("The budget", [], judge(broken, NOISE), broken)
    assert "The budget is not kept." in text
    assert text.count('class="no">DOES NOT HOLD') == 1


def test_each_filled_bucket_has_a_bar_coloured_by_the_promise() -> None:
    svg = histogram(RUN["send_buckets"])
    assert re.findall(r"<title>([^<]+)</title>", svg) == [
        "0.013 to 0.018 ms: 900 (90.0000%)",
        "0.7 to 1 ms: 99 (9.9000%)",
        "7 to 10 ms: 1 (0.1000%)",
    ]
    assert svg.count("#c98a2b") == 1


def test_the_overflow_bucket_is_drawn() -> None:
    assert "1000 to 1330 ms: 3 (100.0000%)" in histogram(cumulative(beyond=3))


def test_a_run_without_frames_is_reported_as_unmeasured() -> None:
    empty = {**RUN, "tx_send_ms": None, "send_buckets": None, "lateness_buckets": cumulative()}
    text = page("The budget", [], judge(empty, NOISE), empty)
    assert text.count("Nothing was measured.") == 2
