"""gw.cli.operate.drain: drain, undrain, and the wait for the last call."""

from __future__ import annotations

import pytest

from tests.gw.cli.conftest import CommandLine


def test_a_machine_is_drained_and_undrained(cli: CommandLine, gateway: list[str]) -> None:
    assert cli.run("drain").stdout == "Drained: new calls are refused, live ones continue.\n"
    assert cli.document("drain", "--wait") == {"draining": True, "workers": 1, "calls_left": 0}
    assert cli.run("drain", "--wait").stdout == "Drained: new calls are refused, and no call is left.\n"
    assert cli.run("undrain").stdout == "Calls are accepted again.\n"
    assert cli.document("undrain") == {"draining": False, "workers": 1}


def test_a_wait_needs_no_valid_file(cli: CommandLine, gateway: list[str]) -> None:
    cli.config.write_text(cli.config.read_text() + "[media]\nlead = 5\n")
    result = cli.run("drain", "--wait")
    assert (result.exit_code, "media.lead is unknown" in result.stderr) == (0, True)
    assert result.stdout == "Drained: new calls are refused, and no call is left.\n"


def test_another_machine_of_the_fleet_is_drained(cli: CommandLine, gateway: list[str]) -> None:
    drained = cli.run("drain", "--machine", "vm2")
    assert drained.stdout == "vm2 (gw-2) is drained: it refuses new calls, live ones continue.\n"
    assert cli.document("drain", "--machine", "vm2") == {"gateway": "gw-2", "machine": "vm2", "draining": True}
    assert cli.run("undrain", "--machine", "vm2").stdout == "vm2 (gw-2) accepts calls again.\n"
    for command in ("drain", "undrain"):
        refused = cli.run(command, "--machine", "vm7")
        assert (refused.exit_code, "no live gateway on a machine 'vm7'" in refused.stderr) == (1, True)
    refused = cli.run("drain", "--machine", "vm2", "--wait")
    assert (refused.exit_code, "status --fleet" in refused.stderr) == (2, True)


def test_a_timeout_of_0_does_not_wait(cli: CommandLine, gateway: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the default, server.reload_timeout_s."""
    asked = iter([2])
    monkeypatch.setattr("gw.cli.operate.drain._calls", lambda settings: next(asked))
    assert cli.run("drain", "--wait", "--timeout", "0").exit_code == 1
    assert list(asked) == []


def test_calls_that_are_left_are_a_failure(cli: CommandLine, gateway: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.cli.operate.drain._calls", lambda settings: 2)
    monkeypatch.setattr("gw.cli.operate.drain.POLL_S", 0.01)
    result = cli.run("drain", "--wait", "--timeout", "0.05")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        "Error: 2 calls are left and continue; new ones are still refused",
    )
