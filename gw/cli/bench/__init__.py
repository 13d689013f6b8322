"""`bench`: measure the gateway on this machine, beside the least that kernel and protocol cost.

options   options that several commands share, the progress line, the result on the screen
steps     `bench ramp` and `bench growth`: a growing number of calls
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gw.cli.bench.options import out_option, patience_option, pattern_option, print_result, show_steps, tls_option
from gw.cli.bench.steps import growth, ramp
from gw.cli.context import EXIT_CODES_HERE, Settings, json_option

#: A void round is repeated: in all, at most this many times the rounds asked for.
_TRIES: Final = 2


@click.group(invoke_without_command=True, short_help="Measure the gateway on this machine.", epilog=EXIT_CODES_HERE)
@click.option("--calls", type=click.IntRange(1, 2000), default=100, show_default=True, help="Concurrent full-duplex calls.")
@click.option("--seconds", type=click.FloatRange(2, 3600), default=15, show_default=True, help="The measured window.")
@pattern_option
@tls_option
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Media workers, a core each.")
@click.option("--floor", is_flag=True, help="Measure a bridge in C as well, with the same load; needs a C compiler.")
@click.option("--rounds", type=click.IntRange(1, 99), default=1, show_default=True, help="Repeat, and show the median round.")
@patience_option
@out_option
@json_option
@click.pass_context
def bench(
    ctx: click.Context,
    calls: int,
    seconds: float,
    pattern: str,
    tls: bool,
    workers: int,
    floor: bool,
    rounds: int,
    patience: float,
    out: Path,
    as_json: bool,
) -> None:
    """Load a gateway with calls; measure what each costs and how punctual it stays.

    Starts `gateway.py serve` as you would, each worker on its own core, and two load processes that play the telephones
    and the AI on the other cores. The load processes report their own lateness: a round that they or other programs disturbed
    is void and is repeated once. Writes bench.json and bench.png. Exit code 1 for a void run, or one in which a caller would
    have noticed.

    \b
    A hundred calls:                    gateway.py bench
    Against the floor, as published:    gateway.py bench --calls 200 --seconds 12 --floor --rounds 3
    With TLS to the AI, as in service:  gateway.py bench --tls --calls 200 --floor --rounds 3
    Interruptions:                      gateway.py bench --pattern bargein --calls 200
    How many calls a core holds:        gateway.py bench ramp
    What a call costs among many:       gateway.py bench growth
    """
    if ctx.invoked_subcommand is not None:
        return
    from gw.bench import report
    from gw.bench.pictures import draw, see
    from gw.bench.run import Load, measure_floor, measure_gateway
    from gw.bench.subject import build_floor

    load = Load(calls=calls, seconds=seconds, pattern=pattern, workers=workers, patience_s=patience, tls=tls)
    command = Settings(None).command_line()  # without the user's configuration
    gateways, floors = [], []
    if floor:
        (out / "floor").mkdir(parents=True, exist_ok=True)
        build_floor(out / "floor")  # first: a missing compiler should not cost a run
    with show_steps(as_json) as on_step:
        for _ in range(rounds * _TRIES):
            gateways.append(measure_gateway(command, out, load, on_step))
            if floor:
                floors.append(measure_floor(out, load, on_step))
            if all(sum(not one.void() for one in found) >= rounds for found in (gateways, *([floors] if floor else []))):
                break
    document = report.document(gateways, floors)
    report.write(out / "bench.json", document)
    picture = see(partial(draw, document), out / "bench.png")

    def parts() -> Iterator[Any]:
        yield f"{calls} calls, {pattern}, {seconds:g} s after the warm-up" + (f", median of {rounds}" if rounds > 1 else "")
        yield report.tables(gateways, floors)
        yield f"{picture}  Read: {out}/bench.json"

    print_result(document, as_json, parts)
    if document["void"] or document["broken"] or (floors and document["floor"]["void"]):
        raise click.exceptions.Exit(1)


bench.add_command(ramp)
bench.add_command(growth)
