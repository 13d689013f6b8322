"""`config`: checks, shows and explains the configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from gw.cli.context import EXIT_CODES_HERE, Settings, common_options, counted, json_option


@click.group(epilog=EXIT_CODES_HERE)
def config() -> None:
    """Check, show and write the configuration.

    \b
    Start with a file that explains every key:   gateway.py config example > submilli.toml
    Find all errors:                             gateway.py config check --config submilli.toml
    Show all values, without secrets:            gateway.py config show
    """


@config.command(epilog=f"\b\nExample:  gateway.py config check --config submilli.toml\n\n{EXIT_CODES_HERE}")
@common_options
def check(settings: Settings, as_json: bool) -> None:
    """Report all errors of the configuration. Exit code 1 if there is one."""
    from gw.config.load import load
    from gw.config.load import show as shown
    from gw.errors import ConfigError
    from gw.media.shared.greetings import greeting_problems
    from gw.terminal import print_json

    in_force = None
    try:  # one read: the file may be a pipe
        read = load(settings.path, os.environ)
    except ConfigError as error:
        found = list(error.problems)
    else:
        found = greeting_problems(read.agents, read.outbound.voicemail, read.recording.notice.file)
        in_force = None if found else shown(read)
    source = str(settings.path) if settings.path is not None else "no file, defaults only"
    if as_json:
        file = None if settings.path is None else str(settings.path)
        print_json({"file": file, "ok": not found, "problems": found, "config": in_force})
    else:
        for problem in found:
            click.echo(problem)
        click.echo(f"{source}: {counted(len(found), 'problem', 'problems') if found else 'valid'}", err=bool(found))
    if found:
        raise click.exceptions.Exit(1)


@config.command(
    short_help="Print all values, without secrets.",
    epilog=f"\b\nExample:  gateway.py config show --json | jq .server\n\n{EXIT_CODES_HERE}",
)
@common_options
def show(settings: Settings, as_json: bool) -> None:
    """Print all values: from the file, the defaults, and which secrets are set (never their values)."""
    from gw.config.load import show as shown
    from gw.terminal import console, facts, print_json

    document = shown(settings.config)
    if as_json:
        print_json(document)
    else:
        console().print(facts(_flat(document)))


@config.command(epilog=f"\b\nExample:  gateway.py config example > submilli.toml\n\n{EXIT_CODES_HERE}")
@json_option
def example(as_json: bool) -> None:
    """Print a TOML file with every key, its default and its meaning."""
    from gw.config.load import example as commented
    from gw.terminal import print_json

    if as_json:
        print_json({"toml": commented()})
    else:
        click.echo(commented(), nl=False)


def _flat(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield `a.b.c` and the value of each key, named as in errors."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        elif isinstance(value, bool):
            yield f"{path}{name}", "true" if value else "false"
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            for n, table in enumerate(value, 1):
                yield from _flat(table, f"{path}{name}[{n}].")
        else:
            yield f"{path}{name}", ", ".join(value) if isinstance(value, tuple) else str(value)
