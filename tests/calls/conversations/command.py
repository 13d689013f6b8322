"""Command line of the conversations: hold them, show progress, print the broken laws."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from gw.terminal import console, figure_table
from tests.calls.conversations import scripts
from tests.calls.conversations.laws import LAWS, Result, broken, truncations
from tests.calls.conversations.run import hold
from tests.calls.conversations.scripts import conversation
from tests.calls.ear import Span

#: Interruptions of one call, and the distance from what was heard that is too far.
TIMES: Final = 20
_FAR_MS: Final = 20


@click.command()
@click.option("--calls", type=click.IntRange(1), default=80, show_default=True, help="Conversations to hold.")
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of the first; each next one has the next."
)
@click.option("--at-once", type=click.IntRange(1), default=20, show_default=True, help="Conversations at the same time.")
@click.option("--interrupted", is_flag=True, help="Callers interrupt 20 times a call, and nothing fails; print the truncations.")
@click.option("--slow-echo-s", default=0.0, show_default=True, help="With --interrupted: delay of the first echo of a mark.")
@click.option("--show", is_flag=True, help="Print the course of each conversation that broke a law.")
def main(calls: int, seed: int, at_once: int, interrupted: bool, slow_echo_s: float, show: bool) -> None:
    """Hold seeded conversations with faults, and judge what the caller heard. Exit code 1: a law was broken."""
    began_s, done, bad = time.monotonic(), 0, 0

    def on_result(held: Result) -> None:
        nonlocal done, bad
        done, bad = done + 1, bad + bool(broken(held))
        left_s = (time.monotonic() - began_s) / done * (calls - done)
        text = f"{done} of {calls} conversations, {bad} broke a law, about {left_s:.0f} s left"
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{text}", err=True, nl=done == calls)
        elif done % 10 == 0 or done == calls:
            click.echo(text, err=True)

    made = [conversation(seed + n) for n in range(calls)]
    if interrupted:
        made = [scripts.interrupted(seed + n, TIMES) for n in range(calls)]
        made = [replace(one, plan=replace(one.plan, slow_echo_s=slow_echo_s)) for one in made]
    with tempfile.TemporaryDirectory() as folder:
        results = hold(made, Path(folder), at_once, on_result)
    found: dict[str, list[tuple[Result, str]]] = defaultdict(list)
    for held in sorted(results, key=lambda one: one.made.seed):
        for law, text in broken(held):
            found[law].append((held, text))
        if show and broken(held):
            click.echo("\n".join(course(held)))
    table = figure_table("law", "calls", "times", "first: seed, faults, what was found")
    for law in LAWS:
        hits = found[law]
        example = f"{hits[0][0].made.seed} {', '.join(hits[0][0].made.faults) or 'no fault'}: {hits[0][1]}" if hits else ""
        table.add_row(law, str(len({held.made.seed for held, _ in hits})), str(len(hits)), example)
    console().print(table)
    if interrupted:
        off_ms = sorted(off_ms for held in results for _, _, off_ms in truncations(held))
        places = (0, len(off_ms) // 100, len(off_ms) // 2, len(off_ms) * 99 // 100, len(off_ms) - 1)
        shares = ", ".join(f"{off_ms[place]:+d}" for place in places)
        far = sum(abs(one) > _FAR_MS for one in off_ms)
        click.echo(f"{len(off_ms)} truncations, ms behind the ear (min, p1, p50, p99, max): {shares}; {far} over {_FAR_MS} ms")
    seeds = sorted({held.made.seed for hits in found.values() for held, _ in hits})
    click.echo(f"{len(seeds)} of {calls} conversations broke a law" + (f": seeds {' '.join(map(str, seeds))}" if seeds else ""))
    sys.exit(1 if seeds else 0)


def course(held: Result) -> list[str]:
    """Return the course of a conversation, one line for each thing that happened."""
    made, ear, call = held.made, held.ear, held.call
    lines: list[tuple[float, str]] = [(at_s, f"stream {n}") for n, at_s in enumerate(call.streams_s, 1)]
    for span in ear.agent:
        lines.append((span.start_s, f"agent   {_lasting(span)} {span.item or 'sound'} from frame {span.first}"))
    lines += [(said.start_s, f"caller  {_lasting(said)}") for said in ear.caller]
    for at_s, step in call.done:
        lines.append((at_s, f"step    {step.kind} {step.keys}" + (f"for {step.lasts_s:.1f} s" if step.lasts_s else "")))
    for n, session in enumerate(held.sessions, 1):
        happened = [(session.connected_s, "connects")]
        for one in session.responses:
            happened.append((one.created_s, f"{'asked' if one.asked else 'own'} response {one.item_id} {one.status}"))
        happened += [(event.at_s, f"receives {event.kind}") for event in session.events]
        happened += [(error.at_s, f"error {error.code}") for error in session.errors]
        if session.closed_s is not None:
            happened.append((session.closed_s, f"closed by {session.closed_by} {session.close_code or ''}"))
        lines += [(at_s, f"AI {n}    {text}") for at_s, text in happened]
    lines.append((ear.ended_s, f"closed by {call.closed_by}: {held.reason} {' '.join(ear.words)}"))
    ends = "agent" if made.agent_ends else "caller"
    return [
        f"\nseed {made.seed}: interruptions {made.interruptions}, {', '.join(made.faults) or 'no fault'}, the {ends} ends, "
        f"{'recorded' if made.recorded else 'spoken'} greeting, {'warm' if made.warm else 'cold'} leg",
        *(f"  {at_s - ear.began_s:7.2f}  {text}" for at_s, text in sorted(lines)),
        *(f"  broken: {law}: {text}" for law, text in broken(held)),
    ]


def _lasting(span: Span) -> str:
    return f"{span.end_s - span.start_s:.2f} s"
