"""gw.cli.operate.status: the exit code, and the long holds."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gw.control.store import Report, Store
from tests.gw.cli.conftest import HOLDS, STATUS, CommandLine


def test_holds_are_shown_with_their_stacks(cli: CommandLine, gateway: list[str]) -> None:
    title, *lines = (line.split() for line in cli.run("status", "--holds").stdout.splitlines())
    assert title[:4] == ["when", "worker", "pid", "kind"]
    assert lines[0][-7:] == ["1", "4711", "ai_in", "4.120", "3.900", "gw/media/depth0.py:40", "deep0"]
    assert lines[1:4] == [[f"gw/media/depth{n}.py:{40 + n}", f"deep{n}"] for n in (1, 2, 3)]
    assert " ".join(lines[4][-7:]) == "0 4710 hub 1.100 0.000 not sampled"
    assert cli.document("status", "--holds") == HOLDS


def test_the_fleet_is_shown_with_and_without_a_gateway(cli: CommandLine, store: Store, request: pytest.FixtureRequest) -> None:
    assert cli.run("status", "--fleet").stdout == "No gateway has used this store yet.\n"
    store.claim_gateway(Report("gw-1", "a", "vm1", "0.1", ready=True, calls=3, capacity=10), begins=True)
    store.claim_gateway(Report("gw-2", "b", "vm2", "0.1", drained=True), begins=True)
    store.stop_gateway("gw-2", "b")
    asked = cli.run("status", "--fleet")
    assert "The gateway does not run" in asked.stderr
    request.getfixturevalue("gateway")
    title, *lines = (line.split() for line in cli.run("status", "--fleet").stdout.splitlines())
    assert title == ["machine", "gateway", "version", "state", "ready", "drained", "calls", "heartbeat"]
    assert [line[:-3] for line in lines] == [
        ["vm1", "gw-1", "0.1", "live", "yes", "-", "3", "of", "10"],
        ["vm2", "gw-2", "0.1", "stopped", "-", "yes", "0", "of", "0"],
    ]
    assert [line.split()[:-3] for line in asked.stdout.splitlines()[1:]] == [line[:-3] for line in lines]
    document = cli.document("status", "--fleet")
    assert [(row["gateway"], row["state"], row["heartbeat_age_s"] < 60) for row in document] == [
        ("gw-1", "live", True),
        ("gw-2", "stopped", True),
    ]


def test_a_gateway_that_is_not_ready_is_exit_code_1(cli: CommandLine, gateway: list[str]) -> None:
    ready = cli.run("status")
    assert (ready.exit_code, ready.stdout.split()[:2]) == (0, ["gateway", "1"])
    assert cli.document("status") == STATUS
    gateway.append("drained by an operator")
    shown, document = cli.run("status"), cli.run("status", "--json")
    assert (shown.exit_code, "drained by an operator" in shown.stdout) == (1, True)
    assert (document.exit_code, json.loads(document.stdout)["readiness"]["ready"]) == (1, False)
    assert "Exit code 1 if the gateway is not ready" in " ".join(cli.run("status", "--help").stdout.split())


def test_a_gateway_older_than_the_schema_s_state_is_shown(
    cli: CommandLine, gateway: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an upgrade the command is newer than the gateway until the reload."""
    older: dict[str, Any] = {name: value for name, value in STATUS["store"].items() if name != "schema"}
    monkeypatch.setitem(STATUS, "store", older)
    shown = cli.run("status")
    assert (shown.exit_code, f"sqlite, revision {older['revision']}" in shown.stdout) == (0, True)


def test_open_requests_have_a_line(cli: CommandLine, gateway: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "requests to your endpoints" not in cli.run("status").stdout
    monkeypatch.setitem(STATUS, "jobs", {"open": 3, "oldest_s": 4.0})
    shown = cli.run("status").stdout
    assert re.search(r"^jobs +3 requests to your endpoints without a result, the oldest for 4.0 s *$", shown, re.MULTILINE), shown


def test_each_account_that_is_down_has_a_line(cli: CommandLine, gateway: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    down = {"circuit": "open", "problem": "unauthorized"}
    accounts = {"support": down, "sales": {"circuit": "closed", "problem": ""}}
    monkeypatch.setitem(STATUS, "twilio", {"circuit": "closed", "problem": "", "accounts": accounts})
    shown = cli.run("status").stdout
    assert re.search(r"^support +down, recordings wait: unauthorized *$", shown, re.MULTILINE)
    assert "sales" not in shown


def test_the_budget_of_the_day_has_a_line(cli: CommandLine, gateway: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "budget" not in cli.run("status").stdout
    monkeypatch.setitem(STATUS, "budget", {"day": "2026-11-28", "spent_usd": 12.5, "limit_usd": 500.0})
    assert "$12.5000 of $500.0000 spent on 2026-11-28, UTC" in cli.run("status").stdout
