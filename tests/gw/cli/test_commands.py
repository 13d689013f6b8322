"""The commands against a real store and a real admin socket: what people see, what scripts get, and the exit codes."""

from __future__ import annotations

import json
import re
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gw import cli as package
from gw.bus import CallEnded
from gw.call.quality import Quality
from gw.cli import root
from gw.cli.calls import complete_sid
from gw.cli.recordings import STATES
from gw.config import VERSION
from gw.control.store import Stamped, Store
from gw.control.store.recordings import STATES as STORE_STATES
from tests.gw.cli.conftest import BEGAN, ENDED, HOLDS, LIVE, CommandLine

ASIDE = "The gateway does not run; this is what its store holds."


# -- the root -------------------------------------------------------------------------------------------------------------


def test_help_lists_what_exists_and_hides_the_children(cli: CommandLine) -> None:
    shown = cli.run("--help").output
    for name in ("serve", "demo", "status", "calls", "recordings", "db", "config", "completion"):
        assert f"\n  {name} " in shown
    assert "\n  worker " not in shown
    assert "\n  control " not in shown


def _walk(command: click.Command, ctx: click.Context) -> Iterator[click.Context]:
    """Every command that help lists, the groups too."""
    yield ctx
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            assert found is not None
            yield from _walk(found, click.Context(found, parent=ctx, info_name=name))


@pytest.mark.parametrize(
    "ctx", [*_walk(root, click.Context(root, info_name="gateway.py"))], ids=lambda ctx: ctx.command_path.replace(" ", "_")
)
def test_every_help_has_exit_codes_and_an_example(ctx: click.Context) -> None:
    shown = ctx.command.get_help(ctx)
    assert re.search(r"^  Exit codes: 0 \w+", shown, re.MULTILINE)
    assert ctx.command_path in shown.partition("\n")[2]


