"""`verify`: the proofs `purity`, `guard`, `conversation`, `budget`; alone, all of them, with a verdict for each guarantee."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gw.cli.context import EXIT_CODES_HERE, Settings, json_option, out_folder_option

if TYPE_CHECKING:
    from gw.verify.purity.report import Report as PurityReport
    from gw.verify.scenario_report import ScenarioReport

#: The guarantees that each proof covers; purity reports on ring 1 and ring 2 separately.
_PROOFS: Final[dict[str, tuple[str, ...]]] = {
    "purity": ("TX purity", "clean separation"),
    "guard": ("recording timing", "single start", "no race"),
    "conversation": ("conversation",),
    "budget": ("budget",),
}
#: The verdicts at the end of `verify`, in this sequence.
_GUARANTEES: Final = ("TX purity", "recording timing", "single start", "no race", "clean separation", "conversation", "budget")
#: Calls and seconds of `budget --quick`, and the time for measuring the machine's timers before each run.
_QUICK_CALLS: Final = 20
_QUICK_S: Final = 10.0
_NOISE_S: Final = 3.0


class NotProven(click.exceptions.Exit):
    """Some of a proof's guarantees do not hold."""

    def __init__(self, *guarantees: str) -> None:
        super().__init__(1)
        self.guarantees = guarantees


@click.group(
    invoke_without_command=True, short_help="Verify the latency and recording guarantees on this machine.", epilog=EXIT_CODES_HERE
)
@click.pass_context
def verify(ctx: click.Context) -> None:
    """Verify the gateway's guarantees: by reading its source, watching it and measuring it. Exit code 1 if one does not hold.

    \b
    All proofs, with a verdict each:    gateway.py verify
    Operations of the TX loop:          gateway.py verify purity
    Recording exactly once:             gateway.py verify guard
    Rules of a conversation:            gateway.py verify conversation
    Latency on this machine:            gateway.py verify budget
    """
    if ctx.invoked_subcommand is None:
        run_all(ctx, _PROOFS)


def run_all(ctx: click.Context, names: Iterable[str]) -> None:
    """Run the proofs and print a verdict for each guarantee. Raises click's Exit when one does not hold."""
    broken: set[str] = set()
    for name in names:
        click.secho(f"verify {name}", bold=True)
        command = verify.get_command(ctx, name)
        assert command is not None
        try:
            ctx.invoke(command)
        except NotProven as end:
            broken.update(end.guarantees)
        except click.exceptions.Exit as end:
            if end.exit_code:
                broken.update(_PROOFS[name])
        click.echo()
    for guarantee in _GUARANTEES:
        verdict = click.style("DOES NOT HOLD", fg="red") if guarantee in broken else click.style("holds", fg="green")
        click.echo(f"{guarantee:18} {verdict}")
    if broken:
        raise click.exceptions.Exit(1)


# -- purity -----------------------------------------------------------------------------------------------------------


@verify.command(short_help="Check the TX loop's operations against the allow-list.", epilog=EXIT_CODES_HERE)
@click.option("--static", is_flag=True, help="Only read the source; place no calls.")
@json_option
def purity(static: bool, as_json: bool) -> None:
    """Verify that the TX loop does only what the allow-list permits.

    The static part reads the source from the loop's entry to the leaves: each operation must be resolved and listed in
    gw/verify/purity/allow_list.py. The dynamic part takes TX through all its branches and places calls through a media plane in
    this process, while every call of TX and every audit event is watched. Exit code 1 for any other operation.

    \b
    Both parts, about ten seconds:      gateway.py verify purity
    The source alone, one second:       gateway.py verify purity --static
    For a script:                       gateway.py verify purity --json
    """
    from gw.terminal import console, print_json

    report = _check_purity(static_only=static)
    if as_json:
        print_json(report.document())
    else:
        console().print(report.render())
    if not report.ok():
        found = (("TX purity", report.tx_problems()), ("clean separation", report.ring_2_problems()))
        raise NotProven(*(guarantee for guarantee, problems in found if problems))


def _check_purity(*, static_only: bool) -> PurityReport:
    from gw.verify.purity.check import read
    from gw.verify.purity.dynamic import watch_calls
    from gw.verify.purity.report import Report

    began_s = time.monotonic()
    static = read()
    if static_only:
        return Report(static, None, time.monotonic() - began_s)
    logging.getLogger().addHandler(logging.NullHandler())  # broken calls are placed on purpose: do not print their log
    return Report(static, watch_calls(static), time.monotonic() - began_s)


