"""The command line: one click group, one file per command, imported on use.

A command imports its dependencies on use, so that `status` and shell completion start quickly. The gateway's own errors become
one sentence on stderr and an exit code (0 done, 1 failed, 2 wrong usage, 3 gateway not reachable), without a traceback.

bench/ calls/           groups with several files
operate/                run a gateway, and ask the running one
completion config db    for the shell, the configuration, the store
hooks tools             the user's endpoints
demo verify             run a gateway between stand-ins
twin                    run a stand-in
recordings              lists, retries and reconciles recordings
talk                    a telephone for a gateway
context remote          options and settings of all commands; `--host`
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Final

import click

from gw.cli.context import CONFIG_VARIABLE, EXIT_CODES, WORDS, Failure, Settings, host_option
from gw.config import VERSION
from gw.errors import ConfigError, GatewayError
from gw.procfs import protect_memory

#: Name: module, and whether help lists it. `serve` starts its children by `control` and `worker`.
_COMMANDS: Final[dict[str, tuple[str, bool]]] = {
    "serve": ("gw.cli.operate.serve", True),
    "talk": ("gw.cli.talk", True),
    "demo": ("gw.cli.demo", True),
    "twin": ("gw.cli.twin", True),
    "bench": ("gw.cli.bench", True),
    "verify": ("gw.cli.verify", True),
    "status": ("gw.cli.operate.status", True),
    "top": ("gw.cli.operate.top", True),
    "reload": ("gw.cli.operate.reload", True),
    "drain": ("gw.cli.operate.drain", True),
    "undrain": ("gw.cli.operate.drain", True),
    "calls": ("gw.cli.calls", True),
    "call": ("gw.cli.calls.dial", True),
    "recordings": ("gw.cli.recordings", True),
    "tools": ("gw.cli.tools", True),
    "hooks": ("gw.cli.hooks", True),
    "loglevel": ("gw.cli.operate.loglevel", True),
    "audit": ("gw.cli.operate.audit", True),
    "db": ("gw.cli.db", True),
    "config": ("gw.cli.config", True),
    "completion": ("gw.cli.completion", True),
    "control": ("gw.cli.operate.processes", False),
    "worker": ("gw.cli.operate.processes", False),
    "trial": ("gw.cli.operate.processes", False),
}


class _Commands(click.Group):
    """Imports a command's module on lookup; the module's attribute has the command's name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (_, listed) in _COMMANDS.items() if listed]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command and its arguments. The error for an unknown one suggests similar names, as in click's own groups."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None

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
    """Return the error as text; several problems of a configuration on separate lines."""
    if not isinstance(error, ConfigError):
        return str(error)
    if len(error.problems) == 1:
        return f"config: {error.problems[0]}"
    return "\n  ".join([f"config: {len(error.problems)} errors:", *error.problems])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=EXIT_CODES)
@click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar=CONFIG_VARIABLE,
    help=f"The TOML file; default: {CONFIG_VARIABLE} in the environment. Without a file all keys have their defaults.",
)
@host_option
@click.version_option(VERSION, prog_name="submilli")
@click.pass_context
def root(ctx: click.Context, path: Path | None) -> None:
    """A gateway between telephone calls and realtime AI voices.

    \b
    Talk to it in the browser, without a key:    gateway.py talk
    Hear a demonstration:                        gateway.py demo
    Write a configuration:                       gateway.py config example > submilli.toml
    Run the gateway:                             gateway.py serve
    Show the state of the running gateway:       gateway.py status
    The same, on another machine:                gateway.py --host admin@vm1 status
    """
    ctx.obj = Settings(path)


def main() -> None:
    """Run the command line of this process, which may have secrets in its environment."""
    protect_memory(os.environ)
    root(prog_name="gateway.py", complete_var="_SUBMILLI_COMPLETE")