@pytest.mark.parametrize("name", [*package._COMMANDS])
def test_every_command_has_help_that_teaches(cli: CommandLine, name: str) -> None:
    result = cli.run(name, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 4


def test_the_version_is_the_projects(cli: CommandLine) -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert cli.run("--version").output == f"submilli, version {VERSION}\n"
    assert project["version"] == VERSION


@pytest.mark.parametrize("words", [["nonsense"], ["calls", "list", "--limit", "0"], ["calls", "show"], ["completion", "tcsh"]])
def test_wrong_usage_is_two(cli: CommandLine, words: list[str]) -> None:
    result = cli.run(*words)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_the_config_option_may_stand_behind_the_command(cli: CommandLine, store: Store) -> None:
    result = click.testing.CliRunner().invoke(root, ["calls", "list", "--json", "--config", str(cli.config)])
    assert [row["call_sid"] for row in json.loads(result.stdout)] == [LIVE, ENDED]


# -- a gateway that does not run ------------------------------------------------------------------------------------------


def test_reads_come_from_the_store_and_say_so(cli: CommandLine, store: Store) -> None:
    result = cli.run("calls", "list")
    assert result.exit_code == 0
    assert result.stderr == f"{ASIDE}\n"
    assert result.stdout.splitlines()[0].split() == ["started", "length", "from", "agent", "ended", "recording", "call"]
    assert [line.split()[-1] for line in result.stdout.splitlines()[1:]] == [LIVE, ENDED]
    assert "3:07" in result.stdout


def test_a_document_is_one_whatever_is_said_aside(cli: CommandLine, store: Store) -> None:
    assert [row["call_sid"] for row in cli.document("calls", "list", "--live")] == [LIVE]
    assert cli.document("calls", "show", ENDED)["quality"]["frames_sent"] == 9000
    assert [row["state"] for row in cli.document("recordings", "list")] == ["wanted"]
    assert cli.document("recordings", "list", "--state", "failed") == []


def test_what_needs_the_gateway_is_three(cli: CommandLine, store: Store) -> None:
    for words in (["status"], ["calls", "hangup", LIVE], ["calls", "watch"], ["calls", "transfer", LIVE, "--to", "+15551234567"]):
        result = cli.run(*words)
        assert result.exit_code == 3
        assert result.stderr == f"Error: no gateway answers on {cli.admin_socket}; start one with: gateway.py serve\n"


def test_a_failure_is_a_document_too(cli: CommandLine) -> None:
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
    assert "start one" not in result.stderr, "there is one, and it is busy"


def test_looking_for_a_store_makes_none(cli: CommandLine) -> None:
    result = cli.run("calls", "list")
    assert result.exit_code == 3
    assert result.stderr.endswith(f"and nothing is kept in {cli.store_url} yet\n")
    assert list(cli.folder.iterdir()) == [cli.config]


def test_a_store_without_a_schema_says_what_to_do(cli: CommandLine) -> None:
    Path(cli.store_url.removeprefix("sqlite:///")).touch()
    result = cli.run("calls", "list")
    assert result.exit_code == 1
    assert "gateway.py db upgrade" in result.stderr


# -- a gateway that runs --------------------------------------------------------------------------------------------------


def test_a_running_gateway_is_asked(cli: CommandLine, gateway: list[str]) -> None:
    result = cli.run("calls", "list")
    assert ASIDE not in result.output
    assert LIVE in result.stdout
    assert cli.document("status")["pid"] == 1


def test_what_held_the_hub_is_shown_with_where(cli: CommandLine, gateway: list[str]) -> None:
    title, *lines = (line.split() for line in cli.run("status", "--holds").stdout.splitlines())
    assert title[:4] == ["when", "worker", "pid", "kind"]
    assert lines[0][-7:] == ["1", "4711", "ai_in", "4.120", "3.900", "gw/media/depth0.py:40", "deep0"]
    assert lines[1:4] == [[f"gw/media/depth{n}.py:{40 + n}", f"deep{n}"] for n in (1, 2, 3)]
    assert " ".join(lines[4][-9:]) == "0 4710 hub 1.100 0.000 it was not seen"
    assert cli.document("status", "--holds") == HOLDS


def test_a_call_is_shown_in_full(cli: CommandLine, gateway: list[str]) -> None:
    shown = cli.run("calls", "show", ENDED).stdout
    for piece in (
        ENDED,
        "+15550001, +15550002",
        "Hello there.",
        "Stop it. (interrupted)",
        "digit=5",
        "9000 of 9000",
        "0.120",
        "wanted",
    ):
        assert piece in shown


def test_the_beginning_of_a_sid_is_enough(cli: CommandLine, gateway: list[str]) -> None:
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
    assert cli.run("calls", "hangup", LIVE).stdout == f"{LIVE} is being ended.\n"
    assert cli.document("calls", "hangup", "CAb")["worker"] is True
    assert gateway == [LIVE, LIVE]


def test_a_refusal_is_its_sentence(cli: CommandLine, gateway: list[str]) -> None:
    result = cli.run("calls", "hangup", ENDED)
    assert (result.exit_code, result.stderr) == (1, f"Error: the call {ENDED} has ended already\n")


def test_a_call_is_explained_also_when_the_gateway_does_not_run(cli: CommandLine, store: Store) -> None:
    shown = cli.run("calls", "explain", "CAa").stdout
    for piece in ("worth a look: recording", "No gap within", "ai_hangup", "the caller presses 5", "Stop it."):
        assert piece in shown
    document = cli.document("calls", "explain", ENDED)
    assert {finding["about"] for finding in document["findings"]} >= {"audio", "sends", "the end", "recording"}
    assert document["timeline"][0]["what"] == "call"


def test_a_call_is_followed_to_its_end(cli: CommandLine, gateway: list[str]) -> None:
    shown = cli.run("calls", "watch", ENDED).stdout
    assert shown.index("Hello there.") < shown.index("the caller presses 5") < shown.index("Nothing here was bad")
    lines = [json.loads(line) for line in cli.run("calls", "watch", ENDED, "--json").stdout.splitlines()]
    assert lines[-1]["verdict"].startswith("Nothing here was bad")
    assert [line["what"] for line in lines[:-1]].count("event") == 1


def test_all_calls_are_followed(cli: CommandLine, gateway: list[str], store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            store.apply([Stamped(CallEnded(LIVE, BEGAN + 90, "phone_lost", "peer_error", "", Quality()), "host", 0, "i", 99)])
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("gw.cli.calls.watch.time.sleep", look)
    result = cli.run("calls", "watch", "--json")
    assert result.exit_code == 0
    said = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["what"], one["call_sid"], one["reason"]) for one in said] == [
        ("begins", LIVE, None),
        ("ended", LIVE, "phone_lost"),
    ]


