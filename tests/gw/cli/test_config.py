"""gw.cli.config: check, show and example."""

from __future__ import annotations

import json
import tomllib

import pytest

from tests.gw.cli.conftest import CommandLine


def test_a_valid_configuration(cli: CommandLine) -> None:
    checked = cli.document("config", "check")
    assert checked.pop("config") == cli.document("config", "show")
    assert checked == {"file": str(cli.config), "ok": True, "problems": []}
    assert cli.run("config", "check").stdout == f"{cli.config}: valid\n"


def test_all_problems_together(cli: CommandLine) -> None:
    cli.config.write_text("[server]\nlisten = 5\n[media]\nlead_msec = 100\n")
    checked = cli.run("config", "check", "--json")
    assert checked.exit_code == 1
    problems = json.loads(checked.stdout)["problems"]
    assert any("server.listen" in problem for problem in problems)
    assert any("lead_msec" in problem for problem in problems)
    used = cli.run("calls", "list")
    assert used.exit_code == 1
    assert "config: 2 errors:" in used.stderr
    assert "lead_msec" in used.stderr


def test_a_greetings_file_that_cannot_be_used_is_a_problem(cli: CommandLine) -> None:
    cli.config.write_text('[agents.default]\ngreeting = { file = "hello.wav", text = "Hello." }\n')
    checked = cli.run("config", "check", "--json")
    assert checked.exit_code == 1
    (problem,) = json.loads(checked.stdout)["problems"]
    assert problem.startswith(f'agents.default.greeting.file = "{cli.config.parent}/hello.wav" cannot be read: No such file')


def test_secrets_are_not_shown(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert "sk-very-secret" not in cli.run("config", "show").stdout
    assert "sk-very-secret" not in json.dumps(cli.document("config", "show"))
    assert "ops.admin_socket" in cli.run("config", "show").stdout


def test_tables_of_an_agent_and_lists_are_shown(cli: CommandLine) -> None:
    cli.config.write_text('[agents.default.turns]\nbackchannels = ["aha", "oui"]\n')
    lines = cli.run("config", "show").stdout.splitlines()
    assert ["agents.default.turns.backchannels", "aha,", "oui"] in [line.split() for line in lines]
    assert cli.document("config", "show")["agents"]["default"]["turns"]["backchannels"] == ["aha", "oui"]


def test_the_example_is_a_valid_configuration(cli: CommandLine) -> None:
    example = cli.run("config", "example").stdout
    assert tomllib.loads(example)
    cli.config.write_text(example)
    assert cli.run("config", "check").exit_code == 0
    assert cli.document("config", "example")["toml"] == example
