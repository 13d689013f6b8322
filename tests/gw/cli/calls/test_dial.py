"""gw.cli.calls.dial: placing a call, and parties that cannot be dialled."""

from __future__ import annotations

import pytest

from tests.gw.cli.conftest import ENDED, LIVE, CommandLine


def test_a_call_is_placed(cli: CommandLine, gateway: list[str]) -> None:
    placed = ("call", "+15551234567", "--from", "+15557654321")
    assert cli.run(*placed).stdout == f"{ENDED}: calling +15551234567.\n"
    assert cli.document(*placed)["agent"] == "default"
    assert "No problem for the caller" in cli.run(*placed, "--watch").stdout
    refused = cli.run(*placed, "--agent", "nobody")
    assert (refused.exit_code, refused.stderr) == (1, "Error: no agent 'nobody'; use one of: default\n")


@pytest.mark.parametrize(
    "words",
    [
        ["calls", "transfer", LIVE, "--to", "0123"],
        ["call", "5551234567", "--from", "+15557654321"],
        ["call", "+15551234567", "--from", "me"],
    ],
)
def test_a_party_that_cannot_be_dialled_is_wrong_usage(cli: CommandLine, words: list[str]) -> None:
    result = cli.run(*words)
    assert result.exit_code == 2
    assert "neither a number in E.164" in result.stderr
