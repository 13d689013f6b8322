"""`capacity`: what a number of calls needs."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from gw.cli.capacity_figures import FIGURES, LIMITS
from gw.cli.capacity_model import MAX_CALLS, Demand, Plan, plan
from gw.cli.context import EXIT_CODES_HERE, json_option


@click.command(short_help="How many machines a number of calls needs, and of which kind.", epilog=EXIT_CODES_HERE)
@click.option("--calls", type=click.IntRange(1, MAX_CALLS), required=True, help="Calls at once.")
@click.option("--minutes", type=click.FloatRange(0.1, 1440.0), default=3.0, show_default=True, help="How long a call lasts.")
@click.option("--turns", type=click.FloatRange(0.0, 100.0), default=4.0, show_default=True, help="Turns a minute, both sides.")
@click.option("--cores", type=click.IntRange(1, 1024), default=4, show_default=True, help="Cores of a machine.")
@click.option(
    "--load", type=click.FloatRange(0.1, 1.0), default=0.7, show_default=True, help="The share of what was measured to plan for."
)
@click.option("--figures", is_flag=True, help="The numbers it rests on, and where each is from.")
@json_option
def capacity(calls: int, minutes: float, turns: float, cores: int, load: float, figures: bool, as_json: bool) -> None:
    """Compute what a number of calls at once needs: gateways, balancers, store, metrics, and what to agree with others.

    It rests on figures measured on one machine: --figures names each with the command that measures it on yours.
    deploy/SCALING.md says how the parts are built.

    \b
    A call centre:          gateway.py capacity --calls 500
    Bigger machines:        gateway.py capacity --calls 10000 --cores 16
    Where numbers are from: gateway.py capacity --calls 500 --figures
    For a script:           gateway.py capacity --calls 500 --json
    """
    from gw.terminal import print_json

    made = plan(Demand(calls, minutes * 60, turns, cores, load))
    if as_json:
        print_json(document(made))
    else:
        _show(made, with_figures=figures)


def document(made: Plan) -> dict[str, Any]:
    """The plan and everything it rests on."""
    return {
        **dataclasses.asdict(made),
        "arrivals_per_s": round(made.demand.arrivals_per_s, 3),
        "figures": {name: figure._asdict() for name, figure in FIGURES.items()},
        "limits": [dict(zip(("whose", "limit", "source"), limit, strict=True)) for limit in LIMITS],
    }


def _show(made: Plan, *, with_figures: bool) -> None:
    from gw.terminal import Column, console, facts, print_rows

    demand = made.demand
    out = console()
    out.print(
        f"{demand.calls} calls at once of {demand.call_s / 60:g} minutes are {demand.arrivals_per_s:.2f} new calls a second; "
        f"machines of {demand.cores} cores, planned for {demand.load:.0%} of what was measured."
    )
    for part in made.parts:
        out.print(f"\n{part.name}: {part.engine}", style="bold", markup=False)
        out.print(f"  {part.why}", markup=False)
        out.print(facts((name.replace("_", " "), f"{value:,g}") for name, value in part.needs.items()))
    out.print()
    print_rows(
        (
            Column("limit of", lambda row: row["whose"]),
            Column("what", lambda row: row["limit"]),
            Column("said by", lambda row: row["source"]),
        ),
        document(made)["limits"],
    )
    if with_figures:
        out.print()
        columns = (
            Column("figure", lambda row: row["name"]),
            Column(">value", lambda row: f"{row['value']:,g}"),
            Column("unit", lambda row: row["unit"]),
            Column("kind", lambda row: row["kind"]),
            Column("by", lambda row: row["source"]),
        )
        print_rows(columns, [{"name": name, **figure._asdict()} for name, figure in FIGURES.items()])