# -- guard ------------------------------------------------------------------------------------------------------------


@verify.command(short_help="Check that each call is recorded, and each tool called, once.", epilog=EXIT_CODES_HERE)
@click.option("--deep", is_flag=True, help="More faults in one run; minutes instead of seconds, and some gigabytes.")
@click.option("--faults", type=click.IntRange(0, 4), help="This many faults in one run, in every scenario.")
@json_option
def guard(deep: bool, faults: int | None, as_json: bool) -> None:
    """Verify that a call is recorded once, and a tool called once, whatever fails.

    The check takes one call through every sequence of steps of TX, AI-out, the bus, control, the store, Twilio and its webhooks,
    with dying processes, lost and doubled messages, and every answer of Twilio; and one tool call through those of the worker,
    the bus, control, its disk and the endpoint; and the recording's pauses, for secrets and by an operator.
    Each decision is made by the production code.
    Exit code 1 if an invariant breaks; the report then has the shortest sequence that breaks it.

    \b
    The proof, in seconds:              gateway.py verify guard
    More faults in one run:             gateway.py verify guard --deep
    For a script:                       gateway.py verify guard --json
    """
    from gw.terminal import print_json
    from gw.verify.guard.check import DEEP, SCENARIOS, check

    logging.getLogger().addHandler(logging.NullHandler())  # failures are injected on purpose: do not print their log
    logging.disable(logging.CRITICAL)
    try:
        scenarios = DEEP if deep else SCENARIOS
        report = check([one if faults is None else one._replace(budget=faults) for one in scenarios])
    finally:
        logging.disable(logging.NOTSET)
    if as_json:
        print_json(report.document())
    else:
        _show_explored(report)
    if not report.holds:
        raise click.exceptions.Exit(1)


def _show_explored(report: ScenarioReport[Any]) -> None:
    """Print what was explored, what holds, and the shortest way to each violation."""
    from rich.text import Text

    from gw.terminal import Column, console, print_rows

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
    for invariant in report.invariants:
        holds = document[report.key][invariant]["holds"]
        out.print(Text("  holds      " if holds else "  BROKEN     ", "green" if holds else "bold red") + Text(invariant, ""))
    out.print("\nAssumptions:", style="dim")
    for line in document["taken_for_granted"]:
        out.print(Text(f"  {line}", "dim"))
    for invariant in report.invariants:
        for scenario, violation in report.violations(invariant)[:1]:
            out.print(Text(f"\n{invariant}: the shortest sequence that breaks it ({scenario.name})", "bold"))
            for n, step in enumerate((*violation.steps, *([violation.end] if violation.end else [])), 1):
                out.print(Text(f"  {n:3}  {step}"))


# -- conversation -----------------------------------------------------------------------------------------------------


@verify.command(short_help="Check the dialogue machine against its twelve rules.", epilog=EXIT_CODES_HERE)
@click.option("--mutants", is_flag=True, help="Put defects into the machine, and show the rule that finds each.")
@json_option
def conversation(mutants: bool, as_json: bool) -> None:
    """Verify that the dialogue machine keeps its twelve rules in every explored conversation.

    The check takes conversations through orders of inputs: failed answers, lost sessions, interruptions, tools, goodbyes, limits.
    Each decision is made by the machine that every call uses. Exit code 1 if a rule breaks; the report then has the shortest
    conversation that breaks it.

    \b
    The proof, in seconds:              gateway.py verify conversation
    Its power to find defects:          gateway.py verify conversation --mutants
    For a script:                       gateway.py verify conversation --json
    """
    from gw.terminal import print_json
    from gw.verify.conversation.check import check

    if mutants:
        _hunt_mutants(as_json=as_json)
        return
    report = check()
    if as_json:
        print_json(report.document())
    else:
        _show_explored(report)
    if not report.holds:
        raise click.exceptions.Exit(1)


def _hunt_mutants(*, as_json: bool) -> None:
    from rich.text import Text

    from gw.terminal import Column, print_json, print_rows
    from gw.verify.conversation.mutants import MUTANTS, hunt

    found = hunt(MUTANTS)
    rows = [
        {"name": one.mutant.name, "scenario": one.mutant.scenario.name, "rules": list(one.rules), "trace": list(one.transcript)}
        for one in found
    ]
    if as_json:
        print_json({"caught": sum(1 for one in found if one.rules), "mutants": rows})
    else:
        columns = (
            Column("defect", lambda row: row["name"]),
            Column("explored", lambda row: row["scenario"]),
            Column("found by rule", lambda row: Text(", ".join(row["rules"])) if row["rules"] else Text("NOT FOUND", "bold red")),
        )
        print_rows(columns, rows)
        click.echo(f"\n{sum(1 for one in found if one.rules)} of {len(found)} defects found")
    if not all(one.rules for one in found):
        raise click.exceptions.Exit(1)


