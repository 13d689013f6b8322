"""`bench`: measure the gateway on this machine, beside the least that the machine itself asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gw.cli.context import Failure, Settings, json_option, pass_settings

if TYPE_CHECKING:
    from gw.cli.bench_run import Load

#: A round that was void is repeated: in all, at most this many times the rounds asked for.
_TRIES: Final = 2
_OUT: Final = Path("out/bench")
_PATTERNS: Final = ("steady", "bursty", "bargein")

_out = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=_OUT, show_default=True, help="Where files go."
)
_pattern = click.option(
    "--pattern",
    type=click.Choice(_PATTERNS),
    default="steady",
    show_default=True,
    help="How the AI's audio comes: evenly, in bursts of 5 s, or evenly with an interruption each two seconds.",
)
_patience = click.option(
    "--patience",
    type=click.FloatRange(0, 3600),
    default=20,
    show_default=True,
    help="Seconds to wait, before each measurement, for a machine on which nothing else is busy.",
)
_workers = click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Media workers, a core each.")


@click.group(invoke_without_command=True, short_help="Measure the gateway on this machine.")
@click.option("--calls", type=click.IntRange(1, 2000), default=100, show_default=True, help="Full-duplex calls at once.")
@click.option("--seconds", type=click.FloatRange(2, 3600), default=15, show_default=True, help="The measured window.")
@_pattern
@_workers
@click.option("--floor", is_flag=True, help="Measure a bridge in C beside it, with the same load; needs a C compiler.")
@click.option("--peers", is_flag=True, help="Measure other designs beside it, with the same load; builds what they need.")
@click.option("--pressure", is_flag=True, help="Measure what recordings, scrapes and a store that stalls do to lateness.")
@click.option("--rounds", type=click.IntRange(1, 99), default=1, show_default=True, help="Repeat, and show the median round.")
@_patience
@_out
@json_option
@click.pass_context
def bench(
    ctx: click.Context,
    calls: int,
    seconds: float,
    pattern: str,
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
    Against the floor, as published:    gateway.py bench --calls 200 --seconds 30 --floor --rounds 3
    Interruptions:                      gateway.py bench --pattern bargein --calls 200
    How many calls a core holds:        gateway.py bench ramp
    How many other designs hold:        gateway.py bench peers
    What a call costs among many:       gateway.py bench growth
    Recordings and a dead store:        gateway.py bench --pressure --rounds 5
    """
    if ctx.invoked_subcommand is not None:
        return
    from gw.cli import bench_report
    from gw.cli.bench_draw import draw
    from gw.cli.bench_run import Load, measure_floor, measure_gateway
    from gw.cli.bench_subject import build_floor

    load = Load(calls=calls, seconds=seconds, pattern=pattern, workers=workers, patience_s=patience)
    command = Settings(None).command_line()
    if pressure:
        _press(command, out, load, rounds, as_json)
        return
    gateways, floors = [], []
    others: list[dict[str, Any]] = []
    if floor:
        (out / "floor").mkdir(parents=True, exist_ok=True)
        build_floor(out / "floor")  # before anything else: a missing compiler should not cost a run
    with _running(as_json) as tell:
        for _ in range(rounds * _TRIES):
            gateways.append(measure_gateway(command, out, load, tell))
            if floor:
                floors.append(measure_floor(out, load, tell))
            if all(sum(not one.void() for one in found) >= rounds for found in (gateways, *([floors] if floor else []))):
                break
        if peers:
            from gw.cli.bench_peers import beside, peer_measures

            nearest = bench_report.middle(floors) if floors else None
            others = beside(bench_report.middle(gateways), nearest, load, peer_measures(out, tell))
    document = bench_report.document(gateways, floors)
    if others:
        document["peers"] = others
    bench_report.write(out / "bench.json", document)
    draw(document, out / "bench.png")
    if as_json:
        from gw.cli.output import print_json

        print_json(document)
    else:
        from gw.cli.output import console

        screen = console()
        screen.print(
            f"{calls} calls, {pattern}, {seconds:g} s after the warm-up" + (f", median of {rounds}" if rounds > 1 else "")
        )
        screen.print(bench_report.tables(gateways, floors))
        if others:
            from gw.cli.bench_peers_report import table

            screen.print("\n", table(others))
        screen.print(f"See: {out}/bench.png  Read: {out}/bench.json")
    if document["void"] or document["broken"] or (floors and document["floor"]["void"]):
        raise click.exceptions.Exit(1)


