"""Measure the effect of one change on the gateway's lateness and cost, in turns.

    .venv/bin/python tests/bench/variants/study.py --list
    .venv/bin/python tests/bench/variants/study.py --calls 20,100,200,300 --seconds 8 --rounds 3
    .venv/bin/python tests/bench/variants/study.py --calls 200 --variants timerfd,private-timer --rounds 5

For each number of calls and each round: the unchanged gateway, two variants, the unchanged gateway, two variants, and so on.
Each variant forms a pair with the window of the unchanged gateway next to it; a window between two variants serves both pairs.
Each round rotates the sequence by one, so that a variant comes now before and now after its reference. A ratio is the median of
the pairs' own ratios. A void window is repeated; a pair that stays void is left out and counted.

Writes out/bench/study.json and out/bench/study.png after each pair, so that an interrupt keeps what was measured.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

ROOT: Final = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

import click
from rich.table import Table

from gw.bench.run import Load, measure_gateway
from gw.bench.subject import BenchError
from gw.cli.bench.options import show_steps
from gw.errors import GatewayError
from gw.terminal import console, figure_table
from tests.bench.compare import figures, medians, ratios
from tests.bench.variants import APPLIED, BASE, VARIANTS, Variant
from tests.bench.variants.drawing import draw_study

T = TypeVar("T")
ENTRY: Final = ROOT / "tests" / "bench" / "variants" / "entry.py"
#: Attempts at a window, while it is void.
_TRIES: Final = 2
#: First estimate of the time beside a window: start, dialling, warm-up, hanging up.
_AROUND_S: Final = 8.0
_DIAL_S: Final = 0.02
_SHOWN: Final = (
    ("CPU, ms/s", "cpu_ms_per_call_s"),
    ("late p50", "tx_p50_ms"),
    ("p99", "tx_p99_ms"),
    ("p99.9", "tx_p99.9_ms"),
    ("caller p99", "caller_p99_ms"),
    ("p99.9", "caller_p99.9_ms"),
)


@dataclass
class VariantResult:
    """Pairs of one variant at one number of calls."""

    variant: str
    calls: int
    pairs: list[tuple[dict[str, float], dict[str, float]]] = field(default_factory=list)
    void: int = 0
    broken: list[str] = field(default_factory=list)  # faults with the variant that a caller would have noticed
    failed: str = ""  # the reason why it could not be measured

    def add(self, without: dict[str, float] | None, changed: dict[str, float] | None) -> None:
        """Add a pair, or count it as void."""
        if self.failed:
            return
        if without is None or changed is None:
            self.void += 1
        else:
            self.pairs.append((without, changed))

    def document(self) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "description": VARIANTS[self.variant].description,
            "calls": self.calls,
            "without": medians([before for before, _ in self.pairs]),
            "with": medians([after for _, after in self.pairs]),
            "ratio": ratios(self.pairs),
            "rounds": [{"without": before, "with": after} for before, after in self.pairs],
            "void": self.void,
            "broken": self.broken,
            "failed": self.failed,
        }


class Progress:
    """Number of windows, in all and done, and the estimated rest."""

    def __init__(self, total: int, guess_s: float, show: Callable[[str], None]) -> None:
        self._total, self._guess_s, self._show = total, guess_s, show
        self._done = 0
        self._began_s = time.monotonic()

    def left_s(self) -> float:
        each_s = (time.monotonic() - self._began_s) / self._done if self._done else self._guess_s
        return max(0, self._total - self._done) * each_s

    def on_step(self, step: str) -> None:
        """Show a step of the present window; a log gets its start only."""
        if not sys.stderr.isatty() and not step.endswith("starting"):
            return
        self._show(f"{min(self._done + 1, self._total)} of {self._total}, about {self.left_s() / 60:.0f} min left: {step}")

    def done(self) -> None:
        self._done += 1


def applicable(names: list[str]) -> list[str]:
    """Return the variants that work here; report the reason for each other one."""
    good = []
    for name in names:
        tried = subprocess.run([sys.executable, str(ENTRY), name, "worker", "--help"], capture_output=True, text=True, timeout=30)
        if tried.returncode == 0:
            good.append(name)
        else:
            click.echo(f"left out: {tried.stderr.strip()[-300:]}", err=True)
    return good


def measured(name: str, variant: Variant, out: Path, load: Load, progress: Progress) -> tuple[dict[str, float] | None, list[str]]:
    """Measure one window. Returns its figures, None if void, and the faults that a caller would have noticed."""
    command = [sys.executable, str(ENTRY), name]
    asked = replace(load, pinned=variant.pinned, tls=variant.tls)
    for _ in range(_TRIES):
        window = measure_gateway(command, out, asked, lambda step: progress.on_step(f"{name}: {step}"))
        progress.done()
        if f"{APPLIED}{name}\n" not in (out / "gateway" / "gateway.log").read_text(errors="replace"):
            raise BenchError("the variant did not reach a worker")
        # a worker that may run on every core has no core that others could disturb
        if not (window.void() if variant.pinned else [why for why in window.void() if "load process" in why]):
            return figures(window), window.broken()
    return None, []


def study(
    names: list[str], calls: list[int], rounds: int, load: Load, out: Path, show: Callable[[str], None]
) -> list[VariantResult]:
    """Measure everything in turns, and write the results after each pair."""
    found = {(count, name): VariantResult(name, count) for count in calls for name in names}
    guess_s = _AROUND_S + load.seconds + _DIAL_S * sum(calls) / len(calls)
    windows = len(calls) * rounds * len(turns(names))
    progress = Progress(windows, guess_s, show)
    show(f"{len(found) * rounds} pairs out of {windows} windows, about {progress.left_s() / 60:.0f} min")
    try:
        for number in range(rounds):
            first = number % len(names)
            for count in calls:
                order = [found[count, name] for name in names[first:] + names[:first]]
                for _ in _pairs([one for one in order if not one.failed], replace(load, calls=count), out, progress):
                    write(list(found.values()), load, out)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
    return list(found.values())


def turns(variants: Sequence[T]) -> list[T | None]:
    """Return the windows of a round, None for the unchanged gateway: each variant is next to one."""
    made: list[T | None] = [None]
    for at, variant in enumerate(variants):
        made += [variant] if at % 2 == 0 else [variant, None]
    return made


def _pairs(order: Sequence[VariantResult], load: Load, out: Path, progress: Progress) -> Iterator[VariantResult]:
    """Run a round's windows; yields a variant when its pair is complete."""
    base: dict[str, float] | None = None
    waiting: tuple[VariantResult, dict[str, float] | None] | None = None  # for its reference
    ahead = False  # the previous window was of the unchanged gateway
    for one in turns(order):
        if one is None:
            base = _window(VariantResult(BASE, load.calls), load, out, progress)
            if waiting is not None:
                waiting[0].add(base, waiting[1])
                yield waiting[0]
                waiting = None
            ahead = True
            continue
        changed = _window(one, load, out, progress)
        if ahead:
            one.add(base, changed)
            yield one
        else:
            waiting = one, changed
        ahead = False