def test_a_call_is_transferred_and_one_is_placed(cli: CommandLine, gateway: list[str]) -> None:
    assert cli.run("calls", "transfer", LIVE, "--to", "+15551234567").stdout == f"{LIVE} is handed to +15551234567.\n"
    assert gateway == ["+15551234567"]
    placed = ("call", "+15551234567", "--from", "+15557654321")
    assert cli.run(*placed).stdout == f"{ENDED} rings +15551234567.\n"
    assert cli.document(*placed)["agent"] == "default"
    assert "Nothing here was bad" in cli.run(*placed, "--watch").stdout
    refused = cli.run(*placed, "--agent", "nobody")
    assert (refused.exit_code, refused.stderr) == (1, "Error: there is no agent 'nobody': there are default\n")


def test_recordings_are_listed(cli: CommandLine, gateway: list[str]) -> None:
    assert ENDED in cli.run("recordings", "list").stdout
    assert cli.run("recordings", "list", "--state", "failed").stdout == "No recording is failed.\n"
    assert set(STATES) == set(STORE_STATES)


def test_a_recording_is_tried_again(cli: CommandLine, gateway: list[str], store: Store) -> None:
    result = cli.run("recordings", "retry", LIVE)
    assert (result.exit_code, result.stderr) == (1, f"Error: no recording was wanted of {LIVE}\n")
    result = cli.run("recordings", "retry", ENDED)
    assert (result.exit_code, result.stderr.partition(",")[0]) == (1, "The recording is wanted")
    store.claim_recording(ENDED, "AC1", "claimant/1-a", 1.0)
    store.update_recording(ENDED, state="failed", reason="unauthorized", error_code=20003, error_text="no")
    result = cli.run("recordings", "retry", ENDED)
    assert (result.exit_code, result.stderr) == (1, "The recording is failed: unauthorized: 20003: no\n")
    assert json.loads(cli.run("recordings", "retry", ENDED, "--json").stdout)["recording"]["state"] == "failed"
    store.update_recording(ENDED, state="completed", recording_sid="RE1")
    assert cli.run("recordings", "retry", ENDED).stdout == "The call's recording is completed: RE1.\n"


def test_what_waits_is_settled_on_request(cli: CommandLine, gateway: list[str]) -> None:
    assert cli.run("recordings", "reconcile").stdout.startswith(
        "3 recordings have no last word. Twilio was asked about 1, 1 of them"
    )
    assert cli.document("recordings", "reconcile")["settled"] == 1


def test_what_the_store_refused_is_shown_and_given_to_it_once_more(cli: CommandLine, gateway: list[str]) -> None:
    assert cli.run("db", "poison", "list").stdout.splitlines()[1].split()[-2:] == ["120", "no"]
    assert cli.document("db", "poison", "list")[0]["id"] == 7
    assert cli.run("db", "poison", "retry").stdout == "2 events are given to the store once more, 0 stay set aside.\n"
    assert cli.document("db", "poison", "retry", "7") == {"queued": 1, "set_aside": 0}


# -- completion -----------------------------------------------------------------------------------------------------------


def _completed(cli: CommandLine, command: str, beginning: str) -> list[str]:
    context = click.Context(root, info_name="gateway.py")
    context.params = {"path": cli.config}
    below = click.Context(click.Command(command), parent=context, info_name=command)
    return [item.value for item in complete_sid(below, click.Argument(["call_sid"]), beginning)]


def test_sids_complete(cli: CommandLine, gateway: list[str]) -> None:
    assert _completed(cli, "show", "CA") == [LIVE, ENDED]
    assert _completed(cli, "show", "CAa") == [ENDED]
    assert _completed(cli, "hangup", "CA") == [LIVE]


