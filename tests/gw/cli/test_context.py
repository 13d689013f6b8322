"""gw.cli.context: options, the gateway or its store, and failures."""

from __future__ import annotations

import grp
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from gw.cli import root
from gw.cli.context import json_option
from gw.control.admin.client import read_only
from gw.control.admin.server import AdminServer, Command
from gw.control.store import Store
from gw.control.unix_socket import PrivateListener
from tests.gw.cli.conftest import ENDED, LIVE, STATUS, CommandLine

ASIDE = "The gateway does not run; showing the contents of its store."


def test_the_config_option_after_the_command(cli: CommandLine, store: Store) -> None:
    result = click.testing.CliRunner().invoke(root, ["calls", "list", "--json", "--config", str(cli.config)])
    assert [row["call_sid"] for row in json.loads(result.stdout)] == [LIVE, ENDED]


def test_the_json_option_of_a_script() -> None:
    @click.command()
    @json_option
    def script(as_json: bool) -> None:
        click.echo(as_json)

    runner = click.testing.CliRunner()
    assert [runner.invoke(script, words).output for words in ([], ["--json"])] == ["False\n", "True\n"]


def test_without_a_gateway_reads_come_from_the_store(cli: CommandLine, store: Store) -> None:
    result = cli.run("calls", "list")
    assert result.exit_code == 0
    assert result.stderr == f"{ASIDE}\n"
    assert result.stdout.splitlines()[0].split() == ["started", "length", "from", "agent", "ended", "recording", "call"]
    assert [line.split()[-1] for line in result.stdout.splitlines()[1:]] == [LIVE, ENDED]
    assert "3:07" in result.stdout


def test_stdout_is_one_document(cli: CommandLine, store: Store) -> None:
    assert [row["call_sid"] for row in cli.document("calls", "list", "--live")] == [LIVE]
    assert cli.document("calls", "show", ENDED)["quality"]["frames_sent"] == 9000
    assert [row["state"] for row in cli.document("recordings", "list")] == ["wanted"]
    assert cli.document("recordings", "list", "--state", "failed") == []


def test_commands_that_need_the_gateway_exit_with_3(cli: CommandLine, store: Store) -> None:
    for words in (["status"], ["calls", "hangup", LIVE], ["calls", "watch"], ["calls", "transfer", LIVE, "--to", "+15551234567"]):
        result = cli.run(*words)
        assert result.exit_code == 3
        assert result.stderr == (
            f"Error: no gateway answers on {cli.admin_socket}; start one with: gateway.py serve, or name another socket with "
            "--config or --socket\n"
        )


def test_a_failure_is_a_document(cli: CommandLine) -> None:
    result = cli.run("status", "--json")
    assert result.exit_code == 3
    assert "no gateway answers" in json.loads(result.stdout)["error"]


def test_a_socket_that_does_not_answer_is_not_reachable(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.cli.context.ADMIN_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(cli.admin_socket))
        deaf.listen()
        result = cli.run("status")
    assert result.exit_code == 3
    assert "no answer within 0.05 s" in result.stderr
    assert "start one" not in result.stderr, "a gateway runs, and is busy"


def test_the_store_is_read_while_the_gateway_gives_no_answer(
    cli: CommandLine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gw.cli.context.ADMIN_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(cli.admin_socket))
        deaf.listen()
        result = cli.run("calls", "list")
    assert LIVE in result.stdout
    assert result.stderr == "The gateway gives no answer; showing the contents of its store.\n"


def test_an_error_elsewhere_in_the_file_takes_no_command_away(cli: CommandLine, gateway: list[str]) -> None:
    cli.config.write_text(cli.config.read_text() + "[media]\nlead = 5\n")
    result = cli.run("status")
    assert result.exit_code == 0
    assert result.stderr == (
        "Warning: the configuration has errors, which a reload or restart would refuse:\n"
        "  media.lead is unknown: did you mean media.lead_ms?\n"
    )
    assert cli.run("talk", "--no-browser").exit_code == 0


def test_a_socket_can_be_named_instead_of_the_files(cli: CommandLine, gateway: list[str]) -> None:
    cli.config.write_text("nothing of this is TOML")
    assert "--socket" in cli.run("status").stderr
    result = cli.run("status", "--socket", str(cli.admin_socket))
    assert (result.exit_code, result.stderr) == (0, "")


def test_without_a_gateway_a_file_with_an_error_is_refused(cli: CommandLine, store: Store) -> None:
    """Its store may be another one."""
    cli.config.write_text(cli.config.read_text() + "[media]\nlead = 5\n")
    result = cli.run("calls", "list")
    assert (result.exit_code, result.stdout) == (1, "")


def test_reading_creates_no_store(cli: CommandLine) -> None:
    result = cli.run("calls", "list")
    assert result.exit_code == 3
    assert result.stderr.endswith(f"and the store {cli.store_url} does not exist yet\n")
    assert list(cli.folder.iterdir()) == [cli.config]


def test_a_store_without_a_schema_names_the_remedy(cli: CommandLine) -> None:
    Path(cli.store_url.removeprefix("sqlite:///")).touch()
    result = cli.run("calls", "list")
    assert result.exit_code == 1
    assert "gateway.py db upgrade" in result.stderr


def test_a_running_gateway_answers(cli: CommandLine, gateway: list[str]) -> None:
    result = cli.run("calls", "list")
    assert ASIDE not in result.output
    assert LIVE in result.stdout
    assert cli.document("status")["pid"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_user_of_the_read_group_reads_and_does_not_act(cli: CommandLine, gateway: list[str]) -> None:
    other = 65534
    for folder in (cli.folder, *cli.folder.parents[:2]):
        folder.chmod(0o755)
    cli.run("status")  # imports what the other user may not read
    with as_user(other):
        refused = cli.run("status")
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"Error: {cli.admin_socket} is not open to you: use root, or join ops.admin_group or ops.read_group\n",
    )
    listener = PrivateListener(read_only(cli.admin_socket), grp.getgrgid(other).gr_name, key="ops.read_group")
    commands = {"status": Command(lambda _: STATUS, lambda _: False), "drain": Command(lambda _: {}, lambda _: True)}
    reader = AdminServer(listener, commands, on_act=None)
    reader.start()
    try:
        with as_user(other):
            assert cli.document("status")["host"] == "vm1"
            result = cli.run("drain")
        assert (result.exit_code, "drain acts, and this socket is read-only" in result.stderr) == (1, True)
    finally:
        reader.stop()


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Run the block with the rights of a user and the same group."""
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)
