"""gw.cli.calls: abbreviated SIDs, hangup, transfer, and completion of SIDs."""

from __future__ import annotations

import click
import pytest

from gw.cli import root
from gw.cli.calls import complete_sid
from tests.gw.cli.conftest import ENDED, LIVE, CommandLine


def test_the_first_digits_of_a_sid_suffice(cli: CommandLine, gateway: list[str]) -> None:
    assert cli.document("calls", "show", "CAa")["call_sid"] == ENDED
    many, none = cli.run("calls", "show", "CA"), cli.run("calls", "show", "CAx")
    assert "2 recent calls begin with CA;" in many.stderr
    assert "no recent call begins with CAx;" in none.stderr
    assert (many.exit_code, none.exit_code) == (1, 1)


def test_an_unknown_call_fails(cli: CommandLine, gateway: list[str]) -> None:
    result = cli.run("calls", "show", "CA" + "0" * 32)
    assert result.exit_code == 1
    assert "is known" in result.stderr


def test_a_hangup_reaches_the_gateway(cli: CommandLine, gateway: list[str]) -> None:
    assert cli.run("calls", "hangup", LIVE).stdout == f"Ending {LIVE}.\n"
    assert cli.document("calls", "hangup", "CAb")["worker"] is True
    assert gateway == [LIVE, LIVE]


def test_a_refusal_is_reported(cli: CommandLine, gateway: list[str]) -> None:
    result = cli.run("calls", "hangup", ENDED)
    assert (result.exit_code, result.stderr) == (1, f"Error: the call {ENDED} has ended already\n")


def test_a_call_is_transferred(cli: CommandLine, gateway: list[str]) -> None:
    assert cli.run("calls", "transfer", LIVE, "--to", "+15551234567").stdout == f"{LIVE} is transferred to +15551234567.\n"
    assert gateway == ["+15551234567"]


def _completed(cli: CommandLine, command: str, beginning: str) -> list[str]:
    context = click.Context(root, info_name="gateway.py")
    context.params = {"path": cli.config}
    below = click.Context(click.Command(command), parent=context, info_name=command)
    return [item.value for item in complete_sid(below, click.Argument(["call_sid"]), beginning)]


def test_sids_complete(cli: CommandLine, gateway: list[str]) -> None:
    assert _completed(cli, "show", "CA") == [LIVE, ENDED]
    assert _completed(cli, "show", "CAa") == [ENDED]
    assert _completed(cli, "hangup", "CA") == [LIVE]


def test_completion_is_silent_without_a_source(cli: CommandLine, capfd: pytest.CaptureFixture[str]) -> None:
    assert _completed(cli, "show", "CA") == []
    cli.config.write_text("[nonsense]\n")
    assert _completed(cli, "show", "CA") == []
    assert capfd.readouterr() == ("", "")


def test_calls_are_filtered(cli: CommandLine, gateway: list[str]) -> None:
    def found(*words: str) -> list[str]:
        return [row["call_sid"] for row in cli.document("calls", "list", *words)]

    assert found() == [LIVE, ENDED]
    assert found("--number", "+15550001", "--agent", "default", "--machine", "host", "--reason", "ai_hangup") == [ENDED]
    assert found("--since", "2026-01-01") == [LIVE, ENDED]
    assert found("--since", "2999-01-01T10:00") == []
    assert found("--since", "99999d", "--worst") == [ENDED]
    assert found("--worst") == [], "of the last day"
    assert "gaps ms" in cli.run("calls", "list", "--worst", "--since", "2020-01-01").stdout
    assert cli.run("calls", "list", "--reason", "x").stdout == "No call meets these conditions.\n"
    wrong = cli.run("calls", "list", "--since", "7x")
    assert (wrong.exit_code, "2026-11-28" in wrong.stderr) == (2, True)


def test_a_call_is_removed_after_a_question(cli: CommandLine, gateway: list[str]) -> None:
    refused = cli.run("calls", "forget", ENDED)  # no answer
    assert refused.exit_code == 1
    assert cli.document("calls", "show", ENDED)["call_sid"] == ENDED
    text = cli.run("calls", "forget", ENDED, "--yes").stdout
    assert "2 of turns" in text
    assert "the file /r/x.wav" in text
    assert "Note: Twilio has the recording RE1: delete it there." in text
    assert cli.document("calls", "forget", ENDED, "--yes", "--twilio")["twilio"] == ["RE1"]
    alive = cli.run("calls", "forget", LIVE, "--yes")
    assert (alive.exit_code, "has not ended" in alive.stderr) == (1, True)