def _press(command: list[str], out: Path, load: Load, rounds: int, as_json: bool) -> None:
    """`--pressure`: three windows a round instead of one."""
    from gw.cli import bench_report
    from gw.cli.bench_pressure import press, tables

    with _running(as_json) as tell:
        found = press(command, out, load, rounds, tell)
    document = found.document()
    bench_report.write(out / "pressure.json", document)
    if as_json:
        from gw.cli.output import print_json

        print_json(document)
    else:
        from gw.cli.output import console

        screen = console()
        screen.print(tables(found))
        screen.print(f"Read: {out}/pressure.json")
    if document["void"] or found.failures():
        raise click.exceptions.Exit(1)


def _between(first: int, last: int, steps: Iterable[int]) -> list[int]:
    """Numbers of calls to measure: both ends, and the usual ones between them."""
    return sorted({first, *(calls for calls in steps if first < calls < last), last})


@bench.command(short_help="How many calls a core of this machine holds.")
@click.option("--seconds", type=click.FloatRange(2, 3600), default=10, show_default=True, help="The window of each step.")
@click.option("--from", "first", type=click.IntRange(1), default=10, show_default=True, help="The fewest calls.")
@click.option("--to", "last", type=click.IntRange(1, 2000), default=500, show_default=True, help="The most calls.")
@_pattern
@_patience
@_out
@json_option
@pass_settings
def ramp(
    settings: Settings, seconds: float, first: int, last: int, pattern: str, patience: float, out: Path, as_json: bool
) -> None:
    """Let the number of calls grow until they are more than one worker on one core holds.

    A number holds when lateness p99.9 stays under 5 ms beyond the floor's own, no caller has an underrun at a 60 ms buffer, and
    nothing is lost. Writes ramp.json, and ramp.png: CPU, lateness and memory of a call against their number.
    """
    from gw.cli import bench_report
    from gw.cli.bench_draw import draw_ramp
    from gw.cli.bench_ramp import STEPS, climb, held, measuring

    steps = _between(first, last, STEPS)
    made: list[dict[str, Any]] = []
    try:
        with _running(as_json) as tell:
            climb(_ramp_load(seconds, pattern, patience), steps, measuring(Settings(None).command_line(), out, tell), made)
    finally:
        best = held(made)
        document: dict[str, Any] = {"calls_per_core": best, "pattern": pattern, "steps": made}
        if made:
            bench_report.write(out / "ramp.json", document)
            draw_ramp(made, out / "ramp.png")
    if as_json:
        from gw.cli.output import print_json

        print_json(document)
    else:
        from gw.cli.output import console

        screen = console()
        screen.print(bench_report.ramp_table(made))
        more = "at least " if best == steps[-1] else ""
        screen.print(f"\nThis machine holds {more}{best} calls per core." if best else "\nNo step held, or all were void.")
        screen.print(f"See: {out}/ramp.png  Read: {out}/ramp.json")
    if not best:
        raise click.exceptions.Exit(1)


