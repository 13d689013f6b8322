"""`verify`: the proofs, one command each; alone, all of them, and a line for each guarantee."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import click

from gw.cli.context import EXIT_CODES_HERE


class Proof(NamedTuple):
    """A command, its module, and what it proves; `clean separation` is judged by purity beside TX itself."""

    module: str
    guarantees: tuple[str, ...]


_PROOFS: Final[dict[str, Proof]] = {
    "purity": Proof("gw.cli.verify_purity", ("TX purity", "clean separation")),
    "guard": Proof("gw.cli.verify_guard", ("recording timing", "single start", "no race")),
    "budget": Proof("gw.cli.verify_budget", ("budget",)),
}
#: The lines `verify` ends with, in this order.
_GUARANTEES: Final = ("TX purity", "recording timing", "single start", "no race", "clean separation", "budget")


class NotProven(click.exceptions.Exit):
    """Some of a proof's guarantees do not hold."""

    def __init__(self, *guarantees: str) -> None:
        super().__init__(1)
        self.guarantees = guarantees


class _Proofs(click.Group):
    """Imports a proof's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_PROOFS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _PROOFS:
            return None
        command = getattr(importlib.import_module(_PROOFS[cmd_name].module), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Proofs, invoke_without_command=True, short_help="Prove the promises, here, on this machine.", epilog=EXIT_CODES_HERE
)
@click.pass_context
def verify(ctx: click.Context) -> None:
    """Prove what the gateway promises: by its source, by watching it, by measuring it. Exit code 1 if anything does not hold.

    \b
    All proofs, a verdict each:         gateway.py verify
    What the TX loop can do:            gateway.py verify purity
    Recording exactly once:             gateway.py verify guard
    What it takes, on this machine:     gateway.py verify budget
    """
    if ctx.invoked_subcommand is None:
        run_all(ctx, _PROOFS)


def run_all(ctx: click.Context, names: Iterable[str]) -> None:
    """Each proof with its own report, then one line for each guarantee."""
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
                broken.update(_PROOFS[name].guarantees)
        click.echo()
    for guarantee in _GUARANTEES:
        verdict = click.style("DOES NOT HOLD", fg="red") if guarantee in broken else click.style("holds", fg="green")
        click.echo(f"{guarantee:18} {verdict}")
    if broken:
        raise click.exceptions.Exit(1)
