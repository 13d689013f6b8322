"""gw.cli.tools: the list of tools, and one call of a real endpoint."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator

import click
import pytest

from gw.cli.context import Settings
from gw.cli.tools import _complete, try_tool
from gw.twin.hooks import HookTwin
from tests.gw.cli.conftest import CommandLine


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Iterator[HookTwin]:
    monkeypatch.setenv("SUBMILLI_HOOK_SECRET", "it's secret")
    with HookTwin("it's secret") as twin:
        yield twin


def configure(cli: CommandLine, url: str) -> None:
    with cli.config.open("a") as file:
        file.write(
            f"""
            [hooks]
            allow_networks = ["127.0.0.0/8"]
            [agents.default]
            tools = ["lookup_order", "hang_up"]
            [agents.sales]
            [tools.lookup_order]
            description = "Finds an order by its number."
            url = "{url}"
            parameters = '{{"type":"object","properties":{{"number":{{"type":"string"}}}},"required":["number"]}}'
            """
        )


def test_the_list(cli: CommandLine) -> None:
    configure(cli, "http://127.0.0.1:9/x")
    shown = cli.run("tools", "list").output
    for piece in ("hang_up", "default, sales", "built in", "lookup_order", "wait", "8 s", "http://127.0.0.1:9/x"):
        assert piece in shown
    *built_in, configured = cli.document("tools", "list")
    assert {one["name"] for one in built_in} == {"hang_up", "transfer", "send_digits", "collect_digits"}
    hang_up, transfer = (next(one for one in built_in if one["name"] == name) for name in ("hang_up", "transfer"))
    assert (hang_up["agents"], transfer["agents"]) == (["default", "sales"], [])
    assert configured["agents"] == ["default"]
    assert configured["parameters"]["required"] == ["number"]


def test_a_call_shows_request_signature_answer_and_output(cli: CommandLine, twin: HookTwin) -> None:
    configure(cli, twin.url("ok/lookup"))
    result = cli.run("tools", "try", "lookup_order", "--arguments", '{"number":"it\'s 7"}')
    assert result.exit_code == 0, result.output
    (request,) = twin.requests
    for piece in (f"POST {twin.url('ok/lookup')}", request.content.decode(), request.headers["submilli-signature"], "HTTP 200"):
        assert piece in result.output
    assert '{"done": "lookup_order"}' in result.output
    assert "it's secret" not in result.output
    assert cli.document("tools", "try", "lookup_order", "--arguments", '{"number":"7"}')["output"] == '{"done": "lookup_order"}'


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_the_printed_command_prints_the_signature(cli: CommandLine, twin: HookTwin) -> None:
    configure(cli, twin.url("ok"))
    lines = cli.run("tools", "try", "lookup_order", "--arguments", '{"number":"it\'s 7"}').output.splitlines()
    (command,) = (line.strip() for line in lines if line.strip().startswith("printf"))
    assert len(shlex.split(command)) == 9
    printed = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert printed.split()[-1] == twin.requests[0].headers["submilli-signature"].partition("v1=")[2]


@pytest.mark.parametrize(
    ("path", "arguments", "shown"),
    [
        ("refused", '{"number":"7"}', ["HTTP 404", "no such order", "refused, in"]),
        ("dead", '{"number":"7"}', ["problem", "unknown_outcome, in"]),
        ("ok", "{}", ["'number' is a required property", "invalid_arguments, in"]),
        ("long_refusal", '{"number":"7"}', ["xxx..."]),
    ],
)
def test_a_failed_call_exits_with_1(cli: CommandLine, twin: HookTwin, path: str, arguments: str, shown: list[str]) -> None:
    configure(cli, twin.url(path))
    result = cli.run("tools", "try", "lookup_order", "--arguments", arguments)
    assert result.exit_code == 1
    for piece in shown:
        assert piece in result.output


def test_an_unknown_tool_is_wrong_usage(cli: CommandLine) -> None:
    result = cli.run("tools", "try", "lookup")
    assert result.exit_code == 2
    assert "lookup is not a configured tool; those are: none" in result.output


def test_without_a_secret(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUBMILLI_HOOK_SECRET", raising=False)
    configure(cli, "http://127.0.0.1:9/x")
    result = cli.run("tools", "try", "lookup_order")
    assert result.exit_code == 1
    assert "SUBMILLI_HOOK_SECRET is not set" in result.output


def test_names_complete(cli: CommandLine) -> None:
    configure(cli, "http://127.0.0.1:9/x")
    ctx = click.Context(try_tool, obj=Settings(cli.config))
    assert [item.value for item in _complete(ctx, try_tool.params[0], "look")] == ["lookup_order"]
    cli.config.write_text("[nonsense]")
    assert _complete(click.Context(try_tool, obj=Settings(cli.config)), try_tool.params[0], "") == []
