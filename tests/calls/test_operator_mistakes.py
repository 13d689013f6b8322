"""Mistakes of operators against the real program: each is answered with its remedy, without a Python error.

One gateway serves all of them. Its configuration has mistakes too: another password than the database's, and an address of
Twilio's where no process listens.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import click.testing
import pytest

from gw.bench.gateway_process import end_process, free_ports, start_process
from gw.cli import root
from gw.supervise.child import PARENT_VARIABLE
from gw.twin.sound import write_wav
from gw.twin.twilio.webhooks import sign
from tests.mariadb import PASSWORD, MariaDB
from tests.program import program
from tests.timing import scaled

SID: Final = "AC" + "0" * 32
TOKEN: Final = "a token of this test"
#: The public URL, which only signatures need.
PUBLIC: Final = "https://voice.example.com"
#: Traces of Python in a message for people.
PYTHON: Final = re.compile(r"Traceback|\[Errno|object at 0x|\b[A-Z]\w+(Error|Exception)\b|\(\d+, ['\"]")
OURS: Final = ("SUBMILLI_", "TWILIO_", "OPENAI_", "LISTEN_")
#: A small disk, which a file of this size fills.
DISK_BYTES: Final = 16 << 20
OTHER_USER: Final = 65534


class Site:
    """The gateway's folder, its database, and the operator's commands."""

    def __init__(self, folder: Path, database: MariaDB, store_url: str) -> None:
        self.folder, self.database = folder, database
        self.public, self.ops, twilio = free_ports(3)
        self.socket = folder / "disk" / "admin.sock"
        self.config = folder / "submilli.toml"
        self.text = (
            f'[server]\nlisten = "127.0.0.1:{self.public}"\npublic_url = "{PUBLIC}"\nstop_timeout_s = 0\n'
            f'[ops]\nlisten = "127.0.0.1:{self.ops}"\nvar_dir = "disk/var"\nadmin_socket = "disk/admin.sock"\n'
            f'[twilio]\naccount_sid = "{SID}"\napi_base = "http://127.0.0.1:{twilio}"\n'
            f'[store]\nurl = "{store_url}"\n'
        )
        self.config.write_text(self.text)

    def run(self, *words: str, config: Path | None = None, **environ: str) -> str:
        """Run a command in this process. Returns everything that it printed."""
        given = {"COLUMNS": "500", "TWILIO_AUTH_TOKEN": TOKEN, "SUBMILLI_DB_PASSWORD": PASSWORD, **environ}
        os.environ.pop("SUBMILLI_CONFIG", None)
        result = click.testing.CliRunner(env=given).invoke(
            root, ["--config", str(config or self.config), *words], prog_name="gateway.py"
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return str(result.output)

    def write(self, text: str, name: str = "other.toml") -> Path:
        """Write another configuration beside the gateway's."""
        path = self.folder / name
        path.write_text(text)
        return path

    def check(self, text: str, **environ: str) -> str:
        """Check another configuration."""
        return self.run("config", "check", config=self.write(text), **environ)

    def start(self, text: str) -> str:
        """Start another gateway, which has to end. Returns everything that it printed."""
        done = subprocess.run(
            [*program(), "--config", str(self.write(text)), "serve"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=scaled(60),
        )
        assert done.returncode == 1, done.stdout
        return done.stdout

    def ready(self) -> tuple[bool, str]:
        """Return the answer of /readyz."""
        try:
            with urlopen(f"http://127.0.0.1:{self.ops}/readyz", timeout=scaled(5)) as answer:
                return True, answer.read().decode()
        except HTTPError as error:
            return False, error.read().decode()

    def voice(self, path: str) -> str:
        """Send a signed voice webhook. Returns the TwiML."""
        form = {"CallSid": "CA" + "1" * 32, "AccountSid": SID, "From": "+15550001", "To": "+15550002", "CallStatus": "ringing"}
        body = "&".join(f"{name}={value.replace('+', '%2B')}" for name, value in form.items()).encode()
        headers = {"X-Twilio-Signature": sign(TOKEN, f"{PUBLIC}{path}", form)}
        with urlopen(Request(f"http://127.0.0.1:{self.public}{path}", body, headers), timeout=scaled(5)) as answer:
            return str(answer.read().decode())

    @property
    def log(self) -> str:
        return (self.folder / "gateway.log").read_text()


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**kept, "TWILIO_AUTH_TOKEN": TOKEN, PARENT_VARIABLE: str(os.getpid()), **more}


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small disk at `folder`. False where this user may not."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)], stderr=subprocess.DEVNULL, check=False
    )
    try:
        yield made.returncode == 0
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, mariadb_server: MariaDB) -> Iterator[Site]:
    mariadb_server.start()
    folder = tmp_path_factory.mktemp("mistakes")
    made = Site(folder, mariadb_server, mariadb_server.fresh())
    with small_disk(folder / "disk"), (folder / "gateway.log").open("wb") as log:
        command = [*program(), "--config", str(made.config), "serve"]
        serving = start_process(command, env=environment(SUBMILLI_DB_PASSWORD="wrong"), stdin=subprocess.DEVNULL, stderr=log)
        try:
            assert serving.stdout is not None
            for _ in range(3):
                assert serving.stdout.readline(), made.log
            until_s = time.monotonic() + scaled(30)
            while "no worker is connected" in made.run("status"):
                assert time.monotonic() < until_s, made.log
                time.sleep(0.1)
            yield made
        finally:
            end_process(serving, scaled(20))


