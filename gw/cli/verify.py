"""`verify`: the proofs, one command each; alone, all of them, and a line for each guarantee."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import click


class Proof(NamedTuple):
    """A command, its module, and what it proves; `clean separation` is judged by purity beside TX itself."""

    module: str
    guarantees: tuple[str, ...]


_PROOFS: Final[dict[str, Proof]] = {
    "purity": Proof("gw.cli.verify_purity", ("TX purity", "clean separation")),
    "guard": Proof("gw.cli.verify_guard", ("recording timing", "single start", "no race")),
    "budget": Proof("gw.cli.verify_budget", ("budget",)),
}


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


@click.group(cls=_Proofs, invoke_without_command=True, short_help="Prove the promises, here, on this machine.")
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
    verdicts: dict[str, bool] = {}
    for name in names:
        click.secho(f"verify {name}", bold=True)
        command = verify.get_command(ctx, name)
        assert command is not None
        try:
            ctx.invoke(command)
            holds = True
        except click.exceptions.Exit as end:
            holds = end.exit_code == 0
        click.echo()
        for guarantee in _PROOFS[name].guarantees:
            verdicts[guarantee] = holds
    for guarantee, holds in verdicts.items():
        click.echo(f"{guarantee:18} " + (click.style("holds", fg="green") if holds else click.style("DOES NOT HOLD", fg="red")))
    if not all(verdicts.values()):
        raise click.exceptions.Exit(1)