def _offered(words: str, **environ: str) -> list[str]:
    """What bash is told for a line whose last word is being typed."""
    asked = {"COMP_WORDS": f"submilli {words}", "COMP_CWORD": str(len(words.split(" "))), "_SUBMILLI_COMPLETE": "bash_complete"}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (asked | environ).items():
            patched.setenv(name, value)
        result = click.testing.CliRunner().invoke(_completing, prog_name="gateway.py")
    return [line.partition(",")[2] for line in result.output.splitlines() if line]


@click.command()
def _completing() -> None:
    root(prog_name="gateway.py", complete_var="_SUBMILLI_COMPLETE")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("und", ["undrain"]),
        ("rel", ["reload"]),
        ("calls tr", ["transfer"]),
        ("db poison ", ["list", "retry"]),
        ("loglevel c", ["configured"]),
        ("calls transfer CAb", [LIVE]),
        ("calls watch CA", [LIVE]),
        ("calls explain CAa", [ENDED]),
        ("recordings retry CAa", [ENDED]),
        ("call +15551234567 --agent d", ["default"]),
        ("--host vm1 calls show CA", []),
        ("--host vm1 sta", ["status"]),
        ("--host vm1 call +15551234567 --agent d", []),
    ],
)
def test_a_line_completes(cli: CommandLine, gateway: list[str], typed: str, offered: list[str]) -> None:
    assert _offered(typed, SUBMILLI_CONFIG=str(cli.config)) == offered


@pytest.mark.parametrize(
    "words",
    [
        ["calls", "transfer", LIVE, "--to", "0123"],
        ["call", "5551234567", "--from", "+15557654321"],
        ["call", "+15551234567", "--from", "me"],
    ],
)
def test_what_cannot_be_dialled_is_wrong_usage(cli: CommandLine, words: list[str]) -> None:
    result = cli.run(*words)
    assert result.exit_code == 2
    assert "neither a number in E.164" in result.stderr


def test_completion_is_silent_where_nothing_can_be_asked(cli: CommandLine, capfd: pytest.CaptureFixture[str]) -> None:
    assert _completed(cli, "show", "CA") == []
    cli.config.write_text("[nonsense]\n")
    assert _completed(cli, "show", "CA") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_this_interpreter(cli: CommandLine, shell: str) -> None:
    script = cli.run("completion", shell).stdout
    assert "gateway.py" in script
    assert "@" not in script.replace("$@", "").replace("[@]", "")


# -- the store's schema and the configuration -----------------------------------------------------------------------------


def test_the_schema_is_upgraded_once(cli: CommandLine) -> None:
    before = cli.run("db", "current")
    assert before.exit_code == 1
    assert "db upgrade" in before.stdout
    first = cli.document("db", "upgrade")
    assert (first["before"], first["after"]) == (None, first["needed"])
    assert "already" in cli.run("db", "upgrade").stdout
    assert cli.document("db", "current")["ok"] is True


def test_a_configuration_in_order(cli: CommandLine) -> None:
    checked = cli.document("config", "check")
    assert checked.pop("config") == cli.document("config", "show")
    assert checked == {"file": str(cli.config), "ok": True, "problems": []}
    assert cli.run("config", "check").stdout == f"{cli.config}: in order\n"


def test_every_problem_is_named_at_once(cli: CommandLine) -> None:
    cli.config.write_text("[server]\nlisten = 5\n[media]\nlead_msec = 100\n")
    checked = cli.run("config", "check", "--json")
    assert checked.exit_code == 1
    problems = json.loads(checked.stdout)["problems"]
    assert any("server.listen" in problem for problem in problems)
    assert any("lead_msec" in problem for problem in problems)
    used = cli.run("calls", "list")
    assert used.exit_code == 1
    assert "the configuration has" in used.stderr
    assert "lead_msec" in used.stderr


def test_secrets_are_not_shown(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert "sk-very-secret" not in cli.run("config", "show").stdout
    assert "sk-very-secret" not in json.dumps(cli.document("config", "show"))
    assert "ops.admin_socket" in cli.run("config", "show").stdout


def test_the_example_is_a_configuration(cli: CommandLine) -> None:
    example = cli.run("config", "example").stdout
    assert tomllib.loads(example)
    cli.config.write_text(example)
    assert cli.run("config", "check").exit_code == 0
    assert cli.document("config", "example")["toml"] == example
