"""gw.cli.operate.loglevel: the levels of all processes, shown and set."""

from __future__ import annotations

from tests.gw.cli.conftest import CommandLine


def test_levels_are_shown_and_set(cli: CommandLine, gateway: list[str]) -> None:
    assert cli.run("loglevel").stdout.splitlines()[1].split() == ["control", "info"]
    assert cli.document("loglevel", "debug", "--process", "control") == {"processes": {"control": "debug"}}
    refused = cli.run("loglevel", "debug", "--process", "worker-9")
    assert (refused.exit_code, refused.stderr) == (1, "Error: no process worker-9\n")
