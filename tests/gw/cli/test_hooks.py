"""gw.cli.hooks: a signed sample to a real endpoint, and events that were not delivered."""

from __future__ import annotations

import json

import pytest

from gw.twin.hooks import HookTwin
from tests.gw.cli.conftest import CommandLine


@pytest.fixture(autouse=True)
def _configured(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMILLI_HOOK_SECRET", "secret")
    with cli.config.open("a") as file:
        file.write('[hooks]\nallow_networks = ["127.0.0.0/8"]\n')


def test_a_sample_that_is_accepted(cli: CommandLine) -> None:
    with HookTwin("secret") as twin:
        result = cli.run("hooks", "try", twin.url())
        assert result.exit_code == 0, result.output
        assert "openssl dgst -sha256" in result.output
        assert "ok, in" in result.output
        document = cli.document("hooks", "try", twin.url())
        assert document["outcome"] == "ok"
        assert document["exchanges"][0]["signature_fault"] == ""
        assert [request.fault for request in twin.requests] == ["", ""]


def test_an_endpoint_with_another_secret(cli: CommandLine) -> None:
    with HookTwin("other") as twin:
        result = cli.run("hooks", "try", twin.url())
    assert result.exit_code == 1
    assert "HTTP 401" in result.output
    assert "http_401, in" in result.output


@pytest.mark.parametrize("url", ["http://1.1.1.1/x", "https://me:pass@example.com/", "ftp://example.com", ""])
def test_a_url_that_may_not_be_called(cli: CommandLine, url: str) -> None:
    result = cli.run("hooks", "try", url)
    assert result.exit_code == 1
    assert "Error: URL" in result.output
    assert "pass" not in result.output.replace("password", "")


def test_the_endpoint_of_routes_is_asked(cli: CommandLine) -> None:
    result = cli.run("hooks", "try", "route")
    assert (result.exit_code, "route.url is not set" in result.output) == (1, True)
    with (
        HookTwin("secret", reply=lambda request: b'{"agent":"salse","variables":{"n":"Ann"}}') as twin,
        cli.config.open("a") as file,
    ):
        file.write(f'[route]\nurl = "{twin.url()}"\n')
        file.flush()
        result = cli.run("hooks", "try", "route", "--to", "+15551234567", "--json")
        assert result.exit_code == 1
        document = json.loads(result.stdout)
        assert twin.requests[0].body["twilio"]["To"] == "+15551234567"
        assert document["outcome"] == "unknown_agent"
        assert '"Ann"' in document["output"]
        twin.reply = lambda request: b'{"refuse":"busy"}'
        twin.answers.clear()
        shown = cli.run("hooks", "try", "route")
        assert (shown.exit_code, "ok, in" in shown.output, '{"refuse":"busy"}' in shown.output) == (0, True, True)


def test_events_that_were_not_delivered_are_listed(cli: CommandLine, gateway: list[str]) -> None:
    [event] = cli.document("hooks", "list")
    assert (event["id"], event["why"]) == ("evt_1", "gone")
    assert "evt_1" in cli.run("hooks", "list").stdout
    assert "No event waits." in cli.run("hooks", "list", "--waiting").stderr + cli.run("hooks", "list", "--waiting").stdout


def test_they_are_sent_once_more_or_deleted(cli: CommandLine, gateway: list[str]) -> None:
    assert "2 events are sent once more." in cli.run("hooks", "retry").stdout
    assert cli.document("hooks", "retry", "evt_1") == {"queued": 1}
    assert cli.document("hooks", "drop", "--all", "--yes") == {"dropped": 2}
    assert cli.run("hooks", "drop").exit_code == 2
    assert cli.run("hooks", "drop", "evt_1", "--all").exit_code == 2


def test_a_request_is_repeated_until_no_event_is_left(cli: CommandLine, gateway: list[str]) -> None:
    """A long one ends before its time; the fake gateway changes one event a request."""
    assert cli.document("hooks", "retry") == {"queued": 2}
    failed = cli.run("hooks", "retry", "evt_1", "evt_2")
    assert failed.exit_code == 1
    assert "Error: the command took longer than 15 s; at least 1 were queued: repeat the command for the others" in failed.stderr
