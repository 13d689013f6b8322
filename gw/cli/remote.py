"""`--host`: runs a command on another machine by ssh.

The command runs there, rather than here through a forwarded socket, because the socket's path, the store, its password and a
stopped gateway's data exist only on that machine, and the exit code passes through. ssh does the authentication; its connections
are bounded in time. Standard output is the command's, so `--json` remains one document.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import click

#: The program on the other machine, unless the variable names another.
REMOTE_VARIABLE: Final = "SUBMILLI_REMOTE"
PROGRAM: Final = "submilli"
#: Commands that start processes or concern this machine.
LOCAL_ONLY: Final = frozenset({"serve", "demo", "bench", "verify", "completion", "talk", "twin", "control", "worker", "trial"})
#: Bounds for ssh: the connect, and a dead peer.
_OPTIONS: Final = ("-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
#: Exit codes of ssh without a connection, and of a shell that does not find the program. Source: ssh(1), POSIX sh.
_SSH_FAILED: Final = 255
_NOT_FOUND: Final = 127
_UNREACHABLE: Final = 3


def without_host(words: Sequence[str]) -> list[str]:
    """Return the words of a command line without `--host` and its value."""
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
    """Return the command line of ssh. `program` may be several shell words, as in `sudo submilli`; `words` are quoted."""
    return ["ssh", "-t" if terminal else "-T", *_OPTIONS, "--", host, f"{program} {shlex.join(words)}".rstrip()]


def run_remotely(host: str, program: str, words: Sequence[str]) -> int:
    """Run a command on `host`. Returns its exit code, or 3 when it could not be started there.

    Raises: click.UsageError for a command of LOCAL_ONLY, or an invalid host.
    """
    name = next((word for before, word in pairwise(["", *words]) if not word.startswith("-") and before != "--config"), "")
    if name in LOCAL_ONLY:
        raise click.UsageError(f"{name} runs on this machine only; --host is for commands to a running gateway")
    if host.startswith("-") or not host:
        raise click.UsageError(f"--host {host}: expected a destination for ssh, such as user@vm")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        code = subprocess.call(command_of(host, program, words, terminal=terminal))
    except FileNotFoundError:
        click.echo("Error: ssh is not installed on this machine", err=True)
        return _UNREACHABLE
    if code == _NOT_FOUND:
        click.echo(f"Error: {program} is not found on {host}; set {REMOTE_VARIABLE} to its path there", err=True)
    elif code == _SSH_FAILED:
        click.echo(f"Error: cannot reach {host} by ssh; the reason is above", err=True)
    return _UNREACHABLE if code in (_NOT_FOUND, _SSH_FAILED) or code < 0 else code
