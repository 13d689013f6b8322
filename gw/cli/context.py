"""Shared by all commands: settings, options, requests to the gateway, failures, and interruption."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from gw import ROOT

if TYPE_CHECKING:
    from gw.config import Config
    from gw.control.store import Store

T = TypeVar("T")

CONFIG_VARIABLE: Final = "SUBMILLI_CONFIG"
#: Bound on a long request: to Twilio, or a change of many events. Just below the admin socket's own.
ASK_S: Final = 14.0
#: The path of the one-file binary, which sets the variable for the Python that it starts.
PROGRAM_VARIABLE: Final = "SUBMILLI_PROGRAM"
#: Bound on one admin request; control answers from memory or with one bounded query.
ADMIN_TIMEOUT_S: Final = 5.0
_UNITS_S: Final = {"m": 60.0, "h": 3600.0, "d": 86_400.0}
#: The end of each help text.
EXIT_CODES: Final = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 gateway not reachable."
#: The same for commands that send no request to a gateway.
EXIT_CODES_HERE: Final = "Exit codes: 0 done, 1 failed, 2 wrong usage."


class Settings:
    """The options of the root command. The configuration is read on first use."""

    def __init__(self, path: Path | None, *, warns: bool = True) -> None:
        """`warns`: whether errors of the file that do not concern a command are printed."""
        self.path = path
        self.socket: Path | None = None
        self.json = False
        self._warns = warns
        self._config: Config | None = None

    @property
    def config(self) -> Config:
        """The configuration for a command that reads a gateway's data.

        Secrets that only `serve` needs may be missing. Raises ConfigError.
        """
        if self._config is None:
            from gw.config.load import load

            self._config = load(self.path, os.environ, serving=False)
        return self._config

    @property
    def admin_socket(self) -> Path:
        """The admin socket: `--socket`, or the file's. Errors elsewhere in the file are warnings: the gateway runs without it.

        Raises: ConfigError for a file that cannot be read, or an error that may concern the socket.
        """
        if self.socket is None:
            from gw.config.load import admin_socket

            self.socket, found = admin_socket(self.path, os.environ)
            if found and self._warns:
                shown = "".join(f"\n  {problem}" for problem in found)
                click.echo(f"Warning: the configuration has errors, which a reload or restart would refuse:{shown}", err=True)
        return self.socket

    def serving_config(self, process: str = "") -> Config:
        """Return the configuration for a process that serves, with that process's secrets only. Raises ConfigError."""
        from gw.config.load import load

        return load(self.path, os.environ, process=process)

    def command_line(self) -> list[str]:
        """Return the command line of a child with the same options, without a subcommand."""
        options = [] if self.path is None else ["--config", str(self.path)]
        return [*self.program(), *options]

    def program(self) -> list[str]:
        """Return the command line of this program, without options."""
        if binary := os.environ.get(PROGRAM_VARIABLE):
            return [binary]
        return [sys.executable, str(ROOT / "gateway.py")]

    def ask(self, command: str, *, timeout_s: float | None = None, **arguments: Any) -> Any:
        """Send one request to the running gateway, by the socket open to this user. Raises Unreachable, Failure."""
        from gw.control.admin.client import AdminClient, NotReachable, read_only

        path, bound_s = self.admin_socket.absolute(), timeout_s or ADMIN_TIMEOUT_S
        for socket in (path, read_only(path)):
            try:
                return AdminClient(socket, bound_s).request(command, **arguments)
            except NotReachable as error:
                number = getattr(error.__cause__, "errno", None)
                if number == errno.EACCES or (socket != path and number == errno.ENOENT):
                    continue
                if number in (errno.ENOENT, errno.ECONNREFUSED):
                    how = "start one with: gateway.py serve, or name another socket with --config or --socket"
                    raise Unreachable(f"no gateway answers on {socket}; {how}", is_absent=True) from None
                why = "it is busy or blocked: look into its log, or try again"
                raise Unreachable(f"the gateway on {socket} gives no answer ({error}); {why}") from None
        raise Failure(f"{path} is not open to you: use root, or join ops.admin_group or ops.read_group")

    def act(self, command: str, *, timeout_s: float, **arguments: Any) -> Any:
        """Send a request that changes something. Raises Unreachable, and Failure when the gateway refuses."""
        from gw.control.admin.client import Refused

        try:
            return self.ask(command, timeout_s=timeout_s, **arguments)
        except Refused as error:
            raise Failure(str(error)) from None

    def ask_or_read(self, command: str, read: Callable[[Store], T], kind: Any, *, quiet: bool = False, **arguments: Any) -> T:
        """Return the running gateway's answer, decoded as `kind`, the type that `read` returns.

        Without an answer, read its store, and print a note on stderr unless `quiet`.
        """
        try:
            answer: T = msgspec.convert(self.ask(command, **arguments), type=kind)
        except Unreachable as error:
            if self._store_is_missing():
                more = f"; and the store {self.config.store.url} does not exist yet"
                raise Unreachable(error.message + more, is_absent=error.is_absent) from None
            with self.store() as store:
                store.check()
                answer = read(store)
            if not quiet:
                why = "The gateway does not run" if error.is_absent else "The gateway gives no answer"
                click.echo(f"{why}; showing the contents of its store.", err=True)
        return answer

    def _store_is_missing(self) -> bool:
        """Return whether the store is a missing file, which opening would create."""
        from gw.config.store_url import SqliteUrl, parse_store_url

        url = parse_store_url(self.config.store.url)
        return isinstance(url, SqliteUrl) and not Path(url.path).exists()

    @contextmanager
    def store(self) -> Iterator[Store]:
        """Open the store. Raises StoreError."""
        from gw.control.store import Store

        store = Store(self.config.store, self.config.secrets.db_password)
        try:
            yield store
        finally:
            store.close()


