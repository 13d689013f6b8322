"""deploy/examples: each is run as a user runs it, with one command, and its endpoints get what they should."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from gw.bench.gateway_process import free_ports
from gw.protocol.hooks.signature import sign
from tests.program import ROOT
from tests.timing import scaled

EXAMPLES: Final = ROOT / "deploy" / "examples"
NAMES: Final = tuple(sorted(path.parent.name for path in EXAMPLES.glob("*/rehearsal.toml")))
SECRET: Final = "a secret of the tests"
#: Both rehearsals, with calls of half a minute each.
RUN_S: Final = 120.0


class Example:
    """A copy of an example with its own ports, run by its one command."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder / name
        shutil.copytree(EXAMPLES / name, self.folder)
        gateway, ops, ai, endpoints = free_ports(4)
        self.endpoints_url = f"http://127.0.0.1:{endpoints}"
        self.config = self.folder / "submilli.toml"
        for file in (self.config, self.folder / "rehearsal.toml"):
            text = file.read_text()
            for before, after in (("8080", gateway), ("8090", ai), ("8070", endpoints)):
                text = text.replace(before, str(after))
            file.write_text(text)
        self.config.write_text(f'{self.config.read_text()}\n[ops]\nlisten = "127.0.0.1:{ops}"\n')
        self.output = folder / f"{name}.out"
        self._environ = {**os.environ, "SUBMILLI_HOOK_SECRET": SECRET}
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(EXAMPLES / "run.py"), str(self.folder)],
                cwd=self.folder,
                env=self._environ,
                stdout=output,
                stderr=output,
                process_group=0,
            )

    def wait(self) -> None:
        """Wait until the rehearsal is over."""
        deadline_s = time.monotonic() + scaled(RUN_S)
        while "until Ctrl-C" not in self.output.read_text():
            assert self._process.poll() is None and time.monotonic() < deadline_s, self.output.read_text()
            time.sleep(0.2)

    def ask(self, *words: str) -> Any:
        """Run a command of the gateway, with --json."""
        command = [sys.executable, str(ROOT / "gateway.py"), "--config", str(self.config), *words, "--json"]
        done = subprocess.run(command, cwd=self.folder, env=self._environ, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def rows(self, question: str) -> list[Any]:
        """Read the database of the endpoints."""
        with contextlib.closing(sqlite3.connect(self.folder / "var" / "orders.db")) as database:
            return database.execute(question).fetchall()

    def stop(self) -> int:
        """Press Ctrl-C. Returns the exit code."""
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(scaled(30.0))
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Example]]:
    folder = tmp_path_factory.mktemp("examples")
    examples = {name: Example(name, folder) for name in NAMES}
    try:
        for example in examples.values():
            example.wait()
        yield examples
    finally:
        codes = {name: example.stop() for name, example in examples.items()}
    assert codes == dict.fromkeys(NAMES, 0), [example.output.read_text() for example in examples.values()]
    assert not [one for example in examples.values() for one in processes_of(example.folder)], "a process is left"


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of running processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(folder) in line]


def agents(example: Example) -> dict[str, str]:
    """Return the agent that answered, by the number that was called."""
    return {call["to_number"]: call["agent"] for call in example.ask("calls", "list")}


# -- the order line -------------------------------------------------------------------------------------------------------


def test_the_order_line_calls_both_tools(run: dict[str, Example]) -> None:
    example = run["order_line"]
    (call,) = example.ask("calls", "list")
    assert call["reason"] == "ai_hangup"
    events = example.ask("calls", "show", call["call_sid"])["events"]
    called = [(one["data"]["tool"], one["data"]["status"]) for one in events if one["kind"] == "tool_called"]
    assert called == [("find_order", "ok"), ("return_order", "ok"), ("hang_up", "ok")]
    assert example.rows("SELECT number, reason FROM returns") == [("1001", "too small")]


