"""gw.cli.remote: commands through a real sshd, with and without a gateway, and every failure."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gw.bench.gateway_process import free_ports
from gw.cli.remote import command_of, without_host
from gw.control.store import Store
from tests.debian import installed
from tests.gw.cli.conftest import ENDED, LIVE, CommandLine
from tests.timing import scaled

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("words", "there"),
    [
        (["--host", "a@b", "calls", "list"], ["calls", "list"]),
        (["calls", "list", "--host=a@b", "--json"], ["calls", "list", "--json"]),
        (["call", "--host", "a@b", "--", "--host"], ["call", "--", "--host"]),
    ],
)
def test_the_without_host_are_those_here_without_the_host(words: list[str], there: list[str]) -> None:
    assert without_host(words) == there


def test_words_are_quoted_for_the_other_shell() -> None:
    line = command_of("a@b", "sudo submilli", ["calls", "show", "CA'; rm x"], terminal=False)
    assert line[:2] == ["ssh", "-T"]
    assert line[-3:-1] == ["--", "a@b"]
    assert shlex.split(line[-1]) == ["sudo", "submilli", "calls", "show", "CA'; rm x"]
    assert command_of("a@b", "x", [], terminal=True)[1] == "-t"


class Machine:
    """A machine reached by ssh: this one, through a private sshd on its own port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sshd = installed("sshd", "openssh-server", "openssh-client")
        for name in ("host", "user"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(keygen, check=True, timeout=scaled(30.0))
        (self.port,) = free_ports(1)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own, which its service makes
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\n"
        )
        (folder / "ssh_config").write_text(
            f"Host vm\n HostName 127.0.0.1\n Port {self.port}\nHost *\n User {getpass.getuser()}\n"
            f" IdentityFile {folder}/user\n IdentitiesOnly yes\n BatchMode yes\n StrictHostKeyChecking accept-new\n"
            f" UserKnownHostsFile {folder}/known_hosts\n"
        )
        ssh = folder / "ssh"  # the real one, with a configuration that is not the user's own
        ssh.write_text(f'#!/bin/sh\nexec {installed("ssh", "openssh-client")} -F {folder}/ssh_config "$@"\n')
        ssh.chmod(0o755)
        command = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
        self.sshd = subprocess.Popen(command, stderr=(folder / "sshd.log").open("w"))
        self._await()

    def _await(self) -> None:
        deadline_s = time.monotonic() + scaled(30.0)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            except OSError:
                assert self.sshd.poll() is None and time.monotonic() < deadline_s, (self.folder / "sshd.log").read_text()
                time.sleep(0.05)
            else:
                return

    def run(self, *words: str, config: Path | str = "", program: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command with `--host`. `config`: SUBMILLI_CONFIG on that machine."""
        there = f"env SUBMILLI_CONFIG={config} {sys.executable} {ROOT}/gateway.py"
        environ = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "SUBMILLI_REMOTE": program or there}
        environ.pop("SUBMILLI_CONFIG", None)
        line = [sys.executable, str(ROOT / "gateway.py"), *words]
        return subprocess.run(
            line, env=environ, capture_output=True, text=True, timeout=scaled(60.0), stdin=subprocess.DEVNULL, check=False
        )

    def stop(self) -> None:
        self.sshd.terminate()
        self.sshd.wait(scaled(30.0))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("sshd"))
    yield made
    made.stop()


def test_without_a_gateway_the_store_there_is_read(machine: Machine, cli: CommandLine, store: Store) -> None:
    answer = machine.run("calls", "list", "--json", "--host", "vm", config=cli.config)
    assert answer.returncode == 0, answer.stderr
    assert [row["call_sid"] for row in json.loads(answer.stdout)] == [LIVE, ENDED]
    assert "showing the contents of its store" in answer.stderr


def test_a_gateway_there_answers_and_exit_codes_return(machine: Machine, cli: CommandLine, gateway: list[str]) -> None:
    answer = machine.run("--host", "vm", "calls", "hangup", "CAb", config=cli.config)
    assert (answer.returncode, answer.stdout) == (0, f"Ending {LIVE}.\n")
    assert gateway == [LIVE]
    assert machine.run("--host=vm", "calls", "hangup", ENDED, config=cli.config).returncode == 1


def test_a_machine_that_is_not_reachable_exits_with_3(machine: Machine, cli: CommandLine) -> None:
    stopped = machine.run("--host", "vm", "status", config=cli.config)
    assert (stopped.returncode, "no gateway answers" in stopped.stderr) == (3, True)
    missing = machine.run("--host", "vm", "status", program="/nowhere/submilli")
    assert (missing.returncode, "set SUBMILLI_REMOTE to its path there" in missing.stderr) == (3, True)
    away = machine.run("--host", "nowhere.invalid", "status")
    assert (away.returncode, away.stderr.splitlines()[-1]) == (
        3,
        "Error: cannot reach nowhere.invalid by ssh; the reason is above",
    )


@pytest.mark.parametrize("words", [["--host", "vm", "serve"], ["--host", "-oProxyCommand=x", "status"]])
def test_local_commands_are_wrong_usage(cli: CommandLine, words: list[str]) -> None:
    assert cli.run(*words).exit_code == 2