class Failure(click.ClickException):
    """A command failed; the sentence has cause and remedy. With --json it is also a document."""

    exit_code = 1
    as_json = False  # set by the root command

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the sentence on stderr, and the document on stdout."""
        if self.as_json:
            from gw.terminal import print_json

            print_json({"error": self.message})
        click.echo(f"Error: {self.message}", file=file, err=True)


class Unreachable(Failure):
    """No gateway answers on the admin socket. `is_absent`: because no process listens there."""

    exit_code = 3

    def __init__(self, message: str, *, is_absent: bool = False) -> None:
        super().__init__(message)
        self.is_absent = is_absent


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a command; everything it started ends."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted at the first Ctrl-C or SIGTERM; the cleanup is not interrupted."""
    import gevent

    running = [gevent.getcurrent()]

    def interrupt() -> None:
        if running:
            gevent.kill(running.pop(), Interrupted)

    watchers = [gevent.signal_handler(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.cancel()


def _config_given(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        ctx.find_object(Settings).path = path  # type: ignore[union-attr]


def _socket_given(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        ctx.find_object(Settings).socket = path  # type: ignore[union-attr]


def _json_given(ctx: click.Context, _: click.Parameter, wanted: bool) -> bool:
    if wanted and (settings := ctx.find_object(Settings)) is not None:  # a script has none
        settings.json = True
    return wanted


#: Key of the words of the command line in click's `meta`, for `--host`.
WORDS: Final = "gw.cli.words"


def names_host(ctx: click.Context) -> bool:
    """Return whether the line being completed has `--host`.

    click runs no callbacks of options during completion.
    """
    return any(word == "--host" or word.startswith("--host=") for word in ctx.meta.get(WORDS, []))


def _host_given(ctx: click.Context, _: click.Parameter, host: str | None) -> None:
    if host is None or ctx.resilient_parsing:
        return
    from gw.cli.remote import PROGRAM, REMOTE_VARIABLE, run_remotely, without_host

    words = without_host(ctx.meta.get(WORDS, []))
    ctx.exit(run_remotely(host, os.environ.get(REMOTE_VARIABLE) or PROGRAM, words))


#: Processed first: the other machine interprets the command line, with its own configuration and help.
host_option = click.option(
    "--host",
    metavar="USER@MACHINE",
    callback=_host_given,
    expose_value=False,
    is_eager=True,
    help="Run the command on another machine, by ssh. SUBMILLI_REMOTE: the program there (submilli).",
)

#: `--config` is accepted after the command too. Without `--host`: for commands that start processes on this machine.
local_config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_config_given,
    expose_value=False,
    is_eager=True,
    help=f"The TOML file; default: {CONFIG_VARIABLE} in the environment.",
)


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options `--config` and `--host`."""
    return host_option(local_config_option(command))


_socket_option = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    callback=_socket_given,
    expose_value=False,
    is_eager=True,
    help="The gateway's admin socket; default: ops.admin_socket of the configuration.",
)


json_option = click.option(
    "--json", "as_json", is_flag=True, callback=_json_given, is_eager=True, help="Print one JSON document instead of a table."
)


def out_folder_option(folder: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option `--out` of a command that writes files, by default to `folder`."""
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("--out", type=kind, default=Path(folder), show_default=True, help="Folder for the results.")


def parse_age_s(text: str) -> float | None:
    """Parse a length of time, `30m`, `12h` or `7d`, into seconds; None for anything else."""
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdecimal() and len(number) < 6 and unit in _UNITS_S):
        return None
    return float(number) * _UNITS_S[unit]


pass_settings = click.make_pass_decorator(Settings)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`, `--host` and `--json`, and pass the settings as the first argument."""
    return config_option(json_option(pass_settings(command)))


def gateway_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options and `--socket`, for a command that asks the running gateway."""
    return _socket_option(common_options(command))


def counted(count: int, one: str, many: str) -> str:
    """Return a number and what it counts, in the singular or the plural."""
    return f"{count} {one if count == 1 else many}"


def print_answer(answer: Any, sentence: str, *, as_json: bool) -> None:
    """Print a gateway's answer as a document, or as a sentence for people."""
    from gw.terminal import print_json

    if as_json:
        print_json(answer)
    else:
        click.echo(sentence)