def test_the_receiver_gets_every_event_in_sequence(run: dict[str, Example]) -> None:
    example = run["order_line"]
    deadline_s = time.monotonic() + scaled(20.0)
    while not example.rows("SELECT 1 FROM events WHERE type = 'call.ended'") and time.monotonic() < deadline_s:
        time.sleep(0.2)
    types = [row[0] for row in example.rows("SELECT type FROM events ORDER BY rowid")]
    assert types == ["call.started", *["tool.called"] * 3, "call.ended"]
    ((body,),) = example.rows("SELECT body FROM events WHERE type = 'call.ended'")
    ended = json.loads(body)["data"]
    assert (ended["reason"], [tool["status"] for tool in ended["tools"]]) == ("ai_hangup", ["ok"] * 3)
    printed = re.findall(r"^(call\.started|tool\.called|call\.ended) CA", example.output.read_text(), re.MULTILINE)
    assert printed == types


def test_an_unsigned_request_is_refused(run: dict[str, Example]) -> None:
    request = urllib.request.Request(f"{run['order_line'].endpoints_url}/events", b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=scaled(5.0))


def test_a_repeated_request_returns_an_order_once(run: dict[str, Example]) -> None:
    example = run["order_line"]
    body = json.dumps({"arguments": {"number": "1002"}}).encode()
    headers = {"Idempotency-Key": "k", "Submilli-Signature": sign([SECRET], body, time.time())}
    request = urllib.request.Request(f"{example.endpoints_url}/tools/return_order", body, headers)
    for _ in range(2):
        with urllib.request.urlopen(request, timeout=scaled(5.0)) as answer:
            assert json.load(answer) == {"number": "1002", "returned": True}
    assert example.rows("SELECT count(*) FROM returns WHERE key = 'k'") == [(1,)]


def endpoints() -> Any:
    spec = importlib.util.spec_from_file_location("order_line_endpoints", EXAMPLES / "order_line" / "endpoints.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("at", "body", "secret", "is_good"),
    [(0, b"{}", SECRET, True), (0, b"{ }", SECRET, False), (0, b"{}", "another", False), (-301, b"{}", SECRET, False)],
)
def test_the_check_of_a_signature(at: int, body: bytes, secret: str, is_good: bool) -> None:
    header = sign([secret, "a former one"], b"{}", time.time() + at)
    assert endpoints().is_from_submilli(SECRET, header, body) is is_good


def test_the_check_is_that_of_the_documentation() -> None:
    """Both are copied by users."""
    source = (EXAMPLES / "order_line" / "endpoints.py").read_text()
    page = (ROOT / "deploy" / "TOOLS.md").read_text()
    body = re.search(r"^def is_from_submilli.*?(?=^```)", page, re.MULTILINE | re.DOTALL)
    assert body is not None
    assert "".join(body[0].splitlines(keepends=True)[1:]) in source


# -- the receptionist -----------------------------------------------------------------------------------------------------


def test_the_number_and_the_hour_decide_who_answers(run: dict[str, Example]) -> None:
    there = datetime.now(ZoneInfo("Europe/Berlin"))
    is_day = there.weekday() < 5 and 9 <= there.hour < 17
    assert agents(run["receptionist"]) == {"+15550000001": "day" if is_day else "default", "+15550000002": "support"}


def test_a_greeting_from_a_file_is_the_first_turn(run: dict[str, Example]) -> None:
    example = run["receptionist"]
    (call,) = [call for call in example.ask("calls", "list") if call["to_number"] == "+15550000001"]
    first = example.ask("calls", "show", call["call_sid"])["turns"][0]
    assert (first["role"], first["interrupted"]) == ("agent", False)
    assert first["text"] in ("Hello world.", "Nobody is available to take your call at the moment.")  # prose: quotation


# -- the command ----------------------------------------------------------------------------------------------------------


def test_an_unknown_example_is_named_with_the_known_ones() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / "run.py"), "pizza"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert all(name in done.stderr for name in ("pizza", *NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_each_command_that_is_run_is_shown(run: dict[str, Example], name: str) -> None:
    printed = run[name].output.read_text()
    for command in ("twin ai", "serve", "twin call", "calls list", "talk --no-browser"):
        assert re.search(rf"^\$ gateway\.py .*{command}", printed, re.MULTILINE), command
    assert re.search(r"Talk to it: http://", printed)
