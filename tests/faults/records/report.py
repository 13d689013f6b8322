"""Report of a run: tables of totals and laws, the ledger as JSON, a picture of faults and calls."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.faults.records.laws import LAWS, judge, totals, unspoiled
from tests.faults.records.ledger import Ledger

#: Number of printed violations per law; the ledger has all.
_SHOWN: Final = 8
_LINKS: Final = ("machine", "process", "bus", "store", "rest", "ai", "phone")
_COLORS: Final = dict(zip(_LINKS, ("#111111", "#b3261e", "#8e5bb5", "#6b7280", "#c77700", "#1f77b4", "#2a9d64"), strict=True))


def write_ledger(ledger: Ledger, path: Path) -> None:
    """Write the ledger with its totals and violations."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"totals": totals(ledger), "broken": judge(ledger), **asdict(ledger)}
    path.write_text(json.dumps(whole, indent=1, default=str) + "\n")


def print_tables(ledger: Ledger, console: Console) -> None:
    """Print the totals, and each law with its violations."""
    figures = Table(title=f"{ledger.scenario}, seed {ledger.seed}, {ledger.seconds:.0f} s", title_justify="left")
    figures.add_column("counted")
    figures.add_column("", justify="right")
    for name, count in totals(ledger).items():
        figures.add_row(name, f"{count:,}")
    console.print(figures)
    laws = Table()
    for column in ("law", "statement", "violations"):
        laws.add_column(column)
    broken = judge(ledger)
    for law in LAWS:
        count = len(broken[law.name])
        laws.add_row(law.name, law.statement, f"[bold red]{count}[/]" if count else "[green]none[/]")
    console.print(laws)
    for name, sentences in broken.items():
        for sentence in sentences[:_SHOWN]:
            console.print(f"{name}: {sentence}", markup=False, highlight=False)
        if len(sentences) > _SHOWN:
            console.print(f"{name}: and {len(sentences) - _SHOWN} more, all in the ledger", highlight=False)


def draw(ledger: Ledger, path: Path) -> None:
    """Draw faults and calls on one axis: green calls must be whole, grey may be spoilt, red broke a law."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    accused = " ".join(sentence for sentences in judge(ledger).values() for sentence in sentences)
    calls = sorted(ledger.calls, key=lambda call: call.placed_s)
    height = min(30.0, 3.0 + len(calls) * 0.05)
    figure, axes = plt.subplots(2, 1, figsize=(13, height), sharex=True, height_ratios=(2.0, height - 2.0), layout="constrained")
    for struck in ledger.struck:
        row = _LINKS.index(struck.link)
        axes[0].barh(row, max(struck.to_s - struck.from_s, 0.15), left=struck.from_s, height=0.7, color=_COLORS[struck.link])
    _label_faults(axes[0], ledger)
    for n, call in enumerate(calls):
        color = "#d22" if call.call_sid in accused else "#2a9d64" if unspoiled(ledger, call) else "#9aa0a6"
        axes[1].barh(n, max(0.1, call.ended_s - call.placed_s), left=call.placed_s, height=0.8, color=color)
    axes[1].invert_yaxis()
    axes[1].set_ylabel(f"{len(calls)} calls")
    axes[1].set_xlabel("seconds")
    for axis in axes:
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _label_faults(axis: Any, ledger: Ledger) -> None:
    axis.set_yticks(range(len(_LINKS)), _LINKS)
    axis.set_title(f"{ledger.scenario}, seed {ledger.seed}: {len(ledger.struck)} faults", loc="left", fontsize=11)
    if len(ledger.struck) <= 40:
        for struck in ledger.struck:
            axis.text(struck.from_s, _LINKS.index(struck.link) + 0.38, struck.name, fontsize=6)