# -- budget -----------------------------------------------------------------------------------------------------------


@verify.command(short_help="Place calls on this machine and judge their latency.", epilog=EXIT_CODES_HERE)
@click.option("--calls", type=click.IntRange(1, 2000), default=50, show_default=True, help="Concurrent full-duplex calls.")
@click.option("--seconds", type=click.FloatRange(2, 3600), default=30, show_default=True, help="Duration of the measurement.")
@click.option("--quick", is_flag=True, help="20 calls, 10 s, judged only by figures that a busy machine does not distort.")
@out_folder_option("out/verify")
@json_option
def budget(calls: int, seconds: float, quick: bool, out: Path, as_json: bool) -> None:
    """Place calls through a gateway on this machine: no send may take over 1 ms, no greenlet may hold the hub over 1 ms.

    Strangers are at its door meanwhile: half-open heads, silent connections, and a caller that floods with pings.
    The machine's own timers are measured first, and lateness is judged beyond them. The hub is watched all the time, and each
    hold is judged by its CPU time, so that a pause of the machine does not count against the gateway. What the machine adds to
    CPU time is measured at the load processes, in the same seconds: that many long holds are attributed to the machine.
    Writes report.html and report.json. Exit code 1 if a limit was exceeded, or if the run could not show it.

    \b
    The full check, a minute:           gateway.py verify budget
    A quick check, half a minute:       gateway.py verify budget --quick
    A hundred calls:                    gateway.py verify budget --calls 100
    """
    from gw.terminal import print_json
    from gw.verify.budget.html import page
    from gw.verify.budget.judge import judge, kept

    if quick:
        calls, seconds = _QUICK_CALLS, _QUICK_S
    noise, run = _measure(calls, seconds, out, as_json)
    lines = judge(run, noise, quick=quick)
    about = [f"{calls} calls, {seconds:g} s", platform.node(), f"Python {platform.python_version()}", *run["noted"]]
    document: dict[str, Any] = {
        "ok": kept(lines),
        "quick": quick,
        "machine": platform.node(),
        "timer_noise_ms": noise,
        "lines": [line._asdict() for line in lines],
        "run": run,
    }
    (out / "report.json").write_text(json.dumps(document, indent=2) + "\n")
    (out / "report.html").write_text(page("The budget of the TX loop", about, lines, run))
    if as_json:
        print_json(document)
    else:
        _show_budget(lines, about, out)
    if not kept(lines):
        raise click.exceptions.Exit(1)


def _measure(calls: int, seconds: float, out: Path, quiet: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure the machine's timer noise, then the calls."""
    from gw.bench import machine
    from gw.bench.run import Load, measure_with
    from gw.cli.bench.options import show_steps
    from gw.verify.budget.besieged import BesiegedGateway
    from gw.verify.budget.timer_noise import measure

    out.mkdir(parents=True, exist_ok=True)
    with show_steps(quiet) as on_step:
        on_step("reading the noise of the machine's timers")
        noise = measure(_NOISE_S, machine.plan(machine.cores(), 1).measured[0])
        load = Load(calls=calls, seconds=seconds, watched=True)
        gateway = BesiegedGateway(Settings(None).command_line(), out, load)
        run = measure_with(gateway, gateway, out, load, on_step).summary()
        return noise, {**run, "strangers": gateway.seen}


def _show_budget(lines: Any, about: list[str], out: Path) -> None:
    from rich.text import Text

    from gw.terminal import Column, console, print_rows

    words = {True: Text("holds", "green"), False: Text("DOES NOT HOLD", "red"), None: Text("not judged", "dim")}
    columns = (
        Column("promise", lambda line: line.promise),
        Column("measured", lambda line: line.measured),
        Column("limit", lambda line: line.limit),
        Column("", lambda line: words[line.holds]),
    )
    console().print(", ".join(about))
    print_rows(columns, lines)
    console().print(f"See: {out}/report.html  Read: {out}/report.json")
