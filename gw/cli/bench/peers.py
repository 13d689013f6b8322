"""`bench peers`: how many calls each of several designs holds on a core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gw.cli.bench.options import between, gateway_command, step_load, step_options, take_steps
from gw.cli.context import EXIT_CODES_HERE


@click.command(
    short_help="How many calls each of several designs holds on a core, and what they cost.",
    epilog=f"\b\nExample:  gateway.py bench peers --json\n\n{EXIT_CODES_HERE}",
)
@step_options(5, 200)
def peers(seconds: float, first: int, last: int, pattern: str, patience: float, out: Path, as_json: bool) -> None:
    """Let the number of calls grow for the gateway, the floor and other designs, each until a caller would notice.

    The others are pipecat and a bridge of threads and queues (tests/bench/peers); each gets an environment under out/peers, built
    when it is first needed, for which pip must reach a package index. Lateness is the caller's for all. Writes peers.json and
    peers.png: CPU, lateness and memory of a call against their number.
    """
    from gw.bench import peers as bench_peers
    from gw.bench.peers_report import draw, sentences, table

    steps = between(first, last, bench_peers.STEPS)
    load = step_load(seconds, pattern, patience)
    rows: list[dict[str, Any]] = []
    take_steps(
        "peers",
        out,
        as_json,
        measure=lambda tell: bench_peers.climb(load, steps, bench_peers.measures(gateway_command(), out, tell), rows),
        made=rows,
        document=lambda: bench_peers.document(rows),
        draw=lambda path: draw(rows, path),
        parts=lambda found: (table(rows), "", *sentences(found)),
    )
