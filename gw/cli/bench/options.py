"""Shared parts of the `bench` commands: options, the progress line, the result on the screen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from gw.cli.context import Failure, out_folder_option

_PATTERNS: Final = ("steady", "bursty", "bargein")

out_option = out_folder_option("out/bench")
pattern_option = click.option(
    "--pattern",
    type=click.Choice(_PATTERNS),
    default="steady",
    show_default=True,
    help="Arrival of the AI's audio: evenly, in bursts of 5 s, or evenly with an interruption every two seconds.",
)
patience_option = click.option(
    "--patience",
    type=click.FloatRange(0, 3600),
    default=20,
    show_default=True,
    help="Seconds to wait, before each measurement, until no other program is busy.",
)
tls_option = click.option("--tls", is_flag=True, help="Use TLS to the AI, as with OpenAI; the floor stays plain.")


def print_result(document: dict[str, Any], as_json: bool, parts: Callable[[], Iterable[Any]]) -> None:
    """Print a result: the document as JSON, or its `parts` for people."""
    from gw.terminal import console, print_json

    if as_json:
        print_json(document)
        return
    screen = console()
    for part in parts():
        screen.print(part)


@contextmanager
def show_steps(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show each step of a run on standard error; the first Ctrl-C ends the run."""
    from gw.cli.context import Interrupted, interruptible

    live = sys.stderr.isatty() and not quiet
    shown = ""

    def on_step(step: str) -> None:
        nonlocal shown
        if step == shown:
            return
        shown = step
        if live:
            click.echo(f"\r\033[K{step}", nl=False, err=True)
        elif not quiet and "measuring" not in step:
            click.echo(step, err=True)

    try:
        with interruptible():
            yield on_step
    except Interrupted:
        raise Failure("interrupted; everything that was started has ended") from None
    finally:
        if live:
            click.echo("\r\033[K", nl=False, err=True)
