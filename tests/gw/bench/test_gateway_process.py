"""gw.bench.gateway_process: environment, failed starts, free ports, and the end of children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

from gw.bench import gateway_process
from gw.bench.gateway_process import GatewayProcess, GatewayProcessError, end_process, free_ports, start_process, wait_until_gone


def test_a_gateway_that_does_not_start_is_an_error_with_its_log(tmp_path: Path) -> None:
    gateway = GatewayProcess([sys.executable, "-c", "import sys; sys.exit('no luck today')"], tmp_path)
    with pytest.raises(GatewayProcessError, match=r"(?s)gateway\.log ends with:.*no luck today"):
        gateway.start(account_sid="AC1", auth_token="t", api_base="http://127.0.0.1:1", ai_url="ws://127.0.0.1:1")
    assert wait_until_gone(gateway.pids(), 2.0) == []


def test_the_gateway_inherits_none_of_the_users_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user")
    monkeypatch.setenv("SUBMILLI_CONFIG", "/of/the/user.toml")
    print_environment = "import os; os.write(2, open('/proc/self/environ', 'rb').read())"
    gateway = GatewayProcess([sys.executable, "-c", print_environment], tmp_path)
    with pytest.raises(GatewayProcessError) as raised:
        gateway.start(account_sid="AC1", auth_token="t", api_base="http://127.0.0.1:1", ai_url="ws://127.0.0.1:1")
    assert "of-the-user" not in str(raised.value)
    assert f"SUBMILLI_PARENT_PID={os.getpid()}" in str(raised.value)


def test_free_ports_differ_though_none_is_in_use_yet() -> None:
    assert len({*free_ports(5), *free_ports(400)}) == 405


def test_another_process_chooses_from_other_ports() -> None:
    chosen = {pid: {next(gateway_process._own_ports(pid)) for _ in range(500)} for pid in (1000, 1001)}
    assert not chosen[1000] & chosen[1001]
    assert all(len(ports) == 500 for ports in chosen.values())


def test_a_process_that_stays_is_returned() -> None:
    assert wait_until_gone([os.getpid()], 0.05) == [os.getpid()]


def test_a_child_ends_by_its_stdin_by_sigterm_or_by_sigkill() -> None:
    wait_for_stdin = "import sys; sys.stdin.read()"
    ignore_sigterm = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with_stdin = subprocess.Popen([sys.executable, "-c", wait_for_stdin], stdin=subprocess.PIPE, process_group=0)
    end_process(with_stdin, 10.0)
    assert with_stdin.returncode == 0
    asleep = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, process_group=0)
    end_process(asleep, 10.0)
    assert asleep.returncode == -signal.SIGTERM
    stubborn = subprocess.Popen(
        [sys.executable, "-c", ignore_sigterm], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, process_group=0
    )
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    end_process(stubborn, 0.1)
    assert stubborn.returncode == -signal.SIGKILL
    assert stubborn.stdout.closed


def test_an_interrupted_start_leaves_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    forked = Event()
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def slow(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        forked.set()
        gevent.sleep(0.05)  # the rest of a start that takes its time
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", slow)
    starting = gevent.spawn(start_process, ["sleep", "60"], stdin=subprocess.DEVNULL)
    forked.wait(10.0)
    starting.kill()
    assert started[0].returncode == -signal.SIGTERM
