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

from gw.bench.gateway_process import GatewayProcess
from gw.config import ENVIRONMENT, SECRETS_OF
from gw.procfs import TRACEABLE_VARIABLE
from gw.supervise.child import PARENT_VARIABLE
from gw.twin import speech
from gw.twin.ai.script import AiScript, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from tests import schema
from tests.calls.hearing import until
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
[[agents.default.mcp]]
server_label = "crm"
server_url = "https://crm.example.com/mcp"
authorization_env = "CRM_TOKEN"
"""
#: The token of an MCP server, which only the AI's session needs.
TOKEN = f"token-{os.urandom(8).hex()}"


def children(pid: int) -> dict[str, int]:
    """Return the pids of control and the worker by role."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        found.update({role: int(child) for role in SECRETS_OF if role in words})
    return found


@pytest.fixture(scope="module", params=["variables", "files"])
def gateway(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("gateway")
    folder.joinpath("submilli.toml").write_text(CONFIGURATION.format(folder=folder))
    environ = {name: value for name, value in os.environ.items() if name != TRACEABLE_VARIABLE}
    environ |= {PARENT_VARIABLE: str(os.getpid())}
    if request.param == "variables":
        environ |= {variable: VALUES[field] for field, variable in ENVIRONMENT.items()} | {"CRM_TOKEN": TOKEN}
    else:
        credentials = folder / "credentials"
        credentials.mkdir(0o700)
        for field, variable in ENVIRONMENT.items():
            (credentials / variable).write_text(f"{VALUES[field]}\n")
        (credentials / "CRM_TOKEN").write_text(f"{TOKEN}\n")
        environ |= {"CREDENTIALS_DIRECTORY": str(credentials)}  # as systemd sets it
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
        assert b"CREDENTIALS" not in environ
        assert (value in environ, value in whole) == ((True, True) if field in SECRETS_OF[role] else (False, False)), field
    assert (TOKEN.encode() in environ, TOKEN.encode() in whole) == (role == "worker", role == "worker")


def test_no_other_process_of_the_user_reads_its_memory(gateway: int) -> None:
    for pid in (gateway, *children(gateway).values()):
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        for name in ("mem", "environ"):
            assert Path(f"/proc/{pid}/{name}").stat().st_uid == 0
            if os.geteuid() != 0:
                with pytest.raises(PermissionError):
                    Path(f"/proc/{pid}/{name}").read_bytes()


def test_the_auth_token_is_rotated_under_calls(tmp_path: Path) -> None:
    """No webhook and no REST request is refused, while Twilio and the gateway change to another token, step by step.

    After each step a new call is recorded: REST has the right token.
    """
    first, second = "the first auth token", "the second auth token"
    credentials = tmp_path / "credentials"
    credentials.mkdir(0o700)
    calls: list[TwinCall] = []

    def put(**secrets: str) -> None:
        for name, value in secrets.items():
            whole = tmp_path / name
            whole.write_text(f"{value}\n")
            whole.replace(credentials / name)

    def call_on(gateway_is_up: list[bool]) -> None:
        while gateway_is_up:
            calls.append(twilio.place_call(speech.script(50), hang_up=False, max_s=scaled(30.0)))
            gevent.sleep(0.5)

    gateway = GatewayProcess(program(), tmp_path / "gateway", {"server": "workers = 1\n"})
    schema.prepare(gateway)
    with AiTwin(AiScript(greeting=lasting(3), hang_up_after=1)) as ai, TwilioTwin(gateway.url, auth_token=first) as twilio:
        put(TWILIO_AUTH_TOKEN=first)
        try:
            gateway.start(
                account_sid=twilio.account_sid,
                auth_token="stale",
                api_base=twilio.rest.url,
                ai_url=ai.url,
                credentials=credentials,
            )
            gateway_is_up = [True]
            calling = gevent.spawn(call_on, gateway_is_up)
            rotate = [
                lambda: twilio.add_secondary_token(second),
                lambda: put(TWILIO_AUTH_TOKEN=second, TWILIO_AUTH_TOKEN_OLD=first),
                lambda: reload(gateway),
                twilio.promote_secondary_token,
                lambda: put(TWILIO_AUTH_TOKEN_OLD=""),
                lambda: reload(gateway),
            ]
            for step in rotate:
                step()
                later = len(calls)
                until(lambda later=later: any(c.call_sid in twilio.rest.starts for c in calls[later:]), "recorded")  # type: ignore[misc]
            gateway_is_up.clear()
            calling.join()
            for call in calls:
                assert call.wait(scaled(40.0))
        finally:
            gateway.stop()
        assert {(call.closed_by, call.close_reason, call.error) for call in calls} == {("gateway", "ai_hangup", "")}
        assert {posted.status for posted in twilio.webhooks.posts} <= {200, 204}
        assert 401 not in {status for _, _, _, status in twilio.rest.requests}
    assert "bad_signature" not in gateway.log_path.read_text()


def test_a_reload_with_an_unusable_secret_changes_nothing(tmp_path: Path) -> None:
    gateway = GatewayProcess(program(), tmp_path / "gateway")
    schema.prepare(gateway)
    credentials = tmp_path / "credentials"
    credentials.mkdir(0o700)
    with TwilioTwin(gateway.url, auth_token="token") as twilio:
        try:
            gateway.start(
                account_sid=twilio.account_sid,
                auth_token="token",
                api_base=twilio.rest.url,
                ai_url="ws://127.0.0.1:1",
                credentials=credentials,
            )
            before = gateway.pids()
            (credentials / "OPENAI_API_KEY").write_bytes(b"\xff")
            done = run_reload(gateway)
            assert (done.returncode, gateway.pids()) == (1, before)
            assert f"the secret {credentials}/OPENAI_API_KEY cannot be read: it is not UTF-8" in done.stderr
        finally:
            gateway.stop()


def run_reload(gateway: GatewayProcess) -> subprocess.CompletedProcess[str]:
    """Run `reload`, as an operator does: in a shell without the secrets."""
    argv = [*program(), "--config", str(gateway.config_path), "reload"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=scaled(60.0))


def reload(gateway: GatewayProcess) -> None:
    done = run_reload(gateway)
    assert done.returncode == 0, done.stderr
