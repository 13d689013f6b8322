"""`bench ramp`: how many calls a core of this machine holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gw.cli.bench.options import between, gateway_command, step_load, step_options, take_steps, tls_option
from gw.cli.context import EXIT_CODES_HERE


@click.command(
    short_help="How many calls a core of this machine holds.",
    epilog=f"\b\nExample:  gateway.py bench ramp --json\n\n{EXIT_CODES_HERE}",
)
@tls_option
@step_options(10, 500)
def ramp(tls: bool, seconds: float, first: int, last: int, pattern: str, patience: float, out: Path, as_json: bool) -> None:
    """Let the number of calls grow until they are more than one worker on one core holds.

    A number holds when lateness p99.9 stays under 5 ms beyond the floor's own, no caller has an underrun at a 60 ms buffer, and
    nothing is lost. Writes ramp.json, and ramp.png: CPU, lateness and memory of a call against their number.
    """
    from gw.bench.pictures import draw_ramp
    from gw.bench.ramp import STEPS, climb, held, measuring
    from gw.bench.report import ramp_table

    steps = between(first, last, STEPS)
    load = step_load(seconds, pattern, patience, tls=tls)
    made: list[dict[str, Any]] = []

    def parts(document: dict[str, Any]) -> Iterator[Any]:
        best = document["calls_per_core"]
        more = "at least " if best == steps[-1] else ""
        yield ramp_table(made)
        yield f"\nThis machine holds {more}{best} calls per core." if best else "\nNo step held, or all were void."

    document = take_steps(
        "ramp",
        out,
        as_json,
        measure=lambda tell: climb(load, steps, measuring(gateway_command(), out, tell), made),
        made=made,
        document=lambda: {"calls_per_core": held(made), "pattern": pattern, "tls": tls, "steps": made},
        draw=lambda path: draw_ramp(made, path),
        parts=parts,
    )
    if not document["calls_per_core"]:
        raise click.exceptions.Exit(1)