@bench.command(short_help="What a call costs when there are many.")
@click.option("--seconds", type=click.FloatRange(2, 3600), default=10, show_default=True, help="The window of each step.")
@click.option("--from", "first", type=click.IntRange(1), default=10, show_default=True, help="The fewest calls.")
@click.option("--to", "last", type=click.IntRange(1, 2000), default=500, show_default=True, help="The most calls.")
@_pattern
@_patience
@_out
@json_option
def growth(seconds: float, first: int, last: int, pattern: str, patience: float, out: Path, as_json: bool) -> None:
    """CPU and memory of a call against the number of calls, on one worker, beside the floor where there is a C compiler.

    Goes on until the worker's core is full, and says whether a call costs more when there are many. Writes growth.json and
    growth.png.
    """
    from gw.cli import bench_report
    from gw.cli.bench_draw import draw_growth
    from gw.cli.bench_growth import STEPS, grow, sentences, verdict
    from gw.cli.bench_ramp import measuring

    steps = _between(first, last, STEPS)
    made: list[dict[str, Any]] = []
    try:
        with _running(as_json) as tell:
            grow(_ramp_load(seconds, pattern, patience), steps, measuring(Settings(None).command_line(), out, tell), made)
    finally:
        document: dict[str, Any] = {"verdict": verdict(made), "pattern": pattern, "steps": made}
        if made:
            bench_report.write(out / "growth.json", document)
            draw_growth(made, out / "growth.png")
    if as_json:
        from gw.cli.output import print_json

        print_json(document)
    else:
        from gw.cli.output import console

        screen = console()
        screen.print(bench_report.ramp_table(made))
        screen.print()
        for sentence in sentences(document["verdict"]):
            screen.print(sentence)
        screen.print(f"See: {out}/growth.png  Read: {out}/growth.json")
    if document["verdict"]["cpu_ms_per_call_s"] is None:
        raise click.exceptions.Exit(1)


@bench.command(short_help="How many calls each of several designs holds on a core, and what they cost.")
@click.option("--seconds", type=click.FloatRange(2, 3600), default=10, show_default=True, help="The window of each step.")
@click.option("--from", "first", type=click.IntRange(1), default=5, show_default=True, help="The fewest calls.")
@click.option("--to", "last", type=click.IntRange(1, 2000), default=200, show_default=True, help="The most calls.")
@_pattern
@_patience
@_out
@json_option
@pass_settings
def peers(
    settings: Settings, seconds: float, first: int, last: int, pattern: str, patience: float, out: Path, as_json: bool
) -> None:
    """Let the number of calls grow for the gateway, the floor and other designs, each until a caller would notice.

    The others are pipecat and a bridge of threads and queues (tests/bench/peers); each gets an environment under out/peers, built
    when it is first needed, for which pip must reach a package index. Lateness is the caller's for all. Writes peers.json and
    peers.png: CPU, lateness and memory of a call against their number.
    """
    from gw.cli import bench_peers, bench_peers_report, bench_report

    steps = sorted({first, *(calls for calls in bench_peers.STEPS if first < calls < last), last})
    rows: list[dict[str, Any]] = []
    try:
        with _running(as_json) as tell:
            found = bench_peers.measures(settings.command_line(), out, tell)
            bench_peers.climb(_ramp_load(seconds, pattern, patience), steps, found, rows)
    finally:
        document = bench_peers.document(rows)
        if rows:
            bench_report.write(out / "peers.json", document)
            bench_peers_report.draw(rows, out / "peers.png")
    if as_json:
        from gw.cli.output import print_json

        print_json(document)
    else:
        from gw.cli.output import console

        screen = console()
        screen.print(bench_peers_report.table(rows))
        screen.print("", *bench_peers_report.sentences(document), sep="\n")
        screen.print(f"See: {out}/peers.png  Read: {out}/peers.json")


def _ramp_load(seconds: float, pattern: str, patience_s: float) -> Load:
    from gw.cli.bench_run import Load

    return Load(calls=0, seconds=seconds, pattern=pattern, maxima=False, patience_s=patience_s)


@contextmanager
def _running(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show each step as it is told, and end everything at the first Ctrl-C."""
    import sys

    from gw.cli.demo import Interrupted, _interruptible

    live = sys.stderr.isatty() and not quiet
    told = ""

    def tell(step: str) -> None:
        nonlocal told
        if step == told:
            return
        told = step
        if live:
            click.echo(f"\r\033[K{step}", nl=False, err=True)
        elif not quiet and "measuring" not in step:
            click.echo(step, err=True)

    try:
        with _interruptible():
            yield tell
    except Interrupted:
        raise Failure("interrupted; everything that was started has ended") from None
    finally:
        if live:
            click.echo("\r\033[K", nl=False, err=True)