def _window(one: VariantResult, load: Load, out: Path, progress: Progress) -> dict[str, float] | None:
    """Measure one window. Returns None if void or failed, after reporting the reason."""
    try:
        made, broken = measured(one.variant, VARIANTS[one.variant], out, load, progress)
    except GatewayError as error:
        one.failed = str(error).splitlines()[-1]
        click.echo(f"{one.variant}: {one.failed}", err=True)
        return None
    one.broken += broken
    return made


def write(found: list[VariantResult], load: Load, out: Path) -> None:
    document = [one.document() for one in found if one.pairs or one.failed or one.void]
    head = {"seconds": load.seconds, "pattern": load.pattern}
    (out / "study.json").write_text(json.dumps({**head, "variants": document}, indent=2) + "\n")
    draw_study(document, out / "study.png")


def table(found: list[VariantResult]) -> Table:
    """Return each variant's figures without and with it, and the ratios."""
    made = figure_table(">calls", "variant", *(f">{title}" for title, _ in _SHOWN), "")
    for one in found:
        document = one.document()
        without, with_, ratio = document["without"], document["with"], document["ratio"]
        cells = [
            f"{without[key]:.3g} > {with_[key]:.3g}  {ratio[key]:.2f}" if key in without and key in ratio else "-"
            for _, key in _SHOWN
        ]
        notes = [one.failed, f"{one.void} void" if one.void else "", *sorted(set(one.broken))]
        made.add_row(str(one.calls), one.variant, *cells, "; ".join(note for note in notes if note))
    return made


def _numbers(_: Any, __: Any, text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise click.BadParameter("expected numbers separated by commas, for example 20,100") from None


def _names(_: Any, __: Any, text: str) -> list[str]:
    names = text.split(",") if text else [name for name in VARIANTS if name != BASE]
    if unknown := [name for name in names if name not in VARIANTS]:
        raise click.BadParameter(f"unknown variant {unknown[0]}; --list shows all")
    return names


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--calls", default="20,100,200,300", show_default=True, callback=_numbers, help="Full-duplex calls at once.")
@click.option("--variants", default="", callback=_names, help="Variants to measure, separated by commas; all by default.")
@click.option("--seconds", type=click.FloatRange(2, 600), default=8, show_default=True, help="Each window.")
@click.option("--rounds", type=click.IntRange(1, 99), default=3, show_default=True, help="Pairs of each variant and number.")
@click.option("--pattern", type=click.Choice(("steady", "bursty", "bargein")), default="steady", show_default=True)
@click.option(
    "--patience", type=click.FloatRange(0, 600), default=10, show_default=True, help="Seconds to wait for a quiet machine."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=ROOT / "out" / "bench", help="Folder for all files."
)
@click.option("--list", "list_them", is_flag=True, help="List all variants, and measure nothing.")
def main(
    calls: list[int],
    variants: list[str],
    seconds: float,
    rounds: int,
    pattern: str,
    patience: float,
    out: Path,
    list_them: bool,
) -> None:
    """Measure the effect of one change on the gateway's lateness and cost."""
    if list_them:
        for name, variant in VARIANTS.items():
            click.echo(f"{name:14}  {variant.description}")
        return
    out.mkdir(parents=True, exist_ok=True)
    load = Load(calls=0, seconds=seconds, pattern=pattern, maxima=False, patience_s=patience)
    with show_steps(quiet=False) as show:
        found = study(applicable(variants), calls, rounds, load, out, show)
    screen = console()
    screen.print("without > with, and the ratio; lateness in ms")
    screen.print(table(found))
    screen.print(f"See: {out}/study.png  Read: {out}/study.json")


if __name__ == "__main__":
    main()
