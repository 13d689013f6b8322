"""`db`: the store's schema. Works on the store itself, whether the gateway runs or not."""

from __future__ import annotations

import click

from gw.cli.context import Settings, config_option, json_option, pass_settings


@click.group()
def db() -> None:
    """Upgrade the store's schema, or say where it stands.

    The gateway upgrades its store when it starts; here it can be done before, or by a user who may change tables.

    \b
    Where does it stand?   gateway.py db current
    Bring it up to date:   gateway.py db upgrade
    """


@db.command()
@config_option
@json_option
@pass_settings
def upgrade(settings: Settings, as_json: bool) -> None:
    """Bring the schema to what this version needs. Doing it twice changes nothing."""
    with settings.store() as store:
        before, _ = store.current()
        store.upgrade()
        after, needed = store.current()
    if as_json:
        from gw.cli.output import print_json

        print_json({"before": before, "after": after, "needed": needed})
    elif before == after:
        click.echo(f"The schema is at {after} already.")
    else:
        click.echo(f"The schema went from {before or 'nothing'} to {after}.")


@db.command()
@config_option
@json_option
@pass_settings
def current(settings: Settings, as_json: bool) -> None:
    """Say which revision the schema has and which one this version needs. Exit code 1 if they differ."""
    with settings.store() as store:
        has, needed = store.current()
    if as_json:
        from gw.cli.output import print_json

        print_json({"current": has, "needed": needed, "ok": has == needed})
    else:
        click.echo(
            f"{has or 'no schema'}" + (", in order" if has == needed else f", but {needed} is needed: gateway.py db upgrade")
        )
    if has != needed:
        raise click.exceptions.Exit(1)
