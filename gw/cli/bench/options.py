"""What the commands of `bench` have in common: their options, how a run is told of while it goes on, how it ends.

A run that takes steps keeps those it measured however it ends: it writes and draws them, then says them, as JSON or for people.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gw.cli.context import Failure, Settings, json_option

if TYPE_CHECKING:
    from gw.bench.run import Load

_OUT: Final = Path("out/bench")
_PATTERNS: Final = ("steady", "bursty", "bargein")

out_option = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=_OUT, show_default=True, help="Where files go."
)
pattern_option = click.option(
    "--pattern",
    type=click.Choice(_PATTERNS),
    default="steady",
    show_default=True,
    help="How the AI's audio comes: evenly, in bursts of 5 s, or evenly with an interruption each two seconds.",
)
patience_option = click.option(
    "--patience",
    type=click.FloatRange(0, 3600),
    default=20,
    show_default=True,
    help="Seconds to wait, before each measurement, for a machine on which nothing else is busy.",
)
tls_option = click.option("--tls", is_flag=True, help="The AI speaks TLS to the gateway, as OpenAI does; the floor stays plain.")

Command = Callable[..., Any]


def step_options(first: int, last: int) -> Callable[[Command], Command]:
    """The options of a run that takes steps, by default from `first` calls to `last`."""
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


def gateway_command() -> list[str]:
    """How the measured gateway is started: it has a configuration of its own, not the user's."""
    return Settings(None).command_line()


def between(first: int, last: int, steps: Iterable[int]) -> list[int]:
    """Numbers of calls to measure: both ends, and the usual ones between them."""
    return sorted({first, *(calls for calls in steps if first < calls < last), last})


def step_load(seconds: float, pattern: str, patience_s: float, *, tls: bool = False) -> Load:
    """The load of a run that takes steps; each of them says how many calls."""
    from gw.bench.run import Load

    return Load(calls=0, seconds=seconds, pattern=pattern, maxima=False, patience_s=patience_s, tls=tls)


def take_steps(
    name: str,
    out: Path,
    as_json: bool,
    *,
    measure: Callable[[Callable[[str], None]], None],
    made: list[dict[str, Any]],
    document: Callable[[], dict[str, Any]],
    draw: Callable[[Path], None],
    parts: Callable[[dict[str, Any]], Iterable[Any]],
) -> dict[str, Any]:
    """Measure, write and draw what came of it as `name`, and say it.

    `measure` puts steps into `made` as they come; `document` is asked when no more will. Returns the document.
    """
    from gw.bench import report

    try:
        with running(as_json) as tell:
            measure(tell)
    finally:
        found = document()
        if made:
            report.write(out / f"{name}.json", found)
            draw(out / f"{name}.png")
    say(found, as_json, lambda: (*parts(found), f"See: {out}/{name}.png  Read: {out}/{name}.json"))
    return found


def say(document: dict[str, Any], as_json: bool, parts: Callable[[], Iterable[Any]]) -> None:
    """What was found, as JSON or, part by part, for people."""
    from gw.terminal import console, print_json

    if as_json:
        print_json(document)
        return
    screen = console()
    for part in parts():
        screen.print(part)


@contextmanager
def running(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show each step as it is told, and end everything at the first Ctrl-C."""
    from gw.cli.interrupt import Interrupted, interruptible

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
        with interruptible():
            yield tell
    except Interrupted:
        raise Failure("interrupted; everything that was started has ended") from None
    finally:
        if live:
            click.echo("\r\033[K", nl=False, err=True)
