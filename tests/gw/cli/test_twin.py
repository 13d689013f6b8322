"""gw.cli.twin: the stand-ins as commands, against real sockets."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import wave
from array import array
from pathlib import Path

import pytest

from gw.cli.twin import phrase
from gw.twin import speech
from gw.twin.sound import write_wav
from gw.twin.websocket import RefusedError, connect
from tests.gw.cli.conftest import CommandLine
from tests.gw.twin.ai.client import Client
from tests.gw.twin.tiny_gateway import TinyGateway
from tests.program import program

# -- the AI -------------------------------------------------------------------------------------------------------------


def test_the_ai_serves_without_a_key_and_reports_each_session() -> None:
    command = [*program(), "twin", "ai", "--port", "0", "--json", "--fault", "failed@2"]
    serving = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        url = json.loads(serving.stdout.readline())["url"]
        address = "127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])
        client = Client(connect(f"{url}?model=any", address, {}, 5.0, 1 << 24, tls=False))
        client.ready()
        statuses = []
        for _ in range(2):
            client.send("response.create")
            statuses.append(client.until("response.done")[-1]["response"]["status"])
        client.websocket.close(wait_s=2.0)
        with pytest.raises(RefusedError):
            connect(url, address, {}, 5.0, 1 << 24, tls=False)
        serving.send_signal(signal.SIGINT)
        printed, errors = serving.communicate(timeout=20)
    finally:
        serving.kill()
        serving.wait()
    assert (serving.returncode, errors) == (0, "")
    assert statuses == ["completed", "failed"]
    session, refused = map(json.loads, printed.splitlines())
    assert (session["session"], session["responses"], session["closed_by"]) == (1, 2, "peer")
    assert refused == {"refused": 400}


def test_the_ai_calls_tools_and_reports_their_outputs() -> None:
    tool = 'lookup@1={"number":"7"}'
    command = [*program(), "twin", "ai", "--port", "0", "--json", "--tool", tool, "--tool", "note@1"]
    serving = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        url = json.loads(serving.stdout.readline())["url"]
        address = "127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])
        client = Client(connect(f"{url}?model=any", address, {}, 5.0, 1 << 24, tls=False))
        client.ready()
        client.send("response.create")
        output = client.until("response.done")[-1]["response"]["output"]
        called = [item for item in output if item["type"] == "function_call"]
        result = {"type": "function_call_output", "call_id": called[0]["call_id"], "output": "a result"}
        client.send("conversation.item.create", item=result)
        client.until("conversation.item.done")
        client.websocket.close(wait_s=2.0)
        serving.send_signal(signal.SIGINT)
        printed, errors = serving.communicate(timeout=20)
    finally:
        serving.kill()
        serving.wait()
    assert (serving.returncode, errors) == (0, "")
    assert [(item["name"], item["arguments"]) for item in called] == [("lookup", '{"number":"7"}'), ("note", "{}")]
    assert json.loads(printed)["tools"] == [{"tool": "lookup", "output": "a result"}, {"tool": "note", "output": None}]


@pytest.mark.parametrize("tool", ["=", "lookup@0", "lookup@x", "lookup=[1]", "lookup={"])
def test_a_wrong_tool_is_explained(cli: CommandLine, tool: str) -> None:
    wrong = cli.run("twin", "ai", "--tool", tool)
    assert (wrong.exit_code, "expected NAME, NAME@N or NAME@N={...}" in " ".join(wrong.stderr.split())) == (2, True)


def test_faults_are_listed_and_checked(cli: CommandLine) -> None:
    listed = cli.run("twin", "ai", "--faults").output
    assert all(name in listed for name in ("refuse_429", "wrong_format", "stall", "talks_over"))
    unknown = cli.run("twin", "ai", "--fault", "hiccup")
    assert (unknown.exit_code, "list them with: gateway.py twin ai --faults" in unknown.stderr) == (2, True)
    assert "expected NAME or NAME@N" in cli.run("twin", "ai", "--fault", "stall@x").stderr


def test_a_port_in_use(cli: CommandLine) -> None:
    with TinyGateway() as other:
        taken = cli.run("twin", "ai", "--port", other.url.rpartition(":")[2])
    assert taken.exit_code == 1
    assert "choose another port" in taken.stderr


# -- the caller ---------------------------------------------------------------------------------------------------------


def test_a_call_speaks_and_reports_what_it_heard(cli: CommandLine, tmp_path: Path) -> None:
    with TinyGateway() as gateway:  # sends every frame back
        gateway.twiml["/twilio/voice?agent=x"] = gateway.twiml["/twilio/voice"]
        found = cli.document(
            *("twin", "call", "interrupt=weasels", "--url", gateway.url, "--seconds", "3", "--agent", "x", "--calls", "2"),
            *("--from", "+15550000007", "--to", "+15550000008"),
            *("--out", str(tmp_path / "heard")),
        )
        assert gateway.paths()[0] == "/twilio/voice?agent=x"
        assert (gateway.posts[0][2]["From"], gateway.posts[0][2]["To"]) == ("+15550000007", "+15550000008")
        assert len(gateway.streams) == 2
        assert speech.load("weasels")[:1600] in gateway.streams[0].heard()
    assert [one["closed_by"] for one in found] == ["limit", "limit"]
    assert [one["problems"] for one in found] == [[], []]
    with wave.open(str(tmp_path / "heard" / "call-2.wav")) as file:
        assert 0.5 < found[1]["heard_s"] <= file.getnframes() / 8000 + 0.1


def test_a_call_that_fails_exits_with_1(cli: CommandLine) -> None:
    with TinyGateway(status=503) as gateway:
        failed = cli.run("twin", "call", "--url", gateway.url)
    assert failed.exit_code == 1
    assert "problem: the voice webhook was answered with 503" in failed.stdout


def test_without_a_gateway_the_exit_code_is_3(cli: CommandLine) -> None:
    missing = cli.run("twin", "call", "--url", "http://127.0.0.1:9")
    assert missing.exit_code == 3
    assert missing.stderr == "Error: no gateway answers on http://127.0.0.1:9; start one with: gateway.py serve\n"


def test_a_faulty_stream_is_a_success_once_the_gateway_ended_it(cli: CommandLine) -> None:
    with TinyGateway(lambda stream: None) as gateway:
        result = cli.run("twin", "call", "--url", gateway.url, "--fault", "no_start", "--seconds", "1")
    assert result.exit_code == 0, result.output


def test_a_signed_call_needs_its_token(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    sid = "AC" + "1" * 32
    with TinyGateway(status=403) as gateway:
        missing = cli.run("twin", "call", "--url", gateway.url, "--account-sid", sid)
        monkeypatch.setenv("TWILIO_AUTH_TOKEN", "secret")
        cli.run("twin", "call", "--url", gateway.url, "--public-url", "https://voice.example.com", "--account-sid", sid)
    assert (missing.exit_code, "set TWILIO_AUTH_TOKEN" in missing.stderr) == (1, True)
    _, headers, fields = gateway.posts[0]
    assert headers["host"] == "voice.example.com"
    assert "x-twilio-signature" in headers
    assert fields["AccountSid"] == sid


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["whistle=x"], "is not a step"),
        (["say=nonsense"], "neither a recording nor a .wav file"),
        (["say=missing.wav"], "missing.wav cannot be read: No such file"),
        (["--fault", "hiccup"], "list them with: gateway.py twin call --list"),
    ],
)
def test_wrong_usage_names_the_remedy(cli: CommandLine, words: list[str], fault: str) -> None:
    result = cli.run("twin", "call", *words)
    assert result.exit_code == 2
    assert fault in " ".join(result.stderr.split())


def test_names_are_listed(cli: CommandLine) -> None:
    listed = cli.run("twin", "call", "--list").output
    assert all(name in listed for name in ("lose_frames=SECONDS", "weasels", "token_forged", "bad_json"))


def test_a_phrase_is_a_recording_or_a_wav(tmp_path: Path) -> None:
    assert phrase("weasels") == speech.load("weasels")
    write_wav(tmp_path / "own.wav", b"\x10" * 320)
    assert phrase(str(tmp_path / "own.wav")) == b"\x10" * 320
    (tmp_path / "not.wav").write_bytes(b"no")
    with pytest.raises(ValueError, match="is not a WAV file"):
        phrase(str(tmp_path / "not.wav"))
    with wave.open(str(tmp_path / "fast.wav"), "wb") as file:
        file.setparams((1, 2, 48000, 0, "NONE", ""))
        file.writeframes(array("h", [round(9000 * math.sin(n / 9)) for n in range(480)]).tobytes())
    with pytest.raises(ValueError, match="convert it with: sox"):
        phrase(str(tmp_path / "fast.wav"))
