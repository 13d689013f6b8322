"""What commands share: the configuration named on the command line, the running gateway or else the store, and how to fail."""

from __future__ import annotations

import errno
import os
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
#: Set by the one-file binary for the Python it starts: its own path.
PROGRAM_VARIABLE: Final = "SUBMILLI_PROGRAM"
#: One admin request; control answers from memory or with one bounded query of the store.
ADMIN_TIMEOUT_S: Final = 5.0
#: At the end of every help.
EXIT_CODES: Final = "Exit codes: 0 done, 1 it failed, 2 wrong usage, 3 the gateway cannot be reached."
#: The same of a command that asks no gateway.
EXIT_CODES_HERE: Final = "Exit codes: 0 done, 1 it failed, 2 wrong usage."


class Settings:
    """The root's options. The configuration is read when first asked for."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.json = False
        self._config: Config | None = None

    @property
    def config(self) -> Config:
        """For a command that looks at what a gateway does or left; a secret only `serve` needs may be missing.

        Raises ConfigError.
        """
        if self._config is None:
            from gw.config.load import load

            self._config = load(self.path, os.environ, serving=False)
        return self._config

    def serving_config(self) -> Config:
        """For a process that serves. Raises ConfigError."""
        from gw.config.load import load

        return load(self.path, os.environ)

    def command_line(self) -> list[str]:
        """How a child of ours is started with the same options; a subcommand is added."""
        options = [] if self.path is None else ["--config", str(self.path)]
        return [*self.program(), *options]

    def program(self) -> list[str]:
        """How this command line is started, without options."""
        if binary := os.environ.get(PROGRAM_VARIABLE):
            return [binary]
        return [sys.executable, str(ROOT / "gateway.py")]

    def ask(self, command: str, *, timeout_s: float | None = None, **arguments: Any) -> Any:
        """One request to the running gateway. Raises Unreachable when there is none."""
        from gw.control.admin.client import AdminClient, NotReachable

        try:
            return AdminClient(self.config.ops.admin_socket, timeout_s or ADMIN_TIMEOUT_S).request(command, **arguments)
        except NotReachable as error:
            nobody = getattr(error.__cause__, "errno", None) in (errno.ENOENT, errno.ECONNREFUSED)
            what = "; start one with: gateway.py serve" if nobody else f": {error}"
            raise Unreachable(f"no gateway answers on {self.config.ops.admin_socket}{what}") from None

    def act(self, command: str, *, timeout_s: float, **arguments: Any) -> Any:
        """One request that does something. Raises Unreachable, and Failure with the gateway's sentence where it says no."""
        from gw.control.admin.client import Refused

        try:
            return self.ask(command, timeout_s=timeout_s, **arguments)
        except Refused as error:
            raise Failure(str(error)) from None

    def ask_or_read(self, command: str, read: Callable[[Store], T], kind: Any, *, quiet: bool = False, **arguments: Any) -> T:
        """Return the running gateway's answer, decoded as `kind`, the type `read` returns; without a gateway, read its store and
        say so on stderr."""
        try:
            answer: T = msgspec.convert(self.ask(command, **arguments), type=kind)
        except Unreachable as error:
            if self._nothing_kept():
                raise Unreachable(f"{error.message}; and nothing is kept in {self.config.store.url} yet") from None
            with self.store() as store:
                store.check()
                answer = read(store)
            if not quiet:
                click.echo("The gateway does not run; this is what its store holds.", err=True)
        return answer

    def _nothing_kept(self) -> bool:
        """Whether the store is a file that is not there: looking into it would make one."""
        from gw.config.store_url import SqliteUrl, parse_store_url

        url = parse_store_url(self.config.store.url)
        return isinstance(url, SqliteUrl) and not Path(url.path).exists()

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The store itself. Raises StoreError."""
        from gw.control.store import Store

        store = Store(self.config.store, self.config.secrets.db_password)
        try:
            yield store
        finally:
            store.close()


class Failure(click.ClickException):
    """It did not work: the sentence says why and what to do. With --json the document says so too."""

    exit_code = 1
    as_json = False  # set where the command is known

    def show(self, file: IO[Any] | None = None) -> None:
        if self.as_json:
            from gw.terminal import print_json

            print_json({"error": self.message})
        click.echo(f"Error: {self.message}", file=file, err=True)


class Unreachable(Failure):
    """No gateway answers on the admin socket."""

    exit_code = 3


def _config_given(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        ctx.find_object(Settings).path = path  # type: ignore[union-attr]


def _json_given(ctx: click.Context, _: click.Parameter, wanted: bool) -> bool:
    if wanted:
        ctx.find_object(Settings).json = True  # type: ignore[union-attr]
    return wanted


#: Where the root keeps the words of the command line, for a command that runs elsewhere.
WORDS: Final = "gw.cli.words"


def elsewhere(ctx: click.Context) -> bool:
    """Whether a line that is being completed, where options are not called back, is about another machine."""
    return any(word == "--host" or word.startswith("--host=") for word in ctx.meta.get(WORDS, []))


def _host_given(ctx: click.Context, _: click.Parameter, host: str | None) -> None:
    if host is None or ctx.resilient_parsing:
        return
    from gw.cli.remote import PROGRAM, PROGRAM_VARIABLE, run_there, words_there

    words = words_there(ctx.meta.get(WORDS, []))
    ctx.exit(run_there(host, os.environ.get(PROGRAM_VARIABLE) or PROGRAM, words))


#: Before every other: what is asked elsewhere is also understood elsewhere, its configuration and its help included.
host_option = click.option(
    "--host",
    metavar="USER@MACHINE",
    callback=_host_given,
    expose_value=False,
    is_eager=True,
    help="Run the command on another machine, through ssh; SUBMILLI_REMOTE names the program there (submilli).",
)

#: `--config` behind the command as well, where one types it first.
_config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_config_given,
    expose_value=False,
    is_eager=True,
    help=f"The TOML file; also taken from {CONFIG_VARIABLE}.",
)


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config` and `--host`."""
    return host_option(_config_option(command))


json_option = click.option(
    "--json", "as_json", is_flag=True, callback=_json_given, is_eager=True, help="One JSON document instead of a table."
)

pass_settings = click.make_pass_decorator(Settings)
