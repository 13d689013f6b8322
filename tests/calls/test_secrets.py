"""Secrets of a running gateway: each process has only its own, and other processes of the user cannot read them."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from gw.config import ENVIRONMENT, SECRETS_OF
from gw.procfs import TRACEABLE_VARIABLE
from gw.supervise.child import PARENT_VARIABLE
from tests.program import program
from tests.timing import scaled

#: A value for each secret, which occurs in no other memory.
VALUES = {field: f"{field}-{os.urandom(8).hex()}" for field in ENVIRONMENT}
CONFIGURATION = """
[server]
listen = "127.0.0.1:0"
[ops]
listen = "127.0.0.1:0"
admin_socket = "{folder}/admin.sock"
var_dir = "{folder}"
[twilio]
account_sid = "AC00000000000000000000000000000000"
[store]
url = "sqlite:///{folder}/submilli.db"
[agents.default]
provider = "openai"
"""


def children(pid: int) -> dict[str, int]:
    """Return the pids of control and the worker by role."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        found.update({role: int(child) for role in SECRETS_OF if role in words})
    return found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("gateway")
    folder.joinpath("submilli.toml").write_text(CONFIGURATION.format(folder=folder))
    environ = {name: value for name, value in os.environ.items() if name != TRACEABLE_VARIABLE}
    environ |= {variable: VALUES[field] for field, variable in ENVIRONMENT.items()} | {PARENT_VARIABLE: str(os.getpid())}
    argv = [*program(), "--config", str(folder / "submilli.toml"), "serve"]
    serve = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE)
    try:
        with gevent.Timeout(scaled(60)):
            assert serve.stdout is not None
            assert b"Submilli answers calls" in serve.stdout.readline()
        yield serve.pid
    finally:
        serve.terminate()
        serve.communicate(timeout=scaled(60))


def memory(pid: int) -> bytes:
    """Return all writable memory of a process. Needs the rights of a debugger."""
    parts = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            region = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if region is not None and "[vvar" not in line:
                start, end = int(region[1], 16), int(region[2], 16)
                try:
                    parts.append(os.pread(file.fileno(), end - start, start))
                except OSError:
                    continue  # a mapping without memory behind it
    return b"".join(parts)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the memory of these processes")
@pytest.mark.parametrize("role", SECRETS_OF)
def test_a_process_has_only_its_own_secrets(gateway: int, role: str) -> None:
    pid = children(gateway)[role]
    whole, environ = memory(pid), Path(f"/proc/{pid}/environ").read_bytes()
    assert len(whole) > 10_000_000
    for field, variable in ENVIRONMENT.items():
        value = VALUES[field].encode()
        assert (variable.encode() + b"=" in environ) is (field in SECRETS_OF[role])
        assert (value in environ, value in whole) == ((True, True) if field in SECRETS_OF[role] else (False, False)), field


def test_no_other_process_of_the_user_reads_its_memory(gateway: int) -> None:
    for pid in (gateway, *children(gateway).values()):
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        for name in ("mem", "environ"):
            assert Path(f"/proc/{pid}/{name}").stat().st_uid == 0
            if os.geteuid() != 0:
                with pytest.raises(PermissionError):
                    Path(f"/proc/{pid}/{name}").read_bytes()
