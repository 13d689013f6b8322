"""`bench`: measure the gateway on this machine, beside the least that the machine itself asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gw.cli.bench.options import gateway_command, out_option, patience_option, pattern_option, running, say, tls_option
from gw.cli.bench.peers import peers as peers_command
from gw.cli.bench.ramp import ramp
from gw.cli.bench.steps import growth
from gw.cli.context import EXIT_CODES_HERE, json_option

if TYPE_CHECKING:
    from gw.bench.run import Load

#: A round that was void is repeated: in all, at most this many times the rounds asked for.
_TRIES: Final = 2


@click.group(invoke_without_command=True, short_help="Measure the gateway on this machine.", epilog=EXIT_CODES_HERE)
@click.option("--calls", type=click.IntRange(1, 2000), default=100, show_default=True, help="Full-duplex calls at once.")
@click.option("--seconds", type=click.FloatRange(2, 3600), default=15, show_default=True, help="The measured window.")
@pattern_option
@tls_option
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Media workers, a core each.")
@click.option("--floor", is_flag=True, help="Measure a bridge in C beside it, with the same load; needs a C compiler.")
@click.option("--peers", is_flag=True, help="Measure other designs beside it, with the same load; builds what they need.")
@click.option("--pressure", is_flag=True, help="Measure what recordings, scrapes and a store that stalls do to lateness.")
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
    peers: bool,
    pressure: bool,
    rounds: int,
    patience: float,
    out: Path,
    as_json: bool,
) -> None:
    """Load a gateway with calls and measure what each costs and how punctual it stays.

    Starts `gateway.py serve` as you would, its workers on cores of their own, between two processes that play telephones and
    the AI on the others. Those report how late they were themselves: where they, or other programs, were in the way, a round
    is void, is repeated once, and says so. Writes bench.json and bench.png. Exit code 1 for a void run, or one in which a
    caller would have noticed.

    \b
    A hundred calls:                    gateway.py bench
    Against the floor, as published:    gateway.py bench --calls 200 --seconds 12 --floor --rounds 3
    With TLS to the AI, as in earnest:  gateway.py bench --tls --calls 200 --floor --rounds 3
    Interruptions:                      gateway.py bench --pattern bargein --calls 200
    How many calls a core holds:        gateway.py bench ramp
    How many other designs hold:        gateway.py bench peers
    What a call costs among many:       gateway.py bench growth
    Recordings and a dead store:        gateway.py bench --pressure --rounds 5
    """
    if ctx.invoked_subcommand is not None:
        return
    if tls and peers:
        raise click.UsageError("--tls is between the gateway and the AI; the peers speak plainly, which compares nothing")
    from gw.bench import report
    from gw.bench.pictures import draw
    from gw.bench.run import Load, measure_floor, measure_gateway
    from gw.bench.subject import build_floor

    load = Load(calls=calls, seconds=seconds, pattern=pattern, workers=workers, patience_s=patience, tls=tls)
    command = gateway_command()
    if pressure:
        _press(command, out, load, rounds, as_json)
        return
    gateways, floors = [], []
    others: list[dict[str, Any]] = []
    if floor:
        (out / "floor").mkdir(parents=True, exist_ok=True)
        build_floor(out / "floor")  # before anything else: a missing compiler should not cost a run
    with running(as_json) as tell:
        for _ in range(rounds * _TRIES):
            gateways.append(measure_gateway(command, out, load, tell))
            if floor:
                floors.append(measure_floor(out, load, tell))
            if all(sum(not one.void() for one in found) >= rounds for found in (gateways, *([floors] if floor else []))):
                break
        if peers:
            from gw.bench.peers import beside, peer_measures

            nearest = report.middle(floors) if floors else None
            others = beside(report.middle(gateways), nearest, load, peer_measures(out, tell))
    document = report.document(gateways, floors)
    if others:
        document["peers"] = others
    report.write(out / "bench.json", document)
    draw(document, out / "bench.png")

    def parts() -> Iterator[Any]:
        yield f"{calls} calls, {pattern}, {seconds:g} s after the warm-up" + (f", median of {rounds}" if rounds > 1 else "")
        yield report.tables(gateways, floors)
        if others:
            from gw.bench.peers_report import table

            yield ""
            yield table(others)
        yield f"See: {out}/bench.png  Read: {out}/bench.json"

    say(document, as_json, parts)
    if document["void"] or document["broken"] or (floors and document["floor"]["void"]):
        raise click.exceptions.Exit(1)


def _press(command: list[str], out: Path, load: Load, rounds: int, as_json: bool) -> None:
    """`--pressure`: three windows a round instead of one."""
    from gw.bench import report
    from gw.bench.pressure import press, tables

    with running(as_json) as tell:
        found = press(command, out, load, rounds, tell)
    document = found.document()
    report.write(out / "pressure.json", document)
    say(document, as_json, lambda: (tables(found), f"Read: {out}/pressure.json"))
    if document["void"] or found.failures():
        raise click.exceptions.Exit(1)


for _command in (ramp, growth, peers_command):
    bench.add_command(_command)
