"""The command line: one group, one file per command, loaded when it is asked for.

Only what a command needs is imported, so that `status` and shell completion stay quick. Errors of ours become one sentence on
stderr and an exit code: 0 done, 1 the thing failed, 2 usage, 3 gateway not reachable. Never shows a traceback for them.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

import click

from gw.cli.context import CONFIG_VARIABLE, EXIT_CODES, WORDS, Failure, Settings, host_option
from gw.config import VERSION
from gw.errors import ConfigError, GatewayError

#: Name: module, whether help lists it. `control` and `worker` are how `serve` starts its own children.
_COMMANDS: Final[dict[str, tuple[str, bool]]] = {
    "serve": ("gw.cli.serve", True),
    "demo": ("gw.cli.demo", True),
    "bench": ("gw.cli.bench", True),
    "verify": ("gw.cli.verify", True),
    "status": ("gw.cli.status", True),
    "top": ("gw.cli.top", True),
    "reload": ("gw.cli.reload", True),
    "drain": ("gw.cli.drain", True),
    "undrain": ("gw.cli.drain", True),
    "calls": ("gw.cli.calls", True),
    "call": ("gw.cli.calls.call", True),
    "recordings": ("gw.cli.recordings", True),
    "loglevel": ("gw.cli.loglevel", True),
    "db": ("gw.cli.db", True),
    "config": ("gw.cli.config", True),
    "completion": ("gw.cli.completion", True),
    "control": ("gw.cli.processes", False),
    "worker": ("gw.cli.processes", False),
}


class _Commands(click.Group):
    """Imports a command's module when the command is looked up; a module holds its command under the command's name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (_, listed) in _COMMANDS.items() if listed]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (Failure, GatewayError) as error:
            failure = error if isinstance(error, Failure) else Failure(_sentence(error))
            failure.as_json = isinstance(ctx.obj, Settings) and ctx.obj.json
            raise failure from error


def _sentence(error: GatewayError) -> str:
    """What is wrong; every problem of a configuration on a line of its own."""
    if not isinstance(error, ConfigError):
        return str(error)
    if len(error.problems) == 1:
        return f"the configuration has an error: {error.problems[0]}"
    return "\n  ".join([f"the configuration has {len(error.problems)} errors:", *error.problems])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXIT_CODES,
)
@click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar=CONFIG_VARIABLE,
    help=f"The TOML file; also taken from {CONFIG_VARIABLE}. Without one, everything has its default.",
)
@host_option
@click.version_option(VERSION, prog_name="submilli")
@click.pass_context
def root(ctx: click.Context, path: Path | None) -> None:
    """A gateway between telephone calls and realtime AI voices.

    \b
    See it work, without a key or a phone:   gateway.py demo
    Run it:                                  gateway.py serve
    Ask the one that runs:                   gateway.py status
    Ask one on another machine:              gateway.py --host admin@vm1 status
    Write a configuration:                   gateway.py config example > submilli.toml
    """
    ctx.obj = Settings(path)


def main() -> None:
    """Run the command line of this process."""
    root(prog_name="gateway.py", complete_var="_SUBMILLI_COMPLETE")
