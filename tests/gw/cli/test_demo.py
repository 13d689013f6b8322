"""`demo` as a user runs it: a whole run with its files, and no process left, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

from gw.bench.gateway_process import GatewayProcess, GatewayProcessError, free_ports, wait_until_gone
from gw.demo.run import DemoScript
from gw.twin import speech
from tests.program import program

COMMAND = program()
#: Environment variable that a run and all its processes inherit.
MARK = "RUN_UNDER_TEST"


def started(out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "demo", "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: str(out)},
    )


def processes_of(out: Path) -> list[int]:
    """Return every process of the run, found by its inherited variable."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={out}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass
    return found


def until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.02)


def test_a_run_keeps_its_promises_and_leaves_its_files(tmp_path: Path) -> None:
    run = started(tmp_path, "--calls", "2", "--seconds", "1", "--json")
    printed, errors = run.communicate(timeout=60)
    summary = json.loads(printed)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["calls"]) == 2
    for call in summary["calls"]:
        assert call["audio_exact"] is True
        assert call["frames_sent"] == call["frames_expected"] == len(speech.load("thanks")) // 160
        assert (call["recordings_started"], call["ended"]) == (1, "ai_hangup")
    assert summary["processes_left"] == 0
    assert run.returncode == (0 if summary["ok"] else 1), errors
    with wave.open(str(tmp_path / "call-1.wav")) as heard:
        assert heard.getnframes() >= len(speech.load("thanks"))
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("children", [1, 2, 4])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_it_is_interrupted(tmp_path: Path, number: signal.Signals, children: int) -> None:
    """Interrupt at the very start, between control and worker, and with everything running."""
    run = started(tmp_path)
    until(lambda: len(processes_of(tmp_path)) >= children)
    run.send_signal(number)
    _, errors = run.communicate(timeout=20)
    assert processes_of(tmp_path) == []
    assert run.returncode != 0
    assert "Traceback" not in errors


def test_nothing_is_left_when_it_is_killed(tmp_path: Path) -> None:
    run = started(tmp_path)
    until(lambda: len(processes_of(tmp_path)) >= 4)
    run.kill()
    run.communicate(timeout=10)
    until(lambda: processes_of(tmp_path) == [])


def test_a_gateway_that_does_not_start_is_an_error_with_its_log(tmp_path: Path) -> None:
    gateway = GatewayProcess([sys.executable, "-c", "import sys; sys.exit('no luck today')"], tmp_path)
    with pytest.raises(GatewayProcessError, match=r"(?s)gateway\.log ends with:.*no luck today"):
        gateway.start(account_sid="AC1", auth_token="t", api_base="http://127.0.0.1:1", ai_url="ws://127.0.0.1:1")
    assert wait_until_gone(gateway.pids(), 2.0) == []


def test_the_gateway_inherits_none_of_the_users_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user")
    monkeypatch.setenv("SUBMILLI_CONFIG", "/of/the/user.toml")
    tell = "import os; os.write(2, open('/proc/self/environ', 'rb').read())"
    gateway = GatewayProcess([sys.executable, "-c", tell], tmp_path)
    with pytest.raises(GatewayProcessError) as raised:
        gateway.start(account_sid="AC1", auth_token="t", api_base="http://127.0.0.1:1", ai_url="ws://127.0.0.1:1")
    assert "of-the-user" not in str(raised.value)
    assert f"SUBMILLI_PARENT_PID={os.getpid()}" in str(raised.value)


def test_free_ports_differ() -> None:
    assert len(set(free_ports(5))) == 5


def test_a_process_that_stays_is_returned() -> None:
    assert wait_until_gone([os.getpid()], 0.05) == [os.getpid()]


def test_a_conversation_has_the_requested_length() -> None:
    for seconds in (1, 10, 15, 60):
        script = DemoScript.lasting(seconds)
        assert script.seconds >= seconds
        assert script.exchanges == 0 or DemoScript(script.exchanges - 1).seconds < seconds


def test_the_last_response_is_the_goodbye_and_hangs_up() -> None:
    script = DemoScript(2)
    agent = script.agent(1)
    assert agent.hang_up_after == script.responses == 3
    assert agent.audio_of(1, asked=True) == speech.load("hello-world")
    assert agent.audio_of(3, asked=False) == speech.load("thanks")
    assert agent.agent_words[2] == speech.WORDS["thanks"]


def test_sessions_have_different_words_and_chunks() -> None:
    first, second = DemoScript(2).agent(0), DemoScript(2).agent(1)
    assert first.audio_of(2, asked=False) != second.audio_of(2, asked=False)
    assert first.chunks(first.greeting, 0, 1) != second.chunks(second.greeting, 0, 1)
    assert DemoScript(2).phrase(0, 0) != DemoScript(2).phrase(1, 0)
