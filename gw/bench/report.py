"""Result of a bench as tables for people, and as a document for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median_low
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gw.bench.result import Measured, ratio
from gw.terminal import figure_table, ms

_QUANTILES: Final = ("p50", "p99", "p99.9", "max")
_TIMED: Final = (
    ("TX send", "tx_send_ms"),
    ("TX lateness", "tx_lateness_ms"),
    ("lateness at the caller", "far_lateness_ms"),
    ("uplink, caller to AI", "uplink_ms"),
    ("barge-in, AI to clear", "bargein_ms"),
)


def middle(rounds: Sequence[Measured]) -> Measured:
    """Return the round with the median CPU cost: of those not void, or of all if every one is void."""
    good = [measured for measured in rounds if not measured.void()] or list(rounds)
    cost = median_low([measured.cpu_ms_per_call_s for measured in good])
    return next(measured for measured in good if measured.cpu_ms_per_call_s == cost)


def document(gateways: Sequence[Measured], floors: Sequence[Measured]) -> dict[str, Any]:
    """Build the document: the median round's figures at the top, the floor's beside, every round in short."""
    gateway = middle(gateways)
    summary = {
        **gateway.summary(),
        "rounds": [
            {
                "subject": measured.subject,
                "cpu_ms_per_call_s": round(measured.cpu_ms_per_call_s, 4),
                "tx_lateness_ms": measured.summary()["tx_lateness_ms"],
                "void": measured.void(),
                "broken": measured.broken(),
            }
            for measured in (*gateways, *floors)
        ],
    }
    if floors:
        floor = middle(floors)
        summary["floor"] = floor.summary()
        summary["cpu_ratio"] = round(ratio(gateway, floor), 3)
    return summary


def write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n")


def tables(gateways: Sequence[Measured], floors: Sequence[Measured]) -> Group:
    """Return cost and timing of the median rounds, side by side."""
    gateway, floor = middle(gateways), middle(floors) if floors else None
    subjects = [gateway] + ([floor] if floor else [])
    parts: list[Any] = [Text(), _costs(gateway, floor), Text(), _times(subjects), Text()]
    if floor:
        plain = ", which uses no TLS to the AI" if gateway.tls else ""
        parts.append(Text(f"A call-second costs {ratio(gateway, floor):.2f} times its cost in a C bridge{plain}.", "bold"))
    for measured in subjects:
        parts += [Text(f"{measured.subject}: {sentence}", "yellow") for sentence in measured.noted()]
        parts += [Text(f"{measured.subject}: {sentence}", "red") for sentence in measured.broken()]
        parts += [Text(f"{measured.subject}: VOID, {sentence}", "bold red") for sentence in measured.void()]
    return Group(*parts)


def _costs(gateway: Measured, floor: Measured | None) -> Table:
    titles = (">gateway, TLS to the AI", ">floor, plain") if gateway.tls else (">gateway", ">floor")
    table = figure_table("per call", *(titles if floor else titles[:1]))
    subjects = [gateway] + ([floor] if floor else [])

    def row(name: str, values: Sequence[str], style: str = "") -> None:
        table.add_row(name, *values, style=style)

    row("CPU, ms each second", [f"{measured.cpu_ms_per_call_s:.3f}" for measured in subjects])
    for role in sorted(gateway.summary()["processes"]):
        cost = gateway.summary()["processes"][role]["cpu_ms_per_call_s"]
        row(f"  {role}", [f"{cost:.3f}", *([""] if floor else [])], "dim")
    row("memory, KB", [f"{measured.pss_per_call_kb:.0f}" for measured in subjects])
    row("underruns at 60 ms", [str(measured.far["underruns"]) for measured in subjects])
    row("frames lost", [str(measured.far["lost"] + measured.uplink["lost"]) for measured in subjects])
    holds = sum(gateway.holds_over_1ms.values())
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(gateway.holds_over_1ms.items()))
    row("hub holds over 1 ms", [f"{holds}" + (f" ({kinds})" if kinds else ""), *(["-"] if floor else [])])
    row("gc pauses over 1 ms", [str(gateway.gc_over_1ms), *(["-"] if floor else [])])
    return table


def _times(subjects: Sequence[Measured]) -> Table:
    table = figure_table("ms", "", *(f">{name}" for name in _QUANTILES))
    summaries = [(measured, measured.summary()) for measured in subjects]
    for name, key in _TIMED:
        for i, (measured, summary) in enumerate(summaries):
            if summary[key] is not None:
                table.add_row("" if i else name, measured.subject, *(ms(summary[key][q]) for q in _QUANTILES))
    for _, summary in summaries:
        for name, figures in summary["twins"].items():
            numbers = [ms(figures["own_lateness_ms"][q]) for q in _QUANTILES]
            table.add_row(f"load process {name}", f"{figures['cpu_share']:.0%} of a core", *numbers, style="dim")
    return table


def ramp_table(steps: Sequence[Mapping[str, Any]]) -> Table:
    """Return one line per number of calls."""
    titles = (">CPU ms/s, TLS", ">floor, plain") if any(step["gateway"]["tls"] for step in steps) else (">CPU ms/s", ">floor")
    table = figure_table(">calls", *titles, ">worker", ">KB/call", ">late p50", ">p99", ">p99.9", ">floor p99.9", "")
    for step in steps:
        gateway, floor = step["gateway"], step["floor"]
        late = gateway["tx_lateness_ms"] or dict.fromkeys(_QUANTILES)
        floor_late = (floor or {}).get("tx_lateness_ms") or {}
        why = step["void"] or step["beyond"]
        table.add_row(
            str(step["calls"]),
            f"{gateway['cpu_ms_per_call_s']:.3f}",
            f"{floor['cpu_ms_per_call_s']:.3f}" if floor else "-",
            f"{step['worker_share']:.0%}",
            f"{gateway['pss_per_call_kb']:.0f}",
            *(ms(late[q]) for q in ("p50", "p99", "p99.9")),
            ms(floor_late.get("p99.9")),
            Text("void: " + why[0] if step["void"] else why[0] if why else "held", "yellow" if why else "green"),
        )
    return table
