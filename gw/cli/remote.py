"""`--host`: a command about a gateway on another machine runs there, through ssh.

There, and not through a forwarded socket: the socket's path, the store, its password and a gateway that does not run are all at
hand on that machine and nowhere else, and an exit code comes back as it is. ssh itself decides who may; nothing is asked of it
but that dead connections end. Standard output stays what the command wrote, so `--json` is one document as always.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import click

#: How the command is called there, unless told otherwise.
PROGRAM_VARIABLE: Final = "SUBMILLI_REMOTE"
PROGRAM: Final = "submilli"
#: What runs a process or belongs to this machine is not sent elsewhere.
HERE_ONLY: Final = frozenset({"serve", "demo", "bench", "verify", "completion", "control", "worker"})
#: Every wait of ssh's is bounded: the connection, and a peer that is gone.
_OPTIONS: Final = ("-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
#: What ssh exits with when it could not reach the machine, and a shell that does not find the program. Source: ssh(1), POSIX sh.
_SSH_FAILED: Final = 255
_NOT_FOUND: Final = 127
_UNREACHABLE: Final = 3


def words_there(words: Sequence[str]) -> list[str]:
    """The words of a command line without `--host` and its value."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            return [*kept, word, *rest]
        if word == "--host":
            next(rest, None)
        elif not word.startswith("--host="):
            kept.append(word)
    return kept


def command_of(host: str, program: str, words: Sequence[str], *, terminal: bool) -> list[str]:
    """How ssh is started. `program` is shell words, as in `sudo submilli`; `words` reach it as they are."""
    return ["ssh", "-t" if terminal else "-T", *_OPTIONS, "--", host, f"{program} {shlex.join(words)}".rstrip()]


def run_there(host: str, program: str, words: Sequence[str]) -> int:
    """Run a command at `host`. Returns its exit code, 3 when it could not be started there.

    Raises: click.UsageError for a command that cannot be meant.
    """
    name = next((word for before, word in pairwise(["", *words]) if not word.startswith("-") and before != "--config"), "")
    if name in HERE_ONLY:
        raise click.UsageError(f"{name} runs on this machine: --host is for asking a gateway")
    if host.startswith("-") or not host:
        raise click.UsageError(f"--host {host}: wanted a machine as ssh knows it, such as user@vm")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        code = subprocess.call(command_of(host, program, words, terminal=terminal))
    except FileNotFoundError:
        click.echo("Error: there is no program ssh on this machine", err=True)
        return _UNREACHABLE
    if code == _NOT_FOUND:
        click.echo(f"Error: {program} is not found at {host}; name it in {PROGRAM_VARIABLE}", err=True)
    elif code == _SSH_FAILED:
        click.echo(f"Error: {host} cannot be reached by ssh", err=True)
    return _UNREACHABLE if code in (_NOT_FOUND, _SSH_FAILED) or code < 0 else code
