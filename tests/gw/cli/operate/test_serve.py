"""gw.cli.operate.serve as a process: its announcement, its failures and its end, with real children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from gw.bench.gateway_process import free_ports
from gw.cli.operate.serve import greeting
from gw.config import Agent, Config, Secrets, Server, Subaccount, Twilio
from tests.program import program

COMMAND = program()
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("SUBMILLI_", "TWILIO_", "OPENAI_"))}


def configured(folder: Path, public: int, ops: int) -> list[str]:
    path = folder / "submilli.toml"
    path.write_text(f'[server]\nlisten = "127.0.0.1:{public}"\n[ops]\nlisten = "127.0.0.1:{ops}"\n')
    return [*COMMAND, "serve", "--config", str(path)]


def test_serve_announces_itself_answers_commands_and_stops(tmp_path: Path) -> None:
    public, ops = free_ports(2)
    command = configured(tmp_path, public, ops)
    serving = subprocess.Popen(command, cwd=tmp_path, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        lines = [serving.stdout.readline() for _ in range(4)]
        assert lines[0].startswith(f"Submilli answers calls on http://127.0.0.1:{public} (1 worker), agent parrot, store sqlite")
        assert "loopback only" in lines[2]
        assert lines[3].startswith(f"Talk to it: http://127.0.0.1:{public}/talk?key=")
        assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
        asked = [*COMMAND, "--config", "submilli.toml", "status"]
        status = subprocess.run(asked, cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=20)
        assert status.returncode == 0, status.stderr
        assert "signatures" not in status.stdout
        second = subprocess.run(command, cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=20)
        assert second.returncode == 1
        assert (
            second.stderr == f"Error: a gateway (pid {serving.pid}) runs in {tmp_path}/var/ already; "
            "stop it, or give this one another ops.var_dir\n"
        )
    finally:
        serving.send_signal(signal.SIGTERM)
        out, said = serving.communicate(timeout=30)
    assert serving.returncode == 0, said
    assert out == ""
    after = subprocess.run(asked, cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=20)
    assert (after.returncode, after.stdout) == (3, "")


@pytest.mark.parametrize("which", ["public", "ops"])
def test_a_port_in_use_exits_with_1(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used, free = taken.getsockname()[1], free_ports(1)[0]
        command = configured(tmp_path, used, free) if which == "public" else configured(tmp_path, free, used)
        ended = subprocess.run(command, cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert str(used) in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[server]\nlisten = 1\nport = 2\n", "config: 2 errors:"),
        ('[agents.default]\ngreeting = { file = "hello.wav", text = "Hello." }\n', "hello.wav"),
    ],
    ids=["keys", "greeting"],
)
def test_a_wrong_configuration_starts_nothing(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    command = [*COMMAND, "--config", "wrong.toml", "serve"]
    ended = subprocess.run(command, cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1
    assert error in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "var").exists()


def test_the_announcement_of_a_signed_gateway() -> None:
    signed = Config(
        server=Server(public_url="https://voice.example.com"),
        twilio=Twilio(account_sid="AC0123", accounts={"support": Subaccount(account_sid="AC4567")}),
        agents={"default": Agent(provider="openai", model="gpt-realtime-2.1")},
        secrets=Secrets(twilio_auth_token="secret"),
    )
    first, second, third = greeting(signed, "127.0.0.1:8080", 2)
    assert "(2 workers), agent openai gpt-realtime-2.1" in first
    assert "POST https://voice.example.com/twilio/voice" in second
    assert "Account AC0123 and support: signatures are checked against https://voice.example.com" in third
    assert "secret" not in first + second + third


def test_the_announcement_hides_the_password_of_a_store() -> None:
    config = Config(store=type(Config().store)(url="mysql+pymysql://user:hunter2@db/calls"))
    assert "hunter2" not in "".join(greeting(config, "127.0.0.1:8080", 1))
