"""`verify guard`: recording exactly once, shown over every order of events and every fault."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import click

from gw.cli.context import EXIT_CODES_HERE, json_option

if TYPE_CHECKING:
    from gw.verify.guard.check import Report

_MORE_FAULTS: Final = 4


@click.command(short_help="Recording starts exactly once, whatever fails and in whatever order.", epilog=EXIT_CODES_HERE)
@click.option("--deep", is_flag=True, help="More faults in one run; minutes instead of seconds, and some gigabytes.")
@click.option("--faults", type=click.IntRange(0, _MORE_FAULTS), help="This many faults in one run, in every scenario.")
@json_option
def guard(deep: bool, faults: int | None, as_json: bool) -> None:
    """Prove that a call is recorded exactly once: not before its first frame, soon after it, and whatever fails.

    One call is taken through every order in which TX, AI-out, the bus, control, the store, Twilio and its webhooks can act, with
    processes dying, messages lost or doubled, and Twilio answering in every way it may. Each decision is the production code's
    own. Exit code 1 if an invariant breaks: then the shortest way there is shown.

    \b
    The proof, in seconds:              gateway.py verify guard
    More faults at once:                gateway.py verify guard --deep
    For a script:                       gateway.py verify guard --json
    """
    from gw.verify.guard.check import DEEP, SCENARIOS, check

    logging.getLogger().addHandler(logging.NullHandler())  # things fail here on purpose: nobody needs to read of them
    logging.disable(logging.CRITICAL)
    try:
        scenarios = DEEP if deep else SCENARIOS
        report = check([one if faults is None else one._replace(budget=faults) for one in scenarios])
    finally:
        logging.disable(logging.NOTSET)
    if as_json:
        from gw.terminal import print_json

        print_json(report.document())
    else:
        _show(report)
    if not report.holds:
        raise click.exceptions.Exit(1)


def _show(report: Report) -> None:
    from rich.text import Text

    from gw.terminal import Column, console, print_rows
    from gw.verify.guard.check import GRANTED
    from gw.verify.guard.model import INVARIANTS

    columns = (
        Column("explored", lambda row: row["name"]),
        Column(">faults in a run", lambda row: f"{row['faults_in_one_run']} of {len(row['faults'])}"),
        Column(">states", lambda row: f"{row['states']:,}"),
        Column(">transitions", lambda row: f"{row['transitions']:,}"),
        Column(">depth", lambda row: str(row["depth"])),
        Column(">time", lambda row: f"{row['took_s']:.1f} s"),
        Column("", lambda row: "" if row["complete"] else Text("cut short: proves nothing", "red")),
    )
    document = report.document()
    total = {
        **document,
        "name": "all",
        "faults_in_one_run": max(one["faults_in_one_run"] for one in document["scenarios"]),
        "faults": {fault for one in document["scenarios"] for fault in one["faults"]},
        "depth": max(one["depth"] for one in document["scenarios"]),
        "complete": True,
    }
    print_rows(columns, [*document["scenarios"], total])
    out = console()
    out.print()
    for invariant in INVARIANTS:
        holds = document["invariants"][invariant]["holds"]
        out.print(Text("  holds      " if holds else "  BROKEN     ", "green" if holds else "bold red") + Text(invariant, ""))
    out.print("\nTaken for granted:", style="dim")
    for line in GRANTED:
        out.print(Text(f"  {line}", "dim"))
    for invariant in INVARIANTS:
        for scenario, violation in report.violations(invariant)[:1]:
            out.print(Text(f"\n{invariant}: the shortest way to break it ({scenario.name})", "bold"))
            for n, step in enumerate((*violation.steps, *([violation.end] if violation.end else [])), 1):
                out.print(Text(f"  {n:3}  {step}"))
