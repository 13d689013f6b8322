"""`bench growth`: what a call costs when there are many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gw.cli.bench.options import between, gateway_command, step_load, step_options, take_steps, tls_option
from gw.cli.context import EXIT_CODES_HERE


@click.command(
    short_help="What a call costs when there are many.",
    epilog=f"\b\nExample:  gateway.py bench growth --out out/growth\n\n{EXIT_CODES_HERE}",
)
@tls_option
@step_options(10, 500)
def growth(tls: bool, seconds: float, first: int, last: int, pattern: str, patience: float, out: Path, as_json: bool) -> None:
    """CPU and memory of a call against the number of calls, on one worker, beside the floor where there is a C compiler.

    Goes on until the worker's core is full, and says whether a call costs more when there are many. Writes growth.json and
    growth.png.
    """
    from gw.bench.growth import STEPS, grow, sentences, verdict
    from gw.bench.pictures import draw_growth
    from gw.bench.ramp import measuring
    from gw.bench.report import ramp_table

    steps = between(first, last, STEPS)
    load = step_load(seconds, pattern, patience, tls=tls)
    made: list[dict[str, Any]] = []
    document = take_steps(
        "growth",
        out,
        as_json,
        measure=lambda tell: grow(load, steps, measuring(gateway_command(), out, tell), made),
        made=made,
        document=lambda: {"verdict": verdict(made), "pattern": pattern, "tls": tls, "steps": made},
        draw=lambda path: draw_growth(made, path),
        parts=lambda found: (ramp_table(made), "", *sentences(found["verdict"])),
    )
    if document["verdict"]["cpu_ms_per_call_s"] is None:
        raise click.exceptions.Exit(1)
