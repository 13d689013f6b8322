"""Self-contained HTML report of `verify budget`: verdicts, figures, and histograms as inline SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from gw.bench.result import PROMISE_MS
from gw.verify.budget.judge import Line, kept

_WIDTH, _HEIGHT, _FOOT, _LEFT = 860, 220, 34, 56
#: Logarithmic time axis from 5 us to 1 s.
_FIRST_MS, _LAST_MS = 0.005, 1000.0
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:3em auto;padding:0 1em;color:#1c2430;background:#fff}
h1{font-size:1.5em;margin:0}h2{font-size:1.1em;margin:2em 0 .3em}p{margin:.3em 0 1em;color:#5a6472}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.35em .8em .35em 0;border-bottom:1px solid #e3e7ec;vertical-align:top}
.yes{color:#1d7a46}.no{color:#b3312c;font-weight:600}.shown{color:#7b8794}
svg text{font:12px system-ui,sans-serif;fill:#5a6472}
"""
_WORDS: Final = {True: ("yes", "holds"), False: ("no", "DOES NOT HOLD"), None: ("shown", "not judged")}


def page(title: str, about: Sequence[str], lines: Sequence[Line], run: Mapping[str, Any]) -> str:
    """Build the document."""
    rows = "".join(
        f"<tr><td>{escape(line.promise)}</td><td>{escape(line.measured)}</td><td>{escape(line.limit)}</td>"
        f'<td class="{_WORDS[line.holds][0]}">{_WORDS[line.holds][1]}</td></tr>'
        for line in lines
    )
    verdict = '<p class="yes">The budget is kept.</p>' if kept(lines) else '<p class="no">The budget is not kept.</p>'
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1><p>{escape(' · '.join(about))}</p>{verdict}"
        f"<table><tr><th>promise</th><th>measured</th><th>limit</th><th></th></tr>{rows}</table>"
        f"{_section('TX send: handing one frame to the kernel', run, 'send')}"
        f"{_section('TX lateness: sent after its deadline', run, 'lateness')}"
        "</body></html>\n"
    )


def _section(title: str, run: Mapping[str, Any], key: str) -> str:
    numbers, buckets = run[f"tx_{key}_ms"], run[f"{key}_buckets"]
    if not numbers or not buckets or not buckets["counts"] or not buckets["counts"][-1]:
        return f"<h2>{escape(title)}</h2><p>Nothing was measured.</p>"
    text = "  ".join(f"{name} {value:g} ms" for name, value in numbers.items() if value is not None)
    return f"<h2>{escape(title)}</h2><p>{escape(text)}, {buckets['counts'][-1]} frames</p>{histogram(buckets)}"


def histogram(buckets: Mapping[str, Sequence[float]]) -> str:
    """Draw a histogram. Bar heights are square roots, to keep one frame in a million visible."""
    edges_ms = [edge * 1000 for edge in buckets["edges_s"]]
    counts = [after - before for before, after in zip([0, *buckets["counts"]], buckets["counts"], strict=False)]
    total, top = sum(counts), max(counts)
    bars = []
    for n, count in enumerate(counts):
        if not count:
            continue
        low = edges_ms[n - 1] if n else _FIRST_MS
        high = edges_ms[n] if n < len(edges_ms) else _LAST_MS * 1.33
        height = max(1.5, math.sqrt(count / top) * _HEIGHT)
        colour = "#3b6ea5" if high <= PROMISE_MS * 1.0001 else "#c98a2b"
        bars.append(
            f'<rect x="{_x(low):.1f}" y="{_HEIGHT - height:.1f}" width="{max(1.0, _x(high) - _x(low) - 1):.1f}" '
            f'height="{height:.1f}" fill="{colour}"><title>{low:g} to {high:g} ms: {count:g} ({count / total:.4%})</title></rect>'
        )
    ticks = "".join(
        f'<text x="{_x(at):.1f}" y="{_HEIGHT + 18}" text-anchor="middle">{at:g}</text>'
        for at in (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
    )
    line = _x(PROMISE_MS)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" width="100%" role="img">{"".join(bars)}'
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}" stroke="#aab2bd"/>'
        f'<line x1="{line:.1f}" x2="{line:.1f}" y1="0" y2="{_HEIGHT}" stroke="#b3312c" stroke-width="1.5"/>'
        f'<text x="{line + 5:.1f}" y="12">1 ms</text>{ticks}'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 32}" text-anchor="end">milliseconds</text></svg>'
    )


def _x(at_ms: float) -> float:
    """Horizontal position of a time on the axis."""
    span = math.log10(_LAST_MS * 1.33 / _FIRST_MS)
    return _LEFT + (math.log10(max(at_ms, _FIRST_MS) / _FIRST_MS) / span) * (_WIDTH - _LEFT)
