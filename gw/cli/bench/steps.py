"""`bench ramp` and `bench growth`: runs that measure a growing number of calls, step by step.

However a run ends, it writes, draws and prints the steps it measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gw.cli.bench.options import out_option, patience_option, pattern_option, print_result, show_steps, tls_option
from gw.cli.context import EXIT_CODES_HERE, Settings, json_option

if TYPE_CHECKING:
    from gw.bench.run import Load

Command = Callable[..., Any]


def step_options(first: int, last: int) -> Callable[[Command], Command]:
    """Add the options of a run in steps, by default from `first` calls to `last`."""
    options = (
        click.option("--seconds", type=click.FloatRange(2, 3600), default=10, show_default=True, help="The window of each step."),
        click.option("--from", "first", type=click.IntRange(1), default=first, show_default=True, help="The fewest calls."),
        click.option("--to", "last", type=click.IntRange(1, 2000), default=last, show_default=True, help="The most calls."),
        pattern_option,
        patience_option,
        out_option,
        json_option,
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def between(first: int, last: int, steps: Iterable[int]) -> list[int]:
    """Return the numbers of calls to measure: both ends, and those of `steps` between them."""
    return sorted({first, *(calls for calls in steps if first < calls < last), last})


def step_load(seconds: float, pattern: str, patience_s: float, *, tls: bool = False) -> Load:
    """Return the load of a run in steps, without a number of calls."""
    from gw.bench.run import Load

    return Load(calls=0, seconds=seconds, pattern=pattern, maxima=False, patience_s=patience_s, tls=tls)


def take_steps(
    name: str,
    out: Path,
    as_json: bool,
    *,
    measure: Callable[[Callable[[str], None]], None],
    results: list[dict[str, Any]],
    document: Callable[[], dict[str, Any]],
    draw: Callable[[Path], None],
    parts: Callable[[dict[str, Any]], Iterable[Any]],
) -> dict[str, Any]:
    """Measure, then write, draw and print the result as `name`.

    `measure` appends steps to `results` as they come; `document` is called after the last one. Returns the document.
    """
    from gw.bench import report
    from gw.bench.pictures import see

    picture = ""
    try:
        with show_steps(as_json) as on_step:
            measure(on_step)
    finally:
        found = document()
        if results:
            report.write(out / f"{name}.json", found)
            picture = see(draw, out / f"{name}.png")
    print_result(found, as_json, lambda: (*parts(found), f"{picture}  Read: {out}/{name}.json"))
    return found


@click.command(
    short_help="Find how many calls a core of this machine holds.",
    epilog=f"\b\nExample:  gateway.py bench ramp --json\n\n{EXIT_CODES_HERE}",
)
@tls_option
@step_options(10, 500)
def ramp(tls: bool, seconds: float, first: int, last: int, pattern: str, patience: float, out: Path, as_json: bool) -> None:
    """Raise the number of calls until one worker on one core no longer holds them.

    A number holds when lateness p99.9 stays under 5 ms beyond the floor's own, no caller has an underrun at a 60 ms buffer, and
    nothing is lost. Writes ramp.json, and ramp.png: CPU, lateness and memory of a call against their number.
    """
    from gw.bench.pictures import draw_ramp
    from gw.bench.ramp import STEPS, climb, held, measuring
    from gw.bench.report import ramp_table

    steps = between(first, last, STEPS)
    load = step_load(seconds, pattern, patience, tls=tls)
    results: list[dict[str, Any]] = []

    def parts(document: dict[str, Any]) -> Iterator[Any]:
        best = document["calls_per_core"]
        more = "at least " if best == steps[-1] else ""
        yield ramp_table(results)
        yield f"\nThis machine holds {more}{best} calls per core." if best else "\nNo step held, or all were void."

    document = take_steps(
        "ramp",
        out,
        as_json,
        measure=lambda on_step: climb(load, steps, measuring(Settings(None).command_line(), out, on_step), results),
        results=results,
        document=lambda: {"calls_per_core": held(results), "pattern": pattern, "tls": tls, "steps": results},
        draw=lambda path: draw_ramp(results, path),
        parts=parts,
    )
    if not document["calls_per_core"]:
        raise click.exceptions.Exit(1)


@click.command(
    short_help="Measure what a call costs when there are many.",
    epilog=f"\b\nExample:  gateway.py bench growth --out out/growth\n\n{EXIT_CODES_HERE}",
)
@tls_option
@step_options(10, 500)
def growth(tls: bool, seconds: float, first: int, last: int, pattern: str, patience: float, out: Path, as_json: bool) -> None:
    """Measure CPU and memory of a call against the number of calls, on one worker.

    Measures the floor as well where there is a C compiler. Continues until the worker's core is full, and reports whether a call
    costs more when there are many. Writes growth.json and growth.png.
    """
    from gw.bench.growth import STEPS, grow, sentences, verdict
    from gw.bench.pictures import draw_growth
    from gw.bench.ramp import measuring
    from gw.bench.report import ramp_table

    steps = between(first, last, STEPS)
    load = step_load(seconds, pattern, patience, tls=tls)
    results: list[dict[str, Any]] = []
    document = take_steps(
        "growth",
        out,
        as_json,
        measure=lambda on_step: grow(load, steps, measuring(Settings(None).command_line(), out, on_step), results),
        results=results,
        document=lambda: {"verdict": verdict(results), "pattern": pattern, "tls": tls, "steps": results},
        draw=lambda path: draw_growth(results, path),
        parts=lambda found: (ramp_table(results), "", *sentences(found["verdict"])),
    )
    if document["verdict"]["cpu_ms_per_call_s"] is None:
        raise click.exceptions.Exit(1)