@contextmanager
def another_user() -> Iterator[None]:
    """Run the block without the rights of root. Without root, there is no other user to be."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    os.setegid(OTHER_USER)
    os.seteuid(OTHER_USER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


class Mistake(NamedTuple):
    """A mistake, and the words of its remedy."""

    name: str
    act: Callable[[Site], str]
    remedy: str


# -- mistakes that need more than one line ------------------------------------------------------------------------------


def _slow_socket(site: Site) -> str:
    path = site.folder / "slow.sock"
    with socket.socket(socket.AF_UNIX) as deaf, pytest.MonkeyPatch.context() as patched:
        patched.setattr("gw.cli.context.ADMIN_TIMEOUT_S", 0.05)
        deaf.bind(str(path))
        deaf.listen()
        return site.run("status", "--socket", str(path))


def _forbidden_socket(site: Site) -> str:
    for folder in (site.folder, *list(site.folder.parents)[:2]):
        folder.chmod(0o755)
    site.run("status")  # imports what the other user may not read
    with another_user():
        shown = site.run("status", "--socket", str(site.socket))
    assert "start one" not in shown
    return shown


def _another_folder(site: Site) -> str:
    before = Path.cwd()
    os.chdir(site.folder.parent)
    try:
        return site.run("status", config=Path(site.folder.name, "submilli.toml"))
    finally:
        os.chdir(before)


def _no_right_to_write(site: Site) -> str:
    url = site.database.fresh()
    name = url.rpartition("/")[2]
    site.database.execute(f"REVOKE ALL ON {name}.* FROM submilli@'127.0.0.1'")
    site.database.execute(f"GRANT SELECT ON {name}.* TO submilli@'127.0.0.1'")
    return site.run("db", "upgrade", config=site.write(f'[store]\nurl = "{url}"\n'))


def _full_disk_at_start(site: Site) -> str:
    disk = site.folder / "full"
    with small_disk(disk) as is_mounted:
        if not is_mounted:
            pytest.skip("this user may not mount a disk")
        _fill(disk / "fill")
        return site.start(_free_ports(site.text).replace("disk/", "full/"))


def _full_disk_in_service(site: Site) -> str:
    if not os.path.ismount(site.folder / "disk"):
        pytest.skip("this user may not mount a disk")
    assert site.ready()[0]
    _fill(site.folder / "disk" / "fill")
    try:
        return _until(lambda: (not (answer := site.ready())[0], answer[1]))
    finally:
        (site.folder / "disk" / "fill").unlink()
        _until(site.ready)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


def _until(look: Callable[[], tuple[bool, str]]) -> str:
    """Return the text once the condition holds."""
    until_s = time.monotonic() + scaled(20)
    while True:
        holds, text = look()
        if holds:
            return text
        assert time.monotonic() < until_s, text
        time.sleep(0.1)


def _unknown_agent(site: Site) -> str:
    twiml = site.voice("/twilio/voice?agent=salse")
    assert "<Say>" in twiml and "<Hangup" in twiml, twiml
    return _until(lambda: ("salse" in site.log, site.log))


def _free_ports(text: str) -> str:
    """Return a configuration with two other ports."""
    ports = iter(free_ports(2))
    return re.sub(r'listen = "127\.0\.0\.1:\d+"', lambda _: f'listen = "127.0.0.1:{next(ports)}"', text)


def _taken_port(table: str) -> Callable[[Site], str]:
    def act(site: Site) -> str:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            text = _free_ports(site.text).replace("disk/", f"{table}/").replace(PUBLIC, "http://localhost")
            return site.start(re.sub(rf'(\[{table}\]\nlisten = "127\.0\.0\.1:)\d+', rf"\g<1>{port}", text))

    return act


def _talk_with_a_file(site: Site) -> str:
    write_wav(site.folder / "in.wav", b"\x10" * 160)
    return site.run("talk", "--wav", str(site.folder / "in.wav"))


MISTAKES: Final = [
    # The gateway's surroundings.
    Mistake(
        "wrong password of the database", lambda site: site.run("status"), "check the user in store.url, and SUBMILLI_DB_PASSWORD"
    ),
    Mistake(
        "the same in the log, at the start",
        lambda site: "".join(line for line in site.log.splitlines(keepends=True) if '"error"' in line or "ERROR" in line),
        "the store's schema is not ready: the store cannot be used: Access denied",
    ),
    Mistake("no right to write", _no_right_to_write, "grant the user in store.url all rights on its database"),
    Mistake(
        "no such database",
        lambda site: site.run("db", "current", config=site.write(re.sub(r'(url = ".*/)\w+"', r'\1submilli_none"', site.text))),
        "grant the user in store.url all rights on its database",  # without rights on it, the server does not admit its absence
    ),
    Mistake(
        "no server of the database",
        lambda site: site.run("db", "current", config=site.write('[store]\nurl = "mysql://me@127.0.0.1:1/calls"\n')),
        "check host and port in store.url, and whether the server runs",
    ),
    Mistake(
        "a folder as the store",
        lambda site: site.run("db", "upgrade", config=site.write('[store]\nurl = "sqlite:///."\n')),
        "store.url",
    ),
    Mistake(
        "Twilio is away",
        lambda site: site.run("call", "+15551234567", "--from", "+15557654321"),
        "check twilio.api_base and the network",
    ),
    Mistake("unknown agent in the webhook's URL", _unknown_agent, "use one of: default"),
    Mistake("full disk at the start", _full_disk_at_start, "free some of the disk of ops.var_dir"),
    Mistake("full disk in service", _full_disk_in_service, "calls would not be recorded, the disk of"),
    Mistake("public port in use", _taken_port("server"), "stop what uses the port, or set server.listen to another"),
    Mistake("ops port in use", _taken_port("ops"), "choose another address, or free this one"),
    Mistake(
        "second gateway in one folder",
        lambda site: site.start(_free_ports(site.text)),
        "stop it, or give this one another ops.var_dir",
    ),
    # Commands to the running gateway.
    Mistake(
        "a typo in the file, and status",
        lambda site: site.run("status", config=site.write(site.text.replace("stop_timeout_s", "stop_timeuot_s"))),
        "server.stop_timeuot_s is unknown: did you mean server.stop_timeout_s?",
    ),
    Mistake(
        "a line that is not TOML, and top",
        lambda site: site.run("top", "--once", config=site.write(f"{site.text}[media]\nlead_ms = \n")),
        "is not valid TOML: Invalid value (at line",
    ),
    Mistake(
        "a typo in the socket's key",
        lambda site: site.run("status", config=site.write(site.text.replace("admin_socket", "admin_sockte"))),
        "did you mean ops.admin_socket?",
    ),
    Mistake(
        "a file that does not exist",
        lambda site: site.run("status", config=site.folder / "none.toml"),
        "a running gateway can be named with --socket too",
    ),
    Mistake("a socket of another user", _forbidden_socket, "use root, or join ops.admin_group or ops.read_group"),
    Mistake("a socket that gives no answer", _slow_socket, "it is busy or blocked: look into its log, or try again"),
    Mistake("a relative path, from another folder", _another_folder, "signatures are checked"),
    Mistake(
        "a socket without a gateway",
        lambda site: site.run("status", "--socket", str(site.folder / "none.sock")),
        "start one with: gateway.py serve, or name another socket with --config or --socket",
    ),
    Mistake("a misspelt command", lambda site: site.run("statsu"), "'status'"),
    Mistake("a misspelt subcommand", lambda site: site.run("calls", "lisst"), "'list'"),
    Mistake("serve on another machine", lambda site: site.run("serve", "--host", "vm1"), "No such option"),
    Mistake(
        "a number that is none",
        lambda site: site.run("calls", "transfer", "CA1", "--to", "5551234"),
        "neither a number in E.164, such as +15551234567, nor sip:user@host",
    ),
    Mistake("a time that is none", lambda site: site.run("calls", "list", "--since", "lately"), "use 30m, 12h, 7d"),
    Mistake("an unknown process", lambda site: site.run("loglevel", "debug", "--process", "workers"), "control"),
    Mistake(
        "the talk page of a gateway with credentials", _talk_with_a_file, "with a configuration that lacks twilio.account_sid"
    ),
    Mistake(
        "a call to a gateway that does not run",
        lambda site: site.run("twin", "call", "hang_up", "--url", "http://127.0.0.1:1", "--account-sid", SID),
        "start one with: gateway.py serve",
    ),
    # The configuration.
    Mistake(
        "http for a public host",
        lambda site: site.check('[server]\npublic_url = "http://voice.example.com"\n', TWILIO_AUTH_TOKEN=""),
        "expected https://",
    ),
    Mistake(
        "no credentials on a public address",
        lambda site: site.check('[server]\nlisten = "0.0.0.0:8080"\npublic_url = "https://a.example"\n', TWILIO_AUTH_TOKEN=""),
        "set twilio.account_sid, and TWILIO_AUTH_TOKEN in the environment, or listen on 127.0.0.1:8080",
    ),
    Mistake(
        "no auth token",
        lambda site: site.check(f'[twilio]\naccount_sid = "{SID}"\n', TWILIO_AUTH_TOKEN=""),
        "set TWILIO_AUTH_TOKEN in the environment",
    ),
    Mistake(
        "no key of the AI",
        lambda site: site.check('[agents.default]\nprovider = "openai"\n', OPENAI_API_KEY=""),
        "set OPENAI_API_KEY in the environment",
    ),
    Mistake(
        "a secret in the file",
        lambda site: site.check('[twilio]\nauth_token = "secret"\n'),
        "set TWILIO_AUTH_TOKEN in the environment, and remove it from the file",
    ),
    Mistake(
        "a password in the URL",
        lambda site: site.check('[store]\nurl = "mysql://me:secret@db/calls"\n'),
        "remove it, and set SUBMILLI_DB_PASSWORD in the environment",
    ),
    Mistake("a word for a number", lambda site: site.check('[media]\nlead_ms = "100 ms"\n'), "expected a whole number, 0 to 500"),
    Mistake(
        "a greeting without its file",
        lambda site: site.check('[agents.default]\ngreeting = { file = "hello.wav", text = "Hello." }\n'),
        "agents.default.greeting",
    ),
    Mistake(
        "a zone that is none",
        lambda site: site.check('[[routes]]\nzone = "Berlin"\n'),
        "Europe/Berlin",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name.replace(" ", "_"))
def test_a_mistake_is_answered_with_its_remedy(site: Site, mistake: Mistake) -> None:
    shown = mistake.act(site)
    assert mistake.remedy in shown
    assert not (trace := PYTHON.search(shown)), f"{trace}: {shown}"
